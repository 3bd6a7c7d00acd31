//! A silent stream is kept alive by the three least harmful bytes there are, a comment line without a blank one, and
//! only where they cannot change what a client reads: between two events.

mod support;

use support::{
    CLOSING_SSE_HEAD, Edge, End, LAST_CHUNK, SSE_HEAD, Upstream, answer, chunk, config, error_event_code,
    relayed, stream_request, streaming,
};

const BEAT: &[u8] = b":\n";

fn beating(upstream: &Upstream) -> Edge {
    Edge::configured(&config::heartbeat(&upstream.url(), "100ms"))
}

/// Waits while another stream, which begins now, beats three times: long enough to have seen a heartbeat of one that was silent
/// before, had there been any.
fn let_others_beat(edge: &Edge, upstream: &Upstream) {
    let (mut client, _peer, _) = streaming(edge, upstream);
    (0..3).for_each(|_| assert_eq!(client.read_chunk(), BEAT));
    edge.settle();
}

#[test]
fn a_silent_stream_beats_in_chunks_of_its_own() {
    let upstream = Upstream::listen();
    let edge = beating(&upstream);
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    for event in ["data: a\n\n", "data: b\r\n\r\n", "id: 1\nevent: x\ndata: c\n\n", ": comment\n\n"] {
        peer.send(chunk(event));
        let mut got = client.read_chunk();
        while got == BEAT {
            got = client.read_chunk();
        }
        assert_eq!(got, event.as_bytes());
        assert_eq!(client.read_chunk(), BEAT, "after {event:?}");
        assert_eq!(client.read_chunk(), BEAT, "and again, while it stays silent");
    }
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    let mut rest = client.read_chunk();
    while rest == BEAT {
        rest = client.read_chunk();
    }
    assert_eq!(rest, b"data: [DONE]\n\n");
    client.read_last_chunk();
}

#[test]
fn nothing_is_injected_into_an_event() {
    let upstream = Upstream::listen();
    let edge = beating(&upstream);
    for partial in [
        "data: half",
        "data: whole line\n",
        "data: a\r\n",
        "data: a\n\ndata: b",
        ":",
        "id: 7\n",
        "data: a\r\n\r",
    ] {
        let (mut client, mut peer, _) = streaming(&edge, &upstream);
        peer.send(chunk(partial));
        assert_eq!(client.read_chunks(partial.len()), partial.as_bytes());
        let_others_beat(&edge, &upstream);
        assert!(client.is_silent(), "something came after {partial:?}");
    }
}

#[test]
fn an_event_that_ends_inside_a_chunk_stays_whole_with_what_follows() {
    let upstream = Upstream::listen();
    let edge = beating(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    peer.send(b"20\r\ndata: a\n\n");
    let mut body = client.read_chunks(9);
    // Whether the edge may beat here is its own affair; where it does, it is between the two events.
    let_others_beat(&edge, &upstream);
    peer.send([b"data: b\n\ndata: [DONE]\n\n\r\n", LAST_CHUNK].concat());
    let rest = client.read_body(&head);
    assert_eq!(rest.end, End::Whole);
    body.extend(rest.chunks.into_iter().filter(|c| c != BEAT).flatten());
    assert_eq!(body, b"data: a\n\ndata: b\n\ndata: [DONE]\n\n");
}

#[test]
fn zero_turns_them_off() {
    let upstream = Upstream::listen();
    // The silence ends at a limit of the edge's own, and nothing comes before.
    let edge = Edge::configured(&config::timeouts_and_heartbeat(&upstream.url(), &[("idle", "1s")], "0s"));
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    peer.send([SSE_HEAD, &chunk("data: a\n\n")].concat());
    let head = client.read_head();
    let chunks = client.read_body(&head).chunks;
    assert_eq!((chunks.len(), chunks[0].as_slice()), (2, &b"data: a\n\n"[..]), "{chunks:?}");
    error_event_code(&chunks[1]);
}

#[test]
fn only_event_streams_beat() {
    let upstream = Upstream::listen();
    let edge = beating(&upstream);
    for fields in
        ["Content-Type: application/json", "Content-Type: text/event-stream\r\nContent-Encoding: gzip"]
    {
        let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
        peer.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n"));
        client.read_head();
        peer.send(chunk("data: a\n\n"));
        assert_eq!(client.read_chunk(), b"data: a\n\n");
        let_others_beat(&edge, &upstream);
        assert!(client.is_silent(), "{fields}");
    }
}

#[test]
fn a_beat_does_not_count_as_life_of_the_upstream() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::timeouts_and_heartbeat(&upstream.url(), &[("idle", "2s")], "100ms"));
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    peer.send([SSE_HEAD, &chunk("data: a\n\n")].concat());
    let head = client.read_head();
    let mut chunks = client.read_body(&head).chunks;
    let error = chunks.pop().expect("an error event");
    error_event_code(&error);
    assert_eq!(chunks.remove(0), b"data: a\n\n");
    assert!(!chunks.is_empty() && chunks.iter().all(|c| c == BEAT), "{chunks:?}");
}

