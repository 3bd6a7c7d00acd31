//! What an upstream says is not believed: an answer that cannot be trusted is a 502, or a cut that looks like one, and its
//! connection carries nothing else. The client's goes on.

mod support;

use support::{
    Edge, End, LAST_CHUNK, OUTCOMES, SSE_HEAD, Upstream, Wire, answer, chunk, config, error_code,
    error_event_code, get, post, relayed, stream_request, streaming,
};

/// The client's next request, on the same connection, goes to a fresh upstream connection and is answered there.
#[track_caller]
fn goes_on(client: &mut Wire, upstream: &Upstream) {
    client.send(get("/v1/next", &[]));
    let mut fresh = upstream.accept();
    assert_eq!(fresh.read_head().start, "GET /v1/next HTTP/1.1");
    fresh.send(answer("200 OK", &[], "next"));
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), body.text().as_str()), (200, "next"));
}

/// An upstream that answers `wire` (and closes, if it is said) is a 502.
#[track_caller]
fn is_a_502(wire: &[u8], closes: bool) {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    // A long one may be refused before its end.
    let _ = peer.try_send(wire);
    if closes {
        peer.half_close();
    }
    let shown = String::from_utf8_lossy(&wire[..wire.len().min(120)]).into_owned();
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), body.end), (502, End::Whole), "{shown:?}: {}", body.text());
    assert!(head.has("x-request-id"), "{head:?}");
    assert!(!error_code(&body.bytes()).is_empty());
    peer.wait_closed();
    goes_on(&mut client, &upstream);
}

#[test]
fn a_head_that_cannot_be_trusted_is_a_502() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for head in [
        "\0\x01\x02\x03\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "<html>no HTTP at all</html>\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 99 Too low\r\n\r\n",
        "HTTP/1.1 2000 Too high\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ] {
        is_a_502(head.as_bytes(), false);
    }
    for fields in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        "Content-Length: 2, 2\r\n\r\n{}",
        "Content-Length: -2\r\n\r\n{}",
        "Transfer-Encoding: gzip, chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "X: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "X : space\r\nContent-Length: 0\r\n\r\n",
        "X: nul\0\r\nContent-Length: 0\r\n\r\n",
        "no colon\r\nContent-Length: 0\r\n\r\n",
    ] {
        is_a_502(format!("{ok}{fields}").as_bytes(), false);
    }
}

#[test]
fn a_head_that_ends_early_is_a_502() {
    for part in ["", "HTTP/1.1", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"] {
        is_a_502(part.as_bytes(), true);
    }
}

#[test]
fn a_head_that_never_ends_is_a_502_at_64_kib() {
    let line = format!("X-Long: {}\r\n", "a".repeat(1000));
    is_a_502(format!("HTTP/1.1 200 OK\r\n{}", line.repeat(70)).as_bytes(), false);
    is_a_502(format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(70_000)).as_bytes(), false);
    is_a_502(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(129)).as_bytes(), false);
}

#[test]
fn interim_answers_are_dropped_and_a_flood_of_them_is_a_502() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    peer.send(format!("HTTP/1.1 100 Continue\r\n\r\n{}", hints.repeat(10)));
    peer.send(answer("200 OK", &[], "{}"));
    assert_eq!(client.read_answer().1.text(), "{}");
    // They disturb nothing that comes later, on either side.
    client.send(get("/v1/models", &[]));
    peer.read_head();
    peer.send(answer("200 OK", &[], "[]"));
    assert_eq!(client.read_answer().1.text(), "[]");

    is_a_502(&hints.repeat(10_000).into_bytes(), false);
    is_a_502(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000).into_bytes(), false);
}

#[test]
fn what_follows_an_answer_is_never_another() {
    let smuggled = answer("200 OK", &[], "not yours");
    let chunked =
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk("{}")[..], LAST_CHUNK].concat();
    let cases = [
        ("GET", answer("200 OK", &[], "{}"), "{}"),
        ("GET", answer("200 OK", &[], ""), ""),
        ("GET", answer("429 Too Many Requests", &[], "{}"), "{}"),
        ("GET", chunked, "{}"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), ""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n".to_vec(), ""),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec(), ""),
    ];
    for (method, first, body) in cases {
        for more in [&smuggled[..], b"x", b"\r\n"] {
            let upstream = Upstream::listen();
            let edge = Edge::to(&upstream);
            let request = format!("{method} /v1/models HTTP/1.1\r\nHost: e\r\n\r\n");
            let (mut client, mut peer, ..) = relayed(&edge, &upstream, request.as_bytes());
            // In one segment with the answer.
            peer.send([&first[..], more].concat());
            let head = client.read_head();
            if method == "GET" {
                assert_eq!(client.read_body(&head).text(), body);
            }
            goes_on(&mut client, &upstream);
            peer.wait_closed();
        }
    }
}

#[test]
fn bytes_that_nobody_asked_for_are_thrown_away_with_their_connection() {
    // Right after the answer, in a segment of their own, and before the client's next request.
    for more in [answer("200 OK", &[], "not yours"), b"\0".to_vec()] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
        peer.send(answer("200 OK", &[], "{}"));
        assert_eq!(client.read_answer().1.text(), "{}");
        edge.wait_metric("sedge_upstream_connections_idle", &[], 1.0);
        peer.send(&more);
        goes_on(&mut client, &upstream);
        peer.wait_closed();
    }
    // And though nobody comes: the pool is swept.
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    peer.send(answer("200 OK", &[], "{}"));
    assert_eq!(client.read_answer().1.text(), "{}");
    peer.send("surprise");
    peer.wait_closed();
    edge.wait_metric("sedge_upstream_connections_idle", &[], 0.0);
    goes_on(&mut client, &upstream);
}

