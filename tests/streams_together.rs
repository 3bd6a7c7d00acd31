//! Several streams on one connection: one order, one id for the place in all of them, and nothing lost or doubled wherever it is
//! cut.

mod support;

use std::collections::BTreeSet;

use support::streams::{
    Event, Events, TEXT, altered, append, create, directory, of_several, of_three, parts, path, remove,
    request,
};
use support::{Edge, error_code, get};

fn edge() -> Edge {
    Edge::start(&[])
}

/// One browser connection follows several streams; whatever it has seen last, it comes back to the rest of all of them.
#[test]
fn many_streams_on_one_connection_lose_and_double_nothing() {
    let edge = edge();
    let names = ["a", "b/c", "d"];
    for name in names {
        create(&edge, name, TEXT);
    }
    let target = "/v1/stream?name=a&name=b%2Fc&name=d";
    // Some before it comes, in an order of their own; some while it is there.
    let mut sent: Vec<(String, String)> = Vec::new();
    let say = |sent: &mut Vec<(String, String)>, number: usize| {
        let name = names[number * 7 % 5 % 3];
        append(&edge, name, &number.to_string());
        sent.push((name.to_owned(), number.to_string()));
    };
    (0..20).for_each(|number| say(&mut sent, number));
    let mut events = Events::source(&edge, target, Some("-1"));
    let mut seen: Vec<Event> = (0..20).map(|_| events.data()).collect();
    for number in 20..40 {
        say(&mut sent, number);
        seen.push(events.data());
    }
    drop(events);
    let told: Vec<_> = seen.iter().map(of_several).collect();
    assert_eq!(told, sent);
    // Cut after any of them: it goes on with exactly what it has not seen.
    for cut in [0, 1, 7, 19, 20, 31, 38, 39] {
        let id = seen[cut].id.as_deref().expect("an id");
        parts(id);
        let mut events = Events::source(&edge, target, Some(id));
        say(&mut sent, 40 + cut);
        let rest: Vec<_> = sent[cut + 1..].iter().map(|_| of_several(&events.data())).collect();
        assert_eq!(rest, sent[cut + 1..], "cut after {cut}: {id}");
    }
}

