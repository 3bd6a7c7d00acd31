//! `POST /v1/chat/completions`: text, tool calls and structured output, streamed or whole.

use serde_json::{Value, json};

use super::answer::{Answer, CREATED, Content, Script, data, fits, json, model};
use super::frame::{Frame, MARK};
use super::knobs::Knobs;
use super::schema::{pieces, pieces_of};
use super::text::{Text, count, name};
use crate::proto::openai::ApiError;

/// What the model is going to say.
enum Saying {
    /// So many tokens of text, and whether the request's limit ended it.
    Text { text: Text, tokens: u64, cut_short: bool },
    /// JSON, in pieces.
    Json(Vec<String>),
    /// A call of this tool, with arguments in pieces.
    Call { tool: String, pieces: Vec<String> },
}

pub(crate) fn chat(request: &Value, knobs: Knobs) -> Result<Answer, ApiError> {
    let model = model(request)?;
    let messages = request["messages"].as_array().ok_or_else(|| {
        ApiError::new(400, "missing_required_parameter", "Missing required parameter: 'messages'.")
            .with_param("messages")
    })?;
    if request["n"].as_u64().unwrap_or(1) != 1 {
        return Err(ApiError::new(
            400,
            "unsupported_value",
            "The simulator gives one choice: leave 'n' out.",
        )
        .with_param("n"));
    }
    let prompt = messages.last().map(content).unwrap_or_default();
    let asked_tokens: u64 = messages.iter().map(|message| count(&content(message))).sum();
    let saying = saying(request, messages, &prompt, knobs);
    let id = format!("chatcmpl-{}", name(request.to_string().as_bytes()));
    let usage = |said: u64| json!({"prompt_tokens": asked_tokens, "completion_tokens": said, "total_tokens": asked_tokens + said});
    if request["stream"] == true {
        let with_usage = request["stream_options"]["include_usage"] == true;
        return Ok(Answer::Events(stream(saying, &id, model, with_usage.then_some(&usage), knobs)));
    }
    let (message, reason, said) = whole(saying, knobs)?;
    Ok(json(&json!({
        "id": id, "object": "chat.completion", "created": CREATED, "model": model, "system_fingerprint": "fp_sedge",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": reason}],
        "usage": usage(said),
    })))
}

fn saying(request: &Value, messages: &[Value], prompt: &str, knobs: Knobs) -> Saying {
    let tools = request["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let answers_tool = messages.last().is_some_and(|message| message["role"] == "tool");
    let chosen = request["tool_choice"]["function"]["name"].as_str();
    let wanted = |tool: &&Value| chosen.is_none_or(|name| tool["function"]["name"] == name);
    if request["tool_choice"] != "none"
        && !answers_tool
        && let Some(tool) = tools.iter().find(wanted)
    {
        let pieces = pieces_of(&tool["function"]["parameters"]);
        let tool = tool["function"]["name"].as_str().unwrap_or("tool").to_owned();
        return Saying::Call { tool, pieces };
    }
    let format = &request["response_format"];
    match format["type"].as_str() {
        Some("json_schema") => {
            return Saying::Json(pieces_of(&format["json_schema"]["schema"]));
        }
        Some("json_object") => {
            return Saying::Json(pieces(
                &json!({"answer": Text::about(prompt).content(0, Some(60))}).to_string(),
            ));
        }
        _ => {}
    }
    let limit =
        request["max_completion_tokens"].as_u64().or(request["max_tokens"].as_u64()).unwrap_or(u64::MAX);
    Saying::Text {
        text: Text::about(prompt),
        tokens: knobs.events.min(limit),
        cut_short: limit < knobs.events,
    }
}

fn stream(
    saying: Saying,
    id: &str,
    model: &str,
    usage: Option<&dyn Fn(u64) -> Value>,
    knobs: Knobs,
) -> Script {
    let chunk = |delta: Value, reason: Value| {
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": CREATED, "model": model, "system_fingerprint": "fp_sedge",
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}],
        });
        if usage.is_some() {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let around = |delta: Value| Frame::of(&chunk(delta, Value::Null));
    let role = json!({"role": "assistant", "content": "", "refusal": null});
    let (opening, count, content, reason): (Vec<Vec<u8>>, u64, Content, &str) = match saying {
        Saying::Text { text, tokens, cut_short } => {
            let frame = around(json!({"content": MARK}));
            let content = move |index: u64, out: &mut Vec<u8>| {
                frame.write(out, &text.content(index, knobs.bytes));
            };
            (
                vec![data(&chunk(role, Value::Null))],
                tokens,
                Box::new(content),
                if cut_short { "length" } else { "stop" },
            )
        }
        Saying::Json(pieces) => {
            let frame = around(json!({"content": MARK}));
            let count = pieces.len() as u64;
            let content = move |index: u64, out: &mut Vec<u8>| frame.write(out, &pieces[index as usize]);
            (vec![data(&chunk(role, Value::Null))], count, Box::new(content), "stop")
        }
        Saying::Call { tool, pieces } => {
            let call = json!([{"index": 0, "id": format!("call_{}", name(tool.as_bytes())), "type": "function",
                "function": {"name": tool, "arguments": ""}}]);
            let begin = json!({"role": "assistant", "content": null, "tool_calls": call});
            let frame = around(json!({"tool_calls": [{"index": 0, "function": {"arguments": MARK}}]}));
            let count = pieces.len() as u64;
            let content = move |index: u64, out: &mut Vec<u8>| frame.write(out, &pieces[index as usize]);
            (vec![data(&chunk(begin, Value::Null))], count, Box::new(content), "tool_calls")
        }
    };
    let mut closing = vec![data(&chunk(json!({}), json!(reason)))];
    if let Some(usage) = usage {
        closing.push(data(&json!({
            "id": id, "object": "chat.completion.chunk", "created": CREATED, "model": model, "system_fingerprint": "fp_sedge",
            "choices": [], "usage": usage(count),
        })));
    }
    closing.push(b"data: [DONE]\n\n".to_vec());
    Script { opening, count, content, closing }
}

