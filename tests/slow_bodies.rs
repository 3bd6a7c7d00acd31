//! A client that sends its bodies slowly holds nobody up but itself. Bodies were held before anyone had asked whose they were:
//! 64 half-sent uploads of one key took all of `stream_memory`, and each of the 66 requests that another key sent meanwhile got
//! 503. Now a key's seat is taken before its body is waited for, and no client's bodies hold more than is still free.

mod support;

use std::time::Duration;

use ring::digest::{SHA256, digest};
use support::limits::{REMAINING, ok};
use support::{Edge, LAST_CHUNK, STREAM_BODY, Upstream, Wire, chunk, error_code, post, wait_until};

/// The least that can be configured, in blocks of 16 KiB.
const STREAM_MEMORY: usize = 1 << 20;
const BLOCKS: usize = STREAM_MEMORY / (16 * 1024);

fn sha256(secret: &str) -> String {
    digest(&SHA256, secret.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn edge(url: &str, slow: &str) -> Edge {
    Edge::configured(&format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{url}\"\n\n[limits]\nstream_memory = {STREAM_MEMORY}\n\n\
         [[key]]\nname = \"slow\"\nsha256 = \"{}\"\n{slow}\n\n[[key]]\nname = \"other\"\nsha256 = \"{}\"\n",
        sha256("sk-slow"),
        sha256("sk-other")
    ))
}

fn request(key: &str, body: &str) -> Vec<u8> {
    post("/v1/chat/completions", &[&format!("Authorization: Bearer sk-{key}")], body)
}

/// A request whose body stops in its middle.
fn half(key: &str) -> Vec<u8> {
    let body = format!("{{\"model\":\"m\",\"messages\":[\"{}\"]}}", "x".repeat(8000));
    let whole = request(key, &body);
    whole[..whole.len() - 4000].to_vec()
}

fn has_answer(client: &mut Wire) -> bool {
    !client.silent_for(Duration::from_millis(1))
}

/// Half-sent uploads until they are refused; those that are held, and the refusal's status.
fn fill(edge: &Edge, upload: &[u8]) -> (Vec<Wire>, u16) {
    let mut held: Vec<Wire> = Vec::new();
    for count in 1..=2 * BLOCKS {
        let mut client = edge.connect();
        client.send(upload);
        // It holds its block, or it is refused.
        wait_until("it is one or the other", || {
            has_answer(&mut client) || edge.metric("sedge_buffers_in_use", &[]) >= count as f64
        });
        if has_answer(&mut client) {
            return (held, client.read_answer().0.status());
        }
        held.push(client);
    }
    panic!("{} half-sent uploads, and no end", held.len());
}

#[test]
fn half_sent_uploads_of_one_key_leave_room_for_others() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = edge(&upstream.url(), "");
    let (held, status) = fill(&edge, &half("slow"));
    // Half of the memory, since no more may be held than is still free.
    assert_eq!(status, 429);
    assert!((BLOCKS / 2 - 2..=BLOCKS / 2 + 2).contains(&held.len()), "{} of {BLOCKS}", held.len());
    for _ in 0..66 {
        let (head, body) = edge.ask(&request("other", STREAM_BODY));
        assert_eq!(head.status(), 200, "{}", body.text());
    }
    // Not only those that come in one piece.
    let (others, _) = fill_some(&edge, &half("other"), BLOCKS / 8);
    assert_eq!(others.len(), BLOCKS / 8);
    // And the slow key itself is served where it sends as others do.
    assert_eq!(edge.ask(&request("slow", STREAM_BODY)).0.status(), 200);
    edge.wait_metric("sedge_bodies_over_share_total", &[], 1.0);
    drop((held, others));
    edge.wait_metric("sedge_buffers_in_use", &[], 0.0);
    assert!(fill_some(&edge, &half("slow"), 8).0.len() == 8, "what was held came back");
}

fn fill_some(edge: &Edge, upload: &[u8], count: usize) -> (Vec<Wire>, f64) {
    let before = edge.metric("sedge_buffers_in_use", &[]);
    let held: Vec<Wire> = (0..count)
        .map(|_| {
            let mut client = edge.connect();
            client.send(upload);
            client
        })
        .collect();
    edge.wait_metric("sedge_buffers_in_use", &[], before + count as f64);
    (held, before)
}