#[test]
fn an_early_heartbeat_opens_the_stream_before_the_upstream_answers() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::early_heartbeat(&upstream.url(), 200));
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    let head = client.read_head();
    assert_eq!(head.status(), 200);
    assert!(head.get("content-type").is_some_and(|t| t.starts_with("text/event-stream")), "{head:?}");
    assert_eq!(client.read_chunk(), BEAT);
    peer.send([SSE_HEAD, &chunk("data: [DONE]\n\n"), LAST_CHUNK].concat());
    let body = client.read_body(&head);
    let data: Vec<u8> = body.chunks.into_iter().filter(|c| c != BEAT).flatten().collect();
    assert_eq!((data.as_slice(), body.end), (&b"data: [DONE]\n\n"[..], End::Whole));
}

#[test]
fn an_error_after_an_early_heartbeat_is_told_in_band() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::early_heartbeat(&upstream.url(), 200));
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    let head = client.read_head();
    assert_eq!(client.read_chunk(), BEAT);
    peer.send(answer(
        "429 Too Many Requests",
        &["Content-Type: application/json"],
        r#"{"error":{"message":"slow down","type":"rate_limit","param":null,"code":"rate_limited"}}"#,
    ));
    let body = client.read_body(&head);
    let data: Vec<u8> = body.chunks.into_iter().filter(|c| c != BEAT).flatten().collect();
    error_event_code(&data);
    assert_ne!(body.end, End::Whole, "an error is no finished stream");
}

/// A byte order mark is one at the very beginning alone. Behind a heartbeat it is the beginning of the first line, which then is no
/// `data` line, and the first event was lost.
#[test]
fn a_byte_order_mark_does_not_swallow_the_first_event_behind_a_beat() {
    let upstream = Upstream::listen();
    for (edge, is_early) in [
        (beating(&upstream), false),
        (Edge::configured(&config::early_heartbeat(&upstream.url(), 100)), true),
    ] {
        for pieces in [
            vec!["\u{feff}data: a\n\n".as_bytes()],
            vec![b"\xEF".as_slice(), b"\xBB", b"\xBF", b"data: a\n\n"],
            vec![b"\xEF\xBB\xBF".as_slice(), b"data: a\n\n"],
        ] {
            let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
            let head = if is_early {
                let head = client.read_head();
                assert_eq!(client.read_chunk(), BEAT);
                peer.send(CLOSING_SSE_HEAD);
                head
            } else {
                peer.send(CLOSING_SSE_HEAD);
                let head = client.read_head();
                assert_eq!(client.read_chunk(), BEAT);
                head
            };
            for piece in pieces {
                peer.send(chunk(piece));
            }
            peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
            let body = client.read_body(&head);
            let data: Vec<u8> = body.chunks.into_iter().filter(|c| c != BEAT).flatten().collect();
            assert_eq!(
                (String::from_utf8_lossy(&data), body.end),
                ("data: a\n\ndata: [DONE]\n\n".into(), End::Whole)
            );
            peer.close();
        }
    }
    // Without a heartbeat not a byte is changed.
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    peer.send([chunk("\u{feff}data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_body(&head).text(), "\u{feff}data: [DONE]\n\n");
}
