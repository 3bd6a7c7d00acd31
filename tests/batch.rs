//! Several requests in one: each as if it had come alone, all of them on one stream, in the order in which they say something,
//! no faster than the client reads, and none any longer than the client is there.

mod support;

use std::io::Write;

use ring::digest::{SHA256, digest};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::batch::{PATH, Reader, told};
use support::{
    Edge, Head, LAST_CHUNK, OUTCOMES, SSE_HEAD, STREAMS, Upstream, Wire, answer, chunk, config, error_code,
    post, stream_request, wait_until,
};

const OPEN: &str = "sedge_requests_open";

/// A request for a stream, by its model.
fn line(model: &str) -> Value {
    json!({"custom_id": model, "body": {"model": model, "stream": true}})
}

fn event(data: &str) -> Vec<u8> {
    chunk(format!("data: {data}\n\n"))
}

/// The next request at the upstream: its end of the connection, and the model it asks for.
#[track_caller]
fn accept(upstream: &Upstream) -> (Wire, String, Head) {
    let mut peer = upstream.accept();
    let head = peer.read_head();
    let body = peer.read_request_body(&head);
    let body: Value = serde_json::from_slice(&body.bytes()).expect("JSON");
    (peer, body["model"].as_str().expect("a model").to_owned(), head)
}

/// Two requests that run, in the order of the batch.
#[track_caller]
fn accept_two(upstream: &Upstream) -> (Wire, Wire) {
    let (one, other) = (accept(upstream), accept(upstream));
    if one.1 < other.1 { (one.0, other.0) } else { (other.0, one.0) }
}

