//! Whether a stream has said anything yet. Models are announced before they speak: a chunk with a role and no text, comments that
//! keep the connection, `response.created`. Until the first thing that a reader would see, the request can still go elsewhere.
//!
//! Whatever is not known to be empty counts as content: a stream is rather passed on too early than held for long. Only
//! data lines are read, each as soon as it is whole.

use serde_json::Value;

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
        for part in piece.split_inclusive(|&byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(part);
            if !matches!(part.last(), Some(b'\n' | b'\r')) {
                break;
            }
            let seen = line(&self.line);
            self.line.clear();
            if seen != Seen::Nothing {
                return seen;
            }
        }
        Seen::Nothing
    }
}

fn line(line: &[u8]) -> Seen {
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
    let Some(data) = line.strip_prefix(b"data:") else { return Seen::Nothing };
    let Ok(Value::Object(event)) = serde_json::from_slice::<Value>(data) else {
        // `[DONE]`, or a part of an event of several lines.
        return Seen::Content;
    };
    let kind = event.get("type").and_then(Value::as_str);
    if event.get("error").is_some_and(|error| !error.is_null()) || kind == Some("response.failed") {
        return Seen::Error;
    }
    let empty = match (event.get("choices"), kind) {
        (Some(Value::Array(choices)), _) => choices.iter().all(is_empty_choice),
        (_, Some(kind)) => ANNOUNCEMENTS.contains(&kind),
        _ => false,
    };
    if empty { Seen::Nothing } else { Seen::Content }
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
    use super::*;
    use proptest::prelude::*;

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
        ] {
            assert_eq!(of(&format!("{ROLE}{text}")), Seen::Error, "{text}");
        }
        assert_eq!(of("data: {\"error\":null,\"choices\":[]}\n"), Seen::Nothing);
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
