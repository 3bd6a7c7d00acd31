//! The smaller endpoints: completions, embeddings, models, speech and files.

use std::fmt::Write;

use serde_json::{Value, json};

use super::answer::{Answer, CREATED, Script, data, fits, json, model};
use super::frame::{Frame, MARK};
use super::knobs::Knobs;
use super::text::{Text, count, name};
use crate::proto::openai::ApiError;

/// Dimensions of an embedding when none are asked for, as OpenAI's small model has them.
const DIMENSIONS: u64 = 1536;

/// Dimensions that may be asked for.
const DIMENSIONS_MAX: u64 = 4096;

/// Numbers of one answer, some 12 bytes each: 2048 inputs of the usual dimensions are fewer.
const NUMBERS_MAX: u64 = 4 * 1024 * 1024;

/// Inputs of one request, as OpenAI's API has it.
const INPUTS_MAX: usize = 2048;

/// Bytes of speech in one event's worth.
const SPEECH_BYTES: u64 = 1024;

/// The models that are listed; any other name is answered as well.
const MODELS: [&str; 2] = ["sim-small", "sim-large"];

/// `POST /v1/completions`.
pub(crate) fn completion(request: &Value, knobs: Knobs) -> Result<Answer, ApiError> {
    let model = model(request)?.to_owned();
    // A list of prompts is answered by its first.
    let prompt = request["prompt"].as_str().or(request["prompt"][0].as_str()).unwrap_or_default();
    let text = Text::about(prompt);
    let limit = request["max_tokens"].as_u64().unwrap_or(u64::MAX);
    let tokens = knobs.events.min(limit);
    let reason = if limit < knobs.events { "length" } else { "stop" };
    let id = format!("cmpl-{}", name(request.to_string().as_bytes()));
    let asked = count(prompt);
    let usage = json!({"prompt_tokens": asked, "completion_tokens": tokens, "total_tokens": asked + tokens});
    let body = move |text: &str, reason: Value| {
        json!({
            "id": id, "object": "text_completion", "created": CREATED, "model": model,
            "choices": [{"text": text, "index": 0, "logprobs": null, "finish_reason": reason}],
        })
    };
    if request["stream"] == true {
        let mut closing = vec![data(&body("", json!(reason)))];
        if request["stream_options"]["include_usage"] == true {
            let mut last = body("", Value::Null);
            (last["choices"], last["usage"]) = (json!([]), usage);
            closing.push(data(&last));
        }
        closing.push(b"data: [DONE]\n\n".to_vec());
        let frame = Frame::of(&body(MARK, Value::Null));
        let content = move |index: u64, out: &mut Vec<u8>| {
            frame.write(out, &text.content(index, knobs.bytes));
        };
        return Ok(Answer::Events(Script {
            opening: Vec::new(),
            count: tokens,
            content: Box::new(content),
            closing,
        }));
    }
    fits(tokens, knobs)?;
    let said: String = (0..tokens).map(|index| text.content(index, knobs.bytes)).collect();
    let mut whole = body(&said, json!(reason));
    whole["usage"] = usage;
    Ok(json(&whole))
}

/// `POST /v1/embeddings`: vectors that follow from their inputs, of length one.
pub(crate) fn embeddings(request: &Value) -> Result<Answer, ApiError> {
    let model = model(request)?;
    let dimensions = request["dimensions"].as_u64().unwrap_or(DIMENSIONS);
    let inputs: Vec<String> = match &request["input"] {
        Value::String(text) => vec![text.clone()],
        // A list of numbers is one text in tokens.
        Value::Array(list) if list.iter().all(Value::is_number) => vec![request["input"].to_string()],
        Value::Array(list) => {
            list.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
        }
        _ => {
            return Err(ApiError::new(
                400,
                "missing_required_parameter",
                "Missing required parameter: 'input'.",
            )
            .with_param("input"));
        }
    };
    if inputs.is_empty() || inputs.len() > INPUTS_MAX || !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        let what =
            format!("Between 1 and {INPUTS_MAX} inputs, and between 1 and {DIMENSIONS_MAX} dimensions.");
        return Err(ApiError::new(400, "invalid_value", what));
    }
    let numbers = inputs.len() as u64 * dimensions;
    if numbers > NUMBERS_MAX {
        let what =
            format!("These are {numbers} numbers, and {NUMBERS_MAX} are given at once: send fewer inputs.");
        return Err(ApiError::new(400, "invalid_value", what));
    }
    let encoded = request["encoding_format"] == "base64";
    let mut body = String::from(r#"{"object":"list","data":["#);
    for (index, input) in inputs.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let vector = vector(input, dimensions);
        // Writing into a String cannot fail.
        let _ = write!(body, r#"{comma}{{"object":"embedding","index":{index},"embedding":"#);
        let _ = match encoded {
            true => write!(body, "\"{}\"}}", base64(&vector)),
            false => write_numbers(&mut body, &vector).and_then(|()| body.write_char('}')),
        };
    }
    let tokens: u64 = inputs.iter().map(|input| count(input)).sum();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    let _ = write!(body, r#"],"model":{},"usage":{usage}}}"#, Value::from(model));
    Ok(Answer::Whole { status: 200, content_type: "application/json", body: body.into_bytes() })
}

/// Straight into the answer: as a tree of values they take ten times the room.
fn write_numbers(out: &mut String, vector: &[f32]) -> std::fmt::Result {
    for (at, number) in vector.iter().enumerate() {
        write!(out, "{}{number}", if at == 0 { '[' } else { ',' })?;
    }
    out.write_char(']')
}

/// `GET /v1/models`.
pub(crate) fn models() -> Answer {
    json(&json!({"object": "list", "data": MODELS.map(model_named)}))
}

/// `GET /v1/models/{id}`.
pub(crate) fn model_named(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "sedge-simulator"})
}

