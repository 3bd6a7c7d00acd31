//! JSON mode: a stream of messages instead of bytes (PROTOCOL.md, section 9.1).
//!
//! A message is kept as it was sent, followed by one comma. So any run of messages is an array but for its brackets and the
//! last comma, and nothing has to be parsed to be read again; a position counts bytes of this form, and is always where a
//! message begins.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

/// Messages of one append, as they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Messages {
    /// Each followed by a comma.
    pub(crate) bytes: Bytes,
    /// Where each ends, its comma included, from the beginning of `bytes`.
    pub(crate) ends: Box<[u32]>,
}

/// The deepest nesting of a message, its own array or object counted: as deep as serde_json, Python and browsers read.
const DEPTH_MAX: u32 = 128;

/// The most messages of one append. A reader of events gets each as an event of its own, thirty times as long if it is as short as can
/// be, and all of an append at once.
pub(crate) const MESSAGES_MAX: usize = 1 << 16;

/// Why a body holds no messages.
#[derive(Debug)]
pub(crate) enum NoMessages {
    /// It is not JSON.
    NotJson(serde_json::Error),
    /// It is nested deeper than 128 levels, so that readers could not take it.
    TooDeep,
    /// It is an empty array.
    Empty,
    /// It is an array of more than [`MESSAGES_MAX`].
    TooMany,
}

impl Messages {
    /// The messages of a body: the elements if it is an array, else itself.
    ///
    /// # Errors
    /// If it is not one JSON value, or an array that is empty or too long.
    pub(crate) fn read(body: &[u8]) -> Result<Messages, NoMessages> {
        // One more: the array around several messages is none of them.
        if depth(body) > DEPTH_MAX + 1 {
            return Err(NoMessages::TooDeep);
        }
        let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        let values: Vec<&RawValue> = match is_array {
            true => serde_json::from_slice(body).map_err(NoMessages::NotJson)?,
            false => vec![serde_json::from_slice(body).map_err(NoMessages::NotJson)?],
        };
        if values.is_empty() {
            return Err(NoMessages::Empty);
        }
        if values.len() > MESSAGES_MAX {
            return Err(NoMessages::TooMany);
        }
        let mut bytes = BytesMut::with_capacity(values.iter().map(|value| value.get().len() + 1).sum());
        let ends = values.iter().map(|value| {
            bytes.put_slice(value.get().as_bytes());
            bytes.put_u8(b',');
            bytes.len() as u32
        });
        let ends = ends.collect();
        Ok(Messages { bytes: bytes.freeze(), ends })
    }
}

/// How deep brackets are nested outside of strings. Of what is no JSON it says something, which does not matter then.
fn depth(body: &[u8]) -> u32 {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_u32, 0, false, false);
    for &byte in body {
        match (byte, in_string) {
            _ if escaped => escaped = false,
            (b'\\', true) => escaped = true,
            (b'"', _) => in_string = !in_string,
            (b'[' | b'{', false) => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (b']' | b'}', false) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> String {
        let messages = Messages::read(body.as_bytes()).expect("it is JSON");
        assert_eq!(messages.ends.last().map(|&end| end as usize), Some(messages.bytes.len()));
        String::from_utf8(messages.bytes.to_vec()).expect("JSON is UTF-8")
    }

    #[test]
    fn one_level_of_an_array_is_several_messages() {
        assert_eq!(read(r#" {"a": 1} "#), r#"{"a": 1},"#);
        assert_eq!(read(r#"[{"a":1}, "b" ,3]"#), r#"{"a":1},"b",3,"#);
        assert_eq!(read("[[1,2], [3]]"), "[1,2],[3],");
        assert_eq!(read("[[[1,2,3]]]"), "[[1,2,3]],");
        assert_eq!(read("null"), "null,");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(matches!(Messages::read(b"[]"), Err(NoMessages::Empty)));
        let many = |more: usize| format!("[{}0]", "0,".repeat(MESSAGES_MAX - 1 + more));
        assert_eq!(Messages::read(many(0).as_bytes()).expect("as many as may be").ends.len(), MESSAGES_MAX);
        assert!(matches!(Messages::read(many(1).as_bytes()), Err(NoMessages::TooMany)));
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for (depth, is_taken) in [(129, true), (130, false), (200_000, false)] {
            assert_eq!(Messages::read(nested(depth).as_bytes()).is_ok(), is_taken, "{depth}");
        }
        assert!(Messages::read(format!("\"{}\\\"[\"", "[".repeat(500)).as_bytes()).is_ok());
        let deep = "[1 ".repeat(100);
        for wrong in ["", "{", "[1,]", "1 2", "[1] 2", "{\"a\":\u{1}}", &deep] {
            assert!(matches!(Messages::read(wrong.as_bytes()), Err(NoMessages::NotJson(_))), "{wrong:.20}");
        }
        assert!(matches!(Messages::read(b"\"\xff\""), Err(NoMessages::NotJson(_))));
    }
}
