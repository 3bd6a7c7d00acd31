//! The scanner against a reader that holds everything and takes the standard by the letter; written events read back.

use proptest::prelude::*;

use super::write::FieldError;
use super::{HEARTBEAT, Scanner, write_event};

/// One dispatched event, as a client sees it.
#[derive(Debug, Default, PartialEq)]
struct Event {
    name: Option<String>,
    id: Option<String>,
    data: Vec<String>,
}

/// WHATWG HTML 9.2.6 over the whole body: events, and whether fields wait for their blank line at its end.
fn read(body: &[u8]) -> (Vec<Event>, bool) {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    // Latin-1, so that every byte is a character and none is lost.
    let text: String = body.iter().map(|&byte| char::from(byte)).collect();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut event, mut pending) = (Vec::new(), Event::default(), false);
    let mut lines: Vec<&str> = text.split('\n').collect();
    let unfinished = lines.pop().unwrap_or_default();
    for line in lines {
        if line.is_empty() {
            let ended = std::mem::take(&mut event);
            if !ended.data.is_empty() {
                events.push(ended);
            }
            pending = false;
            continue;
        }
        if line.starts_with(':') {
            continue;
        }
        pending = true;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => event.data.push(value.into()),
            "event" => event.name = Some(value.into()),
            "id" => event.id = Some(value.into()),
            _ => {}
        }
    }
    (events, pending || !unfinished.is_empty())
}

fn is_done(event: &Event) -> bool {
    event.data == ["[DONE]"]
}

fn is_terminal(event: &Event) -> bool {
    const NAMES: [&str; 5] =
        ["response.completed", "response.failed", "response.incomplete", "message_stop", "done"];
    is_done(event) || event.name.as_deref().is_some_and(|name| NAMES.contains(&name))
}

fn is_error(event: &Event) -> bool {
    event.name.as_deref() == Some("error")
}

fn scanned(pieces: &[&[u8]]) -> (Scanner, u32) {
    let mut scanner = Scanner::default();
    let events = pieces.iter().map(|piece| scanner.feed(piece)).sum();
    (scanner, events)
}

