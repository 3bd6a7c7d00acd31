//! The top-level `model`, `stream` and how much is asked for in a JSON request body that arrives in pieces, found without
//! parsing the rest; or the same of a form ([`form`](super::form)).
//!
//! One pass, no recursion, and memory that does not grow with the body: nesting is a counter, and what is skipped is skipped in
//! chunks ([`skip`](crate::proto::json::skip)). Only what is needed to know *which keys stand at the top* is checked; garbage inside a value is the
//! upstream's business. Forms that readers disagree about are not resolved here but reported: two `model` keys, a key that only
//! some take for `model` ([`Peek::doubt`]), or a key or model that different readers would decode differently
//! ([`PeekState::Malformed`]), could otherwise send one model past our checks and another one to the upstream.
//!
//! ```text
//! Start -{-> FirstKey -"-> Key -"-> Colon -:-> Value -> (Model | String | Skipped | Scalar) -> AfterValue -}-> Done
//!                |                    ^                                                          |
//!                `-}-> Done           `-"- NextKey <------------------------ , -------------------'
//! ```

use std::ops::Range;

use super::doubt::{Doubt, Doubts, Reason, Subject};
use super::field::{Field, MAX_KEY_BYTES, NAMES};
use super::form::{Form, FormState, Found, Part};
use super::prompts::Prompts;
use crate::proto::json::scalar::Scalar;
use crate::proto::json::skip::{Skip, Skipped};
use crate::proto::json::text::{Fed, Text, string_end};

/// The longest model name that is kept, in decoded bytes.
pub(crate) const MAX_MODEL_BYTES: usize = 256;
/// How far the reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeekState {
    /// The top-level object is still open.
    NeedMore,
    /// The top-level object was closed; what follows it is not looked at.
    Done,
    /// The body is something other than a JSON object.
    NotObject,
    /// The body begins with a byte order mark, or is no UTF-8: some readers decode it, and find an object.
    NotUtf8,
    /// The top level does not have the form of a JSON object, or readers may disagree about its keys or its model.
    Malformed,
}

/// Reads `model`, `stream`, `max_tokens` and `n` off a request body that arrives in pieces.
#[derive(Debug, Default)]
pub struct Peek {
    at: At,
    /// It is no JSON but a form.
    form: Option<Box<Form>>,
    /// The field whose value is read or skipped.
    key: Option<Field>,
    /// Bytes that were fed before the current piece.
    offset: u64,
    /// The key or the model that is being read.
    text: Text,
    /// The number or word that is being read.
    scalar: Scalar,
    /// Where the quote of the model that is being read stands.
    quote: u64,
    model: Option<String>,
    model_span: Option<Range<u64>>,
    model_too_long: bool,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    max_tokens_field: u8,
    choices: Option<u64>,
    prompts: u64,
    doubts: Doubts,
}

impl Peek {
    /// Reads a form of several parts instead, by the value of its `Content-Type`; none if readers may take that differently.
    pub fn of_form(content_type: &[u8]) -> Option<Peek> {
        Some(Peek { form: Some(Box::new(Form::of(content_type)?)), ..Peek::default() })
    }

    /// Whether it reads a form.
    pub(crate) fn is_form(&self) -> bool {
        self.form.is_some()
    }

    /// Looks at the next bytes of the body. After any state but [`PeekState::NeedMore`] they are ignored.
    pub fn feed(&mut self, piece: &[u8]) {
        if let Some(mut form) = self.form.take() {
            let read = form.feed(piece, |found| self.found(found));
            self.at = match read {
                _ if matches!(self.at, At::Malformed) => At::Malformed,
                FormState::NeedMore => At::Start,
                FormState::Done => At::Done,
                FormState::Malformed => At::Malformed,
            };
            self.form = Some(form);
            return;
        }
        let mut at = 0;
        while at < piece.len() {
            at = self.step(piece, at);
        }
        self.offset = self.offset.saturating_add(piece.len() as u64);
    }

    /// How far the reading has come.
    pub fn state(&self) -> PeekState {
        match self.at {
            At::Done => PeekState::Done,
            At::NotObject => PeekState::NotObject,
            At::NotUtf8 => PeekState::NotUtf8,
            At::Malformed => PeekState::Malformed,
            _ => PeekState::NeedMore,
        }
    }

    /// The top-level `model`, escapes resolved; `None` if there is none (yet), it is no string, or it is too long.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Where the token of a string `model` stands in the body, quotes included. Known for a too long one as well.
    pub fn model_span(&self) -> Option<Range<u64>> {
        self.model_span.clone()
    }

    /// Whether `model` is a string of more than [`MAX_MODEL_BYTES`].
    pub fn model_too_long(&self) -> bool {
        self.model_too_long
    }

