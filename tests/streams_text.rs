//! Text arrives as it is, however it was divided into appends: a publisher that forwards what it reads cuts wherever its buffer ends.

mod support;

use support::streams::{Events, TEXT, append, close, create, path, request};
use support::{Edge, get};

fn edge() -> Edge {
    Edge::start(&[])
}

fn post(edge: &Edge, body: &[u8]) -> String {
    let (head, _) = edge.ask(&request("POST", &path("a"), &["Content-Type: text/plain"], body));
    assert_eq!(head.status(), 204);
    head.get("stream-next-offset").expect("an offset").to_owned()
}

/// A character in two appends became two U+FFFD for everyone who followed, and a CR and an LF two line ends, though whoever read it at
/// once got what was sent.
#[test]
fn a_character_in_two_appends_is_one() {
    let edge = edge();
    create(&edge, "a", TEXT);
    let mut source = Events::source(&edge, &path("a"), None);
    let mut protocol = Events::open(&edge, &format!("{}?offset=-1&live=sse", path("a")), &[]);
    let mut several = Events::source(&edge, "/v1/stream?name=a", None);
    append(&edge, "a", "1");
    for reader in [&mut source, &mut protocol] {
        assert_eq!(reader.data().data, "1");
    }
    assert_eq!(several.data().json()["data"], "1");
    let middle = post(&edge, b"2\xE2\x82");
    for reader in [&mut source, &mut protocol] {
        assert_eq!(reader.data().data, "2");
    }
    assert_eq!(several.data().json()["data"], "2");
    let mut joined = Events::source(&edge, &format!("{}?offset=now", path("a")), None);
    post(&edge, b"\xAC3\r");
    post(&edge, b"\n4");
    for reader in [&mut source, &mut protocol, &mut joined] {
        assert_eq!(reader.data().data, "\u{20ac}3\n");
        assert_eq!(reader.data().data, "4");
    }
    assert_eq!(several.data().json()["data"], "\u{20ac}3\r");
    assert_eq!(several.data().json()["data"], "\n4");
    // One who comes back between the two, and one who reads all of it at once.
    let mut back = Events::source(&edge, &path("a"), Some(&middle));
    assert_eq!(back.data().data, "\u{20ac}3\n");
    let mut all = Events::open(&edge, &format!("{}?offset=-1&live=sse", path("a")), &[]);
    assert_eq!(all.data().data, "12\u{20ac}3\n4");
    // What is told to a reader of the protocol goes on after what it has been told.
    post(&edge, b"5\xE2\x82");
    assert_eq!(protocol.data().data, "5");
    let control = protocol.next();
    let next = control.json()["streamNextOffset"].as_str().expect("an offset").to_owned();
    post(&edge, b"\xAC");
    let (_, body) = edge.ask(&get(&format!("{}?offset={next}", path("a")), &["Connection: close"]));
    assert_eq!(body.text(), "\u{20ac}");
}

#[test]
fn what_nothing_completes_is_told_at_the_end() {
    let edge = edge();
    create(&edge, "a", TEXT);
    let mut source = Events::source(&edge, &path("a"), None);
    let (head, _) = edge.ask(&request("POST", &path("a"), &["Content-Type: text/plain"], b"caf\xE9"));
    assert_eq!(head.status(), 204);
    assert_eq!(source.data().data, "caf");
    // It is no text, and so no part of this test's events: what comes is one event more, and the end.
    close(&edge, "a");
    let mut wire = edge.connect();
    wire.send(get(&format!("{}?offset=-1", path("a")), &["Accept: text/event-stream"]));
    let head = wire.read_head();
    let body = wire.read_body(&head).bytes();
    assert!(memchr::memmem::find(&body, b"data:caf\xE9\n").is_some(), "{}", String::from_utf8_lossy(&body));
}
