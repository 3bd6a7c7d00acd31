//! Webhooks: sent, answered, called back, failed.

use super::*;

#[test]
fn a_subscription_is_created_once_and_confirmed_while_it_is_the_same() {
    let mut server = Server::new();
    let (status, created) = server.put("s", &webhook());
    assert_eq!(status, 201);
    assert_eq!(created["webhook"]["url"], "http://127.0.0.1:9/hook");
    assert_eq!(created["webhook"]["signing"]["alg"], "ed25519");
    assert_eq!(created["webhook"]["signing"]["jwks_url"], "http://edge.example/v1/stream/__ds/jwks.json");
    assert!(created["webhook"]["signing"]["kid"].as_str().is_some_and(|kid| kid.starts_with("ds_")));
    assert_eq!(created["status"], "active");
    assert_eq!(created["created_at"], "2026-05-09T10:56:50.000Z");
    assert_eq!(created["wake_stream"], Value::Null);
    assert_eq!(server.put("s", &webhook()), (200, created.clone()));
    assert_eq!(server.get("s"), created);
    let mut other = webhook();
    other["lease_ttl_ms"] = 2000.into();
    let (status, refused) = server.put("s", &other);
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("SUBSCRIPTION_ALREADY_EXISTS")));
}

#[test]
fn history_is_not_replayed_and_what_is_new_wakes() {
    let mut server = Server::new();
    server.create("events/old", 10);
    server.put("s", &webhook());
    assert!(server.deliveries.is_empty());
    assert_eq!(server.acked("s", "events/old"), Some(server.world.tail("events/old")));
    server.create("other/new", 3);
    server.create("events/empty", 0);
    assert!(server.deliveries.is_empty());
    server.create("events/new", 3);
    let (delivery, wake) = server.delivery();
    assert_eq!(delivery.url, "http://127.0.0.1:9/hook");
    assert_eq!(wake["subscription_id"], "s");
    assert_eq!(wake["generation"], 1);
    assert_eq!(wake["callback_url"], "http://edge.example/v1/stream/__ds/subscriptions/s/callback");
    let streams = wake["streams"].as_array().unwrap();
    // Those with work first.
    assert_eq!(streams[0]["path"], "events/new");
    assert_eq!(streams[0]["has_pending"], true);
    assert_eq!(streams[0]["tail_offset"], server.world.tail("events/new"));
    assert_eq!(streams.len(), 3);
    assert!(streams[1..].iter().all(|stream| stream["has_pending"] == false));
}

#[test]
fn done_acks_what_was_shown_and_what_came_meanwhile_wakes_again() {
    let mut server = Server::new();
    server.put("s", &webhook());
    server.create("events/a", 3);
    let (delivery, first) = server.delivery();
    server.append("events/a", 4);
    assert!(server.deliveries.is_empty(), "one wake at a time");
    server.delivered(&delivery, Delivered::Done);
    let (delivery, second) = server.delivery();
    assert_eq!(second["streams"][0]["acked_offset"], first["streams"][0]["tail_offset"]);
    assert_eq!(second["generation"], 2);
    assert_ne!(second["wake_id"], first["wake_id"]);
    server.delivered(&delivery, Delivered::Done);
    assert!(server.deliveries.is_empty());
    assert_eq!(server.acked("s", "events/a"), Some(server.world.tail("events/a")));
    // Said twice, it is about a wake that is over.
    server.delivered(&delivery, Delivered::Failed);
    assert_eq!(server.get("s")["status"], "active");
}

#[test]
fn a_callback_acks_once_and_is_fenced_off_then() {
    let mut server = Server::new();
    server.put("s", &webhook());
    server.create("events/a", 3);
    let (delivery, wake) = server.delivery();
    server.delivered(&delivery, Delivered::Accepted);
    let token = wake["callback_token"].as_str();
    let body = progress(&wake, &[("events/a", &server.world.tail("events/a"))], true);
    assert_eq!(server.ask("s", "callback", None, &body), Err(Code::TokenInvalid));
    assert_eq!(server.ask("s", "callback", Some("x.y.z"), &body), Err(Code::TokenInvalid));
    let done = server.ask("s", "callback", token, &body);
    assert_eq!(done, Ok(json!({ "ok": true, "next_wake": false })));
    assert_eq!(server.ask("s", "callback", token, &body), Err(Code::Fenced));
    server.append("events/a", 1);
    let (_, next) = server.delivery();
    assert_eq!(server.ask("s", "callback", token, &body), Err(Code::Fenced));
    // Neither the old token with the new wake, nor the new token with the old one.
    let mixed = progress(&next, &[], true);
    assert_eq!(server.ask("s", "callback", token, &mixed), Err(Code::Fenced));
    assert_eq!(server.ask("s", "callback", next["callback_token"].as_str(), &body), Err(Code::Fenced));
}

