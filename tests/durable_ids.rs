//! A client that names its durable response finds it again, whenever it comes back.
//!
//! The stream of a durable response was there only once its upstream had answered: a page that was loaded again before the first
//! token had no address to come back to, and its request was cancelled with its connection.

mod support;

use support::config::key;
use support::redis::Redis;
use support::streams::{Events, path, request};
use support::{
    Body, Edge, Head, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, Wire, answer, chunk, error_code, get,
    post, wait_until,
};

const EVENT: &str = "data: {\"n\":1}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A request for a response of that name, as it is at its upstream.
fn asked(edge: &Edge, upstream: &Upstream, id: &str) -> (Wire, Wire) {
    let mut client = edge.connect();
    client.send(post("/v1/chat/completions", &[&format!("Sedge-Durable: {id}")], STREAM_BODY));
    let mut peer = upstream.accept();
    let head = peer.read_head();
    assert!(!head.has("sedge-durable"), "{head:?}");
    peer.read_request_body(&head);
    (client, peer)
}

/// What there is of it: a GET that says nothing else would stream what is yet to come.
fn read(edge: &Edge, id: &str) -> (Head, Body) {
    edge.ask(&get(&format!("{}?offset=-1", path(id)), &["Connection: close"]))
}

/// What there is of it, once it is closed.
fn whole(edge: &Edge, id: &str) -> String {
    wait_until("the stream is closed", || read(edge, id).0.has("stream-closed"));
    read(edge, id).1.text()
}

fn survives_a_reload(of: &Edge, by: &Edge, upstream: &Upstream) {
    let (client, mut peer) = asked(of, upstream, "chat-1");
    // Nothing has been answered, and whoever knows the name waits.
    let (head, body) = read(by, "chat-1");
    assert_eq!((head.status(), body.text(), head.has("stream-closed")), (200, String::new(), false));
    let mut reader = by.connect();
    reader.send(get(&path("chat-1"), &["Accept: text/event-stream"]));
    assert_eq!(reader.read_head().status(), 200);
    client.close();
    of.wait_metric("sedge_answers_abandoned_total", &[], 1.0);
    peer.send([SSE_HEAD.to_vec(), chunk(EVENT), chunk(DONE), LAST_CHUNK.to_vec()].concat());
    assert_eq!(whole(by, "chat-1"), [EVENT, DONE].concat());
    let mut told = String::new();
    while !told.contains("[DONE]") {
        told += &String::from_utf8(reader.read_chunk()).expect("text");
    }
    assert!(told.contains("\"n\":1"), "{told}");
}

#[test]
fn a_reload_before_the_first_token_loses_nothing() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    survives_a_reload(&edge, &edge, &upstream);
}

#[test]
fn nor_does_it_at_another_node() {
    let (redis, upstream) = (Redis::start(), Upstream::listen());
    let toml = format!("[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n{}", upstream.url(), redis.config());
    let (a, b) = (Edge::configured(&toml), Edge::configured(&toml));
    survives_a_reload(&a, &b, &upstream);
}

#[test]
fn a_client_that_stays_gets_the_response_and_its_address() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer) = asked(&edge, &upstream, "chat-1");
    peer.send([SSE_HEAD.to_vec(), chunk(EVENT), chunk(DONE), LAST_CHUNK.to_vec()].concat());
    let head = client.read_head();
    assert_eq!((head.status(), head.get("location")), (200, Some("/v1/stream/chat-1")), "{head:?}");
    assert!(head.has("stream-next-offset"), "{head:?}");
    assert_eq!(client.read_chunks(EVENT.len() + DONE.len()), [EVENT, DONE].concat().as_bytes());
    // Another request of that name is not another response.
    let again = post("/v1/chat/completions", &["Sedge-Durable: chat-1"], STREAM_BODY);
    let (head, body) = edge.ask(&again);
    assert_eq!((head.status(), error_code(&body.bytes())), (409, "durable_id_taken".into()));
    assert_eq!(
        (head.get("location"), head.get("x-should-retry")),
        (Some("/v1/stream/chat-1"), Some("false"))
    );
    assert_eq!(whole(&edge, "chat-1"), [EVENT, DONE].concat());
}

#[test]
fn a_request_that_came_to_nothing_says_so_and_may_be_sent_again() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer) = asked(&edge, &upstream, "chat-1");
    let mut reader = Events::source(&edge, &path("chat-1"), None);
    peer.send(answer(
        "429 Too Many Requests",
        &["Content-Type: application/json", "Connection: close"],
        "{}",
    ));
    let (head, _) = client.read_answer();
    assert_eq!((head.status(), head.has("location")), (429, false));
    assert_eq!(error_code(reader.next().data.as_bytes()), "upstream_error");
    let kept = whole(&edge, "chat-1");
    assert!(kept.starts_with("data: {\"error\":"), "{kept}");
    // As SDKs do after a 429.
    let (_client, mut peer) = asked(&edge, &upstream, "chat-1");
    assert!(!read(&edge, "chat-1").0.has("stream-closed"));
    peer.send([SSE_HEAD.to_vec(), chunk(DONE), LAST_CHUNK.to_vec()].concat());
    assert_eq!(whole(&edge, "chat-1"), DONE);
}

#[test]
fn ending_the_stream_before_the_head_stops_the_upstream() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    for (method, fields, code) in
        [("POST", &["Stream-Closed: true"][..], "response_stopped"), ("DELETE", &[], "answer_deleted")]
    {
        let (mut client, mut peer) = asked(&edge, &upstream, "chat-1");
        assert_eq!(edge.ask(&request(method, &path("chat-1"), fields, "")).0.status(), 204, "{method}");
        peer.wait_closed();
        let (head, body) = client.read_answer();
        assert_eq!((head.status(), error_code(&body.bytes())), (409, code.into()));
    }
}

#[test]
fn ids_are_checked_and_belong_to_their_key() {
    let edge = Edge::configured(&(key("one") + &key("other")));
    let of = |name: &str| format!("Authorization: Bearer sk-{name}");
    let ask = |key: &str, id: &str| {
        let id = format!("Sedge-Durable: {id}");
        edge.ask(&post("/v1/chat/completions", &[&of(key), &id], STREAM_BODY))
    };
    for wrong in ["a/b", "a b", "..", "__ds", "\u{e4}", &"a".repeat(129)] {
        let (head, body) = ask("one", wrong);
        assert_eq!((head.status(), error_code(&body.bytes())), (400, "invalid_durable_id".into()), "{wrong}");
    }
    assert_eq!(ask("one", "mine").0.status(), 200);
    assert_eq!(ask("other", "mine").0.status(), 409);
    assert_eq!(edge.ask(&get(&path("mine?offset=-1"), &[&of("other")])).0.status(), 404);
    assert_eq!(edge.ask(&get(&path("mine?offset=-1"), &[&of("one")])).0.status(), 200);
}