#[test]
fn events_come_in_the_order_of_their_arrival() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut reader, head) = Reader::begin(&edge, &json!([line("a"), line("b")]));
    assert_eq!((head.status(), head.get("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    let (mut a, mut b) = accept_two(&upstream);
    for peer in [&mut a, &mut b] {
        peer.send(SSE_HEAD);
    }
    b.send(event("b1"));
    reader.expect("1", "b1");
    a.send(event("a1"));
    reader.expect("0", "a1");
    // Names, ids and comments stay behind; half an event is none yet; lines stay lines.
    b.send(chunk("id: 5\nevent: x\n: comment\ndata: b2\ndata: more"));
    a.send(event("a2"));
    reader.expect("0", "a2");
    b.send(chunk("\n\ndata: [DONE]\n\n"));
    reader.expect("1", "b2\nmore");
    b.send(LAST_CHUNK);
    assert_eq!(reader.outcome(), (1, Some(200), None));
    a.send([event("[DONE]"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(reader.outcome(), (0, Some(200), None));
    let mut client = reader.done();
    // The connection goes on, and each request was one of its own.
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\"", "route=\"default\""], 2.0);
    let upstream_connection = [a, b];
    client.send(post(PATH, &[], "[]"));
    assert_eq!(client.read_answer().0.status(), 400);
    drop(upstream_connection);
}

#[test]
fn each_request_keeps_its_own_word_and_the_batchs_fields() {
    let upstream = Upstream::serve(|head, body| {
        let fields = ["Content-Type: application/json"];
        match head.start.split(' ').nth(1) {
            Some("/v1/embeddings") => answer("200 OK", &fields, body.bytes()),
            Some("/v1/busy") => answer(
                "429 Too Many Requests",
                &["Content-Type: application/json", "Retry-After: 2"],
                r#"{"error":{"message":"slow","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
            ),
            _ => answer("500 Oops", &["Content-Type: text/html"], "<b>no</b>"),
        }
    });
    let edge = Edge::start(&["--upstream", &upstream.url()]);
    let body = r#"[{"url":"/v1/embeddings","body":{"model" :"m","x":1.50}},{"url":"/v1/busy","body":{}},
        {"custom_id":"c","url":"/v1/other?q=1","body":{}}]"#;
    let mut client = edge.connect();
    let fields =
        ["X-Request-Id: mine", "Authorization: Bearer sk-x", "OpenAI-Organization: org", "Accept: text/x"];
    client.send(post(PATH, &fields, body));
    let (mut reader, head) = Reader::of(client);
    assert_eq!(head.get("x-request-id"), Some("mine"));
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        match reader.next() {
            (name, data) if name == "0" => assert_eq!(data, r#"{"model" :"m","x":1.50}"#),
            (_, data) => outcomes.push(told(&data)),
        }
    }
    outcomes.sort_by_key(|told| told["index"].as_u64());
    reader.done();
    assert_eq!((&outcomes[0]["status"], &outcomes[0]["error"]), (&json!(200), &Value::Null));
    assert_eq!(outcomes[0]["request_id"], "mine-0");
    assert_eq!(outcomes[1]["error"]["message"], "slow");
    assert_eq!((&outcomes[1]["status"], &outcomes[1]["retry_after_ms"]), (&json!(429), &json!(2000)));
    assert_eq!((&outcomes[2]["status"], &outcomes[2]["custom_id"]), (&json!(500), &json!("c")));
    assert!(outcomes[2]["error"]["message"].as_str().is_some_and(|text| text.contains("<b>no</b>")));
    for seen in upstream.requests() {
        assert_eq!(seen.all("authorization"), ["Bearer sk-x"]);
        assert_eq!((seen.get("openai-organization"), seen.get("accept")), (Some("org"), None), "{seen:?}");
        assert_eq!(seen.all("content-type"), ["application/json"]);
        assert!(seen.get("x-request-id").is_some_and(|id| id.starts_with("mine-")), "{seen:?}");
    }
}

#[test]
fn no_more_run_at_once_than_may() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let lines: Vec<_> = ["a", "b", "c"].into_iter().map(line).collect();
    let (mut reader, _) = Reader::begin(&edge, &json!({"requests": lines, "concurrency": 1}));
    let (mut peer, model, _) = accept(&upstream);
    assert_eq!(model, "a");
    assert_eq!(edge.upstream_connections(), 1.0);
    for (index, next) in [Some("b"), Some("c"), None].into_iter().enumerate() {
        peer.send([SSE_HEAD, &event("x"), &event("[DONE]"), LAST_CHUNK].concat());
        reader.expect(&index.to_string(), "x");
        assert_eq!(reader.outcome(), (index as u64, Some(200), None));
        if let Some(next) = next {
            // The upstream's connection is kept, and used again.
            let head = peer.read_head();
            assert!(peer.read_request_body(&head).text().contains(next));
        }
    }
    reader.done();
    assert_eq!(edge.upstream_connections(), 1.0);
}

#[test]
fn a_client_that_leaves_takes_all_of_it_along() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let lines: Vec<_> = ["a", "b", "c"].into_iter().map(line).collect();
    let (mut reader, _) = Reader::begin(&edge, &json!({"requests": lines, "concurrency": 2}));
    let (mut a, mut b) = accept_two(&upstream);
    a.send([SSE_HEAD, &event("a1")].concat());
    reader.expect("0", "a1");
    edge.wait_metric(OPEN, &[], 2.0);
    reader.client.close();
    a.wait_closed();
    b.wait_closed();
    edge.wait_metric(OPEN, &[], 0.0);
    edge.wait_metric(STREAMS, &[], 0.0);
    edge.wait_metric(OUTCOMES, &["outcome=\"client_gone\""], 3.0);
    assert_eq!(edge.upstream_connections(), 2.0, "the third was started for nobody");
}

