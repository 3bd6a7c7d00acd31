//! `POST /v1/responses`: text, streamed as typed events or whole.

use serde_json::{Value, json};

use super::answer::{Answer, CREATED, Script, fits, json, model};
use super::chat::content;
use super::knobs::Knobs;
use super::text::{Text, count, name};
use crate::openai::ApiError;

/// Events before the first piece of text, and so its sequence number.
const OPENING_EVENTS: u64 = 4;

pub(super) fn responses(request: &Value, knobs: Knobs) -> Result<Answer, ApiError> {
    let model = model(request)?;
    let prompt = match &request["input"] {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.last().map(content).unwrap_or_default(),
        _ => String::new(),
    };
    let tokens = knobs.events.min(request["max_output_tokens"].as_u64().unwrap_or(u64::MAX));
    // The whole text stands in the last events, too.
    fits(tokens, knobs)?;
    let text = Text::about(&prompt);
    let said: String = (0..tokens).map(|index| text.content(index, knobs.bytes)).collect();
    let hash = name(request.to_string().as_bytes());
    let (id, item_id) = (format!("resp_{hash}"), format!("msg_{hash}"));
    let asked = count(&prompt);
    let usage = json!({
        "input_tokens": asked, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": asked + tokens,
    });
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let item = |status: &str, content: Value| json!({"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content});
    let done = item("completed", json!([part(&said)]));
    let response = |status: &str, output: Value, usage: Value| {
        json!({
            "id": id, "object": "response", "created_at": CREATED, "status": status, "error": null,
            "incomplete_details": null, "instructions": null, "max_output_tokens": null, "metadata": {}, "model": model,
            "output": output, "parallel_tool_calls": true, "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null}, "store": false, "temperature": 1.0,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "truncation": "disabled", "usage": usage, "user": null,
        })
    };
    let whole = response("completed", json!([done]), usage);
    if request["stream"] != true {
        return Ok(json(&whole));
    }
    let begun = response("in_progress", json!([]), Value::Null);
    let place = json!({"item_id": item_id, "output_index": 0, "content_index": 0});
    let opening = [
        ("response.created", json!({"response": begun})),
        ("response.in_progress", json!({"response": begun})),
        ("response.output_item.added", json!({"output_index": 0, "item": item("in_progress", json!([]))})),
        ("response.content_part.added", with(&place, "part", part(""))),
    ];
    let closing = [
        ("response.output_text.done", with(&with(&place, "text", json!(said)), "logprobs", json!([]))),
        ("response.content_part.done", with(&place, "part", part(&said))),
        ("response.output_item.done", json!({"output_index": 0, "item": done})),
        ("response.completed", json!({"response": whole})),
    ];
    let numbered = |from: u64, events: [(&str, Value); 4]| -> Vec<Vec<u8>> {
        (from..).zip(events).map(|(number, (kind, body))| event(kind, number, body)).collect()
    };
    let script = Script {
        opening: numbered(0, opening),
        count: tokens,
        content: Box::new(move |index, out| {
            let delta =
                with(&with(&place, "delta", json!(text.content(index, knobs.bytes))), "logprobs", json!([]));
            out.extend_from_slice(&event("response.output_text.delta", OPENING_EVENTS + index, delta));
        }),
        closing: numbered(OPENING_EVENTS + tokens, closing),
    };
    Ok(Answer::Events(script))
}

fn with(object: &Value, name: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[name] = value;
    object
}

fn event(kind: &str, number: u64, mut body: Value) -> Vec<u8> {
    body["type"] = json!(kind);
    body["sequence_number"] = json!(number);
    format!("event: {kind}\ndata: {body}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_whole_and_are_numbered() {
        let request = json!({"model": "m", "stream": true, "input": "hello"});
        let Ok(Answer::Events(script)) = responses(&request, Knobs::default()) else { panic!("no stream") };
        let mut bytes: Vec<u8> = script.opening.concat();
        (0..script.count).for_each(|index| (script.content)(index, &mut bytes));
        bytes.extend(script.closing.concat());
        let text = String::from_utf8(bytes).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let all: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
        assert!(all.iter().enumerate().all(|(number, event)| event["sequence_number"] == number));
        let said: String = all.iter().filter_map(|event| event["delta"].as_str()).collect();
        let last = all.last().unwrap();
        assert_eq!(last["type"], "response.completed");
        assert_eq!(last["response"]["output"][0]["content"][0]["text"], said);
        assert_eq!(last["response"]["usage"]["output_tokens"], 32);
    }
}
