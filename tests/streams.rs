//! What the edge's durable streams add to their protocol, and what they refuse. The protocol itself is the public suite's
//! (`tests/run streams`).

mod support;

use std::collections::BTreeSet;

use support::streams::{
    Event, Events, append, append_with, close, create, directory, next, path, read, read_all, remove, request,
};
use support::{Edge, End, Head, error_code, get};

const TEXT: &str = "text/plain";

fn edge() -> Edge {
    Edge::start(&[])
}

/// The same path from its beginning.
fn from_the_beginning(name: &str) -> String {
    format!("{}?offset=-1", path(name))
}

/// `<epoch>-<number>`, as the two.
#[track_caller]
fn parts(offset: &str) -> (&str, u64) {
    assert!(offset.len() <= 64, "{offset}");
    assert!(offset.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{offset}");
    let (epoch, number) = offset.rsplit_once('-').unwrap_or_else(|| panic!("no epoch: {offset}"));
    (epoch, number.parse().unwrap_or_else(|_| panic!("no number: {offset}")))
}

/// An offset that says this instead.
fn altered(offset: &str, epoch: Option<&str>, number: Option<u64>) -> String {
    let (own, at) = parts(offset);
    let width = offset.len() - own.len() - 1;
    format!("{}-{:0width$}", epoch.unwrap_or(own), number.unwrap_or(at))
}

#[test]
fn offsets_are_an_epoch_and_a_number_that_sort_as_text() {
    let edge = edge();
    let mut offsets = vec![create(&edge, "a", TEXT)];
    for bytes in [1, 9, 90, 900, 9_000] {
        offsets.push(append(&edge, "a", &"x".repeat(bytes)));
    }
    let epochs: BTreeSet<_> = offsets.iter().map(|offset| parts(offset).0).collect();
    assert_eq!(epochs.len(), 1, "one life, one epoch: {offsets:?}");
    assert!(
        offsets.is_sorted() && offsets.iter().collect::<BTreeSet<_>>().len() == offsets.len(),
        "{offsets:?}"
    );
    assert!(offsets.iter().all(|offset| offset.len() == offsets[0].len()), "padded: {offsets:?}");
    let other = create(&edge, "b", TEXT);
    assert_ne!(parts(&other).0, parts(&offsets[0]).0, "another log, another epoch");

    // A name that comes again is another log: what was read of the first must not be gone on with.
    let (head, _) = edge.ask(&request("DELETE", &path("a"), &[], ""));
    assert_eq!(head.status(), 204);
    let again = create(&edge, "a", TEXT);
    assert_ne!(parts(&again).0, parts(&offsets[0]).0);
    let (head, body) = read(&edge, "a", &offsets[1]);
    assert_eq!(head.status(), 410, "{}", body.text());
    error_code(&body.bytes());
}

#[test]
fn who_accepts_events_gets_them_without_asking_for_live() {
    let edge = edge();
    create(&edge, "a", TEXT);
    append(&edge, "a", "one");
    for target in [path("a"), from_the_beginning("a")] {
        let mut events = Events::source(&edge, &target, None);
        assert_eq!(events.data().data, "one", "{target}");
        let after = append(&edge, "a", "two");
        let event = events.data();
        assert_eq!((event.data.as_str(), event.id.as_deref()), ("two", Some(after.as_str())), "{target}");
        let (head, _) = edge.ask(&request("DELETE", &path("a"), &[], ""));
        assert_eq!(head.status(), 204);
        create(&edge, "a", TEXT);
        append(&edge, "a", "one");
    }
    // As a part of a list it counts too; `*/*` does not ask for it.
    let events = Events::open(&edge, &path("a"), &["Accept: text/html, text/event-stream;q=0.9"]);
    drop(events);
    let (head, body) = edge.ask(&get(&path("a"), &["Accept: */*"]));
    assert_eq!((head.get("content-type"), body.text().as_str()), (Some(TEXT), "one"));
}

#[test]
fn every_data_event_says_where_to_go_on() {
    let edge = edge();
    create(&edge, "a", TEXT);
    let mut offsets = Vec::new();
    for number in 0..5 {
        offsets.push(append(&edge, "a", &number.to_string()));
    }
    for (target, fields) in [
        (from_the_beginning("a"), &["Accept: text/event-stream"][..]),
        (format!("{}&live=sse", from_the_beginning("a")), &[]),
    ] {
        let mut events = Events::open(&edge, &target, fields);
        let (mut text, mut last) = (String::new(), String::new());
        while text.len() < 5 {
            let event = events.data();
            text += &event.data;
            last = event.id.expect("every data event has an id");
            assert!(offsets.contains(&last), "{last} is where an append ended");
        }
        assert_eq!((text.as_str(), &last), ("01234", &offsets[4]), "{target}");
    }
    // One event a record for an EventSource.
    let mut events = Events::source(&edge, &path("a"), None);
    for (number, offset) in offsets.iter().enumerate() {
        let event = events.data();
        assert_eq!((event.data, event.id.as_ref()), (number.to_string(), Some(offset)));
    }
}

#[test]
fn where_it_was_counts_more_than_where_it_began() {
    let edge = edge();
    create(&edge, "a", TEXT);
    let first = append(&edge, "a", "1");
    let second = append(&edge, "a", "2");
    append(&edge, "a", "3");
    // A page made its URL once; its EventSource goes on from its last event all the same.
    let began = from_the_beginning("a");
    assert_eq!(Events::source(&edge, &began, Some(&first)).data().data, "2");
    assert_eq!(Events::source(&edge, &path("a"), Some(&second)).data().data, "3");
    let query = format!("{began}&last_event_id={second}");
    assert_eq!(Events::source(&edge, &query, None).data().data, "3");
    let fields = [format!("Last-Event-ID: {second}")];
    let (_, body) = edge.ask(&get(&began, &[fields[0].as_str()]));
    assert_eq!(body.text(), "3", "to read without waiting as well");
    let (_, body) = edge.ask(&get(&query, &[]));
    assert_eq!(body.text(), "3");
}

#[test]
fn each_connection_comes_back_after_another_time() {
    let edge = edge();
    create(&edge, "a", TEXT);
    append(&edge, "a", "1");
    append(&edge, "a", "2");
    let mut times = BTreeSet::new();
    for _ in 0..12 {
        let mut events = Events::source(&edge, &path("a"), None);
        let first = events.next();
        assert_eq!(first.data, "1", "what says when to come back is an event with data");
        let retry = first.retry.expect("the first event says when to come back");
        assert!((100..=30_000).contains(&retry), "{retry} ms");
        times.insert(retry);
        assert_eq!(events.data().retry, None, "it is said once");
    }
    assert!(times.len() > 4, "a crowd that was cut comes back at different times: {times:?}");
}

/// A stream of three messages, and where each of them ended.
fn of_three(edge: &Edge) -> (String, [String; 3]) {
    let start = create(edge, "a", TEXT);
    (start, ["1", "2", "3"].map(|text| append(edge, "a", text)))
}

/// What an EventSource with this id is told, and that it reads on from the earliest position there is.
#[track_caller]
fn is_reset(edge: &Edge, id: &str, reason: &str, earliest: &str) {
    let mut events = Events::source(edge, &path("a"), Some(id));
    let event = events.next();
    assert_eq!(event.name.as_deref(), Some("reset"), "{event:?}");
    let told = event.json();
    let expected = serde_json::json!({ "reason": reason, "requested": id, "earliest": earliest });
    assert_eq!(told, expected);
    // Whatever happens to the connection now: from its new id it goes on without another reset.
    let id = event.id.expect("a reset has the id to go on from");
    let mut events = Events::source(edge, &path("a"), Some(&id));
    assert_ne!(events.next().name.as_deref(), Some("reset"));

    for target in [format!("{}?offset={id}", path("a")), format!("{}?offset={id}&live=long-poll", path("a"))]
    {
        let (head, body) = edge.ask(&get(&target.replace(&id, &requested(&told)), &[]));
        assert_eq!(head.status(), 410, "{head:?}");
        error_code(&body.bytes());
    }
}

fn requested(told: &serde_json::Value) -> String {
    told["requested"].as_str().expect("text").to_owned()
}

#[test]
fn a_position_of_another_life_is_told_to_a_source_as_an_event() {
    let edge = edge();
    let (start, offsets) = of_three(&edge);
    let (epoch, _) = parts(&start);
    let other: String = epoch.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    is_reset(&edge, &altered(&offsets[1], Some(&other), None), "epoch", &start);
}

#[test]
fn a_position_that_is_not_there_yet_is_told_to_a_source_as_an_event() {
    let edge = edge();
    let (start, offsets) = of_three(&edge);
    is_reset(&edge, &altered(&offsets[2], None, Some(1_000_000)), "ahead", &start);
}

#[test]
fn a_position_that_is_no_longer_kept_is_told_to_a_source_as_an_event() {
    let edge = Edge::configured("[streams]\nkeep_records = 2\n");
    let (start, offsets) = of_three(&edge);
    is_reset(&edge, &start, "trimmed", &offsets[0]);
    // From the beginning means from what there is.
    assert_eq!(read_all(&edge, "a", "-1").0, b"23");
    assert_eq!(Events::source(&edge, &path("a"), None).data().data, "2");
    assert_eq!(Events::source(&edge, &path("a"), Some(&offsets[0])).data().data, "2");
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

#[test]
fn a_long_poll_for_nothing_ends_in_time_and_says_where_to_go_on() {
    let edge = Edge::configured("[streams]\nlong_poll = \"100ms\"\n");
    let (_, offsets) = of_three(&edge);
    let mut client = edge.connect();
    let mut cursor = String::new();
    for offset in ["now", &offsets[2]] {
        client.send(get(&format!("{}?offset={offset}&live=long-poll&cursor={cursor}", path("a")), &[]));
        let (head, body) = client.read_answer();
        assert_eq!((head.status(), body.end), (204, End::Whole), "{head:?}");
        assert_eq!((next(&head), head.get("stream-up-to-date")), (offsets[2].clone(), Some("true")));
        let given = head.get("stream-cursor").expect("a cursor").to_owned();
        assert_ne!(given, cursor, "no cache gives it the same answer again");
        cursor = given;
    }
}

#[test]
fn text_that_is_no_position_is_refused() {
    let edge = edge();
    let (_, offsets) = of_three(&edge);
    let long = "1".repeat(500);
    for wrong in [
        "0",
        "",
        "%20",
        "a,b",
        "%00",
        "..",
        "-2",
        "NOW",
        &long,
        &offsets[0].to_uppercase().replace("-0", "-+"),
    ] {
        let (head, body) = edge.ask(&get(&format!("{}?offset={wrong}", path("a")), &[]));
        assert_eq!(head.status(), 400, "{wrong:?}: {}", body.text());
        assert_eq!(head.get("content-type"), Some("application/json"), "{wrong:?}");
        error_code(&body.bytes());
    }
    for wrong in ["offset=-1&offset=-1", "offset=%ff", "live=sse", "live=long-poll", "offset=-1&live=yes"] {
        let (head, body) = edge.ask(&get(&format!("{}?{wrong}", path("a")), &[]));
        assert_eq!(head.status(), 400, "{wrong:?}: {}", body.text());
        error_code(&body.bytes());
    }
}

#[test]
fn the_end_of_a_closed_stream_sends_a_source_away_for_good() {
    let edge = edge();
    let (_, offsets) = of_three(&edge);
    let mut events = Events::source(&edge, &path("a"), Some(&offsets[1]));
    assert_eq!(events.data().data, "3");
    close(&edge, "a");
    while let Ok(event) = events.try_next() {
        assert_eq!(event.name.as_deref(), Some("control"), "nothing more comes: {event:?}");
    }
    // That is how a browser takes the end of a connection: it comes back, and 204 tells it to stop.
    let last = format!("Last-Event-ID: {}", offsets[2]);
    let (head, body) = edge.ask(&get(&path("a"), &["Accept: text/event-stream", &last]));
    assert_eq!((head.status(), body.bytes().len()), (204, 0), "{head:?}");
    assert_eq!(head.get("stream-closed"), Some("true"), "{head:?}");
    // From before the end there is something to read.
    assert_eq!(Events::source(&edge, &path("a"), Some(&offsets[1])).data().data, "3");
}

#[test]
fn silence_between_events_is_filled_with_heartbeats() {
    let edge = Edge::configured("heartbeat = \"100ms\"\n");
    create(&edge, "a", TEXT);
    let mut events = Events::source(&edge, &path("a"), None);
    for number in 0..3 {
        append(&edge, "a", &number.to_string());
        assert_eq!(events.data().data, number.to_string());
    }
    let before = events.beats;
    events.wait_beat();
    events.wait_beat();
    assert_eq!(events.beats, before + 2);
    append(&edge, "a", "and on");
    assert_eq!(events.data().data, "and on");
}

#[test]
fn a_publisher_names_its_events() {
    let edge = edge();
    create(&edge, "a", TEXT);
    for (name, text) in
        [(Some("chat"), "hello"), (None, "plain"), (Some("update"), "two\nlines"), (Some("chat"), "bye")]
    {
        let field = name.map(|name| format!("Stream-Event: {name}"));
        append_with(&edge, "a", &field.as_deref().into_iter().collect::<Vec<_>>(), text);
    }
    let mut events = Events::source(&edge, &path("a"), None);
    let seen: Vec<_> = (0..4).map(|_| events.data()).map(|event| (event.name, event.data)).collect();
    let named = |name: &str, text: &str| (Some(name.to_owned()), text.to_owned());
    assert_eq!(seen[0], named("chat", "hello"));
    assert_eq!(seen[1].0.as_deref(), Some("data"), "without a name it is what the protocol calls it");
    assert_eq!(
        (&*seen[1].1, &seen[2], &seen[3]),
        ("plain", &named("update", "two\nlines"), &named("chat", "bye"))
    );

    // The protocol's own clients know `data` and `control` alone.
    let mut events = Events::open(&edge, &format!("{}&live=sse", from_the_beginning("a")), &[]);
    let mut text = String::new();
    while text.len() < "helloplaintwo\nlinesbye".len() {
        let event = events.data();
        assert_eq!(event.name.as_deref(), Some("data"));
        text += &event.data;
    }
    assert_eq!(text, "helloplaintwo\nlinesbye");

    let long = format!("Stream-Event: {}", "e".repeat(300));
    // What tells a reader about its connection is the edge's to say.
    let ours = ["control", "reset", "open", "error"].map(|name| format!("Stream-Event: {name}"));
    for wrong in [long.as_str(), "Stream-Event:"].into_iter().chain(ours.iter().map(String::as_str)) {
        let fields = ["Content-Type: text/plain", wrong];
        let (head, body) = edge.ask(&request("POST", &path("a"), &fields, "x"));
        assert_eq!(head.status(), 400, "{wrong:.40}: {}", body.text());
        error_code(&body.bytes());
    }
}

#[test]
fn a_source_of_a_json_stream_gets_the_messages_themselves() {
    let edge = edge();
    create(&edge, "a", "application/json");
    let sent = [r#"{"n":1}"#, r#"[{"n":2},{"n":3}]"#, r#""text""#];
    for body in sent {
        let fields = ["Content-Type: application/json", "Stream-Event: chat"];
        let (head, _) = edge.ask(&request("POST", &path("a"), &fields, body));
        assert_eq!(head.status(), 204);
    }
    let mut events = Events::source(&edge, &path("a"), None);
    let mut messages = Vec::new();
    let mut ids = BTreeSet::new();
    while messages.len() < 4 {
        let event = events.data();
        assert_eq!(event.name.as_deref(), Some("chat"));
        assert!(ids.insert(event.id.clone().expect("an id")), "each event its own position: {event:?}");
        messages.push(event.data.clone());
    }
    assert_eq!(messages, [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#, r#""text""#]);
}

/// What an event of several streams says: the stream, and its text.
#[track_caller]
fn of_several(event: &Event) -> (String, String) {
    let told = event.json();
    let word = |key: &str| told[key].as_str().unwrap_or_else(|| panic!("{key}: {told}")).to_owned();
    (word("stream"), word("data"))
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

#[test]
fn a_connection_that_asks_for_a_stream_that_is_not_there_is_told() {
    let edge = edge();
    create(&edge, "a", TEXT);
    let (head, body) = edge.ask(&get("/v1/stream?name=a&name=missing", &["Accept: text/event-stream"]));
    assert_eq!(head.status(), 404, "{}", body.text());
    error_code(&body.bytes());
    let too_many: String = (0..1_000).map(|number| format!("name=n{number}&")).collect();
    for wrong in ["", "name=", "name=a&name=..", too_many.as_str()] {
        let (head, body) = edge.ask(&get(&format!("/v1/stream?{wrong}"), &["Accept: text/event-stream"]));
        assert!((400..500).contains(&head.status()), "{wrong:.20}: {}", body.text());
        error_code(&body.bytes());
    }
}

#[test]
fn a_connection_is_kept_after_whatever_was_said_on_it() {
    let edge = edge();
    create(&edge, "a", TEXT);
    let mut client = edge.connect();
    for number in 0..3 {
        for (request, status) in [
            (request("POST", &path("a"), &["Content-Type: text/plain"], "x"), 204),
            (request("POST", &path("a"), &["Content-Type: text/html"], "x"), 409),
            (request("POST", &path("a"), &["Content-Type: text/plain"], ""), 400),
            (request("PUT", &path("a"), &["Content-Type: text/plain"], ""), 200),
            (get(&path("missing"), &[]), 404),
            (get(&path("a"), &[]), 200),
        ] {
            client.send(&request);
            let (head, body) = client.read_answer();
            let shown = String::from_utf8_lossy(&request).into_owned();
            assert_eq!(
                (head.status(), body.end),
                (status, End::Whole),
                "{number}: {shown:?} {}",
                body.text()
            );
        }
        client.send(b"HEAD /v1/stream/a HTTP/1.1\r\nHost: e\r\n\r\n");
        assert_eq!(client.read_head().status(), 200);
    }
    let (bytes, _) = read_all(&edge, "a", "-1");
    assert_eq!(bytes, b"xxx");
}

/// What a stranger sends: it is told what is wrong, and the edge goes on.
#[test]
fn hostile_requests_are_refused_and_nothing_else_happens() {
    let edge = Edge::configured("[limits]\nmax_body = 100000\n");
    create(&edge, "a", TEXT);
    append(&edge, "a", "kept");
    let plain = "Content-Type: text/plain";
    let large = "x".repeat(100_001);
    let long_name = format!("/v1/stream/{}", "n".repeat(2_000));
    let long_id = format!("Producer-Id: {}", "p".repeat(2_000));
    let put = |target: &str, fields: &[&str]| request("PUT", target, fields, "");
    let post = |fields: &[&str]| request("POST", "/v1/stream/a", &[&[plain], fields].concat(), "x");
    let producer = |epoch: &str, seq: &str| {
        post(&["Producer-Id: p", &format!("Producer-Epoch: {epoch}"), &format!("Producer-Seq: {seq}")])
    };
    let hostile: Vec<(Vec<u8>, &[u16])> = vec![
        (put("/v1/stream/", &[plain]), &[400, 404, 405]),
        (put("/v1/stream", &[plain]), &[400, 404, 405]),
        (put("/v1/stream/..", &[plain]), &[400]),
        (put("/v1/stream/a/../../../etc/passwd", &[plain]), &[400]),
        (put("/v1/stream/%2e%2e/%2e%2e/x", &[plain]), &[400]),
        (put("/v1/stream/a%00b", &[plain]), &[400]),
        (put("/v1/stream/a%0d%0aSet-Cookie:%20x", &[plain]), &[400]),
        (put("/v1/stream/%ff%fe", &[plain]), &[400]),
        (put(&long_name, &[plain]), &[400, 414]),
        (put("/v1/stream/x", &["Content-Type: no/type/at all"]), &[400]),
        (put("/v1/stream/x", &["Content-Type:"]), &[400]),
        (put("/v1/stream/x", &[plain, "Content-Type: text/html"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL: -1"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL: 1e3"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL: 99999999999999999999999"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL:"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL: 60", "Stream-TTL: 61"]), &[400]),
        (put("/v1/stream/x", &["Stream-Expires-At: tomorrow"]), &[400]),
        (put("/v1/stream/x", &["Stream-Expires-At: 2026-13-45T99:99:99Z"]), &[400]),
        (put("/v1/stream/x", &["Stream-Forked-From: /etc/passwd"]), &[400, 404]),
        (put("/v1/stream/x", &["Stream-Forked-From: http://other.example/v1/stream/a"]), &[400, 404]),
        (put("/v1/stream/x", &["Stream-Forked-From: /v1/stream/../stream/a"]), &[400, 404]),
        (put("/v1/stream/x", &["Stream-Forked-From: /v1/stream/a", "Stream-Fork-Offset: 17"]), &[400]),
        (put("/v1/stream/x", &["Stream-Forked-From: /v1/stream/a", "Stream-Fork-Sub-Offset: -1"]), &[400]),
        (
            put("/v1/stream/x", &["Stream-Forked-From: /v1/stream/a", "Stream-Fork-Sub-Offset: 18446744073709551615"]),
            &[400],
        ),
        (post(&["Producer-Id: p"]), &[400]),
        (post(&["Producer-Id:", "Producer-Epoch: 0", "Producer-Seq: 0"]), &[400]),
        (post(&[&long_id, "Producer-Epoch: 0", "Producer-Seq: 0"]), &[400]),
        (producer("-1", "0"), &[400]),
        (producer("0", "0x0"), &[400]),
        (producer("9007199254740992", "0"), &[400]),
        (producer("0", "18446744073709551616"), &[400]),
        (producer("0", "7"), &[409]),
        (
            post(&["Producer-Id: p", "Producer-Epoch: 0", "Producer-Epoch: 1", "Producer-Seq: 0"]),
            &[400],
        ),
        (request("POST", "/v1/stream/a", &[], "x"), &[400]),
        (request("POST", "/v1/stream/a", &[plain], &large), &[413]),
        (b"POST /v1/stream/a HTTP/1.1\r\nHost: e\r\nContent-Type: text/plain\r\nContent-Length: 99999999999\r\n\r\n".to_vec(), &[413]),
        (b"POST /v1/stream/a HTTP/1.1\r\nHost: e\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(), &[400]),
        (b"PATCH /v1/stream/a HTTP/1.1\r\nHost: e\r\nContent-Length: 0\r\n\r\n".to_vec(), &[405]),
        (get("/v1/stream/a?offset=-1", &["Last-Event-ID: zzz"]), &[400]),
        (get("/v1/stream/a?offset=-1", &["Last-Event-ID: -1", "Last-Event-ID: now"]), &[400]),
    ];
    let mut wrong = Vec::new();
    for (wire, statuses) in hostile {
        let mut client = edge.connect();
        // It may be refused before all of it is sent.
        let _ = client.try_send(&wire);
        let (head, body) = client.read_answer();
        if statuses.contains(&head.status()) && body.end == End::Whole {
            error_code(&body.bytes());
        } else {
            let shown = String::from_utf8_lossy(&wire[..wire.len().min(200)]).into_owned();
            wrong.push((head.start, shown));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(read_all(&edge, "a", "-1").0, b"kept", "nothing was appended");
    assert_eq!(read(&edge, "x", "-1").0.status(), 404, "nothing was made");
    assert!(edge.stderr().all().iter().all(|line| !line.contains("panicked")), "{:?}", edge.stderr().all());
}

/// A page reads a stream with the protocol's own client, which goes by the fields of the answers.
#[test]
fn a_page_of_an_origin_that_may_can_read_where_it_is() {
    let edge = Edge::configured("[cors]\norigins = [\"https://app.example\"]\n");
    create(&edge, "a", TEXT);
    append(&edge, "a", "1");
    let origin = "Origin: https://app.example";
    let preflight =
        ["Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: stream-ttl", origin];
    let (head, _) = edge.ask(&request("OPTIONS", &path("a"), &preflight, ""));
    assert_eq!(head.status(), 204, "{head:?}");
    assert_eq!(head.get("access-control-allow-origin"), Some("https://app.example"), "{head:?}");
    assert_eq!(head.get("access-control-allow-headers"), Some("stream-ttl"), "{head:?}");
    for target in [path("a"), format!("{}?offset=-1&live=sse", path("a"))] {
        let mut client = edge.connect();
        client.send(get(&target, &[origin]));
        let head = client.read_head();
        assert_eq!(head.get("access-control-allow-origin"), Some("https://app.example"), "{head:?}");
        let exposed = head.get("access-control-expose-headers").expect("fields that it may read");
        for field in ["stream-next-offset", "stream-closed", "stream-sse-data-encoding", "producer-epoch"] {
            assert!(exposed.split(", ").any(|name| name == field), "{field}: {exposed}");
        }
    }
    // Whoever asks without [cors] learns what there is, and no page may come.
    let edge = self::edge();
    let (head, _) = edge.ask(&request("OPTIONS", &path("a"), &preflight, ""));
    assert_eq!((head.status(), head.has("access-control-allow-origin")), (204, false), "{head:?}");
    assert!(head.get("allow").is_some_and(|methods| methods.contains("PUT")), "{head:?}");
}

#[test]
fn what_a_name_may_be_it_is() {
    let edge = edge();
    for name in [
        "a/b/c",
        "%C3%A4%F0%9F%8C%8A",
        "with%20space",
        "a.b..c",
        "%25",
        "a%2Fb",
        "~user;x=1,2",
        &"n".repeat(500),
    ] {
        create(&edge, name, TEXT);
        append(&edge, name, name);
        assert_eq!(read_all(&edge, name, "-1").0, name.as_bytes());
        let (head, _) = edge.ask(&request("DELETE", &path(name), &[], ""));
        assert_eq!(head.status(), 204, "{name}");
    }
}

/// An EventSource takes the end for a cut and comes back, to whichever process serves then.
#[test]
fn who_follows_is_let_go_between_events_when_the_edge_drains() {
    let mut edge = edge();
    of_three(&edge);
    let mut alone = Events::source(&edge, &path("a"), None);
    let mut both = Events::source(&edge, "/v1/stream?name=a", None);
    let mut poll = edge.connect();
    poll.send(get(&path("a"), &[]));
    assert_eq!(poll.read_answer().0.status(), 200);
    poll.send(get(&format!("{}?offset=now&live=long-poll", path("a")), &[]));
    // One core serves all: what is asked after it is answered after it was taken.
    (0..3).for_each(|_| assert_eq!(read(&edge, "a", "-1").0.status(), 200));
    for events in [&mut alone, &mut both] {
        (0..3).for_each(|_| drop(events.data()));
    }
    edge.signal(rustix::process::Signal::TERM);
    for events in [&mut alone, &mut both] {
        let end = loop {
            match events.try_next() {
                Ok(event) => assert_eq!(event.name.as_deref(), Some("control")),
                Err(end) => break end,
            }
        };
        assert_eq!(end, End::Whole);
    }
    let (head, body) = poll.read_answer();
    assert_eq!((head.status(), body.end), (204, End::Whole), "{head:?}");
    assert!(edge.wait_exit().success());
}

#[test]
fn readers_on_every_core_are_told() {
    let edge = Edge::run(support::edge::command(), &["--workers", "3"]);
    create(&edge, "a", TEXT);
    let mut readers: Vec<_> = (0..24).map(|_| Events::source(&edge, &path("a"), None)).collect();
    let mut polls: Vec<_> = (0..12).map(|_| edge.connect()).collect();
    let mut at = "-1".to_owned();
    for number in 0..20 {
        for poll in &mut polls {
            poll.send(get(&format!("{}?offset={at}&live=long-poll", path("a")), &[]));
        }
        let text = format!("{number};");
        at = append(&edge, "a", &text);
        for reader in &mut readers {
            assert_eq!(reader.data().data, text);
        }
        for poll in &mut polls {
            let (head, body) = poll.read_answer();
            assert_eq!((head.status(), body.text(), next(&head)), (200, text.clone(), at.clone()));
        }
    }
}

#[test]
fn streams_are_there_after_a_restart() {
    let data = directory("streams");
    let first = Edge::start(&["--data-dir", &data]);
    let start = create(&first, "a", TEXT);
    let one = append_with(&first, "a", &["Producer-Id: p", "Producer-Epoch: 3", "Producer-Seq: 0"], "one;");
    create(&first, "done", TEXT);
    append_with(&first, "done", &["Stream-Closed: true", "Stream-Event: chat"], "all");
    let fork = ["Content-Type: text/plain", "Stream-Forked-From: /v1/stream/a", "Stream-TTL: 3600"];
    assert_eq!(first.ask(&request("PUT", &path("fork"), &fork, "forked;")).0.status(), 201);
    drop(first);

    let second = Edge::start(&["--data-dir", &data]);
    assert_eq!(
        read_all(&second, "a", "-1"),
        (b"one;".to_vec(), one.clone()),
        "its position and its epoch too"
    );
    assert_eq!(read_all(&second, "fork", &start).0, b"one;forked;");
    // What a producer was told is still so.
    let producer = |seq: &str, text: &str| -> Head {
        let fields = ["Content-Type: text/plain", "Producer-Id: p", "Producer-Epoch: 3", seq];
        second.ask(&request("POST", &path("a"), &fields, text)).0
    };
    assert_eq!(producer("Producer-Seq: 0", "one;").status(), 204, "there already");
    assert_eq!(producer("Producer-Seq: 1", "two;").status(), 200);
    assert!(next(&producer("Producer-Seq: 1", "two;")) > one);
    assert_eq!(read_all(&second, "a", "-1").0, b"one;two;");
    let (head, body) = read(&second, "done", "-1");
    assert_eq!((head.get("stream-closed"), body.text().as_str()), (Some("true"), "all"));
    assert_eq!(Events::source(&second, &path("done"), None).data().name.as_deref(), Some("chat"));
    let mut client = second.connect();
    client.send(b"HEAD /v1/stream/fork HTTP/1.1\r\nHost: e\r\n\r\n");
    let head = client.read_head();
    assert_eq!(head.get("stream-ttl"), Some("3600"), "{head:?}");
    drop(second);
    remove(&data);
}

/// A disk that takes no more: nothing is called stored that is not, it is said, and what was stored can still be read.
#[test]
fn a_full_disk_ends_appends_and_not_reads() {
    let data = directory("full");
    let edge = Edge::start_with_file_bytes(1 << 20, &["--data-dir", &data]);
    create(&edge, "a", TEXT);
    let mut events = Events::source(&edge, &path("a"), None);
    let block = |number: usize| format!("{number}:{}", "x".repeat(30_000));
    let post = |number: usize| request("POST", &path("a"), &["Content-Type: text/plain"], block(number));
    let refused = |request: &[u8]| {
        let (head, body) = edge.ask(request);
        assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (503, "storage_failed"), "{head:?}");
    };
    let stored = (0..100).find(|&number| edge.ask(&post(number)).0.status() != 204).expect("it is full");
    assert!(stored > 10, "{stored} were stored");
    // It is not tried again: what the disk holds by now nobody knows.
    refused(&post(stored));
    refused(&request("PUT", &path("b"), &["Content-Type: text/plain"], ""));
    refused(&request("POST", &path("a"), &["Stream-Closed: true"], ""));
    refused(&request("DELETE", &path("a"), &[], ""));
    let (head, body) = edge.ask(&get("/readyz", &[]));
    assert_eq!(head.status(), 503, "{}", body.text());
    edge.stderr().wait_for("nothing more is stored until a restart");
    // Readers have what is stored, and nothing else.
    let all: String = (0..stored).map(block).collect();
    assert!(read_all(&edge, "a", "-1").0 == all.as_bytes());
    for number in 0..stored {
        assert!(events.data().data == block(number), "{number}");
    }
    drop(edge);

    let edge = Edge::start(&["--data-dir", &data]);
    let (bytes, at) = read_all(&edge, "a", "-1");
    // The one that was refused may have reached the disk before it was full: its answer did not say.
    let more = all.clone() + &block(stored);
    assert!(bytes == all.as_bytes() || bytes == more.as_bytes(), "{} of {} bytes", bytes.len(), all.len());
    assert!(append(&edge, "a", "on") > at);
    drop(edge);
    remove(&data);
}

/// Without a directory an edge that starts again has lost its streams, and says so instead of serving others in their place.
#[test]
fn what_lived_in_memory_is_told_to_be_gone() {
    let edge = edge();
    edge.stderr().wait_for("in memory");
    let old = create(&edge, "a", TEXT);
    drop(edge);
    let edge = self::edge();
    let start = create(&edge, "a", TEXT);
    assert_ne!(parts(&old).0, parts(&start).0);
    append(&edge, "a", "new");
    is_reset(&edge, &old, "epoch", &start);
}
