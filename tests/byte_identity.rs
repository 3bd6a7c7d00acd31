//! A relayed body is the upstream's, byte for byte, whatever the framing it came in; and every segment reaches the
//! client before the upstream has sent the next one, so nothing is ever held back.

mod support;

use std::thread;

use support::{
    Edge, End, LAST_CHUNK, SSE_HEAD, Upstream, answer, chunk, get, post, relayed, stream_request, streaming,
};

/// Sends each raw segment and sees its body bytes arrive before the next is sent. The segments hold no last chunk.
#[track_caller]
fn lockstep(segments: &[(&[u8], &[u8])]) {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    assert!(head.is_chunked(), "{head:?}");
    for (number, (raw, data)) in segments.iter().enumerate() {
        peer.send(raw);
        let got = client.read_chunks(data.len());
        assert_eq!(got, *data, "segment {number}: {:?}", String::from_utf8_lossy(&got));
    }
    // Whatever was open has ended, and so has the stream.
    let end = "\n\ndata: [DONE]\n\n";
    peer.send([&chunk(end), LAST_CHUNK].concat());
    assert_eq!(client.read_chunks(end.len()), end.as_bytes());
    client.read_last_chunk();
}

#[test]
fn one_event_a_chunk() {
    lockstep(&[
        (b"8\r\ndata: a\n\r\n", b"data: a\n"),
        (b"1\r\n\n\r\n", b"\n"),
        (b"9\r\ndata: b\n\n\r\n", b"data: b\n\n"),
        (b"e\r\ndata: [DONE]\n\n\r\n", b"data: [DONE]\n\n"),
    ]);
}

#[test]
fn a_chunk_split_inside_the_word_data() {
    lockstep(&[
        (b"9\r\nda", b"da"),
        (b"ta", b"ta"),
        (b": a\n\n", b": a\n\n"),
        (b"\r\n1\r\n:", b":"),
        (b"\r\n1\r\n\n\r\n", b"\n"),
    ]);
}

#[test]
fn a_character_split_between_chunks_and_segments() {
    lockstep(&[
        (b"7\r\ndata: \xf0\r\n", b"data: \xf0"),
        (b"3\r\n\x9f", b"\x9f"),
        (b"\x99\x82\r\n2\r\n\n", b"\x99\x82\n"),
        (b"\n\r\n", b"\n"),
    ]);
}

#[test]
fn a_chunk_header_split_at_every_byte() {
    lockstep(&[
        (b"0", b""),
        (b"0", b""),
        (b"9", b""),
        (b"\r", b""),
        (b"\n", b""),
        (b"data: a\n\n", b"data: a\n\n"),
        (b"\r", b""),
        (b"\n", b""),
        (b"A", b""),
        (b"\r\n:", b":"),
        (b"123456789", b"123456789"),
        (b"\r\n", b""),
    ]);
}

#[test]
fn several_chunks_and_the_start_of_another_in_one_segment() {
    lockstep(&[
        (b"3\r\nda \r\n9\r\ndata: a\n\n\r\n9\r\ndata", b"da data: a\n\ndata"),
        (b": b\n\n\r\n9\r\n", b": b\n\n"),
        (b"data: c\n\n\r\n", b"data: c\n\n"),
    ]);
}

#[test]
fn many_events_in_one_chunk() {
    let events = "data: x\n\n".repeat(500);
    lockstep(&[(&chunk(&events), events.as_bytes())]);
}

#[test]
fn every_line_end_and_every_field() {
    lockstep(&[
        (&chunk("data: a\r\n\r\n"), b"data: a\r\n\r\n"),
        (&chunk("data: b\r\r"), b"data: b\r\r"),
        (&chunk(": a comment\n\n"), b": a comment\n\n"),
        (
            &chunk("id: 7\nevent: x\nretry: 10\ndata\ndata:\n\n"),
            b"id: 7\nevent: x\nretry: 10\ndata\ndata:\n\n",
        ),
        (&chunk("\u{feff}data: bom\n\n\n\n"), "\u{feff}data: bom\n\n\n\n".as_bytes()),
        (&chunk(b"data: \x00\xff\xfe not text\n\n"), b"data: \x00\xff\xfe not text\n\n"),
    ]);
}

#[test]
fn chunk_extensions_go_no_further() {
    // `read_chunk` accepts nothing but digits in a size line.
    lockstep(&[
        (b"9;a=1;b=\"q;\\\"\"\r\ndata: a\n\n\r\n", b"data: a\n\n"),
        (b"9 ; x\r\ndata: b\n\n\r\n", b"data: b\n\n"),
    ]);
}

#[test]
fn trailers_go_no_further() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    peer.send(chunk("data: [DONE]\n\n"));
    peer.send(b"0\r\nX-Usage: 7\r\nContent-Length: 5\r\n\r\n");
    let body = client.read_body(&head);
    assert_eq!((body.bytes().as_slice(), body.end), (&b"data: [DONE]\n\n"[..], End::Whole));
    assert!(body.trailers.is_empty(), "{:?}", body.trailers);
}

