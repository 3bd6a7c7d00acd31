//! A stream belongs to the key that has made it.
//!
//! Every key could delete every other key's streams and append to them, and whoever could read a kept response could append to
//! it: a reader of a chat could put words into the model's mouth, and any key of the house could end the streams of all
//! others. Found by asking with a second key: POST and DELETE were answered 204.

mod support;

use rustix::process::Signal;
use support::config::key;
use support::kept::{Begun, begin_on};
use support::redis::Redis;
use support::streams::{directory, path, remove, request};
use support::{Body, Edge, Head, LAST_CHUNK, STREAM_BODY, Upstream, chunk, error_code, post};

const ONE: &str = "Authorization: Bearer sk-one";
const OTHER: &str = "Authorization: Bearer sk-other";
const TEXT: &str = "Content-Type: text/plain";

fn keys(more: &str) -> String {
    format!("{more}\n{}{}", key("one"), key("other"))
}

fn ask(edge: &Edge, method: &str, target: &str, fields: &[&str], body: &str) -> (Head, Body) {
    edge.ask(&request(method, target, fields, body))
}

fn status(edge: &Edge, method: &str, name: &str, fields: &[&str], body: &str) -> u16 {
    ask(edge, method, &path(name), fields, body).0.status()
}

/// Another key may do nothing with it, and its own key everything.
fn belongs_to_one(edge: &Edge, name: &str) {
    for (method, fields, body) in [
        ("GET", &[OTHER][..], ""),
        ("GET", &[OTHER, "Accept: text/event-stream"], ""),
        ("POST", &[OTHER, TEXT], "forged"),
        ("POST", &[OTHER, "Stream-Closed: true"], ""),
        ("DELETE", &[OTHER], ""),
        ("PUT", &[OTHER, TEXT], ""),
    ] {
        let (head, body) = ask(edge, method, &path(name), fields, body);
        assert_eq!(head.status(), 403, "{method} {fields:?}: {head:?}");
        assert_eq!(error_code(&body.bytes()), "stream_of_another_key", "{method}");
    }
    let mut wire = edge.connect();
    wire.send(request("HEAD", &path(name), &[OTHER], ""));
    assert_eq!(wire.read_head().status(), 403);
    let source = format!("Stream-Forked-From: {}", path(name));
    assert_eq!(status(edge, "PUT", "fork", &[OTHER, &source], ""), 403);
    let both = format!("/v1/stream?name={name}&name={name}");
    assert_eq!(ask(edge, "GET", &both, &[OTHER], "").0.status(), 403);
    assert_eq!(status(edge, "POST", name, &[ONE, TEXT], "mine "), 204);
    assert_eq!(ask(edge, "GET", &path(name), &[ONE], "").1.text(), "mine ");
}

#[test]
fn another_key_may_do_nothing_with_a_stream() {
    let upstream = Upstream::listen();
    let edge =
        Edge::configured(&keys(&format!("[[upstream]]\nname = \"a\"\nurl = \"{}\"\n", upstream.url())));
    assert_eq!(status(&edge, "PUT", "notes", &[ONE, TEXT], ""), 201);
    assert_eq!(status(&edge, "PUT", "notes", &[ONE, TEXT], ""), 200, "the same again");
    belongs_to_one(&edge, "notes");
    // Its own forks are its own as well.
    assert_eq!(status(&edge, "PUT", "fork", &[ONE, "Stream-Forked-From: /v1/stream/notes"], ""), 201);
    assert_eq!(status(&edge, "GET", "fork", &[OTHER], ""), 403);
    assert_eq!(status(&edge, "DELETE", "notes", &[ONE], ""), 204);
    // Deleted, and kept for its fork: still nobody else's business.
    assert_eq!(status(&edge, "GET", "notes", &[ONE], ""), 410);
    assert_eq!(status(&edge, "GET", "notes", &[OTHER], ""), 403);
    assert_eq!(status(&edge, "GET", "nothing", &[OTHER], ""), 404);
}

#[test]
fn a_batch_is_no_way_around() {
    let edge = Edge::configured(&keys(""));
    assert_eq!(status(&edge, "PUT", "notes", &[ONE, TEXT], ""), 201);
    let batch = r#"{"requests":[{"url":"/v1/stream/notes","body":{"forged":1}}]}"#;
    let (head, body) = edge.ask(&post("/v1/sedge/batch", &[OTHER, "Connection: close"], batch));
    assert_eq!(head.status(), 200);
    assert!(body.text().contains("\"status\":403"), "{}", body.text());
}

