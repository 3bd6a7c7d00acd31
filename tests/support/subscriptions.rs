//! Subscriptions, as clients, workers and receivers see them.

use serde_json::{Value, json};

use super::{Body, Edge, Head, Upstream, Wire};

/// Where they are.
pub const CONTROL: &str = "/v1/stream/__ds";

/// One request; an answer's body as JSON, or null.
#[track_caller]
pub fn ask(edge: &Edge, method: &str, path: &str, fields: &[&str], body: &str) -> (Head, Value) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for field in fields {
        request += &format!("{field}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let (head, body) = edge.ask(request.as_bytes());
    (head, serde_json::from_slice(&body.bytes()).unwrap_or_default())
}

#[track_caller]
pub fn subscribe(edge: &Edge, id: &str, settings: &Value) -> Value {
    let (head, body) = ask(edge, "PUT", &subscription(id), &[], &settings.to_string());
    assert_eq!(head.status(), 201, "{body}");
    body
}

pub fn subscription(id: &str) -> String {
    format!("{CONTROL}/subscriptions/{id}")
}

pub fn show(edge: &Edge, id: &str) -> Value {
    ask(edge, "GET", &subscription(id), &[], "").1
}

/// Makes a stream of JSON with one message in it.
#[track_caller]
pub fn create(edge: &Edge, name: &str) {
    let body = if name.starts_with("wake/") { "[]" } else { r#"{"n":1}"# };
    let (head, body) =
        ask(edge, "PUT", &format!("/v1/stream/{name}"), &["Content-Type: application/json"], body);
    assert_eq!(head.status(), 201, "{body}");
}

#[track_caller]
pub fn append(edge: &Edge, name: &str) {
    let fields = ["Content-Type: application/json"];
    let (head, body) = ask(edge, "POST", &format!("/v1/stream/{name}"), &fields, r#"{"n":2}"#);
    assert_eq!(head.status(), 204, "{body}");
}

/// The next webhook: its connection, its head, and its body as it came.
#[track_caller]
pub fn webhook(receiver: &Upstream) -> (Wire, Head, Body) {
    let mut wire = receiver.accept();
    let head = wire.read_head();
    let body = wire.read_request_body(&head);
    (wire, head, body)
}

pub fn to(receiver: &Upstream) -> Value {
    json!({
        "type": "webhook", "pattern": "events/*", "lease_ttl_ms": 60_000,
        "webhook": { "url": format!("http://{}/hook?key=a%20b", receiver.addr()) },
    })
}

pub fn pull() -> Value {
    json!({ "type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool", "lease_ttl_ms": 1_000 })
}

pub fn json(body: &Body) -> Value {
    serde_json::from_slice(&body.bytes()).expect("JSON")
}

pub fn bearer(token: &Value) -> String {
    format!("Authorization: Bearer {}", token.as_str().expect("a token"))
}

pub fn progress(wake: &Value, done: bool) -> String {
    let streams = wake["streams"].as_array().expect("streams").iter();
    let acks: Vec<_> =
        streams.map(|stream| json!({ "stream": stream["path"], "offset": stream["tail_offset"] })).collect();
    json!({ "wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks, "done": done })
        .to_string()
}