/// Splits `body` where `cuts` say, each a share of its length.
fn pieces<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    at.extend([0, body.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
}

fn assert_agrees(body: &[u8], pieces: &[&[u8]]) {
    let (scanner, events) = scanned(pieces);
    let (expected, pending) = read(body);
    assert_eq!(events as usize, expected.len(), "events");
    assert_eq!(scanner.done(), expected.iter().any(is_done), "done");
    assert_eq!(scanner.terminal(), expected.iter().any(is_terminal), "terminal");
    assert_eq!(scanner.error_seen(), expected.iter().any(is_error), "error");
    // Half a byte order mark is the beginning of a line as long as nothing follows.
    assert_eq!(scanner.at_boundary(), !pending && body.last() != Some(&b'\r'), "boundary");
}

/// Bodies made of what the scanner tells apart, and of what looks like it.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "\n",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\n\r\n",
        "\r\r",
        ":",
        " ",
        "data",
        "data:",
        "data: ",
        "event",
        "event:",
        "event: ",
        "id: 7",
        "retry: 10",
        ": ping",
        "[DONE]",
        "data: [DONE]\n\n",
        "data:[DONE]",
        "{\"error\"",
        "error",
        "data: {\"error\": {}}\n\n",
        "data: {\"err",
        "done",
        "message_stop",
        "response.completed",
        "response.failed",
        "response.incomplete",
        "response.complete",
        "x",
        "dat",
        "even",
        "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello there\"}}]}\n\n",
    ]);
    let part = prop_oneof![
        12 => word.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::sample::select(vec![b"\xEF\xBB\xBF".to_vec(), b"\xEF\xBB".to_vec(), b"\xEF".to_vec()]),
        1 => prop::collection::vec(any::<u8>(), 0..100),
    ];
    (any::<bool>(), prop::collection::vec(part, 0..24)).prop_map(|(bom, parts)| {
        let mut body = if bom { b"\xEF\xBB\xBF".to_vec() } else { Vec::new() };
        body.extend(parts.concat());
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scanner_agrees_with_the_standard_however_the_body_is_split(
        body in body(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        assert_agrees(&body, &pieces(&body, &cuts));
        assert_agrees(&body, &body.chunks(1).collect::<Vec<_>>());
    }

    #[test]
    fn a_comment_at_any_boundary_changes_no_event(body in body(), cut in any::<prop::sample::Index>()) {
        let at = cut.index(body.len() + 1);
        let mut scanner = Scanner::default();
        scanner.feed(&body[..at]);
        // Before the first byte only bodies without a byte order mark can take one.
        if scanner.at_boundary() && !(at == 0 && body.starts_with(b"\xEF")) {
            let with = [&body[..at], HEARTBEAT, &body[at..]].concat();
            prop_assert_eq!(read(&with), read(&body));
        }
    }

    #[test]
    fn written_events_read_back(
        data in "[ab:\\r\\n ]{0,12}",
        name in prop::option::of("[a-z :]{0,6}"),
        id in prop::option::of("[0-9 :]{0,6}"),
        retry_ms in any::<Option<u32>>(),
    ) {
        let mut out = Vec::new();
        write_event(&mut out, name.as_deref(), id.as_deref(), retry_ms, data.as_bytes()).unwrap();
        let lines = data.replace("\r\n", "\n").replace('\r', "\n").split('\n').map(str::to_owned).collect();
        prop_assert_eq!(read(&out), (vec![Event { name, id, data: lines }], false));
    }
}

#[test]
fn an_event_written_out() {
    let mut out = Vec::new();
    write_event(&mut out, Some("reset"), Some("e-7"), Some(2000), b"a\r\n\rb\n").unwrap();
    assert_eq!(out, b"retry: 2000\nevent: reset\nid: e-7\ndata: a\ndata: \ndata: b\ndata: \n\n");
}

#[test]
fn a_line_break_or_nul_in_a_field_is_refused_and_nothing_written() {
    let mut out = b"before".to_vec();
    for bad in ["a\nb", "a\rdata: x", "\0"] {
        let event = write_event(&mut out, Some(bad), None, Some(1), b"x");
        assert_eq!(event, Err(FieldError { field: "event" }));
        let id = write_event(&mut out, Some("fine"), Some(bad), None, b"x").unwrap_err();
        assert!(id.to_string().contains("`id`"), "{id}");
    }
    assert_eq!(out, b"before");
}

#[test]
fn every_mark_is_known_at_every_split() {
    let body = b"event: response.incomplete\ndata:{}\n\nevent:error\ndata\n\ndata: [DONE]\n\n";
    for at in 0..=body.len() {
        let (scanner, events) = scanned(&[&body[..at], &body[at..]]);
        assert_eq!(events, 3);
        assert!(scanner.done() && scanner.terminal() && scanner.error_seen() && scanner.at_boundary());
    }
}

#[test]
fn no_line_end_is_passed_over_wherever_it_stands_in_a_segment() {
    for end in ["\n\n", "\r\r", "\r\n\r\n"] {
        for (before, after) in (0..150).step_by(3).flat_map(|a| (0..150).step_by(7).map(move |b| (a, b))) {
            let body = format!("data: {}{end}data: {}\n\n", "x".repeat(before), "y".repeat(after));
            assert_agrees(body.as_bytes(), &[body.as_bytes()]);
        }
    }
}

#[test]
fn a_stream_cut_inside_its_last_event_is_not_finished() {
    let (scanner, events) = scanned(&[b"data: {}\n\ndata: [DONE]\n"]);
    assert_eq!((events, scanner.done(), scanner.terminal(), scanner.at_boundary()), (1, false, false, false));
}

#[test]
fn done_is_an_event_of_its_own() {
    for body in
        ["data: a\ndata: [DONE]\n\n", "data: [DONE]\ndata: a\n\n", "data: [DONE] \n\n", "data:  [DONE]\n\n"]
    {
        assert!(!scanned(&[body.as_bytes()]).0.done(), "{body:?}");
    }
}

#[test]
fn comments_end_at_a_boundary_with_and_without_a_blank_line() {
    for body in [": ping\n", ": ping\n\n", ":\n", "data: a\n\n: ping\n"] {
        assert!(scanned(&[body.as_bytes()]).0.at_boundary(), "{body:?}");
    }
    for body in [": ping", "id: 1\n", "data: a\n: ping\n", "data: a\n\r"] {
        assert!(!scanned(&[body.as_bytes()]).0.at_boundary(), "{body:?}");
    }
}

#[test]
fn an_empty_piece_settles_nothing() {
    let (scanner, events) = scanned(&[b"data: a\r\n\r", b"", b"\n"]);
    assert_eq!((events, scanner.at_boundary()), (1, true));
}
