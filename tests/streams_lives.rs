//! Durable streams and the process: all its cores tell the same, it lets readers go when it drains, and what it has called stored is
//! there in its next life, or said to be gone.

mod support;

use support::streams::{
    Events, TEXT, append, append_with, create, directory, is_reset, next, of_three, parts, path, read,
    read_all, remove, request,
};
use support::{Edge, End, Head, error_code, get};

fn edge() -> Edge {
    Edge::start(&[])
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
        assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (503, "storage_full"), "{head:?}");
    };
    let stored = (0..100).find(|&number| edge.ask(&post(number)).0.status() != 204).expect("it is full");
    assert!(stored > 10, "{stored} were stored");
    // As long as there is no room.
    refused(&post(stored));
    refused(&request("PUT", &path("b"), &["Content-Type: text/plain"], ""));
    refused(&request("POST", &path("a"), &["Stream-Closed: true"], ""));
    refused(&request("DELETE", &path("a"), &[], ""));
    let (head, body) = edge.ask(&get("/readyz", &[]));
    assert_eq!(head.status(), 503, "{}", body.text());
    edge.stderr().wait_for("nothing more is stored until there is room");
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

/// A stream with a `Stream-TTL` went away under the page that showed it, and a kept response under the upstream that was still at work:
/// only requests counted as use (PROTOCOL.md, 5.1: one with live readers does not expire).
#[test]
fn a_stream_in_use_does_not_expire() {
    let edge = edge();
    let make = |name: &str, field: &str| {
        let fields = ["Content-Type: text/plain", field];
        assert_eq!(edge.ask(&request("PUT", &path(name), &fields, "")).0.status(), 201);
    };
    make("followed", "Stream-TTL: 1");
    make("both", "Stream-TTL: 1");
    make("polled", "Stream-TTL: 1");
    make("idle", "Stream-TTL: 1");
    let soon = time::OffsetDateTime::now_utc() + time::Duration::seconds(2);
    let soon = soon.format(&time::format_description::well_known::Rfc3339).expect("a time");
    make("until", &format!("Stream-Expires-At: {soon}"));
    let mut followed = Events::source(&edge, &path("followed"), None);
    let mut both = Events::source(&edge, "/v1/stream?name=both", None);
    let mut poll = edge.connect();
    poll.send(get(&format!("{}?offset=-1&live=long-poll", path("polled")), &[]));
    // The moment comes for the one that has one, and its reader is told; the others have been idle for longer than they may.
    let mut until = Events::source(&edge, &path("until"), None);
    let last = std::iter::from_fn(|| until.try_next().ok()).last().expect("an event");
    assert_eq!(last.json()["streamGone"], true);
    let gone = |name: &str| {
        let mut wire = edge.connect();
        wire.send(request("HEAD", &path(name), &[], ""));
        wire.read_head().status() == 404
    };
    support::wait_until("the idle one to be gone", || gone("idle"));
    for name in ["followed", "both", "polled"] {
        append(&edge, name, "still here");
    }
    assert_eq!(followed.data().data, "still here");
    assert_eq!(both.data().json()["data"], "still here");
    assert_eq!(poll.read_answer().1.text(), "still here");
    drop((followed, both));
    support::wait_until("those that nobody reads any more to be gone", || {
        ["followed", "both", "polled"].into_iter().all(gone)
    });
}