fn whole(saying: Saying, knobs: Knobs) -> Result<(Value, &'static str, u64), ApiError> {
    Ok(match saying {
        Saying::Text { text, tokens, cut_short } => {
            fits(tokens, knobs)?;
            let content: String = (0..tokens).map(|index| text.content(index, knobs.bytes)).collect();
            let message =
                json!({"role": "assistant", "content": content, "refusal": null, "annotations": []});
            (message, if cut_short { "length" } else { "stop" }, tokens)
        }
        Saying::Json(pieces) => {
            let message =
                json!({"role": "assistant", "content": pieces.concat(), "refusal": null, "annotations": []});
            (message, "stop", pieces.len() as u64)
        }
        Saying::Call { tool, pieces } => {
            let call = json!({"id": format!("call_{}", name(tool.as_bytes())), "type": "function",
                "function": {"name": tool, "arguments": pieces.concat()}});
            let message = json!({"role": "assistant", "content": null, "tool_calls": [call], "refusal": null, "annotations": []});
            (message, "tool_calls", pieces.len() as u64)
        }
    })
}

/// A message's text: a string, or the text parts of a list.
pub(crate) fn content(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(request: &Value, knobs: Knobs) -> Vec<Value> {
        let Ok(Answer::Events(script)) = chat(request, knobs) else { panic!("no stream") };
        let mut all = script.opening;
        for index in 0..script.count {
            let mut event = Vec::new();
            (script.content)(index, &mut event);
            all.push(event);
        }
        all.extend(script.closing);
        assert_eq!(all.pop().as_deref(), Some(&b"data: [DONE]\n\n"[..]));
        let json = |event: &Vec<u8>| serde_json::from_slice(&event[6..event.len() - 2]).unwrap();
        all.iter().map(json).collect()
    }

    #[test]
    fn a_stream_of_text_with_its_usage() {
        let request = json!({"model": "m", "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": "say \"hi\""}]});
        let all = events(&request, Knobs::default());
        assert_eq!(all.len(), 1 + 32 + 2);
        assert_eq!(all[0]["choices"][0]["delta"]["role"], "assistant");
        let said: String =
            all.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        assert!(said.contains("say \"hi\""), "{said}");
        assert_eq!(all[33]["choices"][0]["finish_reason"], "stop");
        assert_eq!(
            all[34]["usage"],
            json!({"prompt_tokens": 2, "completion_tokens": 32, "total_tokens": 34})
        );
        assert!(all[..34].iter().all(|event| event["usage"].is_null()));
    }

    #[test]
    fn a_tool_is_called_with_arguments_that_fit_its_schema() {
        let tool = json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}}}}});
        let request = json!({"model": "m", "stream": true, "messages": [], "tools": [tool]});
        let all = events(&request, Knobs::default());
        let call = |event: &Value| event["choices"][0]["delta"]["tool_calls"][0].clone();
        assert_eq!(call(&all[0])["function"]["name"], "weather");
        let arguments: String = all
            .iter()
            .filter_map(|event| call(event)["function"]["arguments"].as_str().map(str::to_owned))
            .collect();
        let arguments: Value = serde_json::from_str(&arguments).unwrap();
        assert_eq!(arguments, json!({"city": "sedge", "days": 1, "unit": "C"}));
        assert_eq!(all.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn a_limit_cuts_short_and_says_so() {
        let request = json!({"model": "m", "stream": true, "max_tokens": 3, "messages": []});
        let all = events(&request, Knobs::default());
        assert_eq!(all.len(), 1 + 3 + 1);
        assert_eq!(all[4]["choices"][0]["finish_reason"], "length");
    }

    #[test]
    fn the_same_request_gets_the_same_bytes() {
        let request = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]});
        assert_eq!(events(&request, Knobs::default()), events(&request, Knobs::default()));
    }
}