#[test]
fn an_event_of_a_mebibyte() {
    let mut event = b"data: ".to_vec();
    event.extend((0..1 << 20).map(|i: u32| b'!' + u8::try_from(i * 7 % 90).expect("below 90")));
    event.extend_from_slice(b"\n\ndata: [DONE]\n\n");
    for size in [event.len(), 16 * 1024, 16 * 1024 - 1, 1000] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, head) = streaming(&edge, &upstream);
        let mut wire: Vec<u8> = event.chunks(size).flat_map(chunk).collect();
        wire.extend_from_slice(LAST_CHUNK);
        let sender = thread::spawn(move || peer.send(wire));
        let body = client.read_body(&head);
        sender.join().expect("the upstream");
        assert_eq!(body.end, End::Whole);
        assert!(body.bytes() == event, "the event changed when it came in chunks of {size}");
    }
}

#[test]
fn a_stream_that_ends_by_close_reaches_the_client_in_chunks() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
    let head = client.read_head();
    assert!(head.is_chunked(), "{head:?}");
    for part in ["data: a\n\n", "dat", "a: [DONE]\n\n"] {
        peer.send(part);
        assert_eq!(client.read_chunks(part.len()), part.as_bytes());
    }
    peer.close();
    client.read_last_chunk();
}

#[test]
fn an_http_1_0_upstream_is_understood() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    peer.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\ndata: [DONE]\n\n");
    peer.close();
    let (head, body) = client.read_answer();
    assert_eq!(head.start, "HTTP/1.1 200 OK");
    assert!(head.is_chunked(), "{head:?}");
    assert_eq!((body.text().as_str(), body.end), ("data: a\n\ndata: [DONE]\n\n", End::Whole));
}

#[test]
fn a_body_with_a_length_keeps_its_length() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/files/f/content", &[]));
    let data: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    peer.send(answer("200 OK", &["Content-Type: application/octet-stream"], &data));
    let (head, body) = client.read_answer();
    assert_eq!(head.get("content-length"), Some("100000"));
    assert!(!head.has("transfer-encoding"), "{head:?}");
    assert_eq!(body.end, End::Whole);
    assert!(body.bytes() == data, "the bytes changed");
}

#[test]
fn a_stream_with_a_length_arrives_piece_by_piece() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 23\r\n\r\n");
    let head = client.read_head();
    for part in ["data: a\n\n", "data: [DON", "E]\n\n"] {
        peer.send(part);
        let got =
            if head.is_chunked() { client.read_chunks(part.len()) } else { client.read_exact(part.len()) };
        assert_eq!(got, part.as_bytes());
    }
    if head.is_chunked() {
        client.read_last_chunk();
    }
}

#[test]
fn a_plain_chunked_answer_is_streamed_too() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &post("/v1/audio/speech", &[], "{}"));
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(client.read_head().is_chunked());
    for part in [&b"\xff\xfb\x90"[..], b"\n\n", b"\x00data: "] {
        peer.send(chunk(part));
        assert_eq!(client.read_chunks(part.len()), part);
    }
    peer.send(LAST_CHUNK);
    client.read_last_chunk();
}

#[test]
fn a_compressed_stream_is_left_alone() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    peer.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\
          Transfer-Encoding: chunked\r\n\r\n",
    );
    let head = client.read_head();
    assert_eq!(head.get("content-encoding"), Some("gzip"));
    for part in [&b"\x1f\x8b\x08\x00\x00\x00\n\n"[..], b"data: [DONE]\n\n\x00"] {
        peer.send(chunk(part));
        assert_eq!(client.read_chunks(part.len()), part);
    }
    peer.send(LAST_CHUNK);
    client.read_last_chunk();
}

#[test]
fn answers_without_a_body_leave_the_connection_in_step() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let head_request = b"HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &head_request);
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 4096\r\n\r\n");
    let head = client.read_head();
    assert_eq!((head.status(), head.get("content-length")), (200, Some("4096")));

    for (raw, status) in [
        (&b"HTTP/1.1 204 No Content\r\nX-N: 1\r\n\r\n"[..], 204),
        (b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n", 304),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
    ] {
        client.send(get("/v1/models/m", &[]));
        peer.read_head();
        peer.send(raw);
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), status);
        assert!(body.bytes().is_empty());
        assert!(status != 204 || !head.has("content-length"), "{head:?}");
    }
    client.send(get("/v1/models/m", &[]));
    peer.read_head();
    peer.send(answer("200 OK", &[], "last"));
    assert_eq!(client.read_answer().1.text(), "last");
}

#[test]
fn a_chunked_head_answer_has_no_body_either() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let head_request = b"HEAD /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &head_request);
    peer.send(SSE_HEAD);
    assert_eq!(client.read_head().status(), 200);
    client.send(get("/v1/models", &[]));
    peer.read_head();
    peer.send(answer("200 OK", &[], "{}"));
    assert_eq!(client.read_answer().1.text(), "{}");
}

#[test]
fn an_interim_answer_does_not_disturb_the_next_request() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n");
    peer.send(answer("200 OK", &[], "one"));
    let mut head = client.read_head();
    while head.status() < 200 {
        head = client.read_head();
    }
    assert_eq!(client.read_body(&head).text(), "one");

    client.send(get("/v1/models", &[]));
    peer.read_head();
    peer.send(answer("200 OK", &[], "two"));
    assert_eq!(client.read_answer().1.text(), "two");
}
