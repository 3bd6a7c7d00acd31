//! An event that is always the same but for the text in it: rendered once for an answer, then only copied.

use std::io::Write;

use serde_json::Value;

/// Stands for the text while the frame is rendered, and how that reads in JSON.
pub(crate) const MARK: &str = "\u{1}";
const MARK_IN_JSON: &str = "\"\\u0001\"";

/// What stands before and after the text of an event.
pub(crate) struct Frame {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Frame {
    /// Of a rendered event with [`MARK`] as the last of its strings that is one.
    pub(crate) fn new(event: &[u8]) -> Frame {
        let (before, after) = match memchr::memmem::rfind(event, MARK_IN_JSON.as_bytes()) {
            Some(at) => (&event[..at], &event[at + MARK_IN_JSON.len()..]),
            None => (event, &[][..]),
        };
        Frame { before: before.to_vec(), after: after.to_vec() }
    }

    /// Of a `data:` event of JSON.
    pub(crate) fn of(event: &Value) -> Frame {
        Frame::new(&super::answer::data(event))
    }

    /// Appends the event with `text` in it.
    pub(crate) fn write(&self, out: &mut Vec<u8>, text: &str) {
        out.reserve(self.before.len() + text.len() + self.after.len() + 2);
        out.extend_from_slice(&self.before);
        out.push(b'"');
        escape(out, text);
        out.push(b'"');
        out.extend_from_slice(&self.after);
    }
}

/// `text` as it stands in a JSON string (RFC 8259, 7). Nearly none of it has to be escaped.
fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            quoted @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', quoted]),
            // Writing into a Vec cannot fail.
            control => drop(write!(out, "\\u{control:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_text_comes_back_out_of_the_json() {
        let frame =
            Frame::of(&json!({"model": MARK, "choices": [{"delta": {"content": MARK}}], "usage": null}));
        for text in ["", " word", "\"\\\u{0}\n\u{1f}\u{7f}", "“é”🌾", "\\\"", "a\"b"] {
            let mut event = Vec::new();
            frame.write(&mut event, text);
            let event: Value = serde_json::from_slice(&event["data: ".len()..]).unwrap();
            assert_eq!(event["choices"][0]["delta"]["content"], text);
            assert_eq!(event["model"], MARK, "the last mark is the text's");
        }
    }
}
