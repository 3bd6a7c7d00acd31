//! The top-level `model`, `stream` and the most tokens of a JSON request body that arrives in pieces, found without parsing
//! the rest.
//!
//! One pass, no recursion, and memory that does not grow with the body: nesting is a counter, and what is skipped is skipped in
//! chunks ([`skip`](super::skip)). Only what is needed to know *which keys stand at the top* is checked; garbage inside a value is the
//! upstream's business. What readers disagree about is not resolved here but told: two `model` keys ([`Peek::duplicate`]),
//! or a key or model that different readers would decode differently ([`PeekState::Malformed`]), could otherwise send
//! one model past our checks and another one to the upstream.
//!
//! ```text
//! Start -{-> FirstKey -"-> Key -"-> Colon -:-> Value -> (Model | String | Skipped | Scalar) -> AfterValue -}-> Done
//!                |                    ^                                                          |
//!                `-}-> Done           `-"- NextKey <------------------------ , -------------------'
//! ```

use std::ops::Range;

use super::scalar::Scalar;
use super::skip::{Skip, Skipped};
use super::text::{Fed, Text, string_end};

/// The longest model name that is kept, in decoded bytes.
pub const MAX_MODEL_BYTES: usize = 256;
/// Enough to know that a key is none of those that are looked for.
const MAX_KEY_BYTES: usize = 24;
/// What limits an answer's tokens: in completions, chat completions (and Anthropic's messages), responses.
const MAX_TOKENS: [&[u8]; 3] = [b"max_tokens", b"max_completion_tokens", b"max_output_tokens"];
/// Less, and a key is none of these.
const MAX_TOKENS_KEY_BYTES: usize = 10;

/// How far the reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeekState {
    /// The top-level object is still open.
    NeedMore,
    /// The top-level object was closed; what follows it is not looked at.
    Done,
    /// The body is something other than a JSON object.
    NotObject,
    /// The top level does not have the form of a JSON object, or readers may disagree about its keys or its model.
    Malformed,
}

/// Reads `model`, `stream` and `max_tokens` off a request body that arrives in pieces.
#[derive(Debug, Default)]
pub struct Peek {
    at: At,
    key: Key,
    /// Bytes that were fed before the current piece.
    offset: u64,
    /// The key or the model that is being read.
    text: Text,
    /// The number or word that is being read.
    scalar: Scalar,
    /// Where the quote of the model that is being read stands.
    quote: u64,
    model: Field<String>,
    model_span: Option<Range<u64>>,
    model_too_long: bool,
    stream: Field<bool>,
    max_tokens: Option<u64>,
}

impl Peek {
    /// Looks at the next bytes of the body. After any state but [`PeekState::NeedMore`] they are ignored.
    pub fn feed(&mut self, piece: &[u8]) {
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
            At::Malformed => PeekState::Malformed,
            _ => PeekState::NeedMore,
        }
    }

    /// The top-level `model`, escapes resolved; `None` if there is none (yet), it is no string, or it is too long.
    pub fn model(&self) -> Option<&str> {
        self.model.value.as_deref()
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
        self.stream.value
    }

    /// The most tokens that the answer may have, under whichever name; of several the largest, since any of them may be the one
    /// that counts. What is not a number but may be read as one is [`u64::MAX`].
    pub fn max_tokens(&self) -> Option<u64> {
        self.max_tokens
    }

    /// Whether a second top-level `model` or `stream` was seen. Some readers take the first and some the last, so such
    /// a body means different things to different readers. Some (Go's `encoding/json`) also take `Model` for `model`;
    /// a second key that differs in case alone therefore counts.
    pub fn duplicate(&self) -> bool {
        self.model.seen > 1 || self.stream.seen > 1
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
            At::Scalar => {
                let Some(end) = rest.iter().position(|&byte| !self.scalar.take(byte)) else {
                    return piece.len();
                };
                match self.key {
                    Key::Stream => self.stream.value = self.scalar.as_bool(),
                    Key::MaxTokens => self.max_tokens = self.max_tokens.max(self.scalar.as_tokens()),
                    Key::Model | Key::Other => {}
                }
                self.at = At::AfterValue;
                at + end
            }
            At::Done | At::NotObject | At::Malformed => piece.len(),
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
            (At::Start, _) => At::NotObject,
            (At::FirstKey | At::NextKey, b'"') => {
                self.text.clear();
                At::Key
            }
            (At::FirstKey, b'}') | (At::AfterValue, b'}') => At::Done,
            (At::Colon, b':') => At::Value,
            (At::AfterValue, b',') => At::NextKey,
            (At::Value, b'"') if self.key == Key::Model => {
                self.text.clear();
                self.quote = offset;
                At::Model
            }
            (At::Value, b'"' | b'{' | b'[') => {
                if self.key == Key::MaxTokens {
                    self.max_tokens = Some(u64::MAX);
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
        (self.key, self.at) = (Key::Other, At::Colon);
        if name.eq_ignore_ascii_case(b"model") {
            self.model.seen = self.model.seen.saturating_add(1);
            if name == b"model" {
                self.key = Key::Model;
                (self.model.value, self.model_span, self.model_too_long) = (None, None, false);
            }
        } else if name.eq_ignore_ascii_case(b"stream") {
            self.stream.seen = self.stream.seen.saturating_add(1);
            if name == b"stream" {
                self.key = Key::Stream;
                self.stream.value = None;
            }
        } else if name.len() >= MAX_TOKENS_KEY_BYTES
            && MAX_TOKENS.iter().any(|key| name.eq_ignore_ascii_case(key))
        {
            self.key = Key::MaxTokens;
        }
    }

    /// `name` is none if it is too long.
    fn end_model(&mut self, name: Option<&[u8]>, span: Range<u64>) {
        self.model_span = Some(span);
        self.at = At::AfterValue;
        match name.map(std::str::from_utf8) {
            None => self.model_too_long = true,
            Some(Ok(name)) => self.model.value = Some(name.to_owned()),
            Some(Err(_)) => self.at = At::Malformed,
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
    /// In a number, `true`, `false`, `null`, or what poses as one.
    Scalar,
    AfterValue,
    Done,
    NotObject,
    Malformed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Key {
    Model,
    Stream,
    MaxTokens,
    #[default]
    Other,
}

#[derive(Debug)]
struct Field<T> {
    seen: u8,
    /// Of the last one.
    value: Option<T>,
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Field { seen: 0, value: None }
    }
}