/// An upstream may refuse before it has read anything; it cannot answer two requests with that.
#[test]
fn an_answer_before_its_request_is_an_answer_to_one_request_at_most() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut client = edge.connect();
    client.send(get("/v1/models", &[]));
    let mut peer = upstream.accept();
    // Sent as soon as there is a connection, whatever has been read from it; and once more when asked.
    peer.send(answer("503 Service Unavailable", &[], "{}"));
    let (head, body) = client.read_answer();
    assert!(matches!((head.status(), body.text().as_str()), (503, "{}") | (502, _)), "{head:?}");
    peer.read_head();
    let _ = peer.try_send(answer("200 OK", &[], "too late"));
    goes_on(&mut client, &upstream);
    peer.wait_closed();
}

/// What an upstream said behind its list of models was dropped and its connection kept, in the middle of who knows what.
#[test]
fn what_follows_a_list_of_models_ends_its_connection() {
    let lists = [(r#"{"data":[]}"#, "200 OK"), ("", "500 Internal Server Error")];
    for (list, status) in lists {
        let (one, two) = (Upstream::listen(), Upstream::listen());
        let edge = Edge::configured(&config::routes(&[("a", &one.url()), ("b", &two.url())]));
        let mut client = edge.connect();
        client.send(get("/v1/models", &[]));
        let mut peers = [one.accept(), two.accept()];
        for peer in &mut peers {
            peer.read_head();
            peer.send([answer(status, &[], list), b"HTTP/1.1 200 OK\r\nX: ".to_vec()].concat());
        }
        client.read_answer();
        client.send(post("/v1/embeddings", &[], r#"{"model":"a"}"#));
        let mut fresh = one.accept();
        fresh.read_head();
        fresh.send(answer("200 OK", &[], "mine"));
        assert_eq!(client.read_answer().1.text(), "mine");
        peers[0].wait_closed();
    }
}

/// A stream that has begun, and one event of it.
fn one_event(upstream: &Upstream, edge: &Edge) -> (Wire, Wire, support::Head) {
    let (mut client, mut peer, head) = streaming(edge, upstream);
    peer.send(chunk("data: a\n\n"));
    assert_eq!(client.read_chunk(), b"data: a\n\n");
    (client, peer, head)
}

#[test]
fn garbage_between_chunks_is_an_error_event_and_a_cut() {
    for garbage in [
        &b"zz\r\n"[..],
        b"\r\n",
        b"-1\r\n",
        b"5 \r\nhello\r\n",
        b"5\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"10000000000000000\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, head) = one_event(&upstream, &edge);
        peer.send(garbage);
        let body = client.read_body(&head);
        assert_ne!(body.end, End::Whole, "{garbage:?} made a whole stream");
        assert!(!error_event_code(&body.bytes()).is_empty());
        peer.wait_closed();
        edge.wait_metric(OUTCOMES, &["outcome=\"upstream_cut\""], 1.0);
    }
}

#[test]
fn garbage_within_an_event_is_a_cut_without_a_word() {
    for garbage in [&b"5\r\nhelloXX"[..], b"zz\r\n", b"0\r\nbroken trailer\r\n\r\n"] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, head) = one_event(&upstream, &edge);
        peer.send(chunk("data: {\"half"));
        assert_eq!(client.read_chunk(), b"data: {\"half");
        peer.send(garbage);
        let body = client.read_body(&head);
        assert_ne!(body.end, End::Whole, "{garbage:?} made a whole stream");
        let text = body.text();
        assert!(text.is_empty() || text == "hello", "{text:?} after half an event");
        peer.wait_closed();
        edge.wait_metric(OUTCOMES, &["outcome=\"upstream_cut\""], 1.0);
    }
}

#[test]
fn garbage_with_the_head_is_not_a_stream() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    peer.send([SSE_HEAD, b"zz\r\n"].concat());
    let head = client.read_head();
    let body = client.read_body(&head);
    assert!(head.status() == 502 || body.end != End::Whole, "{head:?} {body:?}");
    assert!(!body.text().contains("zz"));
    peer.wait_closed();
}

#[test]
fn a_body_shorter_than_its_length_is_a_cut() {
    for reset in [false, true] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":");
        let head = client.read_head();
        assert_eq!(client.read_exact(8), b"{\"data\":");
        if reset {
            peer.reset();
        } else {
            peer.close();
        }
        let body = client.read_body(&head);
        assert_ne!(body.end, End::Whole);
        edge.wait_metric(OUTCOMES, &["outcome=\"upstream_cut\""], 1.0);
    }
}

#[test]
fn trailers_without_end_are_a_cut() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = one_event(&upstream, &edge);
    peer.send("0\r\n");
    // More of them than any head may have; the edge may close before it has all.
    let _ = peer.try_send("X-Trailer: 1\r\n".repeat(100_000));
    let body = client.read_body(&head);
    assert_ne!(body.end, End::Whole);
    peer.wait_closed();
}
