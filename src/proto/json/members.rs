//! Top-level members of a JSON document that passes in pieces: whether it is an error, and whether it ends a stream.
//!
//! | member | meaning |
//! | --- | --- |
//! | `"error"`, unless it is `null`, `false` or `""` | an error, in every dialect |
//! | `"type": "error"` | an error of Anthropic's or of the Responses API |
//! | `"type": "response.failed"` | an error, and the end |
//! | `"type": "response.completed"`, `"response.incomplete"`, `"message_stop"` | the end |
//! | `"status": "failed"` | a response of the Responses API that failed |
//!
//! The members of an outermost array's elements count as well (Gemini streams an array). Members of nested objects do not, nor does
//! text in strings. Values of other members are passed over 64 bytes at a time ([`Skip`]); no byte is kept but a key or a word.
//! What is no JSON has no members.

use super::skip::{Skip, Skipped};
use crate::proto::openai::sideband::is_space;

/// The longest word that means something is `response.incomplete`.
const WORD_MAX_BYTES: usize = 20;

/// Whether a whole document says that something failed.
pub(crate) fn is_error(document: &[u8]) -> bool {
    let mut members = Members::default();
    members.feed(document);
    members.found().error
}

/// A document on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Members {
    at: At,
    name: Name,
    /// The outermost value is an array, whose elements are looked into.
    in_array: bool,
    in_object: bool,
    word: Word,
    found: Found,
}

/// Facts that the members have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// It is an error.
    pub(crate) error: bool,
    /// It says that its stream is over.
    pub(crate) terminal: bool,
    /// It has the status `failed`.
    pub(crate) failed: bool,
}

/// Position in the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before the outermost value, behind it, or between the elements of an outermost array.
    #[default]
    Outside,
    /// Before a key, or behind a value.
    Members,
    /// In a key.
    Key { escaped: bool },
    /// Behind a key, before its value.
    Colon,
    /// In a string that matters.
    Word { escaped: bool },
    /// In a value that does not.
    Skip(Skip),
    /// In a number or a literal.
    Scalar,
}

/// Keys that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Name {
    #[default]
    Other,
    Error,
    Type,
    Status,
}

impl Members {
    /// Looks at the next bytes.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some((&byte, tail)) = rest.split_first() {
            match self.at {
                At::Skip(mut skip) => match skip.feed(rest) {
                    Skipped::More => {
                        self.at = At::Skip(skip);
                        return;
                    }
                    Skipped::Ended(end) => {
                        self.at = self.after_value();
                        rest = &rest[end..];
                        continue;
                    }
                    Skipped::TooDeep => {
                        self.at = At::Outside;
                        return;
                    }
                },
                At::Key { escaped } | At::Word { escaped } => self.in_string(byte, escaped),
                At::Scalar => {
                    if matches!(byte, b',' | b'}' | b']') || is_space(byte) {
                        self.at = self.after_value();
                        continue;
                    }
                }
                at => self.between(at, byte),
            }
            rest = tail;
        }
    }

    /// Facts so far.
    pub(crate) fn found(&self) -> Found {
        self.found
    }

    /// Whether no value has begun that has not ended.
    pub(crate) fn is_complete(&self) -> bool {
        !self.in_object && !self.in_array && !matches!(self.at, At::Skip(_))
    }

    /// Whether there is nothing to be known of the bytes so far.
    pub(crate) fn is_untouched(&self) -> bool {
        self.is_complete() && self.found == Found::default()
    }

    fn in_string(&mut self, byte: u8, escaped: bool) {
        let is_key = matches!(self.at, At::Key { .. });
        let mut after = false;
        match byte {
            // No word that matters has an escape in it, nor is it so long.
            _ if escaped => self.word.len = u8::MAX,
            b'\\' => after = true,
            b'"' => {
                if is_key {
                    self.name = Name::of(self.word.bytes());
                    self.at = At::Colon;
                } else {
                    self.learn();
                    self.at = At::Members;
                }
                return;
            }
            byte => self.word.push(byte),
        }
        self.at = if is_key { At::Key { escaped: after } } else { At::Word { escaped: after } };
    }

    /// Takes a byte that stands outside of every value.
    fn between(&mut self, at: At, byte: u8) {
        self.at = match (at, byte) {
            (At::Outside, b'[') if self.in_array => At::Skip(Skip::NESTED),
            (At::Outside, b'[') => {
                self.in_array = true;
                At::Outside
            }
            (At::Outside, b']') => {
                self.in_array = false;
                At::Outside
            }
            (At::Outside, b'{') => {
                self.in_object = true;
                At::Members
            }
            (At::Members, b'}') => {
                self.in_object = false;
                At::Outside
            }
            (At::Members, b'"') => {
                self.word = Word::default();
                At::Key { escaped: false }
            }
            (At::Colon, b'"') if self.name != Name::Other => {
                self.word = Word::default();
                At::Word { escaped: false }
            }
            (At::Outside | At::Colon, b'"') => At::Skip(Skip::STRING),
            (At::Colon, b'{' | b'[') => {
                self.found.error |= self.name == Name::Error;
                At::Skip(Skip::NESTED)
            }
            (At::Colon, byte) if byte != b':' && !is_space(byte) => {
                // Of the literals, `null` and `false` say that there is none.
                self.found.error |= self.name == Name::Error && !matches!(byte, b'n' | b'f');
                At::Scalar
            }
            (at, _) => at,
        };
    }

    fn after_value(&self) -> At {
        if self.in_object { At::Members } else { At::Outside }
    }

    /// Takes over what the string says that has just ended.
    fn learn(&mut self) {
        let word = self.word.bytes();
        match self.name {
            Name::Error => self.found.error |= word != Some(b""),
            Name::Type => {
                self.found.error |= matches!(word, Some(b"error" | b"response.failed"));
                self.found.terminal |= matches!(
                    word,
                    Some(
                        b"response.completed" | b"response.failed" | b"response.incomplete" | b"message_stop"
                    )
                );
            }
            Name::Status => self.found.failed |= word == Some(b"failed"),
            Name::Other => {}
        }
    }
}

