//! An EventSource goes on where it was, whatever it comes back with, and stays away when there is nothing more: it gives up for good on
//! any status that is no success, asks again for ever after any 200, and hears only events whose name it was told to listen for.

mod support;

use support::streams::{Events, TEXT, append, append_with, close, create, path, read, request};
use support::{Edge, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, chunk, get, post, relayed, wait_until};

fn edge() -> Edge {
    Edge::start(&[])
}

/// Polyfills that show a key cannot set `Last-Event-ID` everywhere and put it into the query, each in a spelling of its own. All but one
/// were ignored, and the page got every event again, each time its connection was cut.
#[test]
fn the_last_event_id_counts_in_any_spelling_of_the_query() {
    let edge = edge();
    create(&edge, "a", TEXT);
    let first = append(&edge, "a", "1");
    append(&edge, "a", "2");
    let both = Events::source(&edge, "/v1/stream?name=a", None);
    let several = {
        let mut both = both;
        both.data().id.expect("an id")
    };
    for key in ["lastEventId", "Last-Event-ID", "last-event-id", "last_event_id", "lastEventID"] {
        let target = format!("{}?{key}={first}", path("a"));
        assert_eq!(Events::source(&edge, &target, None).data().data, "2", "{key}");
        let target = format!("/v1/stream?name=a&{key}={several}");
        assert_eq!(Events::source(&edge, &target, None).data().json()["data"], "2", "{key}");
    }
    // The URL that a page has made has an old one, and the polyfill adds its own.
    let target = format!("{}?last_event_id=-1&lastEventId={first}", path("a"));
    assert_eq!(Events::source(&edge, &target, None).data().data, "2");
}

/// A page that had followed another server, or a position within a message, was refused with 400, and its EventSource never came back.
#[test]
fn an_id_that_is_not_known_is_told_in_band() {
    let edge = edge();
    create(&edge, "a", TEXT);
    append(&edge, "a", "1");
    create(&edge, "json", "application/json");
    let start = create(&edge, "j", "application/json");
    let (head, _) = edge.ask(&request("POST", &path("j"), &["Content-Type: application/json"], "[12345]"));
    assert_eq!(head.status(), 204);
    let within = format!("{}{:020}", &start[..start.len() - 20], 3);
    for (name, id, data) in [("a", "42", "1"), ("a", "uuid:5f-é", "1"), ("j", within.as_str(), "[12345]")] {
        let mut events = Events::source(&edge, &path(name), Some(id));
        let event = events.next();
        assert_eq!((event.name.as_deref(), &event.json()["reason"]), (Some("reset"), &"unknown".into()));
        assert_eq!(event.json()["requested"], id);
        assert_eq!(events.data().data, data, "and from the beginning");
    }
    let mut several = Events::source(&edge, "/v1/stream?name=a", Some("42"));
    assert_eq!(several.next().json()["reason"], "unknown");
    assert_eq!(several.data().json()["data"], "1");
    // A client of the protocol is told by the status.
    for target in [format!("{}?offset=42", path("a")), format!("{}?offset=42&live=sse", path("a"))] {
        assert_eq!(edge.ask(&get(&target, &["Connection: close"])).0.status(), 400, "{target}");
    }
}

/// A page that was there before the stream it shows got a 404, and its EventSource never came back.
#[test]
fn a_stream_that_is_made_later_is_waited_for() {
    let edge = Edge::configured_freely("heartbeat = \"50ms\"\n");
    let target = format!("{}?wait=1", path("a"));
    let mut waiting = Events::source(&edge, &target, None);
    let mut again = Events::source(&edge, &target, Some("0123456789abcdef-00000000000000000007"));
    let mut protocol = Events::open(&edge, &format!("{target}&offset=-1&live=sse"), &[]);
    waiting.wait_beat();
    create(&edge, "a", TEXT);
    append(&edge, "a", "1");
    assert_eq!(again.next().json()["reason"], "epoch");
    for reader in [&mut waiting, &mut again, &mut protocol] {
        assert_eq!(reader.data().data, "1");
    }
    append(&edge, "a", "2");
    for reader in [&mut waiting, &mut again, &mut protocol] {
        assert_eq!(reader.data().data, "2");
    }
    // That it is gone is told before the end.
    assert_eq!(edge.ask(&request("DELETE", &path("a"), &[], "")).0.status(), 204);
    for reader in [&mut waiting, &mut protocol] {
        let last = std::iter::from_fn(|| reader.try_next().ok()).last().expect("an event");
        assert_eq!(last.json()["streamGone"], true, "{last:?}");
    }
    let (head, _) = edge.ask(&get(&path("b"), &["Accept: text/event-stream"]));
    assert_eq!(head.status(), 404, "unless it is asked for");
}

