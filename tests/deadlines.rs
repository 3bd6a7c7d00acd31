//! A request's time goes with it: each upstream is told what is left, another attempt gets no more, and nothing is started
//! that cannot finish.

mod support;

use support::{
    Edge, End, Head, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, answer, chunk, error_code, get, post,
    relayed,
};

const TOTAL: &str = "x-request-timeout-ms";
const STAINLESS: &str = "x-stainless-timeout";

fn left(head: &Head, name: &str) -> u64 {
    let value = head.get(name).unwrap_or_else(|| panic!("no {name} in {head:?}"));
    value.parse().unwrap_or_else(|_| panic!("{name}: {value:?}"))
}

fn retrying(upstream: &Upstream) -> Edge {
    Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n\
         [[route]]\nretry = {{ attempts = 2, backoff_ms = 1, max_backoff_ms = 60000 }}\n",
        upstream.url()
    ))
}

#[test]
fn an_upstream_is_told_what_is_left() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    for (fields, most) in [(&[][..], 3_600_000), (&["X-Request-Timeout-Ms: 15000"][..], 15_000)] {
        let (_client, _peer, head, _) = relayed(&edge, &upstream, &post("/v1/embeddings", fields, "{}"));
        let told = left(&head, TOTAL);
        assert!(told <= most && told > most - 10_000, "{told} of {most}");
        assert!(!head.has(STAINLESS), "{head:?}");
    }
}

#[test]
fn the_sdks_own_timeout_is_understood() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    // To an answer that is no stream it is the limit on all of it; to a stream, on its beginning.
    let (_client, _peer, head, _) = relayed(
        &edge,
        &upstream,
        &post("/v1/chat/completions", &["X-Stainless-Timeout: 20"], "{\"model\":\"m\"}"),
    );
    assert!((10_000..=20_000).contains(&left(&head, TOTAL)), "{head:?}");
    assert!((10..=20).contains(&left(&head, STAINLESS)), "{head:?}");
    let (_client, _peer, head, _) =
        relayed(&edge, &upstream, &post("/v1/chat/completions", &["X-Stainless-Timeout: 20"], STREAM_BODY));
    assert!(left(&head, TOTAL) > 20_000, "{head:?}");
    assert!((10..=20).contains(&left(&head, STAINLESS)), "{head:?}");
    // What is not a number is nothing to us, and passes.
    let (_client, _peer, head, _) = relayed(
        &edge,
        &upstream,
        &get("/v1/files", &["X-Stainless-Timeout: soon", "X-Request-Timeout-Ms: -1"]),
    );
    assert_eq!(head.get(STAINLESS), Some("soon"));
    assert!(left(&head, TOTAL) > 20_000, "{head:?}");
}

#[test]
fn the_sdks_own_timeout_ends_a_wait_and_no_stream() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let request = post("/v1/chat/completions", &["X-Stainless-Timeout: 1.5"], STREAM_BODY);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &request);
    peer.send(SSE_HEAD);
    let head = client.read_head();

    // A wait that begins later ends first.
    let (mut late, mut silent, ..) = relayed(&edge, &upstream, &request);
    let (refusal, body) = late.read_answer();
    assert_eq!((refusal.status(), error_code(&body.bytes()).as_str()), (504, "upstream_total_timeout"));
    assert!(body.text().contains("1.500 s"), "{}", body.text());
    silent.wait_closed();
    edge.settle();
    assert!(client.is_silent());
    peer.send([chunk("data: a\n\ndata: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    let body = client.read_body(&head);
    assert_eq!((body.text().as_str(), body.end), ("data: a\n\ndata: [DONE]\n\n", End::Whole));
}

#[test]
fn another_attempt_gets_what_is_left() {
    let upstream = Upstream::listen();
    let edge = retrying(&upstream);
    let request = post("/v1/embeddings", &["X-Request-Timeout-Ms: 15000"], "{}");
    let (mut client, mut peer, head, _) = relayed(&edge, &upstream, &request);
    let first = left(&head, TOTAL);
    peer.send(answer("429 Slow", &["Retry-After-Ms: 300", "Connection: close"], ""));
    let mut peer = upstream.accept();
    let second = left(&peer.read_head(), TOTAL);
    assert!(second + 250 <= first, "{first} and then {second}");
    peer.send(answer("200 OK", &[], "{}"));
    assert_eq!(client.read_answer().0.status(), 200);
}

#[test]
fn nothing_is_started_that_cannot_finish() {
    let upstream = Upstream::listen();
    let edge = retrying(&upstream);
    let request = post("/v1/embeddings", &["X-Request-Timeout-Ms: 15000"], "{}");
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &request);
    peer.send(answer("429 Slow", &["Retry-After: 16"], ""));
    let (head, _) = client.read_answer();
    assert_eq!((head.status(), head.get("retry-after")), (429, Some("16")));
    edge.wait_metric("sedge_upstream_retries_withheld_total", &["reason=\"time\""], 1.0);
}
