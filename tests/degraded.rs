//! When no upstream of a route answers, its fallback does, or a fixed text, and the answer says which.

mod support;

use serde_json::Value;
use support::{
    Body, Edge, End, Head, LAST_CHUNK, OUTCOMES, STREAM_BODY, Upstream, answer, chunk, error_code, post,
    relayed, stream_request,
};

const ANSWERS: &str = "sedge_degraded_answers_total";

/// Two routes: `small` leads to `a` and has these keys, `big` takes the rest to `b`.
fn config(a: &str, b: &str, small: &str) -> String {
    format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{a}\"\n\n[[upstream]]\nname = \"b\"\nurl = \"{b}\"\n\n\
         [[route]]\nname = \"small\"\nmodels = [\"m\"]\naliases = {{ alias = \"m-really\" }}\nupstreams = [\"a\"]\n{small}\n\n\
         [[route]]\nname = \"big\"\nmodels = [\"*\"]\naliases = {{ large = \"large-2\" }}\nupstreams = [\"b\"]\n"
    )
}

fn busy() -> support::upstream::Served {
    Upstream::serve(|_, _| answer("503 Busy", &["Retry-After: 9"], "busy"))
}

/// Answers with the request's body.
fn echo() -> support::upstream::Served {
    Upstream::serve(|_, body| answer("200 OK", &["Content-Type: application/json"], body.bytes()))
}

fn ask(edge: &Edge, body: &str) -> (Head, Body) {
    edge.ask(&post("/v1/chat/completions", &[], body))
}

#[test]
fn a_fallback_is_a_model_or_a_route_and_hears_its_own_name() {
    for (fallback, asked, heard) in [
        ("large", "{\"model\":\"m\",\"n\":1}", "{\"model\":\"large-2\",\"n\":1}"),
        ("other", "{\"n\":1,\"model\" : \"alias\"}", "{\"n\":1,\"model\" : \"other\"}"),
        ("big", "{\"model\":\"m\"}", "{\"model\":\"m\"}"),
        ("big", "{\"model\":\"alias\"}", "{\"model\":\"alias\"}"),
    ] {
        let (a, b) = (busy(), echo());
        let edge = Edge::configured(&config(&a.url(), &b.url(), &format!("fallback = \"{fallback}\"")));
        let (head, body) = ask(&edge, asked);
        assert_eq!((head.status(), body.text().as_str()), (200, heard), "{fallback}");
        assert_eq!(head.get("sedge-degraded"), Some("fallback"));
        assert_eq!(b.requests()[0].get("content-length"), Some(heard.len().to_string().as_str()));
        edge.wait_metric(ANSWERS, &["kind=\"fallback\""], 1.0);
        let line = edge.stdout().wait_for("\"degraded\":\"fallback\"");
        assert!(line.contains("\"tried\":\"a: 503\"") && line.contains("\"upstream\":\"b\""), "{line}");
    }
}

#[test]
fn what_succeeds_is_not_degraded() {
    let (a, b) = (echo(), echo());
    let edge = Edge::configured(&config(&a.url(), &b.url(), "fallback = \"big\"\ndegraded = \"no\""));
    let (head, _) = ask(&edge, "{\"model\":\"m\"}");
    assert_eq!((head.status(), head.get("sedge-degraded")), (200, None));
    assert!(b.requests().is_empty());
    assert!(edge.metric(ANSWERS, &[]).abs() < f64::EPSILON);
}

#[test]
fn a_fallback_that_fails_as_well_is_the_end_of_it() {
    let (a, b) = (busy(), busy());
    let toml = config(&a.url(), &b.url(), "fallback = \"big\"") + "fallback = \"small\"\n";
    let edge = Edge::configured(&toml);
    let (head, body) = ask(&edge, "{\"model\":\"m\"}");
    assert_eq!((head.status(), body.text().as_str(), head.get("retry-after")), (503, "busy", Some("9")));
    assert_eq!((a.requests().len(), b.requests().len()), (1, 1));
}

