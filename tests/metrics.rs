//! What an operator sees: every request has one outcome, gauges come back to nought, durable streams and their journal are counted,
//! health is plain text.

mod support;

use support::streams::{Events, append, close, create, directory, path, remove, request};
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

#[test]
fn durable_streams_are_counted() {
    let edge = Edge::start(&[]);
    let count = |name: &str| edge.metric(name, &[]);
    create(&edge, "a", "text/plain");
    let empty = count("sedge_durable_memory_bytes");
    let mut readers: Vec<_> = (0..3).map(|_| Events::source(&edge, &path("a"), None)).collect();
    edge.wait_metric("sedge_durable_readers", &[], 3.0);
    for text in ["one", "three"] {
        append(&edge, "a", text);
        readers.iter_mut().for_each(|reader| assert_eq!(reader.data().data, text));
    }
    edge.wait_metric("sedge_durable_deliveries_total", &[], 6.0);
    assert_eq!(count("sedge_durable_streams"), 1.0);
    assert_eq!(count("sedge_durable_appends_total"), 2.0);
    assert_eq!(count("sedge_durable_appended_bytes_total"), 8.0);
    assert!(count("sedge_durable_memory_bytes") >= empty + 8.0);
    assert!(count("sedge_durable_memory_max_bytes") > count("sedge_durable_memory_bytes"));
    assert!(!edge.metrics().contains("sedge_journal_"), "there is none");
    drop(readers.pop());
    edge.wait_metric("sedge_durable_readers", &[], 2.0);

    close(&edge, "a");
    edge.wait_metric("sedge_durable_readers", &[], 0.0);
    let (head, _) = edge.ask(&request("POST", &path("a"), &["Content-Type: text/plain"], "late"));
    assert_eq!(head.status(), 409);
    let refused = "sedge_durable_appends_refused_total";
    assert_eq!(edge.metric(refused, &["reason=\"closed\""]), 1.0);
    assert_eq!(count(refused), 1.0);
    assert_eq!(count("sedge_durable_appends_total"), 3.0, "closing is one");
    let (head, _) = edge.ask(&request("DELETE", &path("a"), &[], ""));
    assert_eq!(head.status(), 204);
    assert_eq!(count("sedge_durable_streams"), 0.0);
    assert_eq!(count("sedge_durable_memory_bytes"), 0.0);
}

#[test]
fn the_journal_is_counted() {
    let data = directory("metrics-journal");
    let edge = Edge::start(&["--data-dir", &data]);
    create(&edge, "a", "text/plain");
    let before = edge.metric("sedge_journal_written_bytes_total", &[]);
    append(&edge, "a", &"x".repeat(1000));
    let count = |name: &str| edge.metric(name, &[]);
    assert!(count("sedge_journal_written_bytes_total") >= before + 1000.0);
    assert!(count("sedge_journal_records_total") >= 2.0);
    assert!(count("sedge_journal_batches_total") >= 2.0);
    assert!(count("sedge_journal_segments") >= 1.0);
    assert!(count("sedge_journal_live_bytes") >= 1000.0);
    assert!(count("sedge_journal_bytes") >= count("sedge_journal_live_bytes"));
    assert!(count("sedge_journal_sync_seconds_count") >= 2.0, "an append is there when it is synced");
    assert_eq!(count("sedge_journal_damaged_total"), 0.0);
    drop(edge);
    remove(&data);
}
