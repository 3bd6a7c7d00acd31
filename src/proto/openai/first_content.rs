//! Whether a stream has said anything yet. Models are announced before they speak: a chunk with a role and no text, comments that
//! keep the connection, `response.created`. Until the first thing that a reader would see, the request can still go elsewhere; and
//! from there on it is known how long the model took to begin, which no head of a response tells.
//!
//! Whatever is not known to be empty counts as content: a stream is rather passed on too early than held for long. Only
//! data lines and the name `error` are read, each as soon as it is whole. Most are understood by a look at a few of their bytes
//! ([`glance`]); the rest are parsed.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;
use serde_json::Value;

use super::sideband::may_hold_key;
use crate::proto::json::members::is_error;

/// What was seen of a stream so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Nothing that anyone would read.
    Nothing,
    /// Something.
    Content,
    /// That it failed.
    Error,
}

/// Events that only announce others, by their `type`: of the Responses API, and of Anthropic's.
const ANNOUNCEMENTS: [&str; 8] = [
    "response.created",
    "response.in_progress",
    "response.queued",
    "response.output_item.added",
    "response.content_part.added",
    "message_start",
    "content_block_start",
    "ping",
];

/// The beginning of a stream, on its way. Holds one line at most; whoever feeds it bounds what it is fed.
#[derive(Debug, Default)]
pub struct FirstContent {
    line: Vec<u8>,
}

impl FirstContent {
    /// Looks at the next bytes of the body.
    pub fn feed(&mut self, piece: &[u8]) -> Seen {
        let mut rest = piece;
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            let (part, after) = rest.split_at(end + 1);
            rest = after;
            let seen = if self.line.is_empty() {
                line(part)
            } else {
                self.line.extend_from_slice(part);
                let seen = line(&self.line);
                self.line.clear();
                seen
            };
            if seen != Seen::Nothing {
                return seen;
            }
        }
        self.line.extend_from_slice(rest);
        Seen::Nothing
    }

    /// Bytes that it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.line.len()
    }
}

fn line(line: &[u8]) -> Seen {
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
    let Some(data) = line.strip_prefix(b"data:") else {
        let name = line.strip_prefix(b"event:").unwrap_or_default();
        return if name.trim_ascii() == b"error" { Seen::Error } else { Seen::Nothing };
    };
    let data = data.trim_ascii();
    // An error makes all else unimportant.
    let may_be_error = may_hold_key(data);
    if may_be_error && is_error(data) {
        return Seen::Error;
    }
    if let Some(seen) = glance(data) {
        return seen;
    }
    if !may_be_error && is_error(data) {
        return Seen::Error;
    }
    let Ok(Value::Object(event)) = serde_json::from_slice::<Value>(data) else {
        // `[DONE]`, or a part of an event of several lines.
        return Seen::Content;
    };
    let empty = match (event.get("choices"), event.get("type").and_then(Value::as_str)) {
        (Some(Value::Array(choices)), _) => choices.iter().all(is_empty_choice),
        (_, Some(kind)) => ANNOUNCEMENTS.contains(&kind),
        _ => false,
    };
    if empty { Seen::Nothing } else { Seen::Content }
}

static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"delta\":"));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\":"));

/// The same by a few bytes, for the events that nearly all servers send first: of chat completions with one choice, and those that
/// have their type at the front. None where that does not tell. To parse the first events of every stream would cost as much as to
/// relay two more.
fn glance(data: &[u8]) -> Option<Seen> {
    if let Some(kind) = data.strip_prefix(b"{\"type\":").map(<[u8]>::trim_ascii_start) {
        let kind = kind.strip_prefix(b"\"")?;
        let kind = &kind[..memchr::memchr(b'"', kind)?];
        let is_announcement = ANNOUNCEMENTS.iter().any(|name| name.as_bytes() == kind);
        return Some(match kind {
            b"error" | b"response.failed" => Seen::Error,
            _ if is_announcement => Seen::Nothing,
            _ => Seen::Content,
        });
    }
    let delta = &data[DELTA.find(data)? + DELTA.needle().len()..];
    // Of several choices any may have said something.
    if DELTA.find(delta).is_some() {
        return None;
    }
    let (is_empty, rest) = is_empty_delta(delta.trim_ascii_start().strip_prefix(b"{")?)?;
    if !is_empty {
        return Some(Seen::Content);
    }
    let finish = FINISH.find(rest)?;
    let reason = rest[finish + FINISH.needle().len()..].trim_ascii_start();
    reason.starts_with(b"null").then_some(Seen::Nothing)
}

