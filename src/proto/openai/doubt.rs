//! Forms of a request's body that readers take differently: a decision that rests on them could be made about another request
//! than the one that the upstream reads.

use super::ApiError;
use super::field::{Field, NAMES};

/// What a decision may rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Subject {
    /// The model.
    Model,
    /// Whether the answer is to be a stream.
    Stream,
    /// How many tokens the answer may have, and how many answers there may be.
    Tokens,
}

/// Why readers may disagree about a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It stands there twice: some take the first, some the last.
    Repeated,
    /// It is spelt in a way that some take for the name and some do not.
    Spelling,
    /// Its value is of a type that some convert and some refuse.
    Value,
}

/// A field about which readers may disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Its name, as it should be spelt.
    pub(crate) field: &'static str,
    /// Why.
    pub(crate) reason: Reason,
}

/// The first doubt about each subject.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// By field, whether one that is or may be read so was seen.
    seen: u16,
    first: [Option<(Field, Reason)>; 3],
}

impl Doubts {
    /// A key was seen.
    pub(crate) fn see(&mut self, field: Field, exact: bool) {
        let bit = 1 << field.index();
        if self.seen & bit != 0 {
            self.note(field, Reason::Repeated);
        } else if !exact {
            self.note(field, Reason::Spelling);
        }
        self.seen |= bit;
    }

    pub(crate) fn note(&mut self, field: Field, reason: Reason) {
        let subject = match field {
            Field::Model => Subject::Model,
            Field::Stream => Subject::Stream,
            _ => Subject::Tokens,
        };
        self.first[subject as usize].get_or_insert((field, reason));
    }

    pub(crate) fn about(&self, subject: Subject) -> Option<Doubt> {
        self.first[subject as usize].map(|(field, reason)| Doubt { field: NAMES[field.index()], reason })
    }
}

impl Doubt {
    /// What the client is told.
    pub(crate) fn error(self) -> ApiError {
        let Doubt { field, reason } = self;
        let (code, message) = match reason {
            Reason::Repeated => (
                "duplicate_field",
                format!(
                    "The request's body has `{field}` twice, and readers disagree which one counts. Send it once."
                ),
            ),
            Reason::Spelling => (
                "ambiguous_field",
                format!(
                    "The request's body has a field that some readers take for `{field}` and some do not. Spell it exactly so."
                ),
            ),
            Reason::Value => {
                let expected = match field {
                    "model" => "a string",
                    "stream" => "true or false",
                    "prompt" => "a string or a list",
                    _ => "a whole number from 0 on",
                };
                (
                    "invalid_value",
                    format!(
                        "The request's `{field}` is not {expected}. Send it as {expected}, or leave it out."
                    ),
                )
            }
        };
        ApiError::new(400, code, message).with_param(field)
    }
}