/// `POST /v1/audio/speech`: bytes that are no sound, but are always the same.
pub(crate) fn speech(knobs: Knobs) -> Result<Answer, ApiError> {
    let each = knobs.bytes.unwrap_or(SPEECH_BYTES);
    fits(knobs.events, Knobs { bytes: Some(each), ..knobs })?;
    let body = (0..knobs.events * each).map(|at| (at * 31 % 251) as u8).collect();
    Ok(Answer::Whole { status: 200, content_type: "audio/mpeg", body })
}

/// `POST /v1/files`: what came is counted and thrown away.
pub(crate) fn file(bytes: u64) -> Answer {
    json(&json!({
        "id": format!("file-{}", name(&bytes.to_le_bytes())), "object": "file", "bytes": bytes, "created_at": CREATED,
        "filename": "upload", "purpose": "user_data", "status": "processed",
    }))
}

fn vector(input: &str, dimensions: u64) -> Vec<f32> {
    let seed = u64::from_str_radix(&name(input.as_bytes()), 16).unwrap_or(1) | 1;
    let mut state = seed;
    let mut vector: Vec<f32> = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        vector.push((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0);
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter().map(|x| x / length).collect()
}

/// Little-endian floats in base64 (RFC 4648, 4), as the official SDKs ask for them.
fn base64(vector: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= three.len() { letter.into() } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_rfc_has_it() {
        assert_eq!(base64(&[f32::from_le_bytes(*b"foob")]), "Zm9vYg==");
        assert_eq!(base64(&[f32::from_le_bytes(*b"foob"), f32::from_le_bytes(*b"ar!!")]), "Zm9vYmFyISE=");
    }

    #[test]
    fn numbers_and_base64_are_the_same_vector() {
        let ask = |format: &str| {
            let request =
                json!({"model": "m\"", "input": ["a", "b"], "dimensions": 3, "encoding_format": format});
            let Ok(Answer::Whole { body, .. }) = embeddings(&request) else { panic!("no answer") };
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        let (numbers, encoded) = (ask("float"), ask("base64"));
        assert_eq!(numbers["model"], "m\"");
        for index in 0..2 {
            assert_eq!(numbers["data"][index]["index"], index);
            let list = numbers["data"][index]["embedding"].as_array().unwrap();
            let list: Vec<f32> = list.iter().map(|number| number.as_f64().unwrap() as f32).collect();
            assert_eq!(encoded["data"][index]["embedding"], base64(&list));
        }
    }

    #[test]
    fn more_numbers_than_fit_are_refused() {
        let most = vec!["a"; INPUTS_MAX];
        let ask =
            |dimensions: u64| embeddings(&json!({"model": "m", "input": most, "dimensions": dimensions}));
        assert!(ask(DIMENSIONS_MAX).is_err());
        assert!(INPUTS_MAX as u64 * DIMENSIONS <= NUMBERS_MAX);
    }

    #[test]
    fn embeddings_have_length_one_and_follow_from_their_input() {
        let one = vector("a", 8);
        assert_eq!(one, vector("a", 8));
        assert_ne!(one, vector("b", 8));
        assert!((one.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
}
