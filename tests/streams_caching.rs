//! A cache that many share may keep what never changes of a stream, and nothing else: neither what stands at its end now, nor what
//! was sent to somebody who asked otherwise.

mod support;

use support::streams::{TEXT, append, close, create, path};
use support::{Edge, get};

/// The end of a stream was kept for a minute, and five more while it was asked for again: a stream that had been deleted could still be
/// read, and an EventSource got the text that a page had read before, since nothing said that the two differ.
#[test]
fn what_may_change_is_asked_for_each_time() {
    let edge = Edge::start(&[]);
    create(&edge, "a", TEXT);
    append(&edge, "a", "1");
    let fields = |target: &str| {
        let (head, _) = edge.ask(&get(target, &["Connection: close"]));
        let caching = head.get("cache-control").unwrap_or_default().to_owned();
        let vary = head.get("vary").unwrap_or_default().to_ascii_lowercase();
        assert!(vary.contains("accept,") && vary.contains("last-event-id"), "{target}: {head:?}");
        caching
    };
    let all = format!("{}?offset=-1", path("a"));
    assert_eq!(fields(&all), "no-cache");
    assert_eq!(fields(&format!("{}?offset=now", path("a"))), "no-store");
    // The cursor of a long-poll stands for a moment.
    let polled = fields(&format!("{all}&live=long-poll&cursor=1"));
    assert!(polled.contains("max-age=20") && !polled.contains("stale"), "{polled}");
    close(&edge, "a");
    assert!(fields(&all).starts_with("public, max-age="));
    let mut events = edge.connect();
    events.send(get(&all, &["Accept: text/event-stream"]));
    let head = events.read_head();
    assert!(head.get("vary").unwrap_or_default().contains("Accept"), "{head:?}");
}
