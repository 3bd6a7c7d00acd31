//! What the edge's durable streams add to their protocol for one who follows: an id on each event, and where to go on when that
//! cannot be served. The protocol itself is the public suite's (`tests/run streams`).

mod support;

use std::collections::BTreeSet;

use support::streams::{
    Events, TEXT, altered, append, append_with, close, create, is_reset, next, of_three, parts, path, read,
    read_all, request,
};
use support::{Edge, End, error_code, get};

fn edge() -> Edge {
    Edge::start(&[])
}

/// The same path from its beginning.
fn from_the_beginning(name: &str) -> String {
    format!("{}?offset=-1", path(name))
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
    assert_eq!(seen[1].0, None, "without a name it is a browser's `message`");
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