#[test]
fn all_of_it_has_one_deadline() {
    let upstream = Upstream::listen();
    let lines: Vec<_> = ["a", "b", "c"].into_iter().map(line).collect();
    // Long enough for the first two to begin.
    for fields in [&[][..], &["X-Request-Timeout-Ms: 3000"]] {
        let edge = Edge::to(&upstream);
        let timeout = if fields.is_empty() { 3_000 } else { 60_000 };
        let batch = json!({"requests": lines, "concurrency": 2, "timeout_ms": timeout});
        let mut client = edge.connect();
        client.send(post(PATH, fields, &batch.to_string()));
        let (mut reader, _) = Reader::of(client);
        let (mut a, _, head) = accept(&upstream);
        let left: u32 = head.get("x-request-timeout-ms").and_then(|ms| ms.parse().ok()).expect("the time");
        assert!(left <= 3_000, "{left}");
        let (mut b, ..) = accept(&upstream);
        let mut outcomes = [reader.outcome(), reader.outcome(), reader.outcome()];
        outcomes.sort();
        for (index, (at, status, code)) in outcomes.into_iter().enumerate() {
            let code = code.expect("an error");
            assert_eq!((at, status), (index as u64, Some(504)), "{code}");
            assert!(["upstream_total_timeout", "batch_timeout"].contains(&code.as_str()), "{code}");
        }
        reader.done();
        a.wait_closed();
        b.wait_closed();
        assert_eq!(edge.upstream_connections(), 2.0, "the third was started without time");
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_upstreams() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut reader, _) = Reader::begin(&edge, &json!([line("a")]));
    let (mut peer, ..) = accept(&upstream);
    peer.send([SSE_HEAD, &event("first")].concat());
    reader.expect("0", "first");
    // As much as anyone takes, which is not all there is: from some point on no byte fits, however often the edge has its turn.
    let large = event(&"x".repeat(8000));
    let sent = edge.fill(peer.stream(), &large, 64 << 20).expect("it never stops");
    let mut socket = peer.stream().try_clone().expect("clone");
    let whole = sent / large.len();
    let before = edge.resident_bytes();
    assert!(before < 64 << 20, "{before} bytes");
    // Nothing of it is lost.
    let writer = std::thread::spawn(move || {
        socket.write_all(&large[sent % large.len()..]).expect("the rest");
        socket.write_all(&[&event("[DONE]"), LAST_CHUNK].concat()).expect("the end");
    });
    for _ in 0..=whole {
        assert_eq!(reader.next().1.len(), 8000);
    }
    writer.join().expect("the writer");
    assert_eq!(reader.outcome(), (0, Some(200), None));
    reader.done();
}

#[test]
fn the_first_with_content_wins_where_that_is_asked_for() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let lines: Vec<_> = ["a", "b"]
        .into_iter()
        .map(line)
        .chain([json!({"url": "/v1/sedge", "body": {"model": "c"}})])
        .collect();
    let (mut reader, _) = Reader::begin(&edge, &json!({"requests": lines, "first": true}));
    let mut peers = [accept(&upstream), accept(&upstream), accept(&upstream)];
    peers.sort_by(|one, other| one.1.cmp(&other.1));
    let [(mut a, ..), (mut b, ..), (mut c, ..)] = peers;
    // A failure is no content, nor is the announcement of some.
    c.send(answer("500 No", &[], "no"));
    assert_eq!(reader.outcome(), (2, Some(500), Some("upstream_error".to_owned())));
    let role = r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
    let word = r#"{"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}"#;
    a.send([SSE_HEAD, &event(role)].concat());
    b.send([SSE_HEAD, &event(role)].concat());
    edge.wait_metric(STREAMS, &[], 2.0);
    b.send(event(word));
    reader.expect("1", role);
    reader.expect("1", word);
    assert_eq!(reader.outcome(), (0, None, Some("cancelled".to_owned())));
    a.wait_closed();
    b.send([event(word), event("[DONE]"), LAST_CHUNK.to_vec()].concat());
    reader.expect("1", word);
    assert_eq!(reader.outcome(), (1, Some(200), None));
    reader.done();
}

