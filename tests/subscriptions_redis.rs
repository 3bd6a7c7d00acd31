//! Subscriptions of streams in a real Redis, with two nodes in front of it: any node takes any request about one, and whichever of
//! them, or Redis, is gone for a while, one worker at a time has the work, and none of it lies.

mod support;

use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::redis::Redis;
use support::subscriptions::{
    CONTROL, append, ask, bearer, create, json, progress, pull, show, subscribe, subscription, to, webhook,
};
use support::{Edge, Upstream, answer, wait_until};

fn nodes(redis: &Redis) -> [Edge; 2] {
    [redis.node(), redis.node()]
}

fn kill(mut node: Edge) {
    node.signal(Signal::KILL);
    node.wait_exit();
}

/// A worker of the subscription `s` asks a node for something.
fn worker(edge: &Edge, verb: &str, token: Option<&Value>, body: &str) -> (u16, Value) {
    let token: Vec<String> = token.map(bearer).into_iter().collect();
    let fields: Vec<&str> = token.iter().map(String::as_str).collect();
    let (head, body) = ask(edge, "POST", &format!("{}/{verb}", subscription("s")), &fields, body);
    (head.status(), body)
}

fn claim(edge: &Edge, name: &str) -> (u16, Value) {
    worker(edge, "claim", None, &json!({ "worker": name }).to_string())
}

/// The generations in the wake stream.
fn offered(edge: &Edge) -> Vec<u64> {
    let (_, events) = ask(edge, "GET", "/v1/stream/wake/pool", &[], "");
    let events = events.as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|event| event["generation"].as_u64()).collect()
}

fn wait_offered(edge: &Edge, generation: u64) {
    wait_until("the wake is offered", || offered(edge).contains(&generation));
}

fn delete(edge: &Edge, path: &str) -> u16 {
    ask(edge, "DELETE", path, &[], "").0.status()
}

