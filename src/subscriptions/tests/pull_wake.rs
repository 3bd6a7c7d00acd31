//! Pull-wake: announced, claimed, acked, released.

use super::*;
use crate::subscriptions::world::{self, json as read};

#[test]
fn a_worker_claims_acks_and_releases() {
    let mut server = Server::new();
    server.put("s", &pull());
    assert_eq!(claim(&mut server, "w-1"), Err(Code::NoPendingWork));
    server.create("events/a", 3);
    let event = server.announcement();
    assert_eq!(
        event,
        json!({ "type": "wake", "subscription_id": "s", "stream": "events/a", "generation": 1, "ts": world::NOW })
    );
    let first = claim(&mut server, "w-1").unwrap();
    assert_eq!((&first["generation"], &first["lease_ttl_ms"]), (&json!(1), &json!(1000)));
    let scene = server.world.scene();
    let busy = server.subscriptions.claim("s", br#"{"worker":"w-2"}"#, scene).unwrap_err();
    let busy = read(&busy.body());
    assert_eq!(busy["error"]["code"], "ALREADY_CLAIMED");
    assert_eq!(busy["error"]["current_holder"], "w-1");
    let tail = server.world.tail("events/a");
    let token = first["token"].as_str();
    let done = server.ask("s", "ack", token, &progress(&first, &[("events/a", &tail)], true));
    assert_eq!(done, Ok(json!({ "ok": true, "next_wake": false })));
    server.append("events/a", 1);
    server.announcement();
    let second = claim(&mut server, "w-1").unwrap();
    assert_eq!(server.ask("s", "release", token, &progress(&first, &[], false)), Err(Code::Fenced));
    let released = server.ask("s", "release", second["token"].as_str(), &progress(&second, &[], false));
    assert_eq!(released, Ok(Value::Null));
    // What is left is announced again.
    assert_eq!(server.announcement()["generation"], 3);
}

#[test]
fn an_ack_keeps_the_lease_and_the_claim() {
    let mut server = Server::new();
    server.put("s", &pull());
    server.create("events/a", 3);
    server.announcement();
    let held = claim(&mut server, "w-1").unwrap();
    let token = held["token"].as_str();
    for _ in 0..5 {
        server.pass(999);
        server.ask("s", "ack", token, &progress(&held, &[], false)).unwrap();
        assert_eq!(claim(&mut server, "w-2"), Err(Code::AlreadyClaimed));
    }
    server.append("events/a", 1);
    let (start, tail) = (held["streams"][0]["tail_offset"].as_str().unwrap(), server.world.tail("events/a"));
    server.ask("s", "ack", token, &progress(&held, &[("events/a", start)], false)).unwrap();
    let done = server.ask("s", "ack", token, &progress(&held, &[], true));
    assert_eq!(done, Ok(json!({ "ok": true, "next_wake": true })));
    assert_ne!(server.acked("s", "events/a"), Some(tail));
    assert_eq!(server.announcement()["generation"], 2);
}

#[test]
fn a_lease_that_ends_lets_the_next_worker_in_even_before_the_clock_is_looked_at() {
    let mut server = Server::new();
    server.put("s", &pull());
    server.create("events/a", 3);
    server.announcement();
    let lost = claim(&mut server, "w-1").unwrap();
    server.world.pass(1000);
    let found = claim(&mut server, "w-2").unwrap();
    assert_eq!(found["generation"], 2);
    let body = progress(&lost, &[("events/a", &server.world.tail("events/a"))], true);
    assert_eq!(server.ask("s", "ack", lost["token"].as_str(), &body), Err(Code::Fenced));
    assert_ne!(server.acked("s", "events/a"), Some(server.world.tail("events/a")));
}

#[test]
fn an_event_that_could_not_be_appended_is_appended_later() {
    let mut server = Server::new();
    server.put("s", &pull());
    server.create("events/a", 3);
    let announcement = server.announcements.pop().unwrap();
    assert_eq!(announcement.stream, "wake/pool");
    server.announced(&announcement, false);
    assert_eq!(server.get("s")["status"], "failed");
    server.pass(1200);
    assert_eq!(server.announcement()["generation"], 1);
    assert_eq!(server.get("s")["status"], "active");
}

#[test]
fn its_own_wakes_are_no_work() {
    let mut server = Server::new();
    server.create("wake/pool", 0);
    let mut settings = pull();
    settings["pattern"] = "**".into();
    server.put("s", &settings);
    server.append("wake/pool", 10);
    assert!(server.announcements.is_empty());
    let own = server.ask("s", "streams", None, &json!({ "streams": ["wake/pool"] }));
    assert_eq!(own, Err(Code::InvalidRequest));
}

#[test]
fn an_offset_that_a_cursor_cannot_move_to_moves_none() {
    let mut server = Server::new();
    server.put("s", &pull());
    server.create("events/a", 3);
    server.create("events/b", 3);
    server.announcement();
    let held = claim(&mut server, "w-1").unwrap();
    let (a, b) = (server.world.tail("events/a"), server.world.tail("events/b"));
    let far = a.replace('3', "4");
    let body = progress(&held, &[("events/a", &a)], false);
    server.ask("s", "ack", held["token"].as_str(), &body).unwrap();
    let back = a.replace('3', "2");
    for (path, offset) in [
        ("events/c", &*a),
        ("events/a", "-1"),
        ("events/a", "x"),
        ("events/a", &far),
        ("events/a", &b),
        ("events/a", &back),
    ] {
        let body = progress(&held, &[("events/b", &b), (path, offset)], true);
        let refused = server.ask("s", "ack", held["token"].as_str(), &body);
        assert_eq!(refused, Err(Code::InvalidOffset), "{path} {offset}");
    }
    assert_ne!(server.acked("s", "events/b"), Some(b));
}

#[test]
fn what_was_appended_after_the_claim_may_be_acked_before_the_news_of_it() {
    let mut server = Server::new();
    server.put("s", &pull());
    server.create("events/a", 3);
    server.announcement();
    let held = claim(&mut server, "w-1").unwrap();
    server.world.append("events/a", 5);
    let tail = server.world.tail("events/a");
    let done = server.ask("s", "ack", held["token"].as_str(), &progress(&held, &[("events/a", &tail)], true));
    assert_eq!(done, Ok(json!({ "ok": true, "next_wake": false })));
}

#[test]
fn a_deleted_subscription_takes_its_wakes_with_it_even_when_it_comes_again() {
    let mut server = Server::new();
    server.put("s", &pull());
    server.create("events/a", 3);
    server.announcement();
    let held = claim(&mut server, "w-1").unwrap();
    let body = progress(&held, &[("events/a", &server.world.tail("events/a"))], true);
    server.subscriptions.delete("s");
    server.obey();
    assert!(server.records.is_empty());
    assert_eq!(server.ask("s", "ack", held["token"].as_str(), &body), Err(Code::NotFound));
    assert_eq!(server.get("s"), Value::Null);
    server.append("events/a", 1);
    server.put("s", &pull());
    server.append("events/a", 1);
    server.announcement();
    claim(&mut server, "w-2").unwrap();
    assert_eq!(server.ask("s", "ack", held["token"].as_str(), &body), Err(Code::TokenInvalid));
}

#[test]
fn work_that_vanishes_wakes_nobody() {
    let mut server = Server::new();
    server.put("s", &pull());
    server.create("events/a", 3);
    server.announcement();
    server.delete("events/a");
    assert_eq!(claim(&mut server, "w-1"), Err(Code::NoPendingWork));
    server.create("events/a", 3);
    assert_eq!(server.announcement()["generation"], 2);
}
