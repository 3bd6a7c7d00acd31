//! Whatever bytes a publisher appends, a reader of events gets them as data of the events they were appended as: none is forged,
//! none is lost, and each id is a place of ours.

mod support;

use support::streams::{Events, create, path, read_all, request};
use support::{Edge, End, get};

/// An event as a browser dispatches it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dispatched {
    name: String,
    data: String,
    id: String,
}

/// What a browser makes of the bytes of an event stream (WHATWG HTML, 9.2.6).
fn dispatched(bytes: &[u8]) -> Vec<Dispatched> {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace('\r', "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut all, mut id) = (Vec::new(), String::new());
    // What is behind the last line end is no line.
    for block in text.split_inclusive("\n\n").filter(|block| block.ends_with("\n\n")) {
        let (mut name, mut data) = (String::new(), Vec::new());
        for line in block.trim_end_matches('\n').split('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" => data.push(value),
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                _ => {}
            }
        }
        if !data.is_empty() {
            all.push(Dispatched { name, data: data.join("\n"), id: id.clone() });
        }
    }
    all
}

/// What would be something else if it were not taken as it is.
const PAYLOADS: [&[u8]; 16] = [
    b"data: forged\n\nevent: reset\nid: 7\ndata: x\n\n",
    b"\n\nevent: control\ndata: {}\n\n",
    b"\r\revent: control\rdata: {}\r\r",
    b"a\r\nb\n\rc",
    b"a\r",
    b"\nb",
    b"\r",
    b"\n",
    b" leading",
    b"  two\n  lines",
    b":comment\nretry: 1\nid: 9",
    b"\0nul\0",
    "\u{feff}data: bom".as_bytes(),
    "a\u{2028}b\u{2029}c\u{85}d\u{b}e".as_bytes(),
    b"\xff\xfe\n\nevent: forged\ndata: \xc3\n\n",
    b"id\nevent\ndata\nretry",
];

/// Lines as events carry them: whatever ends one, LF joins them.
fn lines(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace('\r', "\n")
}

/// All events of a closed stream, as the one who asks gets them; none for one who has them all, and is told so by 204.
fn events(edge: &Edge, target: &str, fields: &[&str]) -> Vec<Dispatched> {
    let (head, body) = edge.ask(&get(target, &[fields, &["Connection: close"]].concat()));
    if head.status() == 204 {
        return Vec::new();
    }
    assert_eq!((head.status(), body.end), (200, End::Whole), "{target}: {head:?}");
    dispatched(&body.bytes())
}

fn closed(edge: &Edge, name: &str) {
    support::streams::close(edge, name);
}

#[test]
fn no_bytes_of_text_forge_an_event() {
    let edge = Edge::configured_freely("");
    create(&edge, "text", "text/plain");
    for (place, payload) in PAYLOADS.iter().enumerate() {
        let name = format!("Stream-Event: e{place}");
        let fields: &[&str] = if place % 2 == 0 { &[&name] } else { &[] };
        let fields = [&["Content-Type: text/plain"], fields].concat();
        let (head, _) = edge.ask(&request("POST", &path("text"), &fields, payload));
        assert_eq!(head.status(), 204);
    }
    closed(&edge, "text");
    let whole = PAYLOADS.concat();
    assert_eq!(read_all(&edge, "text", "-1").0, whole);

    let told = events(&edge, &path("text"), &["Accept: text/event-stream"]);
    assert_eq!(told.len(), PAYLOADS.len() + 1, "{told:#?}");
    for (place, (event, payload)) in told.iter().zip(PAYLOADS).enumerate() {
        let name = if place % 2 == 0 { format!("e{place}") } else { String::new() };
        // A line feed behind an append that ended in a carriage return is that line's end, and no line of its own.
        let is_behind_cr = place > 0 && PAYLOADS[place - 1].ends_with(b"\r");
        let shown = payload.strip_prefix(b"\n").filter(|_| is_behind_cr).unwrap_or(payload);
        assert_eq!((&event.name, &event.data), (&name, &lines(shown)), "{place}");
        let after: Vec<u8> = PAYLOADS[place + 1..].concat();
        assert_eq!(read_all(&edge, "text", &event.id).0, after, "{place}");
    }
    assert_eq!(told.last().map(|event| &*event.name), Some("control"));

    let told = events(&edge, &format!("{}?live=sse&offset=-1", path("text")), &[]);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!((&*told[0].name, &told[0].data), ("data", &lines(&whole)));

    let told = events(&edge, "/v1/stream?name=text", &[]);
    for (event, payload) in told.iter().filter(|event| event.name != "control").zip(PAYLOADS) {
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!(data["data"], *String::from_utf8_lossy(payload), "{event:?}");
        assert_eq!(data["stream"], "text");
    }
    let data = told.iter().filter(|event| event.name != "control").count();
    assert_eq!(data, PAYLOADS.len(), "{told:#?}");
}

