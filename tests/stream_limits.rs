//! The limits of a key hold for durable streams as for everything else.
//!
//! 50 of 50 appends went through with `requests_per_minute = 1`, a key with `streams = 1` could follow as many streams as it
//! liked, and one key could fill `memory`, after which every durable chat of all others was refused with 503.

mod support;

use support::streams::{Events, path, request};
use support::{
    Edge, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, chunk, config, error_code, post, wait_until,
};

const TEXT: &str = "Content-Type: text/plain";

fn key(name: &str, limits: &str) -> String {
    format!("{}limits = {{ {limits} }}\n\n", config::key(name))
}

fn of(name: &str) -> String {
    format!("Authorization: Bearer sk-{name}")
}

fn status(edge: &Edge, method: &str, name: &str, fields: &[&str], body: &str) -> u16 {
    edge.ask(&request(method, &path(name), fields, body)).0.status()
}

#[test]
fn requests_by_the_minute_are_counted() {
    let edge = Edge::configured(&key("one", "requests_per_minute = 3"));
    let one = of("one");
    assert_eq!(status(&edge, "PUT", "a", &[&one, TEXT], ""), 201);
    assert_eq!(status(&edge, "POST", "a", &[&one, TEXT], "x"), 204);
    assert_eq!(status(&edge, "GET", "a", &[&one], ""), 200);
    for (method, target) in [("POST", path("a")), ("GET", path("a")), ("GET", path("__ds/subscriptions/s"))] {
        let (head, body) =
            edge.ask(&request(method, &target, &[&one, TEXT], if method == "POST" { "x" } else { "" }));
        assert_eq!(
            (head.status(), error_code(&body.bytes())),
            (429, "rate_limit_exceeded".into()),
            "{method} {target}"
        );
        assert_eq!(head.get("x-ratelimit-limit-requests"), Some("3"), "{head:?}");
        assert!(head.has("retry-after"), "{head:?}");
    }
}

#[test]
fn a_reader_is_a_stream_as_long_as_it_reads() {
    let edge = Edge::configured(&key("one", "streams = 1"));
    let one = of("one");
    assert_eq!(status(&edge, "PUT", "a", &[&one, TEXT], "x"), 201);
    let mut reader = Events::open(&edge, &path("a"), &["Accept: text/event-stream", &one]);
    assert_eq!(reader.next().data, "x");
    assert_eq!(status(&edge, "GET", "a", &[&one], ""), 429);
    drop(reader);
    wait_until("its place is free", || status(&edge, "GET", "a", &[&one], "") == 200);
}

/// Appends until it is refused, each time to another stream; how many bytes were taken, and the status that ended it.
fn fill(edge: &Edge, key: &str, part: usize) -> (usize, u16) {
    let (text, mut taken) = ("x".repeat(part), 0);
    for n in 0.. {
        match status(edge, "PUT", &format!("{key}/{n}"), &[&of(key), TEXT], &text) {
            201 => taken += part,
            status => return (taken, status),
        }
    }
    unreachable!("streams have a bound")
}

#[test]
fn one_key_leaves_room_for_the_others() {
    const MEMORY: usize = 4 << 20;
    let upstream = Upstream::listen();
    let streams = format!(
        "[streams]\nmemory = {MEMORY}\n\n[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n",
        upstream.url()
    );
    let edge = Edge::configured(&format!("{streams}{}{}", key("one", ""), key("two", "")));
    let (taken, ended) = fill(&edge, "one", 64 << 10);
    assert_eq!(ended, 507);
    assert!((MEMORY * 4 / 10..=MEMORY / 2).contains(&taken), "{taken}");
    let (taken, ended) = fill(&edge, "two", 64 << 10);
    assert_eq!(ended, 507);
    assert!((MEMORY / 5..=MEMORY / 4).contains(&taken), "{taken}");
    // What it has given up can be used again.
    assert_eq!(status(&edge, "DELETE", "two/0", &[&of("two")], ""), 204);
    assert_eq!(status(&edge, "PUT", "two/0", &[&of("two"), TEXT], "x"), 201);
}

#[test]
fn a_quota_holds_over_a_restart() {
    let data = support::streams::directory("quota");
    let toml = key("one", "stream_bytes = \"128KiB\"");
    let edge = Edge::configured_with(&toml, &["--data-dir", &data]);
    let (taken, ended) = fill(&edge, "one", 16 << 10);
    assert_eq!((ended, taken), (507, 7 * (16 << 10)));
    let append = |edge: &Edge, text: &str| status(edge, "POST", "one/0", &[&of("one"), TEXT], text);
    assert_eq!(append(&edge, &"x".repeat(16 << 10)), 507);
    drop(edge);
    let edge = Edge::configured_with(&toml, &["--data-dir", &data]);
    assert_eq!(append(&edge, &"x".repeat(16 << 10)), 507);
    assert_eq!(append(&edge, "x"), 204);
    drop(edge);
    support::streams::remove(&data);
}

#[test]
fn a_chat_that_cannot_be_kept_goes_on_without() {
    let upstream = Upstream::listen();
    let toml =
        format!("[streams]\nmax_streams = 1\n\n[[upstream]]\nname = \"a\"\nurl = \"{}\"\n", upstream.url());
    let edge = Edge::configured(&toml);
    assert_eq!(status(&edge, "PUT", "a", &[TEXT], ""), 201);
    let mut client = edge.connect();
    client.send(post("/v1/chat/completions", &["Sedge-Durable: true"], STREAM_BODY));
    let mut peer = upstream.accept();
    let head = peer.read_head();
    peer.read_request_body(&head);
    peer.send(SSE_HEAD);
    let head = client.read_head();
    assert_eq!((head.status(), head.get("sedge-durable")), (200, Some("off; reason=full")), "{head:?}");
    assert!(!head.has("location"), "{head:?}");
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
    client.read_last_chunk();
    edge.wait_metric("sedge_answers_not_kept_total", &[], 1.0);
}