impl Name {
    fn of(word: Option<&[u8]>) -> Name {
        match word {
            Some(b"error") => Name::Error,
            Some(b"type") => Name::Type,
            Some(b"status") => Name::Status,
            _ => Name::Other,
        }
    }
}

/// The beginning of a string.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    bytes: [u8; WORD_MAX_BYTES],
    len: u8,
}

impl Word {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
            *place = byte;
        }
        self.len = self.len.saturating_add(1);
    }

    /// All of it, unless it is longer than any word that matters.
    fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn of(text: &str) -> Members {
        let mut members = Members::default();
        members.feed(text.as_bytes());
        members
    }

    fn error(text: &str) -> bool {
        of(text).found().error
    }

    #[test]
    fn an_error_is_a_member_of_the_document_itself() {
        for text in [
            r#"{"error":{"message":"no"}}"#,
            "{ \"error\" : \"overloaded\" }",
            r#"{"id":"x","object":"y","error":{}}"#,
            r#"{"a":[{"b":"}]\""}],"n":-1.5e3,"t":true,"error":[1]}"#,
            r#"{"type":"error","message":"Overloaded"}"#,
            r#"{"response":{"error":null},"type":"response.failed"}"#,
            r#"[{"candidates":[]},{"error":{"code":503}}]"#,
            "[{\n  \"error\": {\n    \"code\": 429\n  }\n}\n]",
            "{\"ok\":1}\n{\"error\":{}}",
            r#"{"error":7}"#,
        ] {
            assert!(error(text), "{text}");
        }
    }

    #[test]
    fn what_merely_speaks_of_one_is_none() {
        for text in [
            r#"{"error":null,"choices":[]}"#,
            r#"{"error": null}"#,
            r#"{"error":false}"#,
            r#"{"error":"","choices":[]}"#,
            r#"{"choices":[{"delta":{"content":"{\"error\":{}}"}}]}"#,
            r#"{"choices":[{"error":{}}],"x":{"error":{"type":"error"}}}"#,
            r#"{"type":"an error","text":"error"}"#,
            r#"{"\"error":{}}"#,
            r#"["error",["error",{"error":{}}]]"#,
            r#""error""#,
            r#"{"errors":{},"erro":{},"error_message":"x"}"#,
            r#"{"type":"response.output_text.delta.and.very.much.more"}"#,
        ] {
            assert!(!error(text), "{text}");
        }
    }

    #[test]
    fn ends_and_statuses_are_told() {
        for word in ["response.completed", "response.incomplete", "message_stop"] {
            let found = of(&format!(r#"{{"sequence_number":1,"type":"{word}"}}"#)).found();
            assert_eq!(found, Found { terminal: true, ..Found::default() }, "{word}");
        }
        let failed = of(r#"{"type":"response.failed"}"#).found();
        assert!(failed.terminal && failed.error);
        assert!(of(r#"{"status":"failed"}"#).found().failed);
        assert_eq!(of(r#"{"status":"completed","output":[{"status":"failed"}]}"#).found(), Found::default());
    }

    #[test]
    fn a_document_is_complete_with_its_last_bracket() {
        for text in ["", "{}", "[1,{\"a\":[]}]", "{\"a\":\"}\"} \n", "1", "\"x\"", "{}{}"] {
            assert!(of(text).is_complete(), "{text}");
        }
        for text in ["{", "[", "{\"a\":1", "{\"a\":{}", "[{}", "{\"a", "\"x", "{}{\"a\":\"b\""] {
            assert!(!of(text).is_complete(), "{text}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            prop::sample::select(vec!["", "error", "failed", "type", "\"error\":{", "response.failed", "\\"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = prop::sample::select(vec!["error", "type", "status", "id", "error\"", "x"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..4).prop_map(|members| members
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()),
            ]
        })
    }

    proptest! {
        /// A reader that parses all of it says the same, however it is cut, and it is complete at its end and not before.
        #[test]
        fn it_agrees_with_a_parser(value in json(), pretty: bool, cut in any::<prop::sample::Index>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let documents = match &value {
                Value::Array(elements) => elements.iter().collect(),
                other => vec![other],
            };
            let is_error = |document: &&Value| {
                let error = &document["error"];
                let kind = document["type"].as_str();
                let none = error.is_null() || *error == false || *error == "";
                document.is_object() && (!none || matches!(kind, Some("error" | "response.failed")))
            };
            let mut members = Members::default();
            let (left, right) = text.as_bytes().split_at(cut.index(text.len() + 1));
            members.feed(left);
            if matches!(value, Value::Array(_) | Value::Object(_)) && !left.is_empty() && !right.is_empty() {
                prop_assert!(!members.is_complete());
            }
            members.feed(right);
            prop_assert_eq!(members.found().error, documents.iter().any(is_error), "{}", text);
            prop_assert!(members.is_complete());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            of(&String::from_utf8_lossy(&bytes));
        }
    }
}