/// Whether a delta, behind its bracket, says nothing, and what comes behind it.
fn is_empty_delta(mut rest: &[u8]) -> Option<(bool, &[u8])> {
    loop {
        rest = rest.trim_ascii_start();
        if let Some(rest) = rest.strip_prefix(b"}") {
            return Some((true, rest));
        }
        rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start().strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', rest)?;
        let (key, after) = rest.split_at(end);
        let value = after[1..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let empty =
            [&b"null"[..], b"\"\"", b"[]", b"{}"].into_iter().find_map(|empty| value.strip_prefix(empty));
        rest = match empty {
            Some(rest) => rest,
            None if key == b"role" => {
                let value = value.strip_prefix(b"\"")?;
                &value[memchr::memchr(b'"', value)? + 1..]
            }
            None if value.is_empty() => return None,
            None => return Some((false, value)),
        };
    }
}

fn is_empty_choice(choice: &Value) -> bool {
    let delta = choice["delta"].as_object();
    is_empty(&choice["finish_reason"])
        && is_empty(&choice["text"])
        && is_empty(&choice["message"])
        && delta.is_none_or(|delta| delta.iter().all(|(key, value)| key == "role" || is_empty(value)))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Seen {
        FirstContent::default().feed(text.as_bytes())
    }

    const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"finish_reason\":null}]}\n\n";

    #[test]
    fn announcements_are_not_content() {
        for text in [
            ": OPENROUTER PROCESSING\n\n",
            "event: message_start\nid: 1\nretry: 3\n",
            ROLE,
            "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
            "data: {\"choices\": [{\"delta\": {\"content\": \"\", \"role\": \"assistant\"}, \"finish_reason\": null}]}\n\n",
            "data: {\"choices\":[{\"delta\":{}},{\"delta\":{}}]}\n\n",
            "data: {\"type\": \"message_start\",\"message\":{\"content\":[]}}\n\n",
            "data: {\"type\":\"response.created\",\"response\":{\"error\":null}}\r\n\r\n",
            "data:{\"type\":\"ping\"}\r",
            "data: {\"choices\":[{\"delta\":{\"content\":\"half a line\"}}]}",
        ] {
            assert_eq!(of(text), Seen::Nothing, "{text}");
        }
    }

    #[test]
    fn what_a_reader_would_see_is() {
        for text in [
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}\n",
            "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n",
            "data: {\"choices\":[{\"text\":\"a\"}]}\n",
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"a\"},\"finish_reason\":null}]}\n",
            "data: {\"choices\":[{\"delta\":{}},{\"delta\":{\"content\":\"a\"}}]}\n",
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n",
            "data: {\"type\":\"content_block_delta\"}\n",
            "data: {\"anything\":1}\n",
            "data: [DONE]\n",
            "data: words\n",
        ] {
            assert_eq!(of(text), Seen::Content, "{text}");
        }
    }

    #[test]
    fn errors_are_told_apart() {
        for text in [
            "data: {\"error\":{\"message\":\"no\"}}\n\n",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
            "data: {\"type\":\"response.failed\"}\n\n",
            "data: { \"id\":\"x\", \"error\" : \"overloaded\" }\n\n",
            "event:error\r\ndata: overloaded\r\n\r\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"error\":{}}\n\n",
        ] {
            assert_eq!(of(&format!("{ROLE}{text}")), Seen::Error, "{text}");
        }
        assert_eq!(of("data: {\"error\":null,\"choices\":[]}\n"), Seen::Nothing);
        assert_eq!(
            of("data: {\"choices\":[{\"delta\":{\"content\":\"{\\\"error\\\":{}}\"}}]}\n"),
            Seen::Content
        );
    }

    proptest! {
        /// However a body is cut, the same is seen of it.
        #[test]
        fn cuts_change_nothing(cut in 0usize..400) {
            for (end, seen) in [
                ("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", Seen::Content),
                ("data: {\"error\":{}}\n\n", Seen::Error),
            ] {
                let text = format!(": a\n\n{ROLE}{end}");
                let (left, right) = text.as_bytes().split_at(cut.min(text.len()));
                let mut first = FirstContent::default();
                let found = match first.feed(left) {
                    Seen::Nothing => first.feed(right),
                    found => found,
                };
                prop_assert_eq!(found, seen);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            FirstContent::default().feed(&bytes);
        }
    }
}