#[test]
fn a_fixed_answer_has_the_form_that_was_asked_for() {
    let (a, b) = (busy(), busy());
    let edge = Edge::configured(&config(&a.url(), &b.url(), "degraded = \"Back soon.\""));
    let (head, body) = ask(&edge, "{\"model\":\"m\"}");
    assert_eq!((head.status(), head.get("sedge-degraded")), (200, Some("static")));
    let value: Value = serde_json::from_slice(&body.bytes()).expect("JSON");
    assert_eq!(value["choices"][0]["message"]["content"], "Back soon.");
    assert_eq!((&value["model"], &value["object"]), (&"m".into(), &"chat.completion".into()));

    let (head, body) = ask(&edge, STREAM_BODY);
    assert_eq!(head.get("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!((head.get("sedge-degraded"), body.end), (Some("static"), End::Whole));
    assert!(
        body.text().contains("Back soon.") && body.text().ends_with("data: [DONE]\n\n"),
        "{}",
        body.text()
    );
    edge.wait_metric(ANSWERS, &["kind=\"static\""], 2.0);
    edge.wait_metric(OUTCOMES, &["outcome=\"degraded\""], 2.0);

    // Nobody can say an embedding in words, and `a` has asked to be left alone: that is told.
    let (head, body) = edge.ask(&post("/v1/embeddings", &[], "{\"model\":\"m\"}"));
    assert_eq!((head.status(), head.get("retry-after"), head.get("sedge-degraded")), (503, Some("9"), None));
    assert_eq!((error_code(&body.bytes()).as_str(), a.requests().len()), ("upstreams_unavailable", 1));
}

#[test]
fn an_upstream_cannot_say_for_us_that_an_answer_is_degraded() {
    let a = busy();
    let b = Upstream::serve(|_, _| answer("200 OK", &["Sedge-Degraded: static"], "{}"));
    let edge = Edge::configured(&config(&a.url(), &b.url(), "fallback = \"big\""));
    let (head, _) = ask(&edge, "{\"model\":\"m\"}");
    assert_eq!(head.get("sedge-degraded"), Some("fallback"));
}

#[test]
fn what_may_have_been_acted_upon_gets_a_fixed_answer_and_no_fallback() {
    for (keys, status) in
        [("fallback = \"big\"", 502), ("fallback = \"big\"\ndegraded = \"Back soon.\"", 200)]
    {
        let (a, b) = (Upstream::listen(), echo());
        let edge = Edge::configured(&config(&a.url(), &b.url(), keys));
        let (mut client, peer, ..) = relayed(&edge, &a, &stream_request());
        peer.reset();
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), status);
        if status == 502 {
            error_code(&body.bytes());
        }
        assert!(b.requests().is_empty());
    }
}

/// A fallback was served within the bounds of the route that had failed, or at least said so: with `first_byte = "300ms"` on the
/// route that answered the client read that it had been waited for 5 s.
#[test]
fn the_route_that_serves_decides_how_long_and_how_large() {
    let silent = Upstream::listen();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"gone\"\nurl = \"http://{gone}\"\n\n[[upstream]]\nname = \"silent\"\nurl = \"{}\"\n\n\
         [[route]]\nname = \"first\"\nmodels = [\"m\"]\nupstreams = [\"gone\"]\nfallback = \"second\"\n\
         timeouts = {{ first_byte = \"5s\", total = \"9s\" }}\n\n\
         [[route]]\nname = \"second\"\nmodels = [\"other\"]\nupstreams = [\"silent\"]\nmax_body = 1000\n\
         timeouts = {{ first_byte = \"300ms\", total = \"30s\" }}\n",
        silent.url()
    ));
    let (head, body) = edge.ask(&post("/v1/embeddings", &[], r#"{"model":"m"}"#));
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (504, "upstream_first_byte_timeout"));
    assert!(body.text().contains("within 0.300 s"), "{}", body.text());
    let mut peer = silent.accept();
    let left: u64 =
        peer.read_head().get("x-request-timeout-ms").and_then(|ms| ms.parse().ok()).expect("what is left");
    assert!(left > 9_000, "{left}: the first route's");
    // One that takes no such body is no fallback for it.
    let large = format!("{{\"model\":\"m\",\"input\":\"{}\"}}", "x".repeat(2000));
    let (head, body) = edge.ask(&post("/v1/embeddings", &[], &large));
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (502, "upstream_connect_failed"));
    // And what is too large is told by the route's own bound.
    let mut client = edge.connect();
    let head = "POST /v1/embeddings HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let large = large.replace("\"m\"", "\"other\"");
    client.send([head.as_bytes(), &chunk(&large), LAST_CHUNK].concat());
    let (head, body) = client.read_answer();
    assert_eq!(head.status(), 413);
    assert!(body.text().contains("larger than 1000 bytes"), "{}", body.text());
}
