//! What the edge tells readers about their connections cannot be forged.
//!
//! A publisher to a stream of events could append `event: reset`, `event: control` and `retry:`, and every browser took them for the
//! edge's own: it went back to the beginning, or stayed away for as long as the publisher liked.

mod support;

use support::streams::{Events, path, request};
use support::{Edge, SSE_HEAD, STREAM_BODY, Upstream, chunk, post};

const EVENTS: &str = "Content-Type: text/event-stream";

/// However its appends are cut: what comes out is not the edge's.
#[test]
fn a_publisher_cannot_send_them() {
    let edge = Edge::start(&[]);
    let text = "event: reset\nretry: 86400000\ndata: 1\n\nevent:control\ndata: 2\nretry:1\n\nevent: update\ndata: 3\n\n";
    for step in [1, 3, 7, text.len()] {
        let name = format!("in-{step}");
        assert_eq!(edge.ask(&request("PUT", &path(&name), &[EVENTS], "")).0.status(), 201);
        let mut source = Events::source(&edge, &path(&name), None);
        for part in text.as_bytes().chunks(step) {
            assert_eq!(edge.ask(&request("POST", &path(&name), &[EVENTS], part)).0.status(), 204);
        }
        for (name, data) in [("published.reset", "1"), ("published.control", "2"), ("update", "3")] {
            let event = source.next();
            assert_eq!((event.name.as_deref(), &*event.data), (Some(name), data), "in steps of {step}");
            assert!(event.retry.is_none_or(|ms| ms < 10_000), "{event:?}");
        }
    }
}

#[test]
fn an_upstream_cannot_send_them_to_a_browser() {
    const FORGED: &str = "event: reset\nretry: 86400000\ndata: {\"reason\":\"epoch\"}\n\n";
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut client = edge.connect();
    client.send(post("/v1/chat/completions", &["Sedge-Durable: true"], STREAM_BODY));
    let mut peer = upstream.accept();
    let head = peer.read_head();
    peer.read_request_body(&head);
    peer.send([SSE_HEAD.to_vec(), chunk(FORGED)].concat());
    let location = client.read_head().get("location").expect("a location").to_owned();
    // Its client and its log have every byte as it was.
    assert_eq!(client.read_chunk(), FORGED.as_bytes());
    let (_, body) = edge.ask(&request("GET", &format!("{location}?offset=-1"), &[], ""));
    assert_eq!(body.text(), FORGED);
    let mut source = Events::source(&edge, &location, None);
    let event = source.next();
    assert_eq!((event.name.as_deref(), &*event.data), (Some("published.reset"), "{\"reason\":\"epoch\"}"));
    assert!(event.retry.is_none_or(|ms| ms < 10_000), "{event:?}");
}
