//! What an operator sees: every request has one outcome, gauges come back to nought, health is plain text.

mod support;

use support::{Edge, LAST_CHUNK, OUTCOMES, Upstream, answer, chunk, get, post, stream_request, streaming};

#[test]
fn health_is_plain_text_on_both_listeners() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    for path in ["/livez", "/readyz", "/healthz"] {
        for (head, body) in [edge.ask(&get(path, &[])), edge.ask_admin(path)] {
            assert_eq!(head.status(), 200, "{path}");
            assert!(head.get("content-type").is_some_and(|t| t.starts_with("text/plain")), "{head:?}");
            assert!(!body.bytes().is_empty());
        }
    }
}

#[test]
fn metrics_are_the_admins_alone() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    assert_eq!(edge.ask(&get("/metrics", &[])).0.status(), 404);
    let (head, body) = edge.ask_admin("/metrics");
    assert_eq!(head.status(), 200);
    assert!(head.get("content-type").is_some_and(|t| t.starts_with("text/plain")), "{head:?}");
    assert!(body.text().contains("# TYPE sedge_"), "{}", body.text());
}

#[test]
fn the_simulator_says_so_in_readyz() {
    let edge = Edge::start(&[]);
    assert!(edge.stderr().all()[0].contains("simulator"), "{:?}", edge.stderr().all());
    assert!(edge.ask_admin("/readyz").1.text().contains("simulator"));
    let (head, body) = edge.ask(&stream_request());
    assert_eq!(head.get("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(body.text().ends_with("data: [DONE]\n\n"), "{}", body.text());
}

#[test]
fn every_request_has_one_outcome() {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let edge = Edge::start(&["--upstream", &upstream.url()]);
    let mut client = edge.connect();
    for _ in 0..7 {
        client.send(post("/v1/embeddings", &[], r#"{"model":"m"}"#));
        assert_eq!(client.read_answer().0.status(), 200);
    }
    client.send(get("/nowhere", &[]));
    assert_eq!(client.read_answer().0.status(), 404);
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 7.0);
    edge.wait_metric(OUTCOMES, &["outcome=\"refused\""], 1.0);
}

#[test]
fn gauges_rise_with_a_stream_and_fall_with_its_end() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    edge.wait_metric(support::STREAMS, &[], 1.0);
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    client.read_chunk();
    client.read_last_chunk();
    edge.wait_metric(support::STREAMS, &[], 0.0);
}