/// An append without a name came as an event `data`: `onmessage`, the first thing that everybody tries, never fired.
#[test]
fn an_append_without_a_name_is_a_message() {
    let edge = edge();
    create(&edge, "a", TEXT);
    append(&edge, "a", "plain");
    append_with(&edge, "a", &["Stream-Event: update"], "named");
    let mut events = Events::source(&edge, &path("a"), None);
    let (plain, named) = (events.data(), events.data());
    assert_eq!((plain.name.as_deref(), plain.data.as_str()), (None, "plain"));
    assert_eq!((named.name.as_deref(), named.data.as_str()), (Some("update"), "named"));
    let mut several = Events::source(&edge, "/v1/stream?name=a", None);
    assert_eq!(several.data().name, None);
    // The protocol has its own names.
    let mut protocol = Events::open(&edge, &format!("{}?offset=-1&live=sse", path("a")), &[]);
    assert_eq!(protocol.next().name.as_deref(), Some("data"));
    assert_eq!(protocol.next().name.as_deref(), Some("control"));
}

/// No id stands for a comment at the end, or for an event that lacks its blank line. An EventSource came back for it every few
/// seconds, got a 200 each time, and kept the response from ever expiring.
#[test]
fn a_response_whose_end_no_id_covers_is_over() {
    for end in [": bye\n\n", "data: [DONE]\n", "data: [DONE]"] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let durable = post("/v1/chat/completions", &["Sedge-Durable: true"], STREAM_BODY);
        let (mut client, mut peer, _, _) = relayed(&edge, &upstream, &durable);
        peer.send(SSE_HEAD);
        let location = client.read_head().get("location").expect("a location").to_owned();
        peer.send([chunk("data: 1\n\n"), chunk(end), LAST_CHUNK.to_vec()].concat());
        wait_until("it is closed", || {
            edge.ask(&get(&format!("{location}?offset=-1"), &[])).0.has("stream-closed")
        });
        let mut events = edge.connect();
        events.send(get(&location, &["Accept: text/event-stream"]));
        let head = events.read_head();
        let told = events.read_body(&head).text();
        // What comes after the last id is an error of ours where the response was cut.
        let id = told.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
        let last = format!("Last-Event-ID: {id}");
        let (head, _) = edge.ask(&get(&location, &["Accept: text/event-stream", &last]));
        assert_eq!(head.status(), 204, "{end:?}: {told}");
    }
}

/// SDKs resume a stream with a GET that says nothing about how, and got what there was so far, as if that were all.
#[test]
fn a_response_that_is_being_made_is_streamed_to_whoever_says_nothing_else() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let durable = post("/v1/chat/completions", &["Sedge-Durable: true"], STREAM_BODY);
    let (mut client, mut peer, _, _) = relayed(&edge, &upstream, &durable);
    peer.send(SSE_HEAD);
    let location = client.read_head().get("location").expect("a location").to_owned();
    peer.send(chunk("data: 1\n\n"));
    assert_eq!(client.read_chunk(), b"data: 1\n\n");
    let mut resumed: Vec<_> = [&[][..], &["Accept: */*"]]
        .into_iter()
        .map(|fields| {
            let mut wire = edge.connect();
            wire.send(get(&location, fields));
            let head = wire.read_head();
            assert_eq!((head.status(), head.get("content-type")), (200, Some("text/event-stream")));
            assert_eq!(wire.read_chunk(), b"data: 1\n\n", "byte for byte, and what is there at once");
            wire
        })
        .collect();
    // One that says from where speaks the protocol.
    let (head, body) = edge.ask(&get(&format!("{location}?offset=-1"), &[]));
    assert_eq!((head.get("stream-up-to-date"), body.text().as_str()), (Some("true"), "data: 1\n\n"));
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    for wire in &mut resumed {
        assert_eq!(wire.read_chunk(), b"data: [DONE]\n\n");
        wire.read_last_chunk();
    }
    let (head, body) = edge.ask(&get(&location, &[]));
    assert!(head.has("stream-closed"));
    assert_eq!(body.text(), "data: 1\n\ndata: [DONE]\n\n");
    // Another stream of events is read as ever.
    create(&edge, "events", "text/event-stream");
    assert_eq!(edge.ask(&get(&path("events"), &[])).0.get("stream-up-to-date"), Some("true"));
    close(&edge, "events");
    drop(read(&edge, "events", "-1"));
}
