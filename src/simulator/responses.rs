//! `POST /v1/responses`: text, streamed as typed events or whole.

use std::io::Write;

use serde_json::{Value, json};

use super::answer::{Answer, CREATED, Script, fits, json, model};
use super::chat::content;
use super::frame::{Frame, MARK};
use super::knobs::Knobs;
use super::schema::pieces_of;
use super::text::{Text, count, name};
use crate::proto::openai::ApiError;

/// Events before the first piece of text, and so its sequence number.
const OPENING_EVENTS: u64 = 4;

pub(crate) fn responses(request: &Value, knobs: Knobs) -> Result<Answer, ApiError> {
    let model = model(request)?;
    let prompt = match &request["input"] {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.last().map(content).unwrap_or_default(),
        _ => String::new(),
    };
    let limit = request["max_output_tokens"].as_u64();
    let (cut_short, pieces): (bool, Vec<String>) = match request["text"]["format"]["type"].as_str() {
        Some("json_schema") => (false, pieces_of(&request["text"]["format"]["schema"])),
        _ => {
            let tokens = knobs.events.min(limit.unwrap_or(u64::MAX));
            // The whole text stands in the last events, too.
            fits(tokens, knobs)?;
            let text = Text::about(&prompt);
            let pieces = (0..tokens).map(|index| text.content(index, knobs.bytes).into_owned());
            (tokens < knobs.events, pieces.collect())
        }
    };
    let (said, tokens) = (pieces.concat(), pieces.len() as u64);
    let hash = name(request.to_string().as_bytes());
    let (id, item_id) = (format!("resp_{hash}"), format!("msg_{hash}"));
    let asked = count(&prompt);
    let usage = json!({
        "input_tokens": asked, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": asked + tokens,
    });
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let item = |status: &str, content: Value| json!({"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content});
    let (status, details) = match cut_short {
        true => ("incomplete", json!({"reason": "max_output_tokens"})),
        false => ("completed", Value::Null),
    };
    let done = item(status, json!([part(&said)]));
    let response = |status: &str, details: Value, output: Value, usage: Value| {
        json!({
            "id": id, "object": "response", "created_at": CREATED, "status": status, "error": null,
            "incomplete_details": details, "instructions": null, "max_output_tokens": limit, "metadata": {}, "model": model,
            "output": output, "parallel_tool_calls": true, "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null}, "store": false, "temperature": 1.0,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "truncation": "disabled", "usage": usage, "user": null,
        })
    };
    let whole = response(status, details, json!([done]), usage);
    if request["stream"] != true {
        return Ok(json(&whole));
    }
    let begun = response("in_progress", Value::Null, json!([]), Value::Null);
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
        (if cut_short { "response.incomplete" } else { "response.completed" }, json!({"response": whole})),
    ];
    let numbered = |from: u64, events: [(&str, Value); 4]| -> Vec<Vec<u8>> {
        (from..).zip(events).map(|(number, (kind, body))| event(kind, number, body)).collect()
    };
    // The number of an event stands last in it, as `event` has it: what comes after the text but before the number is fixed.
    let delta = with(&with(&place, "logprobs", json!([])), "delta", json!(MARK));
    let delta = event("response.output_text.delta", 0, delta);
    let frame = Frame::new(delta.strip_suffix(b"0}\n\n").unwrap_or(&delta));
    let script = Script {
        opening: numbered(0, opening),
        count: tokens,
        content: Box::new(move |index, out| {
            frame.write(out, &pieces[index as usize]);
            // Writing into a Vec cannot fail.
            let _ = write!(out, "{}}}\n\n", OPENING_EVENTS + index);
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

    fn events(request: &Value) -> Vec<Value> {
        let Ok(Answer::Events(script)) = responses(request, Knobs::default()) else { panic!("no stream") };
        let mut bytes: Vec<u8> = script.opening.concat();
        (0..script.count).for_each(|index| (script.content)(index, &mut bytes));
        bytes.extend(script.closing.concat());
        let text = String::from_utf8(bytes).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let all: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
        let kinds = text.lines().filter_map(|line| line.strip_prefix("event: "));
        assert!(kinds.eq(all.iter().map(|event| event["type"].as_str().unwrap())));
        assert!(all.iter().enumerate().all(|(number, event)| event["sequence_number"] == number));
        all
    }

    #[test]
    fn the_pieces_are_the_whole_and_are_numbered() {
        let all = events(&json!({"model": "m", "stream": true, "input": "say \"hello\""}));
        let said: String = all.iter().filter_map(|event| event["delta"].as_str()).collect();
        assert!(said.contains("say \"hello\""));
        let last = all.last().unwrap();
        assert_eq!(last["type"], "response.completed");
        assert_eq!(last["response"]["output"][0]["content"][0]["text"], said);
        assert_eq!(last["response"]["usage"]["output_tokens"], 32);
    }

    #[test]
    fn a_limit_leaves_it_incomplete() {
        let all = events(&json!({"model": "m", "stream": true, "input": "x", "max_output_tokens": 3}));
        assert_eq!(all.len(), 4 + 3 + 4);
        let last = &all[10];
        assert_eq!(last["type"], "response.incomplete");
        assert_eq!(last["response"]["status"], "incomplete");
        assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
    }

    #[test]
    fn structured_output_fits_its_schema() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let format = json!({"format": {"type": "json_schema", "name": "x", "schema": schema}});
        let all = events(
            &json!({"model": "m", "stream": true, "input": "x", "text": format, "max_output_tokens": 1}),
        );
        let last = &all.last().unwrap()["response"];
        assert_eq!(
            (&last["status"], &last["output"][0]["content"][0]["text"]),
            (&json!("completed"), &json!("{\"n\":1}"))
        );
    }
}
