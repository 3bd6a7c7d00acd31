//! Subscriptions of durable streams: who is woken, by whom and when, over real sockets. The protocol's own stories are the public
//! suite's (`tests/run streams`); here stand what it leaves open, and what may never happen.

mod support;

use std::thread;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustix::process::Signal;
use serde_json::json;
use support::edge::scratch;
use support::subscriptions::{
    CONTROL, append, ask, bearer, create, json, progress, pull, show, subscribe, subscription, to, webhook,
};
use support::{Edge, Upstream, answer, get, wait_until};

#[test]
fn a_webhook_is_signed_and_its_answer_acks_what_it_was_shown() {
    let (edge, receiver) = (Edge::start(&[]), Upstream::listen());
    let made = subscribe(&edge, "s", &to(&receiver));
    create(&edge, "events/a");
    let (mut wire, head, body) = webhook(&receiver);
    assert_eq!(head.start, "POST /hook?key=a%20b HTTP/1.1");
    assert_eq!(head.get("host"), Some(&*receiver.addr().to_string()));
    assert_eq!(head.get("content-type"), Some("application/json"));

    // By the key that the key set has under the id in the signature.
    let (keys, set) = ask(&edge, "GET", &format!("{CONTROL}/jwks.json"), &[], "");
    assert_eq!(keys.get("content-type"), Some("application/jwk-set+json"));
    assert_eq!(keys.get("cache-control"), Some("public, max-age=300"));
    assert_eq!(made["webhook"]["signing"]["kid"], set["keys"][0]["kid"]);
    let signature = head.get("webhook-signature").expect("a signature");
    let (time, rest) =
        signature.strip_prefix("t=").and_then(|rest| rest.split_once(",kid=")).expect("a time");
    let (kid, signature) = rest.split_once(",ed25519=").expect("a key");
    assert_eq!(set["keys"][0]["kid"], kid);
    let key = URL_SAFE_NO_PAD.decode(set["keys"][0]["x"].as_str().expect("a key")).expect("base64");
    let signed = [time.as_bytes(), b".", &body.bytes()].concat();
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    UnparsedPublicKey::new(&ED25519, key).verify(&signed, &signature).expect("a good signature");

    let shown = json(&body)["streams"][0]["tail_offset"].clone();
    // What comes meanwhile is not acknowledged with it, and wakes again.
    append(&edge, "events/a");
    wire.send(answer("200 OK", &["Content-Type: application/json"], r#"{"done":true}"#));
    let (mut wire, _, second) = webhook(&receiver);
    let second = json(&second);
    assert_eq!((&second["generation"], &second["streams"][0]["acked_offset"]), (&json!(2), &shown));
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{\"done\":true}\r\n0\r\n\r\n");
    wait_until("all is acknowledged", || {
        show(&edge, "s")["streams"][0]["acked_offset"] == second["streams"][0]["tail_offset"]
    });
}

#[test]
fn a_webhook_that_is_refused_comes_again_and_is_never_sent_on() {
    let (edge, receiver, elsewhere) = (Edge::start(&[]), Upstream::listen(), Upstream::listen());
    subscribe(&edge, "s", &to(&receiver));
    create(&edge, "events/a");
    let (mut wire, _, first) = webhook(&receiver);
    let location = format!("Location: http://{}/", elsewhere.addr());
    wire.send(answer("307 Temporary Redirect", &[&location], ""));
    wait_until("it has failed", || show(&edge, "s")["status"] == "failed");
    let (mut wire, _, again) = webhook(&receiver);
    let (first, again) = (json(&first), json(&again));
    assert_eq!((&again["wake_id"], &again["generation"]), (&first["wake_id"], &first["generation"]));
    assert_eq!(show(&edge, "s")["status"], "active");
    // Broken off within the answer's body: it was taken, and is not finished.
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"done\":true}");
    wire.close();
    let callback = format!("{}/callback", subscription("s"));
    assert_eq!(again["callback_url"], format!("http://localhost{callback}"));
    let token = bearer(&again["callback_token"]);
    let (head, body) = ask(&edge, "POST", &callback, &[&token], &progress(&again, true));
    assert_eq!((head.status(), body), (200, json!({ "ok": true, "next_wake": false })));
    let (head, body) = ask(&edge, "POST", &callback, &[&token], &progress(&again, true));
    assert_eq!((head.status(), &body["error"]["code"]), (409, &json!("FENCED")));
    assert!(elsewhere.is_idle(), "no redirect is followed");
    edge.wait_metric("sedge_webhooks_total", &["outcome=\"failed\""], 1.0);
}

#[test]
fn a_receiver_that_never_answers_loses_the_wake_and_gets_another() {
    let (edge, receiver) = (Edge::start(&[]), Upstream::listen());
    let mut settings = to(&receiver);
    settings["lease_ttl_ms"] = 2_000.into();
    subscribe(&edge, "s", &settings);
    create(&edge, "events/a");
    let (mut silent, _, first) = webhook(&receiver);
    let (mut wire, _, second) = webhook(&receiver);
    // In time, which the first one had as well.
    wire.send(answer("200 OK", &[], r#"{"done":true}"#));
    let (first, second) = (json(&first), json(&second));
    assert_eq!((&first["generation"], &second["generation"]), (&json!(1), &json!(2)));
    silent.wait_closed();
    let callback = format!("{}/callback", subscription("s"));
    let (head, _) =
        ask(&edge, "POST", &callback, &[&bearer(&first["callback_token"])], &progress(&first, true));
    assert_eq!(head.status(), 409);
    edge.wait_metric("sedge_webhooks_total", &["outcome=\"done\""], 1.0);
    assert_eq!(edge.metric("sedge_webhooks_total", &["outcome=\"failed\""]), 1.0);
    assert_eq!(edge.metric("sedge_subscriptions", &[]), 1.0);
}

/// Waits for this wake of the pool's.
fn announced(edge: &Edge, n: u64) {
    wait_until("the wake is announced", || {
        let (_, events) = ask(edge, "GET", "/v1/stream/wake/pool", &[], "");
        events.as_array().is_some_and(|events| events.iter().any(|event| event["generation"] == n))
    });
}

#[test]
fn workers_race_for_a_wake_and_one_gets_it() {
    let edge = Edge::start(&[]);
    create(&edge, "wake/pool");
    let mut settings = pull();
    settings["lease_ttl_ms"] = 60_000.into();
    subscribe(&edge, "s", &settings);
    create(&edge, "events/a");
    announced(&edge, 1);
    let claim = format!("{}/claim", subscription("s"));
    let racers: Vec<_> = thread::scope(|scope| {
        let race = |n: usize| ask(&edge, "POST", &claim, &[], &format!(r#"{{"worker":"w-{n}"}}"#));
        let racers: Vec<_> = (0..8).map(|n| scope.spawn(move || race(n))).collect();
        racers.into_iter().map(|racer| racer.join().expect("an answer")).collect()
    });
    let won: Vec<_> = racers.iter().filter(|(head, _)| head.status() == 200).collect();
    assert_eq!(won.len(), 1, "one wake, one worker");
    for (head, body) in racers.iter().filter(|(head, _)| head.status() != 200) {
        assert_eq!((head.status(), &body["error"]["code"]), (409, &json!("ALREADY_CLAIMED")));
    }
}

#[test]
fn a_worker_that_dies_loses_its_wake() {
    let edge = Edge::start(&[]);
    create(&edge, "wake/pool");
    subscribe(&edge, "s", &pull());
    create(&edge, "events/a");
    announced(&edge, 1);
    let claim = format!("{}/claim", subscription("s"));
    let (head, lost) = ask(&edge, "POST", &claim, &[], r#"{"worker":"w-1"}"#);
    assert_eq!((head.status(), &lost["generation"]), (200, &json!(1)));
    // It says nothing more, and its lease ends.
    announced(&edge, 2);
    let token = bearer(&lost["token"]);
    let (head, body) =
        ask(&edge, "POST", &format!("{}/ack", subscription("s")), &[&token], &progress(&lost, true));
    assert_eq!((head.status(), &body["error"]["code"]), (409, &json!("FENCED")));
    let (head, held) = ask(&edge, "POST", &claim, &[], r#"{"worker":"w-9"}"#);
    assert_eq!((head.status(), &held["generation"]), (200, &json!(2)));
}

#[test]
fn a_crash_forgets_neither_cursors_nor_wakes_nor_keys() {
    let (directory, receiver) = (scratch("subscriptions"), Upstream::listen());
    let directory = directory.to_str().expect("UTF-8");
    let mut edge = Edge::start(&["--data-dir", directory]);
    create(&edge, "events/old");
    let made = subscribe(&edge, "s", &to(&receiver));
    append(&edge, "events/old");
    let (wire, _, first) = webhook(&receiver);
    let first = json(&first);
    edge.signal(Signal::KILL);
    edge.wait_exit();
    drop(wire);

    let edge = Edge::start(&["--data-dir", directory]);
    // Nobody knows what became of it, so it comes again as the same wake; its token is as good as before.
    let (mut wire, _, again) = webhook(&receiver);
    assert_eq!(json(&again)["wake_id"], first["wake_id"]);
    wire.send(answer("202 Accepted", &[], ""));
    assert_eq!(show(&edge, "s")["webhook"], made["webhook"]);
    assert_eq!(show(&edge, "s")["streams"], made["streams"]);
    let callback = format!("{}/callback", subscription("s"));
    let fields = [&*bearer(&first["callback_token"])];
    let (head, body) = ask(&edge, "POST", &callback, &fields, &progress(&first, true));
    assert_eq!((head.status(), body), (200, json!({ "ok": true, "next_wake": false })));
    let (head, _) = ask(&edge, "DELETE", &subscription("s"), &[], "");
    assert_eq!(head.status(), 204);
    drop(edge);

    let edge = Edge::start(&["--data-dir", directory]);
    assert_eq!(show(&edge, "s")["error"]["code"], "SUBSCRIPTION_NOT_FOUND");
    drop(edge);
    std::fs::remove_dir_all(directory).expect("remove");
}

#[test]
fn keys_guard_subscriptions_and_tokens_guard_wakes() {
    let receiver = Upstream::listen();
    let edge = Edge::configured(
        "[[key]]\nname = \"alice\"\nsha256 = \"099295a3784e1bd368dc348843a7398c1931b6b8ec2504c73e91ed2040bdc46c\"\n",
    );
    let key = "Authorization: Bearer sk-alice";
    let settings = to(&receiver).to_string();
    let (head, _) = ask(&edge, "PUT", &subscription("s"), &[], &settings);
    assert_eq!(head.status(), 401);
    let (head, _) = ask(&edge, "PUT", &subscription("s"), &[key], &settings);
    assert_eq!(head.status(), 201);
    // Receivers have no key of ours, and need this one.
    let (head, _) = ask(&edge, "GET", &format!("{CONTROL}/jwks.json"), &[], "");
    assert_eq!(head.status(), 200);
    let fields = [key, "Content-Type: application/json"];
    let (head, _) = ask(&edge, "PUT", "/v1/stream/events/a", &fields, r#"{"n":1}"#);
    assert_eq!(head.status(), 201);
    let (mut wire, _, wake) = webhook(&receiver);
    wire.send(answer("200 OK", &[], "{}"));
    let wake = json(&wake);
    let callback = format!("{}/callback", subscription("s"));
    for fields in [&[][..], &[key], &["Authorization: Bearer x.y.z"]] {
        let (head, body) = ask(&edge, "POST", &callback, fields, &progress(&wake, true));
        assert_eq!((head.status(), &body["error"]["code"]), (401, &json!("TOKEN_INVALID")), "{fields:?}");
    }
    let (head, _) =
        ask(&edge, "POST", &callback, &[&bearer(&wake["callback_token"])], &progress(&wake, true));
    assert_eq!(head.status(), 200);
}

#[test]
fn what_cannot_be_understood_is_told_in_the_shape_of_all_errors() {
    let edge = Edge::start(&[]);
    let long = "x".repeat((1 << 20) + 1);
    for (method, path, body, status, code) in [
        ("PUT", "/subscriptions/s", "{", 400, "INVALID_REQUEST"),
        ("PUT", "/subscriptions/s", r#"{"type":"webhook","pattern":"a"}"#, 400, "INVALID_REQUEST"),
        ("PUT", "/subscriptions/s", &long, 413, "request_too_large"),
        (
            "PUT",
            "/subscriptions/s",
            r#"{"type":"webhook","pattern":"a","webhook":{"url":"https://169.254.169.254/"}}"#,
            400,
            "WEBHOOK_URL_REJECTED",
        ),
        ("GET", "/subscriptions/none", "", 404, "SUBSCRIPTION_NOT_FOUND"),
        ("POST", "/subscriptions/none/claim", r#"{"worker":"w"}"#, 404, "SUBSCRIPTION_NOT_FOUND"),
        ("PATCH", "/subscriptions/s", "", 405, "method_not_allowed"),
        ("GET", "/subscriptions/s/claim", "", 405, "method_not_allowed"),
        ("GET", "/else", "", 404, "route_not_found"),
        ("PUT", "", "", 404, "route_not_found"),
    ] {
        let (head, answered) = ask(&edge, method, &format!("{CONTROL}{path}"), &[], body);
        assert_eq!((head.status(), &answered["error"]["code"]), (status, &json!(code)), "{method} {path}");
        for key in ["message", "type", "param"] {
            assert!(answered["error"].get(key).is_some(), "{key}: {answered}");
        }
        assert_eq!(head.has("allow"), status == 405);
    }
    // None of them is a stream.
    let (head, _) = edge.ask(&get(&format!("{CONTROL}/subscriptions/s"), &[]));
    assert_eq!(head.status(), 404);
}