#[test]
fn what_the_configuration_shares_is_every_keys() {
    let edge = Edge::configured(&keys("[streams]\nshared = [\"news/*\"]\n"));
    assert_eq!(status(&edge, "PUT", "news/today", &[ONE, TEXT], ""), 201);
    assert_eq!(status(&edge, "PUT", "news/today", &[OTHER, TEXT], ""), 200);
    assert_eq!(status(&edge, "POST", "news/today", &[OTHER, TEXT], "theirs"), 204);
    assert_eq!(ask(&edge, "GET", &path("news/today"), &[OTHER], "").1.text(), "theirs");
    assert_eq!(status(&edge, "PUT", "news/a/b", &[ONE, TEXT], ""), 201);
    assert_eq!(status(&edge, "GET", "news/a/b", &[OTHER], ""), 403);
    // A reload opens it, and closes it again.
    edge.rewrite_config(&keys("[streams]\nshared = [\"news/**\"]\n"));
    edge.signal(Signal::HUP);
    support::wait_until("it is shared", || status(&edge, "GET", "news/a/b", &[OTHER], "") == 200);
    edge.rewrite_config(&keys(""));
    edge.signal(Signal::HUP);
    support::wait_until("it is not", || status(&edge, "GET", "news/a/b", &[OTHER], "") == 403);
    assert_eq!(status(&edge, "GET", "news/a/b", &[ONE], ""), 200);
}

#[test]
fn it_is_so_after_a_restart() {
    let data = directory("owners");
    let toml = keys("");
    let start = || Edge::configured_with(&toml, &["--data-dir", &data]);
    let mut edge = start();
    assert_eq!(status(&edge, "PUT", "notes", &[ONE, TEXT], ""), 201);
    edge.signal(Signal::KILL);
    edge.wait_exit();
    belongs_to_one(&start(), "notes");
    // One that nobody has made stays everybody's.
    remove(&data);
    let open = Edge::start(&["--data-dir", &data]);
    assert_eq!(status(&open, "PUT", "old", &[TEXT], ""), 201);
    drop(open);
    let edge = start();
    assert_eq!(status(&edge, "POST", "old", &[OTHER, TEXT], "x"), 204);
    drop(edge);
    remove(&data);
}

#[test]
fn it_is_so_on_every_node() {
    let redis = Redis::start();
    let toml = keys(&redis.config());
    let (a, b) = (Edge::configured(&toml), Edge::configured(&toml));
    assert_eq!(status(&a, "PUT", "notes", &[ONE, TEXT], ""), 201);
    belongs_to_one(&b, "notes");
    belongs_to_others_not_at_all(&a, "notes");
}

fn belongs_to_others_not_at_all(edge: &Edge, name: &str) {
    for method in ["GET", "DELETE"] {
        assert_eq!(status(edge, method, name, &[OTHER], ""), 403, "{method}");
    }
}

/// A response that is being kept.
fn kept(edge: &Edge, upstream: &Upstream, fields: &[&str]) -> Begun {
    let fields = [&["Sedge-Durable: true"], fields].concat();
    begin_on(edge.connect(), upstream, &post("/v1/chat/completions", &fields, STREAM_BODY))
}

const EVENT: &str = "data: {\"n\":1}\n\n";

#[test]
fn nobody_but_sedge_appends_to_a_kept_response() {
    let upstream = Upstream::listen();
    let configured = keys(&format!("[[upstream]]\nname = \"a\"\nurl = \"{}\"\n", upstream.url()));
    for (edge, mine) in [(Edge::configured(&configured), &[ONE][..]), (Edge::to(&upstream), &[])] {
        let Begun { mut client, mut peer, location } = kept(&edge, &upstream, mine);
        peer.send(chunk(EVENT));
        assert_eq!(client.read_chunk(), EVENT.as_bytes());
        for more in [
            &["Content-Type: text/event-stream"][..],
            &["Content-Type: text/event-stream", "Stream-Closed: true"],
        ] {
            let (head, body) = ask(&edge, "POST", &location, &[mine, more].concat(), "data: forged\n\n");
            assert_eq!((head.status(), error_code(&body.bytes())), (403, "kept_response".into()));
        }
        if !mine.is_empty() {
            // For another key it is not even there.
            for (method, fields) in
                [("GET", &[OTHER][..]), ("DELETE", &[OTHER]), ("POST", &[OTHER, "Stream-Closed: true"])]
            {
                assert_eq!(ask(&edge, method, &location, fields, "").0.status(), 404, "{method}");
            }
            let source = format!("Stream-Forked-From: {location}");
            assert_eq!(ask(&edge, "PUT", &path("fork"), &[OTHER, &source], "").0.status(), 404);
        }
        peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
        client.read_chunk();
        client.read_last_chunk();
        let (_, body) = ask(&edge, "GET", &location, mine, "");
        assert_eq!(body.text(), [EVENT, "data: [DONE]\n\n"].concat());
    }
}

