//! Which streams, what is kept, how much.

use super::*;

#[test]
fn explicit_links_stand_before_those_of_the_pattern_and_leave_them_behind() {
    let mut server = Server::new();
    server.create("events/a", 5);
    server.put("s", &webhook());
    let link_type = |server: &mut Server, path: &str| {
        let body = server.get("s");
        let found = body["streams"].as_array().unwrap().iter().find(|stream| stream["path"] == path).cloned();
        found.map(|stream| stream["link_type"].as_str().unwrap().to_owned())
    };
    let add =
        |server: &mut Server, list: &[&str]| server.ask("s", "streams", None, &json!({ "streams": list }));
    add(&mut server, &["events/a", "/manual/b/", "manual/b"]).unwrap();
    assert_eq!(link_type(&mut server, "events/a").as_deref(), Some("explicit"));
    assert_eq!(link_type(&mut server, "manual/b").as_deref(), Some("explicit"));
    assert_eq!(server.acked("s", "manual/b").as_deref(), Some("-1"));
    // A stream that comes later is new from its beginning.
    server.create("manual/b", 2);
    let (delivery, wake) = server.delivery();
    assert_eq!(wake["streams"][0]["path"], "manual/b");
    server.delivered(&delivery, Delivered::Done);
    for path in ["events/a", "manual/b", "manual/b", "never"] {
        server.subscriptions.remove_stream("s", path, server.world.scene()).unwrap();
    }
    assert_eq!(link_type(&mut server, "events/a").as_deref(), Some("glob"));
    assert_eq!(link_type(&mut server, "manual/b"), None);
    server.append("manual/b", 2);
    assert!(server.deliveries.is_empty());
    assert_eq!(add(&mut server, &["__ds/x"]), Err(Code::InvalidRequest));
}

#[test]
fn a_stream_that_comes_again_is_another_one() {
    let mut server = Server::new();
    let mut settings = webhook();
    settings["streams"] = json!(["manual"]);
    server.create("events/a", 9);
    server.create("manual", 9);
    server.put("s", &settings);
    server.delete("events/a");
    server.delete("manual");
    assert_eq!(server.acked("s", "events/a"), None);
    assert_eq!(server.acked("s", "manual").as_deref(), Some("-1"));
    server.create("events/a", 2);
    let (delivery, _) = server.delivery();
    // Deleted and made again before anyone has looked.
    server.world.delete("events/a");
    server.world.create("events/a", 7);
    server.append("events/a", 1);
    server.delivered(&delivery, Delivered::Done);
    let (_, wake) = server.delivery();
    assert_eq!(wake["streams"][0]["has_pending"], true);
    assert!(wake["streams"][0]["acked_offset"].as_str().unwrap().ends_with("-00000000000000000000"));
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut server = Server::new();
    server.create("events/a", 3);
    server.put("s", &webhook());
    server.append("events/a", 3);
    let (delivery, wake) = server.delivery();
    server.delivered(&delivery, Delivered::Failed);
    let due = server.subscriptions.next_due();
    let before = server.get("s");
    // The schedule is kept.
    server.restart(2);
    assert_eq!((server.subscriptions.next_due(), server.get("s")), (due, before));
    server.pass(1200);
    server.delivery();
    // Nobody heard what became of it: it is told again, as the same wake.
    server.restart(3);
    let (delivery, again) = server.delivery();
    assert_eq!(again["wake_id"], wake["wake_id"]);
    server.delivered(&delivery, Delivered::Accepted);
    server.world.append("events/a", 1);
    server.world.create("events/b", 1);
    server.restart(4);
    // A token outlives a restart, and so does what came meanwhile.
    let tail = again["streams"][0]["tail_offset"].as_str().unwrap();
    let body = progress(&again, &[("events/a", tail)], true);
    let done = server.ask("s", "callback", again["callback_token"].as_str(), &body);
    assert_eq!(done, Ok(json!({ "ok": true, "next_wake": true })));
    let (_, next) = server.delivery();
    assert_eq!(next["generation"], 2);
    assert_eq!(next["streams"].as_array().unwrap().iter().filter(|it| it["has_pending"] == true).count(), 2);
}