    /// The top-level `stream`; `None` if there is none (yet), or it is neither `true` nor `false`.
    pub fn stream(&self) -> Option<bool> {
        self.stream
    }

    /// The most tokens that an answer may have, under whichever name; of several the largest, since any of them may be the one
    /// that counts. 0 counts as none: some readers take it for their default.
    pub fn max_tokens(&self) -> Option<u64> {
        self.max_tokens
    }

    /// The name under which [`Peek::max_tokens`] stands in the body.
    pub(crate) fn max_tokens_field(&self) -> &'static str {
        NAMES[usize::from(self.max_tokens_field)]
    }

    /// How many answers are wanted for one prompt, by `n` or `best_of`; one at least.
    pub fn choices(&self) -> u64 {
        self.choices.unwrap_or(1).max(1)
    }

    /// How many prompts there are, where `prompt` is a list of them; one at least.
    pub fn prompts(&self) -> u64 {
        self.prompts.max(1)
    }

    /// A field on which a decision about `subject` would rest, and about which readers may disagree: it stands there twice, or
    /// is spelt or written so that some readers take it for something else. Such a body means different things to different
    /// readers.
    pub fn doubt(&self, subject: Subject) -> Option<Doubt> {
        self.doubts.about(subject)
    }

    /// Takes at least one byte of `piece` from `at` on; returns the index of the first that was not taken.
    fn step(&mut self, piece: &[u8], at: usize) -> usize {
        let rest = &piece[at..];
        match self.at {
            At::Start | At::FirstKey | At::NextKey | At::Colon | At::Value | At::AfterValue => {
                if !matches!(rest[0], b' ' | b'\t' | b'\n' | b'\r') {
                    self.token(rest[0], self.offset.saturating_add(at as u64));
                }
                at + 1
            }
            At::Key => {
                if let Some(name) = self.text.whole(rest, MAX_KEY_BYTES) {
                    self.end_key(name);
                    let end = name.len() + 1;
                    // As nearly everyone writes it: the colon right behind.
                    if rest.get(end) == Some(&b':') {
                        self.at = At::Value;
                        return at + end + 1;
                    }
                    return at + end;
                }
                match self.text.feed(rest, MAX_KEY_BYTES) {
                    Fed::More => piece.len(),
                    Fed::Bad => self.stop(At::Malformed, piece),
                    Fed::Closed(end) => {
                        let text = std::mem::take(&mut self.text);
                        self.end_key(text.bytes().unwrap_or_default());
                        self.text = text;
                        at + end
                    }
                }
            }
            At::Model => {
                let start = self.quote;
                let end_of = |end: usize| self.offset.saturating_add((at + end) as u64);
                if let Some(name) = self.text.whole(rest, MAX_MODEL_BYTES) {
                    self.end_model(Some(name), start..end_of(name.len() + 1));
                    return at + name.len() + 1;
                }
                match self.text.feed(rest, MAX_MODEL_BYTES) {
                    Fed::More => piece.len(),
                    Fed::Bad => self.stop(At::Malformed, piece),
                    Fed::Closed(end) => {
                        let span = start..end_of(end);
                        let text = std::mem::take(&mut self.text);
                        self.end_model(text.bytes(), span);
                        self.text = text;
                        at + end
                    }
                }
            }
            At::String if let Some(end) = string_end(rest).filter(|&end| rest[end] == b'"') => {
                self.at = At::AfterValue;
                at + end + 1
            }
            At::String => self.skip(piece, at, Skip::STRING),
            At::Skipped(skip) => self.skip(piece, at, skip),
            At::Prompts(mut prompts) => {
                let (state, end) = match prompts.feed(rest) {
                    Skipped::More => (At::Prompts(prompts), piece.len()),
                    Skipped::Ended(end) => {
                        self.prompts = self.prompts.max(prompts.count());
                        (At::AfterValue, at + end)
                    }
                    Skipped::TooDeep => (At::Malformed, piece.len()),
                };
                self.at = state;
                end
            }
            At::Scalar => {
                let Some(end) = rest.iter().position(|&byte| !self.scalar.take(byte)) else {
                    return piece.len();
                };
                self.end_scalar();
                at + end
            }
            At::Done | At::NotObject | At::NotUtf8 | At::Malformed => piece.len(),
        }
    }

    fn skip(&mut self, piece: &[u8], at: usize, mut skip: Skip) -> usize {
        let (state, end) = match skip.feed(&piece[at..]) {
            Skipped::More => (At::Skipped(skip), piece.len()),
            Skipped::Ended(end) => (At::AfterValue, at + end),
            Skipped::TooDeep => (At::Malformed, piece.len()),
        };
        self.at = state;
        end
    }

    /// One byte of the top level that is no white space, at `offset` of the body.
    fn token(&mut self, byte: u8, offset: u64) {
        self.at = match (self.at, byte) {
            (At::Start, b'{') => At::FirstKey,
            // Byte order marks of UTF-8 and UTF-16, and what stands beside an ASCII letter in UTF-16 and UTF-32.
            (At::Start, 0xEF | 0xFE | 0xFF | 0) => At::NotUtf8,
            (At::Start, _) => At::NotObject,
            (At::FirstKey, 0) => At::NotUtf8,
            (At::FirstKey | At::NextKey, b'"') => {
                self.text.clear();
                At::Key
            }
            (At::FirstKey, b'}') | (At::AfterValue, b'}') => At::Done,
            (At::Colon, b':') => At::Value,
            (At::AfterValue, b',') => At::NextKey,
            (At::Value, b'"') if self.key == Some(Field::Model) => {
                self.text.clear();
                self.quote = offset;
                At::Model
            }
            (At::Value, b'[') if self.key == Some(Field::Prompt) => At::Prompts(Prompts::default()),
            (At::Value, b'"' | b'{' | b'[') => {
                if let Some(field) = self.key.filter(|&field| field != Field::Prompt) {
                    self.doubts.note(field, Reason::Value);
                }
                if byte == b'"' { At::String } else { At::Skipped(Skip::NESTED) }
            }
            (At::Value, b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => {
                self.scalar = Scalar::default();
                self.scalar.take(byte);
                At::Scalar
            }
            _ => At::Malformed,
        };
    }

    /// `name` is empty for one that is none of those that are looked for, being too long.
    fn end_key(&mut self, name: &[u8]) {
        (self.key, self.at) = (None, At::Colon);
        let Some((field, exact)) = Field::of(name) else { return };
        self.doubts.see(field, exact);
        match field {
            Field::Model if exact => (self.model, self.model_span, self.model_too_long) = (None, None, false),
            Field::Stream if exact => self.stream = None,
            Field::Model | Field::Stream => return,
            _ => {}
        }
        self.key = Some(field);
    }

    /// The number or word is complete.
    fn end_scalar(&mut self) {
        self.at = At::AfterValue;
        let Some(field) = self.key else { return };
        let is_clear = match field {
            Field::Stream => {
                self.stream = self.scalar.as_bool();
                self.stream.is_some() || self.scalar.is_null()
            }
            Field::MaxTokens(index) => {
                let count = self.scalar.as_count();
                if let Ok(Some(most @ 1..)) = count
                    && self.max_tokens.is_none_or(|other| other < most)
                {
                    (self.max_tokens, self.max_tokens_field) = (Some(most), index);
                }
                count.is_ok()
            }
            Field::Choices | Field::BestOf => {
                let count = self.scalar.as_count();
                self.choices = self.choices.max(count.unwrap_or_default());
                count.is_ok()
            }
            Field::Model | Field::Prompt => self.scalar.is_null(),
        };
        if !is_clear {
            self.doubts.note(field, Reason::Value);
        }
    }

    /// `name` is none if it is too long.
    fn end_model(&mut self, name: Option<&[u8]>, span: Range<u64>) {
        self.model_span = Some(span);
        self.at = At::AfterValue;
        match name.map(std::str::from_utf8) {
            None => self.model_too_long = true,
            Some(Ok(name)) => self.model = Some(name.to_owned()),
            Some(Err(_)) => self.at = At::Malformed,
        }
    }

    /// A part of a form that is wanted.
    fn found(&mut self, found: Found) {
        let Found { part, value, place } = found;
        let (field, doubt) = match part {
            Part::Model(doubt) => (Field::Model, doubt),
            Part::Stream(doubt) => (Field::Stream, doubt),
            Part::Other => return,
        };
        self.doubts.see(field, true);
        if let Some(reason) = doubt {
            self.doubts.note(field, reason);
        }
        if field == Field::Model {
            (self.model, self.model_too_long) = (None, false);
            return self.end_model(value.as_deref(), place);
        }
        self.stream = match value.as_deref() {
            Some(b"true") => Some(true),
            Some(b"false") => Some(false),
            _ => None,
        };
        if self.stream.is_none() {
            self.doubts.note(field, Reason::Value);
        }
    }

    fn stop(&mut self, at: At, piece: &[u8]) -> usize {
        self.at = at;
        piece.len()
    }
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Start,
    /// After `{`: a key or the end.
    FirstKey,
    /// After a comma: a key.
    NextKey,
    Key,
    Colon,
    Value,
    /// In the string that is the model.
    Model,
    /// At the beginning of a string that nobody asked for.
    String,
    /// Further on in it, or in an object or array.
    Skipped(Skip),
    /// In the list of prompts.
    Prompts(Prompts),
    /// In a number, `true`, `false`, `null`, or what poses as one.
    Scalar,
    AfterValue,
    Done,
    NotObject,
    NotUtf8,
    Malformed,
}