#[test]
fn a_callback_extends_the_lease_and_without_one_it_ends() {
    let mut server = Server::new();
    server.put("s", &webhook());
    server.create("events/a", 3);
    let (delivery, wake) = server.delivery();
    server.delivered(&delivery, Delivered::Accepted);
    let token = wake["callback_token"].as_str();
    for _ in 0..5 {
        server.pass(900);
        let alive = server.ask("s", "callback", token, &progress(&wake, &[], false));
        assert_eq!(alive, Ok(json!({ "ok": true, "next_wake": false })));
    }
    server.pass(1000);
    let (_, next) = server.delivery();
    assert_eq!(next["generation"], 2);
    assert_eq!(server.ask("s", "callback", token, &progress(&wake, &[], true)), Err(Code::Fenced));
}

#[test]
fn a_receiver_that_calls_back_before_it_answers_has_the_wake() {
    let mut server = Server::new();
    server.put("s", &webhook());
    server.create("events/a", 3);
    let (delivery, wake) = server.delivery();
    let token = wake["callback_token"].as_str();
    server.ask("s", "callback", token, &progress(&wake, &[], false)).unwrap();
    // Its answer is lost: it is not asked again while its lease runs.
    server.delivered(&delivery, Delivered::Failed);
    server.pass(999);
    assert!(server.deliveries.is_empty());
    let tail = server.world.tail("events/a");
    let done = server.ask("s", "callback", token, &progress(&wake, &[("events/a", &tail)], true));
    assert_eq!(done, Ok(json!({ "ok": true, "next_wake": false })));
}

#[test]
fn a_webhook_that_fails_is_sent_again_later_and_later() {
    let mut server = Server::new();
    let mut settings = webhook();
    settings["lease_ttl_ms"] = 600_000.into();
    server.put("s", &settings);
    server.create("events/a", 3);
    let (mut delivery, wake) = server.delivery();
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        server.delivered(&delivery, Delivered::Failed);
        assert_eq!(server.get("s")["status"], "failed");
        let wait = server.subscriptions.next_due().unwrap() - server.world.now.get();
        assert!((seconds * 800..=seconds * 1200).contains(&wait), "{wait} of {seconds} s");
        server.pass(wait - 1);
        assert!(server.deliveries.is_empty());
        server.pass(1);
        let again;
        (delivery, again) = server.delivery();
        assert_eq!((&again["wake_id"], &again["generation"]), (&wake["wake_id"], &json!(1)));
        assert_eq!(server.get("s")["status"], "active");
    }
    server.delivered(&delivery, Delivered::Done);
    server.append("events/a", 1);
    let (delivery, _) = server.delivery();
    server.delivered(&delivery, Delivered::Failed);
    let wait = server.subscriptions.next_due().unwrap() - server.world.now.get();
    assert!(wait <= 1200, "it begins with a second again");
}

#[test]
fn a_receiver_that_does_not_answer_is_not_asked_faster_for_it() {
    let mut server = Server::new();
    server.put("s", &webhook());
    server.create("events/a", 3);
    let (_, wake) = server.delivery();
    server.pass(1000);
    assert!(server.deliveries.is_empty());
    assert_eq!(server.get("s")["status"], "failed");
    let token = wake["callback_token"].as_str();
    assert_eq!(server.ask("s", "callback", token, &progress(&wake, &[], true)), Err(Code::Fenced));
    server.pass(1200);
    let (_, next) = server.delivery();
    assert_eq!(next["generation"], 2);
}

#[test]
fn a_wake_shows_as_many_streams_as_it_has_room_for_and_all_get_their_turn() {
    let mut server = Server::new();
    server.put("s", &webhook());
    let paths: Vec<String> = (0..2500).map(|n| format!("events/{n:04}")).collect();
    paths.iter().for_each(|path| server.world.create(path, 0));
    for path in &paths {
        server.subscriptions.created(path, server.world.scene());
        server.world.append(path, 1);
    }
    let mut shown = std::collections::BTreeSet::new();
    for path in &paths {
        server.subscriptions.changed(path, server.world.scene());
    }
    server.obey();
    for _ in 0..4 {
        let (delivery, wake) = server.delivery();
        let streams = wake["streams"].as_array().unwrap();
        assert!(streams.len() <= WAKE_STREAMS_MAX);
        // The first of them never rest.
        for path in &paths[..1500] {
            server.append(path, 1);
        }
        let pending = streams.iter().filter(|stream| stream["has_pending"] == true);
        shown.extend(pending.map(|stream| stream["path"].as_str().unwrap().to_owned()));
        server.delivered(&delivery, Delivered::Done);
    }
    assert_eq!(shown.len(), paths.len());
}

#[test]
fn an_answer_takes_no_callback_back() {
    let mut server = Server::new();
    server.put("s", &webhook());
    server.create("events/a", 3);
    let (delivery, wake) = server.delivery();
    server.append("events/a", 4);
    // It has read on meanwhile, and says so before it answers.
    let tail = server.world.tail("events/a");
    let token = wake["callback_token"].as_str();
    server.ask("s", "callback", token, &progress(&wake, &[("events/a", &tail)], false)).unwrap();
    server.delivered(&delivery, Delivered::Done);
    assert_eq!(server.acked("s", "events/a"), Some(tail));
    assert!(server.deliveries.is_empty(), "nothing is left");
}
