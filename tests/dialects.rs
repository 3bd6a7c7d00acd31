//! Errors are told in the language of the path that was asked. OpenAI's form on every path made anthropic-python raise a bare transport
//! error in the middle of a stream, and gave its exceptions no type; and a page with an EventSource got the error as if it were data.

mod support;

use serde_json::Value;
use support::{
    Body, Edge, End, OUTCOMES, SSE_HEAD, Upstream, chunk, config, error_event_code, get, post, relayed,
};

const BODY: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// The name of the one event in `text`, and its data.
#[track_caller]
fn event(text: &str) -> (&str, Value) {
    let lines = text.strip_suffix("\n\n").unwrap_or_else(|| panic!("no whole event: {text:?}"));
    let (name, data) = match lines.split_once('\n') {
        Some((name, data)) => (name.strip_prefix("event: ").expect("a name"), data),
        None => ("", lines),
    };
    let data = data.strip_prefix("data: ").unwrap_or_else(|| panic!("no data: {text:?}"));
    (name, serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data:?}")))
}

/// A stream that says one thing and is cut.
fn cut(edge: &Edge, upstream: &Upstream, request: &[u8], first: &str) -> Body {
    let (mut client, mut peer, ..) = relayed(edge, upstream, request);
    peer.send([SSE_HEAD, &chunk(first)].concat());
    let head = client.read_head();
    assert_eq!(client.read_chunk(), first.as_bytes());
    peer.close();
    let body = client.read_body(&head);
    assert_ne!(body.end, End::Whole);
    body
}

#[test]
fn a_cut_is_told_by_an_event_of_the_dialect() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);

    let ask = post("/v1/messages", &["X-Request-Id: mine"], BODY);
    let text = cut(&edge, &upstream, &ask, "event: ping\ndata: {\"type\": \"ping\"}\n\n").text();
    let (name, data) = event(&text);
    assert_eq!(
        (name, data["type"].as_str(), data["request_id"].as_str()),
        ("error", Some("error"), Some("mine"))
    );
    assert_eq!(data["error"]["type"], "api_error");
    assert_eq!(data["error"]["details"]["error_code"], "upstream_closed");
    assert!(data["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));

    let ask = post("/v1/responses", &[], BODY);
    let text =
        cut(&edge, &upstream, &ask, "event: response.created\ndata: {\"type\":\"response.created\"}\n\n")
            .text();
    let (name, data) = event(&text);
    assert_eq!((name, data["type"].as_str()), ("error", Some("error")));
    assert_eq!((data["code"].as_str(), data["sequence_number"].as_u64()), (Some("upstream_closed"), Some(1)));
    assert_eq!(data["error"]["code"], "upstream_closed");

    let ask = post("/v1/models/gemini:streamGenerateContent?alt=sse", &[], BODY);
    let text = cut(&edge, &upstream, &ask, "data: {\"candidates\": []}\r\n\r\n").text();
    let (name, data) = event(&text);
    assert_eq!((name, data["error"]["code"].as_u64()), ("", Some(502)));
    assert_eq!(data["error"]["status"], "UNAVAILABLE");

    let ask = post("/v1/chat/completions", &[], BODY);
    let body = cut(&edge, &upstream, &ask, "data: {}\n\n");
    assert_eq!(error_event_code(&body.bytes()), "upstream_closed");
    edge.wait_metric(OUTCOMES, &["outcome=\"upstream_cut\""], 4.0);
}

#[test]
fn silence_is_told_by_an_event_of_the_dialect() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::timeouts(&upstream.url(), &[("idle", "200ms")]));
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &post("/v1/messages", &[], BODY));
    peer.send(SSE_HEAD);
    let head = client.read_head();
    let text = client.read_body(&head).text();
    let (name, data) = event(&text);
    assert_eq!((name, data["error"]["type"].as_str()), ("error", Some("timeout_error")));
}

#[test]
fn an_event_source_is_told_by_the_break_alone() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    for accept in ["Accept: text/event-stream", "Accept: text/html, text/event-stream;q=0.9"] {
        for path in ["/v1/events", "/v1/responses/resp_1?stream=true"] {
            let body = cut(&edge, &upstream, &get(path, &[accept]), "data: a\n\n");
            assert_eq!(body.text(), "", "a page would take it for a message");
        }
    }
    edge.wait_metric(OUTCOMES, &["outcome=\"upstream_cut\""], 4.0);
    // A POST is no EventSource's, nor is a GET that asks for anything.
    for request in [post("/v1/x", &["Accept: text/event-stream"], "{}"), get("/v1/x", &["Accept: */*"])] {
        let body = cut(&edge, &upstream, &request, "data: a\n\n");
        error_event_code(&body.bytes());
    }
}

#[test]
fn errors_of_our_own_are_in_the_dialect_too() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let edge = Edge::configured(&format!(
        "relay_all = true\n\n[[upstream]]\nname = \"a\"\nurl = \"http://{gone}\"\n\n[[route]]\nmodels = [\"m\"]\n\n\
         [[key]]\nname = \"k\"\nsha256 = \"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\"\n"
    ));
    let told = |path: &str, fields: &[&str], model: &str| {
        let (head, body) = edge.ask(&post(path, fields, &format!("{{\"model\":\"{model}\"}}")));
        (
            head.status(),
            head.get("request-id").map(str::to_owned),
            serde_json::from_slice::<Value>(&body.bytes()).expect("JSON"),
        )
    };
    let key = ["X-Api-Key: foo", "X-Request-Id: mine"];
    for (fields, model, status, kind) in [
        (&key[1..], "m", 401, "authentication_error"),
        (&key[..], "other", 404, "not_found_error"),
        (&key[..], "m", 502, "api_error"),
    ] {
        let (got, id, body) = told("/v1/messages", fields, model);
        assert_eq!((got, id.as_deref()), (status, Some("mine")), "{body}");
        assert_eq!(
            (body["type"].as_str(), body["request_id"].as_str()),
            (Some("error"), Some("mine")),
            "{body}"
        );
        assert_eq!(body["error"]["type"], kind);
    }
    let (status, _, body) = told("/v1/messages/count_tokens", &key, "other");
    assert_eq!((status, body["type"].as_str()), (404, Some("error")));
    let (status, id, body) = told("/v1beta/models/other:generateContent", &key, "other");
    assert_eq!((status, id), (404, None));
    assert_eq!(
        (body["error"]["code"].as_u64(), body["error"]["status"].as_str()),
        (Some(404), Some("NOT_FOUND"))
    );
    let (status, id, body) = told("/v1/chat/completions", &key, "other");
    assert_eq!((status, id, body["error"]["code"].as_str()), (404, None, Some("model_not_found")));
}

#[test]
fn an_early_stream_is_told_in_the_dialect() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::early_heartbeat(&upstream.url(), 100));
    let (mut client, peer, ..) = relayed(&edge, &upstream, &post("/v1/messages", &[], BODY));
    let head = client.read_head();
    assert_eq!(client.read_chunk(), b":\n");
    peer.close();
    let body = client.read_body(&head);
    let text: String =
        body.chunks.iter().filter(|part| *part != b":\n").map(|part| String::from_utf8_lossy(part)).collect();
    let (name, data) = event(&text);
    assert_eq!((name, data["error"]["details"]["error_code"].as_str()), ("error", Some("upstream_closed")));
    assert_ne!(body.end, End::Whole);
}
