//! A whole answer of a fixed text, in the form that a client of the API expects: what a route can say when none of its upstreams
//! can say anything. Its head tells what it is; to an SDK it is an answer like any other, of no tokens.

use serde_json::{Value, json};

/// The text of the answer, and what it answers.
pub(crate) struct Fixed<'a> {
    /// What is said.
    pub(crate) text: &'a str,
    /// The model as the client named it.
    pub(crate) model: &'a str,
    /// The request's id, of which the answer's is made.
    pub(crate) id: &'a str,
    /// When it was asked, in seconds since 1970.
    pub(crate) created: u64,
}

impl Fixed<'_> {
    /// The body for a request to `path`: JSON, or events with `stream`. None where no answer is made of plain text.
    pub(crate) fn body(&self, path: &str, stream: bool) -> Option<Vec<u8>> {
        let chat = path.ends_with("/chat/completions");
        if !chat && !path.ends_with("/completions") {
            return None;
        }
        Some(match (chat, stream) {
            (true, false) => {
                let message = json!({"role": "assistant", "content": self.text, "refusal": null});
                self.whole("chat.completion", json!({"message": message}))
            }
            (true, true) => {
                let delta = json!({"role": "assistant", "content": self.text});
                self.events("chat.completion.chunk", json!({"delta": delta}), json!({"delta": {}}))
            }
            (false, false) => self.whole("text_completion", json!({"text": self.text})),
            (false, true) => self.events("text_completion", json!({"text": self.text}), json!({"text": ""})),
        })
    }

    fn whole(&self, object: &str, choice: Value) -> Vec<u8> {
        let mut value = self.object(object, choice, Some("stop"));
        value["usage"] = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
        value.to_string().into_bytes()
    }

    fn events(&self, object: &str, content: Value, end: Value) -> Vec<u8> {
        let (content, end) = (self.object(object, content, None), self.object(object, end, Some("stop")));
        format!("data: {content}\n\ndata: {end}\n\ndata: [DONE]\n\n").into_bytes()
    }

    fn object(&self, object: &str, mut choice: Value, reason: Option<&str>) -> Value {
        choice["index"] = 0.into();
        choice["logprobs"] = Value::Null;
        choice["finish_reason"] = reason.into();
        let id = format!("sedge-{}", self.id);
        json!({"id": id, "object": object, "created": self.created, "model": self.model, "choices": [choice]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: Fixed<'static> = Fixed { text: "Back \"soon\".\n", model: "m", id: "r-1", created: 7 };

    #[test]
    fn each_endpoint_has_its_form() {
        let value =
            |path, stream| -> Value { serde_json::from_slice(&FIXED.body(path, stream).unwrap()).unwrap() };
        let chat = value("/v1/chat/completions", false);
        assert_eq!(chat["object"], "chat.completion");
        assert_eq!(chat["choices"][0]["message"]["content"], FIXED.text);
        assert_eq!(chat["choices"][0]["finish_reason"], "stop");
        assert_eq!(value("/v1/completions", false)["choices"][0]["text"], FIXED.text);
        assert_eq!(FIXED.body("/v1/embeddings", false), None);
    }

    #[test]
    fn a_stream_is_two_chunks_and_its_end() {
        let body = String::from_utf8(FIXED.body("/v1/chat/completions", true).unwrap()).unwrap();
        let events: Vec<_> = body.split_terminator("\n\n").collect();
        assert_eq!((events.len(), events[2]), (3, "data: [DONE]"));
        let first: Value = serde_json::from_str(&events[0][6..]).unwrap();
        assert_eq!(first["choices"][0]["delta"]["content"], FIXED.text);
        let last: Value = serde_json::from_str(&events[1][6..]).unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
    }
}