#[test]
fn an_ack_of_one_stream_among_many_is_a_small_record() {
    let mut server = Server::new();
    for n in 0..500 {
        server.create(&format!("events/{n}"), 1);
    }
    server.put("s", &pull());
    let whole = server.records.last().unwrap().len();
    server.append("events/7", 1);
    server.announcement();
    let held = claim(&mut server, "w").unwrap();
    for _ in 0..1000 {
        server.append("events/7", 1);
        let body = progress(&held, &[("events/7", &server.world.tail("events/7"))], false);
        server.ask("s", "ack", held["token"].as_str(), &body).unwrap();
    }
    let last = server.records.last().unwrap().len();
    assert!(last * 50 < whole, "{last} of {whole} bytes");
    // What is kept is bounded all the same.
    let kept: usize = server.records.iter().map(Vec::len).sum();
    assert!(kept < 2 * whole + (80 << 10), "{kept} bytes");
    let before = server.get("s");
    server.restart(2);
    assert_eq!(server.get("s"), before);
}

#[test]
fn a_record_that_could_not_be_kept_is_made_up_for_by_the_next() {
    let mut server = Server::new();
    server.put("s", &pull());
    server.create("events/a", 3);
    server.records.pop();
    server.subscriptions.not_stored("s");
    // What was asked for behind it was never done.
    let announcement = server.announcements.pop().unwrap();
    server.announced(&announcement, false);
    let before = server.get("s");
    server.restart(2);
    assert_eq!(server.get("s"), before);
    server.pass(1200);
    assert_eq!(server.announcement()["generation"], 1);
}

#[test]
fn a_record_that_is_none_is_told() {
    let mut server = Server::new();
    assert!(matches!(server.subscriptions.restore(b"{}"), Err(BadRecord::Json(_))));
    server.put("s", &webhook());
    server.create("events/a", 1);
    let change = server.records.last().unwrap().clone();
    assert!(matches!(Server::new().subscriptions.restore(&change), Err(BadRecord::Unknown(id)) if id == "s"));
}

#[test]
fn there_are_bounds() {
    let mut server = Server::new();
    for n in 0..SUBSCRIPTIONS_MAX {
        server.put(&n.to_string(), &json!({ "type": "pull-wake", "streams": ["a"], "wake_stream": "w" }));
        server.records.clear();
    }
    assert_eq!(server.put("one more", &webhook()).0, 429);
    assert_eq!(server.put(&"x".repeat(ID_BYTES_MAX + 1), &webhook()).0, 400);
    let mut server = Server::new();
    for n in 0..=STREAMS_MAX {
        server.world.create(&format!("events/{n}"), 1);
    }
    assert_eq!(server.put("s", &webhook()).0, 429);
    server.world.delete("events/0");
    assert_eq!(server.put("s", &webhook()).0, 201);
    server.create("events/0", 1);
    assert_eq!((server.subscriptions.unlinked(), server.deliveries.len()), (1, 0));
    let add = server.ask("s", "streams", None, &json!({ "streams": ["more"] }));
    assert_eq!(add, Err(Code::LimitReached));
}

#[test]
fn without_memory_nothing_is_half_done_and_streams_are_left_out() {
    let mut server = Server::new();
    server.create("events/a", 5);
    server.put("s", &webhook());
    let held = server.subscriptions.held();
    server.world.memory.set(held + LINK_OVERHEAD_BYTES);
    server.create("events/one-too-many", 5);
    assert!(server.deliveries.is_empty());
    assert_eq!((server.subscriptions.held(), server.subscriptions.unlinked()), (held, 1));
    let add = json!({ "streams": ["b", "a-path-that-does-not-fit"] });
    assert_eq!(server.ask("s", "streams", None, &add), Err(Code::NoMemory));
    assert_eq!((server.put("t", &webhook()).0, server.subscriptions.held()), (503, held));
    server.delete("events/one-too-many");
    server.delete("events/a");
    server.create("events/b", 5);
    let (_, wake) = server.delivery();
    assert_eq!(wake["streams"][0]["path"], "events/b");
    server.subscriptions.delete("s");
    assert_eq!(server.subscriptions.held(), 0);
    assert_eq!(server.put("t", &webhook()).0, 201);
}