#[test]
fn what_breaks_off_is_told_and_the_others_go_on() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut reader, _) = Reader::begin(&edge, &json!([line("a"), line("b")]));
    let (mut a, mut b) = accept_two(&upstream);
    b.send([SSE_HEAD, &event("b1")].concat());
    reader.expect("1", "b1");
    a.send([SSE_HEAD, &event("a1")].concat());
    reader.expect("0", "a1");
    a.close();
    assert_eq!(reader.outcome(), (0, Some(200), Some("upstream_closed".to_owned())));
    b.send([event(r#"{"error":{"message":"m","code":"overheated"}}"#), LAST_CHUNK.to_vec()].concat());
    assert_eq!(reader.outcome(), (1, Some(200), Some("overheated".to_owned())));
    reader.done();
}

#[test]
fn keys_and_limits_are_those_of_each_request() {
    let sha256: String =
        digest(&SHA256, b"sk-team").as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let upstream = Upstream::serve(|_, _| answer("200 OK", &["Content-Type: application/json"], "{}"));
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{}\"\n[[key]]\nname = \"team\"\nsha256 = \"{sha256}\"\n\
         models = [\"m\"]\nlimits = {{ requests_per_minute = 2 }}\n",
        upstream.url()
    ));
    let batch = json!([{"body": {"model": "m"}}, {"body": {"model": "m"}}, {"body": {"model": "m"}}, {"body": {"model": "x"}}]);
    let (head, body) = edge.ask(&post(PATH, &[], &batch.to_string()));
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (401, "missing_api_key"));
    let mut client = edge.connect();
    client.send(post(PATH, &["Authorization: Bearer sk-team"], &batch.to_string()));
    let (mut reader, _) = Reader::of(client);
    let mut all = Vec::new();
    while all.len() < 4 {
        if let (name, data) = reader.next()
            && name == "outcome"
        {
            let outcome = told(&data);
            all.push((outcome["status"].as_u64(), outcome["retry_after_ms"].is_u64()));
        }
    }
    all.sort_unstable();
    assert_eq!(all, [(Some(200), false), (Some(200), false), (Some(403), false), (Some(429), true)]);
    reader.done();
    assert_eq!(upstream.requests().len(), 2);
    assert!(upstream.requests().iter().all(|seen| !seen.has("authorization")), "the key went further");
}

#[test]
fn a_batch_that_waits_is_kept_alive() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::heartbeat(&upstream.url(), "100ms"));
    let (mut reader, _) = Reader::begin(&edge, &json!([line("a")]));
    let (mut peer, ..) = accept(&upstream);
    for _ in 0..2 {
        assert_eq!(reader.client.read_chunk(), b":\n");
    }
    peer.send([SSE_HEAD, &event("x"), &event("[DONE]"), LAST_CHUNK].concat());
    reader.expect("0", "x");
    assert_eq!(reader.outcome(), (0, Some(200), None));
    reader.done();
}

#[test]
fn a_batch_ends_with_the_process_and_says_so() {
    let upstream = Upstream::listen();
    let mut edge = Edge::to(&upstream);
    let batch = json!({"requests": [line("a"), line("b")], "concurrency": 1});
    let (mut reader, _) = Reader::begin(&edge, &batch);
    let (mut peer, ..) = accept(&upstream);
    edge.signal(Signal::TERM);
    edge.stderr().wait_for("draining");
    wait_until("it drains", || edge.ask_admin("/readyz").0.status() == 503);
    peer.send([SSE_HEAD, &event("x"), &event("[DONE]"), LAST_CHUNK].concat());
    reader.expect("0", "x");
    assert_eq!(reader.outcome(), (0, Some(200), None));
    assert_eq!(reader.outcome(), (1, Some(503), Some("draining".to_owned())));
    reader.done().wait_closed();
    assert_eq!(edge.wait_exit().code(), Some(0));
}

#[test]
fn what_is_no_batch_is_refused_and_the_connection_goes_on() {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "ok"));
    let edge = Edge::start(&["--upstream", &upstream.url()]);
    let mut client = edge.connect();
    for body in
        ["", "{}", "[{\"body\":1}]", "[{\"body\":{},\"url\":\"/x\\r\\nA: b\"}]", "{\"requests\":[{}]}"]
    {
        client.send(post(PATH, &[], body));
        let (head, answer) = client.read_answer();
        assert_eq!((head.status(), error_code(&answer.bytes()).as_str()), (400, "invalid_batch"), "{body}");
    }
    client.send(stream_request());
    assert_eq!(client.read_answer().0.status(), 200);
    let large = format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 16777217\r\n\r\n");
    assert_eq!(edge.ask(large.as_bytes()).0.status(), 413);
    let get = format!("GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(edge.ask(get.as_bytes()).0.status(), 405);
    assert_eq!(upstream.requests().len(), 1);
    wait_until("nothing is held", || edge.metric("sedge_buffers_in_use", &[]) < 1.0);
}