#[test]
fn any_node_takes_any_request() {
    let (redis, receiver) = (Redis::start(), Upstream::listen());
    let [a, b] = nodes(&redis);
    create(&a, "events/old");
    create(&b, "by-name");
    let made = subscribe(&a, "s", &to(&receiver));
    assert_eq!(made["streams"][0]["path"], "events/old", "what is there is found");
    assert_eq!(show(&b, "s"), made);
    let (head, again) = ask(&b, "PUT", &subscription("s"), &[], &to(&receiver).to_string());
    assert_eq!((head.status(), again), (200, made.clone()));
    let (head, _) = ask(&b, "PUT", &subscription("s"), &[], &pull().to_string());
    assert_eq!(head.status(), 409);
    let keys = |edge: &Edge| ask(edge, "GET", &format!("{CONTROL}/jwks.json"), &[], "").1;
    assert_eq!(keys(&a), keys(&b), "one key for all");
    assert_eq!(keys(&a)["keys"][0]["kid"], made["webhook"]["signing"]["kid"]);
    let streams = format!("{}/streams", subscription("s"));
    assert_eq!(ask(&b, "POST", &streams, &[], r#"{"streams":["by-name"]}"#).0.status(), 204);
    assert_eq!(show(&a, "s")["streams"][0]["link_type"], "explicit");

    // What one node takes wakes, whichever sends the webhook; and its receiver calls back to any.
    append(&b, "by-name");
    let (mut wire, head, wake) = webhook(&receiver);
    assert!(head.has("webhook-signature"));
    let wake = json(&wake);
    assert_eq!((&wake["generation"], &wake["streams"][0]["path"]), (&json!(1), &json!("by-name")));
    let token = Some(&wake["callback_token"]);
    assert_eq!(worker(&b, "callback", token, &progress(&wake, false)).0, 200);
    wire.send(answer("202 Accepted", &[], ""));
    append(&a, "events/old");
    let (status, body) = worker(&a, "callback", token, &progress(&wake, true));
    assert_eq!((status, &body["next_wake"]), (200, &json!(true)));
    let (mut wire, _, wake) = webhook(&receiver);
    assert_eq!(
        (&json(&wake)["generation"], &json(&wake)["streams"][0]["path"]),
        (&json!(2), &json!("events/old"))
    );
    wire.send(answer("200 OK", &[], r#"{"done":true}"#));
    // One that is made by either is found by its pattern, from its beginning on.
    wait_until("it is noted", || {
        show(&b, "s")["streams"][1]["acked_offset"] == json(&wake)["streams"][0]["tail_offset"]
    });
    create(&b, "events/new");
    let (mut wire, _, wake) = webhook(&receiver);
    let shown = json(&wake)["streams"][0].clone();
    assert_eq!((&shown["path"], &shown["has_pending"]), (&json!("events/new"), &json!(true)));
    assert_eq!(delete(&a, &format!("{streams}/by-name")), 204);
    assert!(!show(&b, "s")["streams"].to_string().contains("by-name"));

    // It ends for all of them, also for who is at work.
    wire.send(answer("200 OK", &[], ""));
    assert_eq!(delete(&b, &subscription("s")), 204);
    assert_eq!(show(&a, "s")["error"]["code"], "SUBSCRIPTION_NOT_FOUND");
    let wake = json(&wake);
    assert_eq!(worker(&a, "callback", Some(&wake["callback_token"]), &progress(&wake, true)).0, 404);
    let left: Vec<String> = redis.ask(&["KEYS", "sedge:[ukqw]:*"]);
    assert_eq!(left, Vec::<String>::new(), "nothing of it is left");
    wait_until("none is counted", || a.metric("sedge_subscriptions", &[]) == 0.0);
}

#[test]
fn workers_that_race_at_two_nodes_find_one_holder() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "wake/pool");
    let mut settings = pull();
    settings["lease_ttl_ms"] = 60_000.into();
    subscribe(&a, "s", &settings);
    create(&a, "events/a");
    for round in 1..=25 {
        wait_offered(&b, round);
        let racers: Vec<_> = thread::scope(|scope| {
            let nodes = [&a, &b];
            let racers: Vec<_> =
                (0..8).map(|n| scope.spawn(move || claim(nodes[n % 2], &format!("w-{n}")))).collect();
            racers.into_iter().map(|racer| racer.join().expect("an answer")).collect()
        });
        let won: Vec<_> = racers.iter().filter(|(status, _)| *status == 200).collect();
        assert_eq!(won.len(), 1, "round {round}: one wake, one worker: {racers:?}");
        for (status, body) in racers.iter().filter(|(status, _)| *status != 200) {
            assert_eq!((*status, &body["error"]["code"]), (409, &json!("ALREADY_CLAIMED")));
        }
        let wake = &won[0].1;
        assert_eq!(wake["generation"], round);
        append(&b, "events/a");
        // Of several words of the holder's the first counts.
        let (ack, token) = (progress(wake, true), Some(&wake["token"]));
        let acks: Vec<_> = thread::scope(|scope| {
            let acks = [&a, &b].map(|node| scope.spawn(|| worker(node, "ack", token, &ack)));
            acks.map(|ack| ack.join().expect("an answer")).into()
        });
        assert_eq!(acks.iter().filter(|(status, _)| *status == 200).count(), 1, "{acks:?}");
        assert_eq!(acks.iter().filter(|(status, _)| *status == 409).count(), 1, "{acks:?}");
    }
    assert_eq!(offered(&a), (1..=26).collect::<Vec<_>>(), "each wake was offered once");
}

#[test]
fn a_node_that_dies_in_the_middle_of_a_delivery_loses_nothing() {
    let (redis, receiver) = (Redis::start(), Upstream::listen());
    let a = redis.node();
    // Long enough for the other node to start.
    let mut settings = to(&receiver);
    settings["lease_ttl_ms"] = 5_000.into();
    subscribe(&a, "s", &settings);
    create(&a, "events/a");
    let (wire, _, first) = webhook(&receiver);
    let b = redis.node();
    kill(a);
    drop(wire);
    let (mut wire, _, second) = webhook(&receiver);
    wire.send(answer("200 OK", &[], r#"{"done":true}"#));
    let (first, second) = (json(&first), json(&second));
    assert_eq!((&first["generation"], &second["generation"]), (&json!(1), &json!(2)));
    assert_ne!(first["wake_id"], second["wake_id"]);
    assert_eq!(worker(&b, "callback", Some(&first["callback_token"]), &progress(&first, true)).0, 409);
    wait_until("it is worked off", || {
        show(&b, "s")["streams"][0]["acked_offset"] == second["streams"][0]["tail_offset"]
    });
    assert!(receiver.is_idle());
}

#[test]
fn a_lease_ends_whichever_node_gave_it() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "wake/pool");
    let mut settings = pull();
    settings["lease_ttl_ms"] = 5_000.into();
    subscribe(&a, "s", &settings);
    create(&b, "events/a");
    wait_offered(&a, 1);
    let (status, first) = claim(&a, "one");
    assert_eq!(status, 200, "{first}");
    // It says at the other node that it lives, and then the node that gave the lease dies.
    let ack = json!({ "wake_id": first["wake_id"], "generation": 1 }).to_string();
    assert_eq!(worker(&b, "ack", Some(&first["token"]), &ack).0, 200);
    assert_eq!(claim(&b, "two").1["error"]["current_holder"], "one");
    kill(a);
    wait_offered(&b, 2);
    assert_eq!(worker(&b, "ack", Some(&first["token"]), &ack).0, 409);
    let (status, second) = claim(&b, "two");
    assert_eq!((status, &second["generation"]), (200, &json!(2)));
    let release = json!({ "wake_id": second["wake_id"], "generation": 2 }).to_string();
    assert_eq!(worker(&b, "release", Some(&second["token"]), &release).0, 204);
    wait_offered(&b, 3);
}

#[test]
fn while_redis_is_gone_nobody_is_told_anything_and_then_it_goes_on() {
    let (mut redis, receiver) = (Redis::start(), Upstream::listen());
    let [a, b] = nodes(&redis);
    let mut settings = to(&receiver);
    settings["lease_ttl_ms"] = 120_000.into();
    let made = subscribe(&a, "s", &settings);
    create(&a, "events/a");
    let (mut wire, _, wake) = webhook(&receiver);
    redis.kill();
    for edge in [&a, &b] {
        for (method, path, body) in [
            ("GET", subscription("s"), ""),
            ("PUT", subscription("t"), &*settings.to_string()),
            ("DELETE", subscription("s"), ""),
            ("POST", format!("{}/callback", subscription("s")), "{}"),
        ] {
            let (head, body) = ask(edge, method, &path, &[], body);
            assert_eq!((head.status(), head.get("retry-after")), (503, Some("1")), "{method} {path}");
            assert_eq!(body["error"]["code"], "storage_unavailable");
        }
    }
    // What the receiver says meanwhile is not lost.
    wire.send(answer("200 OK", &[], r#"{"done":true}"#));
    wait_until("one of them has heard it", || {
        [&a, &b].iter().any(|edge| edge.metric("sedge_webhooks_total", &["outcome=\"done\""]) == 1.0)
    });
    redis.come_back();
    [&a, &b].iter().for_each(|edge| edge.wait_metric("sedge_redis_up", &[], 1.0));
    wait_until("it is noted", || {
        show(&b, "s")["streams"][0]["acked_offset"] == json(&wake)["streams"][0]["tail_offset"]
    });
    assert_eq!(show(&a, "s")["webhook"], made["webhook"], "the keys are the same");
    append(&b, "events/a");
    let (mut wire, _, wake) = webhook(&receiver);
    assert_eq!(json(&wake)["generation"], 2);
    wire.send(answer("200 OK", &[], r#"{"done":true}"#));

    // And when all of it is lost, so are the subscriptions, and the keys are others on both.
    let () = redis.ask(&["FLUSHALL"]);
    wait_until("both have begun anew", || {
        [&a, &b].iter().all(|edge| show(edge, "s")["error"]["code"] == "SUBSCRIPTION_NOT_FOUND")
    });
    let other = subscribe(&b, "s", &settings);
    assert_ne!(other["webhook"]["signing"]["kid"], made["webhook"]["signing"]["kid"]);
    assert_eq!(show(&a, "s"), other);
}

#[test]
fn work_that_came_while_no_node_was_there_is_found() {
    let (redis, receiver) = (Redis::start(), Upstream::listen());
    let a = redis.node();
    // Long enough for the node to be gone before it ends.
    let mut settings = to(&receiver);
    settings["lease_ttl_ms"] = 5_000.into();
    subscribe(&a, "s", &settings);
    create(&a, "events/a");
    let (wire, ..) = webhook(&receiver);
    append(&a, "events/a");
    kill(a);
    drop(wire);
    let _b = redis.node();
    let (_wire, _, wake) = webhook(&receiver);
    assert_eq!(
        (&json(&wake)["generation"], &json(&wake)["streams"][0]["has_pending"]),
        (&json!(2), &json!(true))
    );
}

#[test]
fn what_a_deleted_stream_held_is_no_work_any_more() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "wake/pool");
    let mut settings = pull();
    settings["lease_ttl_ms"] = 5_000.into();
    subscribe(&a, "s", &settings);
    create(&a, "events/a");
    wait_offered(&b, 1);
    assert_eq!(delete(&b, "/v1/stream/events/a"), 204);
    wait_until("the offer is taken back", || claim(&a, "w").1["error"]["code"] == "NO_PENDING_WORK");
    assert_eq!(show(&a, "s")["streams"], json!([]));
    // Another of that name is new from its beginning, for whoever looks.
    create(&b, "events/a");
    wait_offered(&a, 2);
    let (status, wake) = claim(&b, "w");
    assert_eq!((status, &wake["streams"][0]["has_pending"]), (200, &json!(true)), "{wake}");
    // Deleted in the worker's hands: what it did cannot be noted, and it gives the wake back.
    assert_eq!(delete(&a, "/v1/stream/events/a"), 204);
    assert_eq!(worker(&b, "ack", Some(&wake["token"]), &progress(&wake, true)).0, 409);
    let body =
        json!({ "wake_id": wake["wake_id"], "generation": wake["generation"], "done": true }).to_string();
    let (status, body) = worker(&a, "ack", Some(&wake["token"]), &body);
    assert_eq!((status, &body["next_wake"]), (200, &json!(false)));
    assert_eq!(offered(&b), [1, 2]);
}

/// Redis matches what is made later, and the edge what is there already.
#[test]
fn a_pattern_means_the_same_before_and_after() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    let patterns = ["a", "*", "**", "a/*", "a/**", "*/b", "**/b", "a/**/c", "**/a/**", "a/*/c/**", "*/*"];
    let names = ["a", "b", "a/b", "a/b/c", "a/c", "b/a/b", "a/x/y/c", "a/b/c/d", "c//b", "a-b/c", "w"];
    let settings = |pattern: &str| json!({ "type": "pull-wake", "pattern": pattern, "wake_stream": "w", "streams": ["a"] });
    let linked = |edge: &Edge, id: &str| -> Vec<(String, String)> {
        let streams = show(edge, id)["streams"].clone();
        let text = |stream: &Value, key: &str| stream[key].as_str().expect("a string").to_owned();
        let streams = streams.as_array().expect("streams").iter();
        streams.map(|stream| (text(stream, "path"), text(stream, "link_type"))).collect()
    };
    for (n, pattern) in patterns.iter().enumerate() {
        subscribe(&a, &format!("before-{n}"), &settings(pattern));
    }
    names.iter().for_each(|name| create(&b, name));
    for (n, pattern) in patterns.iter().enumerate() {
        subscribe(&b, &format!("after-{n}"), &settings(pattern));
        let before = linked(&b, &format!("before-{n}"));
        assert_eq!(before, linked(&a, &format!("after-{n}")), "{pattern}");
        assert!(!before.iter().any(|(path, _)| path == "w"), "{pattern}: a wake would wake itself");
    }
    let all: Vec<_> = linked(&a, "after-2").into_iter().map(|(path, _)| path).collect();
    assert_eq!(all.len(), names.len() - 1, "{all:?}");
    // Named as well as found, it stays when the name is taken away.
    let named = format!("{}/streams/a", subscription("before-1"));
    assert_eq!(delete(&a, &named), 204);
    assert!(linked(&b, "before-1").contains(&("a".to_owned(), "glob".to_owned())));
}

#[test]
fn a_wake_stream_that_is_missing_is_waited_for() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    subscribe(&a, "s", &pull());
    create(&a, "events/a");
    wait_until("it cannot be told", || show(&b, "s")["status"] == "failed");
    create(&b, "wake/pool");
    wait_offered(&a, 1);
    assert_eq!(show(&b, "s")["status"], "active");
    assert_eq!(claim(&b, "w").0, 200);
}