/// What a client is told, and that it may come again.
#[test]
fn who_holds_too_much_is_told_to_send_fewer() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = edge(&upstream.url(), "");
    let (held, _) = fill(&edge, &half("slow"));
    let mut client = edge.connect();
    client.send(half("slow"));
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), head.get("retry-after")), (429, Some("1")), "{head:?}");
    assert_eq!(error_code(&body.bytes()), "too_many_bodies");
    let line = edge.stdout().wait_for("too_many_bodies");
    assert!(line.contains("\"key\":\"slow\""), "{line}");
    drop(held);
}

#[test]
fn without_keys_an_address_has_its_share() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = Edge::configured(&format!(
        "trusted_proxies = [\"127.0.0.1\"]\n\n[[upstream]]\nname = \"u\"\nurl = \"{}\"\n\n[limits]\nstream_memory = {STREAM_MEMORY}\n",
        upstream.url()
    ));
    let from = |address: &str, body: &str| {
        post("/v1/chat/completions", &[&format!("X-Forwarded-For: {address}")], body)
    };
    let body = format!("{{\"messages\":[\"{}\"]}}", "x".repeat(8000));
    let half = |address: &str| {
        let whole = from(address, &body);
        whole[..whole.len() - 4000].to_vec()
    };
    let (_held, status) = fill(&edge, &half("192.0.2.1"));
    assert_eq!(status, 429);
    let (_others, _) = fill_some(&edge, &half("192.0.2.2"), BLOCKS / 8);
    assert_eq!(edge.ask(&from("192.0.2.3", STREAM_BODY)).0.status(), 200);
}

/// Twenty uploads that never ended took no seat of a key that may have two requests at a time.
#[test]
fn a_keys_seat_is_taken_before_its_body_is_waited_for() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = edge(&upstream.url(), "limits = { streams = 2, requests_per_minute = 1000 }");
    let free = &["scope=\"key\"", "name=\"slow\"", "limit=\"streams\""];
    let mut held: Vec<Wire> = (0..2)
        .map(|_| {
            let mut client = edge.connect();
            client.send(half("slow"));
            client
        })
        .collect();
    edge.wait_metric(REMAINING, free, 0.0);
    for wire in [half("slow"), request("slow", STREAM_BODY)] {
        let mut client = edge.connect();
        client.send(wire);
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 429, "{}", body.text());
        assert!(body.text().contains("requests at once"), "{}", body.text());
    }
    // A body that is awaited with 100 Continue is not asked for.
    let mut client = edge.connect();
    let body = "Authorization: Bearer sk-slow\r\nContent-Type: application/json\r\nContent-Length: 9000";
    client.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\n{body}\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(client.read_head().status(), 429);
    // Whoever leaves gives its seat back; whoever goes on is served.
    held.pop();
    edge.wait_metric(REMAINING, free, 1.0);
    let mut client = held.pop().expect("the other");
    client.send("x".repeat(3997) + "\"]}");
    assert_eq!(client.read_answer().0.status(), 200);
    edge.wait_metric(REMAINING, free, 2.0);
}

/// A request that is refused takes nothing, whether that is seen before its body or after it.
#[test]
fn what_is_refused_after_its_body_takes_nothing() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = edge(
        &upstream.url(),
        "models = [\"m\"]\nlimits = { requests_per_minute = 2, streams = 5, max_tokens = 10 }",
    );
    for body in [r#"{"model":"x"}"#, r#"{"model":"m","model":"m"}"#, r#"{"model":"m","max_tokens":11}"#, "[]"]
    {
        let (head, _) = edge.ask(&request("slow", body));
        assert!(matches!(head.status(), 400 | 403), "{body}: {head:?}");
    }
    let of = |limit| ["scope=\"key\"", "name=\"slow\"", limit];
    edge.wait_metric(REMAINING, &of("limit=\"requests\""), 2.0);
    edge.wait_metric(REMAINING, &of("limit=\"streams\""), 5.0);
    // In chunks as well.
    let mut client = edge.connect();
    client.send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer sk-slow\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    client.send([chunk("{\"model\":"), chunk("\"x\"}"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_answer().0.status(), 403);
    edge.wait_metric(REMAINING, &of("limit=\"requests\""), 2.0);
}
