//! A pattern costs what its length allows, and nobody else waits for it.
//!
//! The story: the pattern `**/a/a/.../b` over 4,000 streams kept a core for 6.9 s, in which nobody on it was served; 400 such
//! patterns in Redis held up every node for 3 s each time that a stream was made.

mod support;

use serde_json::{Value, json};
use support::redis::Redis;
use support::streams::request;
use support::subscriptions::{ask, create, pull, show, subscribe, subscription, to, webhook};
use support::{Edge, Upstream, get};

fn with(pattern: &str) -> Value {
    let mut settings = pull();
    settings["pattern"] = pattern.into();
    settings
}

#[test]
fn a_pattern_of_too_many_parts_is_refused() {
    let edge = Edge::start(&[]);
    for (pattern, why) in [
        (format!("**/{}/b", ["a"; 100].join("/")), "has 102 segments and may have 32"),
        (["*"; 9].join("/"), "has 9 wildcards (`*`, `**`) and may have 8"),
        ("**/a/".repeat(9) + "b", "has 9 wildcards (`*`, `**`) and may have 8"),
    ] {
        let (head, body) = ask(&edge, "PUT", &subscription("s"), &[], &with(&pattern).to_string());
        assert_eq!((head.status(), &body["error"]["param"]), (400, &json!("pattern")), "{body}");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(why), "{message}");
    }
    subscribe(&edge, "s", &with(&format!("**/{}/b", ["a"; 30].join("/"))));
}

/// Streams in pipelined requests, a few hundred at a time.
fn create_many(edge: &Edge, count: usize) {
    let mut client = edge.connect();
    let numbers: Vec<usize> = (0..count).collect();
    for part in numbers.chunks(100) {
        let put =
            |n: &usize| request("PUT", &format!("/v1/stream/a/a/{n}"), &["Content-Type: text/plain"], "");
        client.send(part.iter().flat_map(put).collect::<Vec<u8>>());
        for _ in part {
            assert_eq!(client.read_answer().0.status(), 201);
        }
    }
}

/// One core, and both requests are there when it looks: the one that is short is answered first.
#[test]
fn others_are_served_while_the_streams_of_a_pattern_are_sought() {
    let edge = Edge::start(&[]);
    create_many(&edge, 6000);
    let body = with(&format!("**/{}/b", ["a"; 30].join("/"))).to_string();
    let is_overtaken = |attempt: usize| {
        let (mut long, mut short) = (edge.connect(), edge.connect());
        for wire in [&mut long, &mut short] {
            wire.send(get("/livez", &[]));
            wire.read_answer();
        }
        let id = |name: &str| format!("X-Request-Id: {name}-{attempt}");
        long.send(request("PUT", &subscription(&attempt.to_string()), &[&id("long")], &body));
        short.send(get("/v1/stream/none", &[&id("short")]));
        assert_eq!(short.read_answer().0.status(), 404);
        assert_eq!(long.read_answer().0.status(), 201);
        // The log has them in the order in which they ended.
        let [long, short] = ["long", "short"].map(|name| {
            let id = format!("\"{name}-{attempt}\"");
            edge.stdout().wait_for(&id);
            edge.stdout().all().iter().position(|line| line.contains(&id))
        });
        short < long
    };
    // The second request may come late when the machine is busy, but not each time.
    assert!((0..20).any(is_overtaken), "a search for streams keeps its core");
}

#[test]
fn a_new_stream_finds_its_subscriptions_on_any_node() {
    let redis = Redis::start();
    let (one, other, receiver) = (redis.node(), redis.node(), Upstream::listen());
    // The other node knows the patterns by now, of which there are none.
    create(&other, "before/a");
    subscribe(&one, "s", &to(&receiver));
    create(&other, "events/a");
    let (.., body) = webhook(&receiver);
    assert_eq!(support::subscriptions::json(&body)["streams"][0]["path"], "events/a");
    let (head, _) = ask(&one, "DELETE", &subscription("s"), &[], "");
    assert_eq!(head.status(), 204);
    subscribe(&one, "t", &with("events/**"));
    create(&other, "events/b/c");
    create(&other, "wake/pool");
    let paths = |id: &str| {
        let shown = show(&one, id);
        let streams = shown["streams"].as_array().expect("streams").iter();
        let mut paths: Vec<_> = streams.map(|it| it["path"].as_str().expect("a path").to_owned()).collect();
        paths.sort();
        paths
    };
    assert_eq!(paths("t"), ["events/a", "events/b/c"]);
}

/// More streams than are linked in one step: all of them are there, each from its end on.
#[test]
fn a_pattern_of_many_streams_is_linked_in_parts_in_redis() {
    let redis = Redis::start();
    let edge = redis.node();
    create_many(&edge, 1100);
    let made = subscribe(&edge, "s", &with("a/**"));
    assert_eq!(made["streams"].as_array().map(Vec::len), Some(1100));
    assert_eq!(show(&edge, "s")["streams"].as_array().map(Vec::len), Some(1100));
}