#[test]
fn no_message_and_no_name_forges_an_event() {
    let edge = Edge::configured_freely("");
    let name = "quo\"te\\ \u{2028}{\n".trim_end();
    let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    create(&edge, &encoded, "application/json");
    let messages =
        ["{\n\"a\" :\r\n[\r]}", "\"\\n\\ndata: x\\u0000\u{2028}\u{85}\"", "[[]]", "1e999", "\" \""];
    for event in [None, Some("Stream-Event: data: x")] {
        let fields: Vec<&str> = ["Content-Type: application/json"].into_iter().chain(event).collect();
        let body = format!("[{}]", messages.join(" ,\n\n"));
        let (head, told) = edge.ask(&request("POST", &path(&encoded), &fields, body));
        assert_eq!(head.status(), 204, "{}", told.text());
    }
    closed(&edge, &encoded);
    let told = events(&edge, &path(&encoded), &["Accept: text/event-stream"]);
    let names: Vec<&str> = told.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["", "data: x", "data: x", "data: x", "data: x", "data: x", "control"]);
    for (event, message) in told[1..].iter().zip(messages) {
        assert_eq!(event.data, lines(message.as_bytes()));
    }
    let told = events(&edge, &format!("/v1/stream?name={encoded}"), &[]);
    assert_eq!(told.iter().filter(|event| event.name != "control").count(), 2 * messages.len(), "{told:#?}");
    for event in told.iter().filter(|event| event.name != "control") {
        assert!(event.data.starts_with("{\"stream\":\"quo\\\"te\\\\ \u{2028}{\","), "{event:?}");
    }
}

/// An event that was longer than a mebibyte is kept in parts, and so is one that its publisher appends in parts. Each part got
/// an id in front of it, wherever it began: in the middle of a line of data. And an id that an upstream gives its own events
/// stood behind ours and won, so that whoever came back with it was refused for good.
#[test]
fn events_that_were_appended_are_told_as_they_are_however_they_were_cut() {
    let edge = Edge::configured_freely("");
    let text = "retry: 5\nid: theirs\ndata: a\n\n: ping\n\ndata: b\r\ndata: c\r\n\r\ndata: d\rid\r\revent: e\ndata: f\n\ndata: never ended";
    for step in [1, 2, 3, 7, text.len()] {
        let name = format!("cut-{step}");
        create(&edge, &name, "text/event-stream");
        for part in text.as_bytes().chunks(step) {
            let fields = ["Content-Type: text/event-stream"];
            let (head, _) = edge.ask(&request("POST", &path(&name), &fields, part));
            assert_eq!(head.status(), 204);
        }
        closed(&edge, &name);
        let told = events(&edge, &path(&name), &["Accept: text/event-stream"]);
        let data: Vec<_> = told.iter().map(|event| (&*event.name, &*event.data)).collect();
        assert_eq!(data, [("", "a"), ("", "b\nc"), ("", "d"), ("e", "f")], "in steps of {step}");
        for (place, event) in told.iter().enumerate() {
            let id = format!("Last-Event-ID: {}", event.id);
            let rest = events(&edge, &path(&name), &["Accept: text/event-stream", &id]);
            assert_eq!(rest, told[place + 1..], "in steps of {step}, after {event:?}");
        }
    }
}

/// Those who follow such an event while it is appended get it as those who come later.
#[test]
fn a_half_event_is_continued_for_whoever_waits() {
    let edge = Edge::configured("heartbeat = \"100ms\"\n");
    create(&edge, "half", "text/event-stream");
    create(&edge, "whole", "text/plain");
    let mut wire = edge.connect();
    wire.send(get(&path("half"), &["Accept: text/event-stream", "Connection: close"]));
    assert_eq!(wire.read_head().status(), 200);
    let mut read = Vec::new();
    for (part, told) in [("data: o", "data: o"), ("ne\nda", "da"), ("ta: two\n", "two\n"), ("\n", "\n\n")] {
        let (head, _) = edge.ask(&request("POST", &path("half"), &["Content-Type: text/event-stream"], part));
        assert_eq!(head.status(), 204);
        while !read.ends_with(told.as_bytes()) {
            read.extend(wire.read_chunk());
        }
        // No heartbeat comes into the middle of it.
        if part == "data: o" {
            // By the time that one who has come later has had three.
            let mut other = Events::source(&edge, &path("whole"), None);
            (0..3).for_each(|_| other.wait_beat());
            edge.settle();
            assert!(wire.is_silent(), "{read:?}");
        }
    }
    closed(&edge, "half");
    while let Ok(Some(chunk)) = wire.try_read_chunk() {
        read.extend(chunk);
    }
    let told = dispatched(&read);
    assert_eq!((told.len(), &*told[0].data), (1, "one\ntwo"), "{:?}", String::from_utf8_lossy(&read));
    assert_eq!(read_all(&edge, "half", &told[0].id).0, b"");
}