/// Closing it stops its upstream at once, keeps what there is, and ends the client's stream as one that is not whole.
fn stops(of: &Edge, by: &Edge, upstream: &Upstream) {
    for client_stays in [true, false] {
        let Begun { mut client, mut peer, location } = kept(of, upstream, &[]);
        peer.send(chunk(EVENT));
        assert_eq!(client.read_chunk(), EVENT.as_bytes());
        let so_far = format!("{location}?offset=-1");
        support::wait_until("it is kept", || ask(by, "GET", &so_far, &[], "").1.text() == EVENT);
        let mut client = Some(client).filter(|_| client_stays);
        if client.is_none() {
            of.wait_metric("sedge_answers_abandoned_total", &[], 1.0);
        }
        let (head, _) = ask(by, "POST", &location, &["Stream-Closed: true"], "");
        assert_eq!((head.status(), head.get("stream-closed")), (204, Some("true")), "{head:?}");
        peer.wait_closed();
        if let Some(client) = &mut client {
            let last = String::from_utf8(client.read_chunk()).expect("text");
            assert!(last.contains("response_stopped"), "{last}");
            client.wait_closed();
        }
        let (head, body) = ask(by, "GET", &location, &[], "");
        assert_eq!((head.get("stream-closed"), body.text()), (Some("true"), EVENT.to_owned()));
    }
}

#[test]
fn closing_a_kept_response_stops_its_upstream_and_keeps_what_there_is() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    stops(&edge, &edge, &upstream);
}

#[test]
fn so_it_does_on_disk() {
    let upstream = Upstream::listen();
    let data = directory("stopped");
    let edge = Edge::start(&["--upstream", &upstream.url(), "--data-dir", &data]);
    stops(&edge, &edge, &upstream);
    drop(edge);
    remove(&data);
}

#[test]
fn so_it_does_from_another_node() {
    let (redis, upstream) = (Redis::start(), Upstream::listen());
    let toml = format!("[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n{}", upstream.url(), redis.config());
    let (a, b) = (Edge::configured(&toml), Edge::configured(&toml));
    stops(&a, &b, &upstream);
}

fn subscribe(edge: &Edge, id: &str, key: &str) -> u16 {
    let settings = r#"{"type":"pull-wake","pattern":"work/*","wake_stream":"wakes"}"#;
    let target = format!("/v1/stream/__ds/subscriptions/{id}");
    ask(edge, "PUT", &target, &[key, "Content-Type: application/json"], settings).0.status()
}

/// A subscription is woken by the streams of its own key, and is nobody else's.
fn subscriptions_belong_to_their_key(edge: &Edge, by: &Edge) {
    assert_eq!(status(edge, "PUT", "work/before", &[OTHER, TEXT], ""), 201);
    assert_eq!(
        (subscribe(edge, "s", ONE), subscribe(by, "s", ONE), subscribe(by, "s", OTHER)),
        (201, 200, 403)
    );
    assert_eq!(status(edge, "PUT", "work/mine", &[ONE, TEXT], "new"), 201);
    assert_eq!(status(by, "PUT", "work/theirs", &[OTHER, TEXT], "new"), 201);
    let target = "/v1/stream/__ds/subscriptions/s";
    for (method, target) in
        [("GET", target.to_owned()), ("DELETE", target.to_owned()), ("POST", format!("{target}/claim"))]
    {
        let (head, body) = ask(by, method, &target, &[OTHER], r#"{"worker":"w"}"#);
        assert_eq!(
            (head.status(), error_code(&body.bytes())),
            (403, "SUBSCRIPTION_OF_ANOTHER_KEY".into()),
            "{method}"
        );
    }
    let (head, body) = ask(by, "GET", target, &[ONE], "");
    let text = body.text();
    assert_eq!(head.status(), 200, "{text}");
    assert!(text.contains("work/mine"), "{text}");
    assert!(!text.contains("work/theirs") && !text.contains("work/before"), "{text}");
    let (head, body) = ask(edge, "POST", &format!("{target}/claim"), &[ONE], r#"{"worker":"w"}"#);
    assert_eq!(head.status(), 200, "{}", body.text());
    assert_eq!(ask(edge, "DELETE", target, &[ONE], "").0.status(), 204);
}

#[test]
fn a_subscription_is_woken_by_the_streams_of_its_key() {
    let edge = Edge::configured(&keys(""));
    subscriptions_belong_to_their_key(&edge, &edge);
    let redis = Redis::start();
    let toml = keys(&redis.config());
    let (a, b) = (Edge::configured(&toml), Edge::configured(&toml));
    subscriptions_belong_to_their_key(&a, &b);
}
