//! The head of a response is not its beginning: servers send it before the model has begun. Balancing, breakers, limits, hedges and
//! metrics that took the head for the first token sent 13 of 14 requests to the slower of two upstreams, the one that answered its
//! head at once and took its time for the rest.

#![allow(
    clippy::disallowed_methods,
    reason = "the bans are for the edge's data path; this is the other side of the wire"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::{
    Edge, LAST_CHUNK, SSE_HEAD, Upstream, answer, chunk, get, post, relayed, stream_request, streaming,
};

const TTFT: &str = "sedge_time_to_first_token_seconds_count";
const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
const WORD: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// An upstream that streams: its head after one pause, and its first word after another. Says how often it was asked.
fn streams(head_ms: u64, word_ms: u64) -> (String, Arc<AtomicUsize>) {
    let upstream = Upstream::listen();
    let url = upstream.url();
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        loop {
            let mut peer = upstream.accept_within(Duration::from_secs(120));
            let count = Arc::clone(&count);
            thread::spawn(move || {
                while let Ok(head) = peer.try_read_head() {
                    peer.read_request_body(&head);
                    count.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(head_ms));
                    let begun = peer.try_send([SSE_HEAD, &chunk(ROLE)].concat());
                    thread::sleep(Duration::from_millis(word_ms));
                    let said = peer.try_send([&chunk(WORD), &chunk(DONE), LAST_CHUNK].concat());
                    if begun.is_err() || said.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, asked)
}

fn config(upstreams: &[(&str, &str)], route: &str) -> String {
    let tables = upstreams
        .iter()
        .zip('a'..)
        .map(|((url, keys), name)| format!("[[upstream]]\nname = \"{name}\"\nurl = \"{url}\"\n{keys}\n\n"));
    tables.collect::<String>() + &format!("[[route]]\nname = \"r\"\n{route}\n")
}

#[test]
fn the_one_whose_first_word_comes_sooner_gets_more() {
    let (early_head, asked_early) = streams(0, 300);
    let (early_word, asked_late) = streams(30, 0);
    let edge = Edge::configured(&config(&[(&early_head, ""), (&early_word, "")], ""));
    for _ in 0..14 {
        let (head, body) = edge.ask(&stream_request());
        assert_eq!((head.status(), body.text()), (200, [ROLE, WORD, DONE].concat()));
    }
    let (early, late) = (asked_early.load(Ordering::SeqCst), asked_late.load(Ordering::SeqCst));
    assert!(late >= 10, "{early} requests went to the slower one, {late} to the faster");
}

#[test]
fn a_slow_first_word_is_slow_and_a_slow_document_is_not() {
    let (slow, asked_slow) = streams(0, 300);
    let (fast, _) = streams(0, 0);
    let breaker =
        "breaker = { slow = \"200ms\", min_calls = 2, cool_down = \"60s\", max_cool_down = \"60s\" }";
    let edge = Edge::configured(&config(&[(&slow, breaker), (&fast, "")], "balance = \"first\""));
    for _ in 0..5 {
        edge.ask(&stream_request());
    }
    assert_eq!(asked_slow.load(Ordering::SeqCst), 2, "then it was left alone");
    assert!(edge.metric("sedge_upstream_opens_total", &["upstream=\"a\"", "reason=\"slow\""]) > 0.0);

    // One whose streams are fast takes as long for a document as that is long.
    let served = Upstream::serve(|_, body| {
        if body.text().contains("\"stream\":true") {
            return [SSE_HEAD, &chunk(WORD), &chunk(DONE), LAST_CHUNK].concat();
        }
        thread::sleep(Duration::from_millis(300));
        answer("200 OK", &["Content-Type: application/json"], "{}")
    });
    let edge = Edge::configured(&config(&[(&served.url(), breaker), (&fast, "")], "balance = \"first\""));
    edge.ask(&stream_request());
    for _ in 0..4 {
        let (_, body) = edge.ask(&post("/v1/chat/completions", &[], "{\"model\":\"m\"}"));
        assert_eq!(body.text(), "{}");
    }
    assert_eq!(served.requests().len(), 5);
}

#[test]
fn a_limit_of_concurrency_learns_from_the_first_word() {
    let (slow, _) = streams(0, 300);
    let concurrency = "concurrency = { latency = \"100ms\" }";
    let edge = Edge::configured(&config(&[(&slow, concurrency)], ""));
    edge.ask(&stream_request());
    assert!(edge.metric("sedge_upstream_concurrency_limit", &["upstream=\"a\""]) < 16.0);
}

#[test]
fn the_metric_counts_first_words_and_nothing_else() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    peer.send([chunk(": hello\n\n"), chunk(ROLE)].concat());
    client.read_chunks(ROLE.len() + 9);
    peer.send([&chunk(WORD), &chunk(DONE), LAST_CHUNK].concat());
    client.read_body(&head);
    edge.wait_metric(TTFT, &[], 1.0);
    let line = edge.stdout().wait_for("\"first_token_ms\"");
    assert!(line.contains("\"first_byte_ms\""), "{line}");
    let first = |key: &str| {
        let value: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        value[key].as_f64().expect("a time")
    };
    assert!(first("first_token_ms") > first("first_byte_ms"), "{line}");

    // A document, an error, a stream that says nothing but an error, and one that says nothing.
    let error = "data: {\"error\":{\"message\":\"no\"}}\n\n";
    for (request, wire) in [
        (post("/v1/embeddings", &[], "{}"), answer("200 OK", &["Content-Type: application/json"], "{}")),
        (stream_request(), answer("429 Slow", &["Content-Type: application/json"], "{\"error\":{}}")),
        (stream_request(), [SSE_HEAD, &chunk(ROLE), &chunk(error), LAST_CHUNK].concat()),
        (get("/v1/events", &[]), [SSE_HEAD, &chunk(": nothing\n\n"), LAST_CHUNK].concat()),
    ] {
        client = edge.connect();
        client.send(request);
        let head = peer.read_head();
        peer.read_request_body(&head);
        peer.send(wire);
        client.read_answer();
    }
    edge.wait_metric("sedge_request_duration_seconds_count", &[], 5.0);
    assert!((edge.metric(TTFT, &[]) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn the_time_between_tokens_begins_with_the_first() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    for event in [ROLE, WORD, WORD] {
        peer.send(chunk(event));
        assert_eq!(client.read_chunk(), event.as_bytes());
    }
    let between = edge.metric("sedge_time_per_output_token_seconds_count", &[]);
    assert!((between - 1.0).abs() < f64::EPSILON, "{between}");
    drop(relayed(&edge, &upstream, &stream_request()));
}