/// Several who publish at once to streams that are followed together: an id that was told must never stand for less than all that
/// came before it. Otherwise who comes back with it has lost something.
#[test]
fn many_streams_of_many_publishers_are_told_in_one_order() {
    const EACH: usize = 300;
    let edge = Edge::run(support::edge::command(), &["--workers", "2"]);
    let names = ["a", "b", "c", "d"];
    for name in names {
        create(&edge, name, TEXT);
    }
    let target = "/v1/stream?name=a&name=b&name=c&name=d";
    let mut events = Events::source(&edge, target, None);
    std::thread::scope(|scope| {
        for name in names {
            let mut client = edge.connect();
            scope.spawn(move || {
                for number in 0..EACH {
                    let body = number.to_string();
                    client.send(request("POST", &path(name), &["Content-Type: text/plain"], body));
                    assert_eq!(client.read_answer().0.status(), 204);
                }
            });
        }
        let (mut last, mut expected) = (String::new(), [0; 4]);
        for seen in 0..EACH * names.len() {
            // Now and then it is cut, and comes back.
            if seen % 50 == 49 {
                events = Events::source(&edge, target, Some(&last));
            }
            let event = events.data();
            let (name, text) = of_several(&event);
            let place = names.iter().position(|other| **other == name).expect("a name");
            assert_eq!(text, expected[place].to_string(), "of {name}");
            expected[place] += 1;
            let id = event.id.expect("an id");
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        assert_eq!(expected, [EACH; 4]);
    });
}

/// What a fork has of its source is one append in two streams: cut between the two, the second still has to come.
#[test]
fn a_fork_followed_beside_its_source_loses_nothing() {
    let edge = edge();
    create(&edge, "a", TEXT);
    ["1", "2"].iter().for_each(|text| drop(append(&edge, "a", text)));
    let fork = ["Stream-Forked-From: /v1/stream/a"];
    assert_eq!(edge.ask(&request("PUT", &path("b"), &fork, "")).0.status(), 201);
    append(&edge, "b", "3");
    append(&edge, "a", "4");
    let target = "/v1/stream?name=a&name=b";
    let all = ["a1", "a2", "a4", "b1", "b2", "b3"];
    let take = |id: Option<&str>, count: usize| -> Vec<(String, String)> {
        let mut events = Events::source(&edge, target, id);
        let told = (0..count).map(|_| events.data()).map(|event| {
            let (name, text) = of_several(&event);
            (name + &text, event.id.expect("an id"))
        });
        told.collect()
    };
    let first = take(None, all.len());
    for cut in 0..all.len() {
        let mut told: BTreeSet<String> = first[..=cut].iter().map(|(text, _)| text.clone()).collect();
        // Something may come twice after a cut within one append, but nothing is left out.
        let missing = all.len() - 1 - cut;
        told.extend(take(Some(&first[cut].1), missing).into_iter().map(|(text, _)| text));
        let repeated = all.len() - told.len();
        assert!(repeated <= 1, "{told:?} after {cut}");
        if repeated == 1 {
            told.extend(take(Some(&first[cut].1), missing + 1).into_iter().map(|(text, _)| text));
        }
        assert_eq!(told.into_iter().collect::<Vec<_>>(), all, "after {cut}: {first:?}");
    }
}

/// A place among many that is not to be had is told as one in a single stream is, and all there is follows.
#[test]
fn many_streams_are_reset_together() {
    let edge = Edge::configured("[streams]\nkeep_records = 2\n");
    for name in ["a", "b"] {
        create(&edge, name, TEXT);
    }
    let target = "/v1/stream?name=a&name=b";
    append(&edge, "a", "1");
    append(&edge, "b", "2");
    let first = Events::source(&edge, target, None).data().id.expect("an id");
    let (epoch, number) = parts(&first);
    let other: String = epoch.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    for text in ["3", "4", "5"] {
        append(&edge, "a", text);
    }
    let kept = [("b", "2"), ("a", "4"), ("a", "5")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    for (id, reason) in [
        (altered(&first, Some(&other), None), "epoch"),
        (altered(&first, None, Some(number + 1_000)), "ahead"),
        (first.clone(), "trimmed"),
    ] {
        let mut events = Events::source(&edge, target, Some(&id));
        let event = events.next();
        assert_eq!(event.name.as_deref(), Some("reset"), "{reason}: {event:?}");
        assert_eq!(
            (&event.json()["reason"], &event.json()["requested"]),
            (&reason.into(), &id.as_str().into())
        );
        let told: Vec<_> = (0..3).map(|_| of_several(&events.data())).collect();
        assert_eq!(told, kept, "{reason}");
        // Cut after it, or after any event that follows, it goes on from there and is not told again: what it knows to be gone
        // lies behind some of what is still to come. That is said once more only if more is given up.
        let mut events = Events::source(&edge, target, event.id.as_deref());
        for left in (0..kept.len()).rev() {
            let seen = events.data();
            assert_eq!(of_several(&seen), kept[kept.len() - 1 - left], "{reason}");
            events = Events::source(&edge, target, seen.id.as_deref());
        }
    }
    let mut events = Events::source(&edge, target, None);
    let seen = events.data();
    assert_eq!(of_several(&seen), kept[0]);
    for text in ["6", "7", "8"] {
        append(&edge, "a", text);
    }
    let told = Events::source(&edge, target, seen.id.as_deref()).next();
    assert_eq!((told.name.as_deref(), told.json()["reason"].as_str()), (Some("reset"), Some("trimmed")));
}

/// Records that are given up while a reader is on its way to them: it is never told the rest as if it had seen all.
#[test]
fn who_is_too_slow_for_what_is_kept_is_told() {
    let edge = Edge::configured("[streams]\nkeep_records = 2\n");
    let (_, offsets) = of_three(&edge);
    create(&edge, "b", TEXT);
    let mut alone = Events::source(&edge, &path("a"), Some(&offsets[2]));
    let mut both = Events::source(&edge, "/v1/stream?name=a&name=b", Some("now"));
    // In one go, so that they come and go before a reader's turn.
    let post = |number: usize| request("POST", &path("a"), &["Content-Type: text/plain"], number.to_string());
    let mut client = edge.connect();
    client.send((4..40).flat_map(post).collect::<Vec<u8>>());
    (4..40).for_each(|_| assert_eq!(client.read_answer().0.status(), 204));
    // Either it was fast enough for all of them, or it is cut, comes back, and learns what it has missed.
    for (events, target) in [(&mut alone, path("a")), (&mut both, "/v1/stream?name=a&name=b".to_owned())] {
        let (mut last, mut told, mut expected) = (None, false, 4);
        while expected < 40 {
            match events.try_next() {
                Ok(event) if event.name.as_deref() == Some("control") => last = event.id.or(last),
                Ok(event) if event.name.as_deref() == Some("reset") => {
                    assert_eq!(event.json()["reason"], "trimmed");
                    (told, last) = (true, event.id);
                }
                Ok(event) => {
                    let text = if target == path("a") { event.data.clone() } else { of_several(&event).1 };
                    let number: usize = text.parse().expect("a number");
                    assert!(
                        number == expected || told && number > expected,
                        "{number} instead of {expected}"
                    );
                    (expected, told, last) = (number + 1, false, event.id);
                }
                Err(_) => *events = Events::source(&edge, &target, last.as_deref()),
            }
        }
    }
}

/// An append of several messages had an id at its last one alone: who was cut between them got the first ones twice.
#[test]
fn a_cut_between_messages_of_one_append_to_one_of_many_streams_repeats_none() {
    let directory = directory("messages-of-many");
    let kinds = ["Content-Type: application/json"];
    let target = "/v1/stream?name=a&name=b";
    for arguments in [vec![], vec!["--data-dir", &directory]] {
        let edge = Edge::start(&arguments);
        create(&edge, "a", "application/json");
        create(&edge, "b", "application/json");
        for (name, body) in
            [("a", "[1,22,333]"), ("b", "[4,5]"), ("a", "6"), ("b", "[[7],8,9]"), ("a", "[10,11]")]
        {
            let (head, _) = edge.ask(&request("POST", &path(name), &kinds, body));
            assert_eq!(head.status(), 204);
        }
        let all = ["1", "22", "333", "4", "5", "6", "[7]", "8", "9", "10", "11"];
        // Cut after each of so many events, again and again; once right after it has come back.
        for step in 1..all.len() {
            let (mut seen, mut id) = (Vec::new(), None);
            while seen.len() < all.len() {
                let mut events = Events::source(&edge, target, id.as_deref());
                let place = events.next();
                assert_eq!(place.name.as_deref(), Some("control"), "{place:?}");
                events = Events::source(&edge, target, place.id.as_deref());
                for _ in 0..step.min(all.len() - seen.len()) {
                    let event = events.data();
                    seen.push(event.json()["data"].to_string());
                    id = Some(event.id.expect("each has an id"));
                }
            }
            assert_eq!(seen, all, "cut after each {step}");
        }
        // What is no end of a message is not gone on from: the append comes whole.
        let mut events = Events::source(&edge, target, None);
        let id = events.data().id.expect("an id");
        let (before, _) = id.rsplit_once("-00000002-").expect("two bytes of the first append");
        for within in ["00000001", "00000003", "00000009", "ffffffff"] {
            let mut events = Events::source(&edge, target, Some(&format!("{before}-{within}-0")));
            assert_eq!(events.data().json()["data"], 1, "{within}");
        }
    }
    remove(&directory);
}

/// One of sixty streams that was deleted, or not made yet, made a 404 of all of them, and the page's EventSource gave up for good.
#[test]
fn a_stream_that_is_not_there_is_told_and_the_others_go_on() {
    let edge = edge();
    create(&edge, "a", TEXT);
    create(&edge, "b", TEXT);
    append(&edge, "a", "1");
    let mut events = Events::source(&edge, "/v1/stream?name=a&name=missing&name=b", None);
    let control = |events: &mut Events| {
        let event = events.next();
        assert_eq!(event.name.as_deref(), Some("control"), "{event:?}");
        event.json()
    };
    assert!(control(&mut events)["streamNextOffset"].is_string());
    assert_eq!(control(&mut events), serde_json::json!({ "stream": "missing", "streamMissing": true }));
    assert_eq!(of_several(&events.next()), ("a".into(), "1".into()));
    assert_eq!(edge.ask(&request("DELETE", &path("b"), &[], "")).0.status(), 204);
    assert_eq!(control(&mut events), serde_json::json!({ "stream": "b", "streamGone": true }));
    append(&edge, "a", "2");
    let last = events.next();
    assert_eq!(of_several(&last), ("a".into(), "2".into()));
    // One that waits for them has them once they are made, and goes on where it was.
    let target = "/v1/stream?name=a&name=missing&name=b&wait=1";
    let mut waiting = Events::source(&edge, target, last.id.as_deref());
    (0..3).for_each(|_| drop(control(&mut waiting)));
    create(&edge, "b", TEXT);
    append(&edge, "b", "3");
    assert_eq!(of_several(&waiting.next()), ("b".into(), "3".into()));
    append(&edge, "a", "4");
    assert_eq!(of_several(&waiting.next()), ("a".into(), "4".into()));
    // With none of them there is nothing to go on with.
    let (head, body) = edge.ask(&get("/v1/stream?name=no&name=none", &["Accept: text/event-stream"]));
    assert_eq!(head.status(), 404, "{}", body.text());
    error_code(&body.bytes());
    let too_many: String = (0..1_000).map(|number| format!("name=n{number}&")).collect();
    for wrong in ["", "name=", "name=a&name=..", too_many.as_str()] {
        let (head, body) = edge.ask(&get(&format!("/v1/stream?{wrong}"), &["Accept: text/event-stream"]));
        assert!((400..500).contains(&head.status()), "{wrong:.20}: {}", body.text());
        error_code(&body.bytes());
    }
}
