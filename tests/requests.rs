//! A client connection's life as HTTP/1.1 has it: what may come on one connection, in which order, how large, and what
//! it is told when it cannot be served.

mod support;

use std::net::Shutdown;
use std::thread;

use support::edge::Edge;
use support::{
    End, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, answer, chunk, config, error_code, get, post, relayed,
};

const MIB: usize = 1 << 20;

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::serve(|head, _| answer("200 OK", &[], &head.start));
    let edge = Edge::start(&["--upstream", &upstream.url()]);
    let mut client = edge.connect();
    let wire: Vec<u8> = (0..20).flat_map(|i| post(&format!("/v1/embeddings?n={i}"), &[], "{}")).collect();
    client.send(wire);
    for i in 0..20 {
        assert_eq!(client.read_answer().1.text(), format!("POST /v1/embeddings?n={i} HTTP/1.1"));
    }
}

#[test]
fn a_request_behind_a_stream_waits_for_its_end() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let both = [post("/v1/chat/completions", &[], STREAM_BODY), get("/v1/models", &[])].concat();
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &both);
    peer.send([SSE_HEAD, &chunk("data: [DONE]\n\n"), LAST_CHUNK].concat());
    assert_eq!(client.read_answer().1.text(), "data: [DONE]\n\n");
    // The upstream's connection is clean, so the next request comes on it.
    assert_eq!(peer.read_head().start, "GET /v1/models HTTP/1.1");
    peer.send(answer("200 OK", &[], "{}"));
    assert_eq!(client.read_answer().1.text(), "{}");
}

#[test]
fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    for i in 0..5 {
        peer.send(answer("200 OK", &[], i.to_string()));
        assert_eq!(client.read_answer().1.text(), i.to_string());
        client.send(get("/v1/models", &[]));
        peer.read_head();
    }
}

#[test]
fn connection_close_is_obeyed_and_said() {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let edge = Edge::start(&["--upstream", &upstream.url()]);
    let mut client = edge.connect();
    client.send(get("/v1/models", &["Connection: close"]));
    let (head, body) = client.read_answer();
    assert_eq!((head.get("connection"), body.end), (Some("close"), End::Whole));
    assert_eq!(client.wait_closed(), End::Closed);
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{STREAM_BODY}",
        STREAM_BODY.len()
    );
    let (mut client, mut peer, seen, _) = relayed(&edge, &upstream, request.as_bytes());
    assert!(seen.start.ends_with("HTTP/1.1"), "{seen:?}");
    peer.send(SSE_HEAD);
    let head = client.read_head();
    assert!(!head.has("transfer-encoding") && !head.has("content-length"), "{head:?}");
    peer.send(chunk("data: a\n\n"));
    assert_eq!(client.read_exact(9), b"data: a\n\n");
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_to_close().text(), "data: [DONE]\n\n");
}

#[test]
fn an_http_1_0_client_that_asks_keeps_its_connection_or_is_told() {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let edge = Edge::start(&["--upstream", &upstream.url()]);
    let mut client = edge.connect();
    client.send(b"GET /v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let (head, body) = client.read_answer();
    assert_eq!(body.text(), "{}");
    if head.get("connection").is_some_and(|c| c.eq_ignore_ascii_case("keep-alive")) {
        client.send(b"GET /v1/models HTTP/1.0\r\n\r\n");
        assert_eq!(client.read_answer().1.text(), "{}");
    }
    client.wait_closed();
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer_or_a_clean_end() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    client.stream().shutdown(Shutdown::Write).expect("half close");
    // A FIN is how a client leaves: the edge may take it as that. It must not answer half.
    let _ = peer.try_send(answer("200 OK", &[], "{}"));
    match client.try_read_head() {
        Ok(head) => assert_eq!(client.read_body(&head).text(), "{}"),
        Err(end) => assert_ne!(end, End::Whole),
    }
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut client = edge.connect();
    client.send(
        b"POST /v1/embeddings HTTP/1.1\r\nHost: e\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    );
    assert_eq!(client.read_head().status(), 100);
    client.send(b"{}");
    let mut peer = upstream.accept();
    let head = peer.read_head();
    assert_eq!(peer.read_request_body(&head).text(), "{}");
    peer.send(answer("200 OK", &[], "ok"));
    assert_eq!(client.read_answer().1.text(), "ok");
}

#[test]
fn a_small_chunked_request_goes_on_with_its_length() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let head = "POST /v1/embeddings HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n";
    let wire = [head.as_bytes(), &chunk("{\"a\""), b"3;x=y\r\n:1}\r\n", b"0\r\nX-T: 1\r\n\r\n"].concat();
    let (mut client, mut peer, seen, body) = relayed(&edge, &upstream, &wire);
    assert_eq!(body.text(), "{\"a\":1}");
    assert_eq!(seen.get("content-length"), Some("7"));
    assert!(!seen.has("transfer-encoding") && !seen.has("x-t"), "{seen:?}");
    peer.send(answer("200 OK", &[], "ok"));
    assert_eq!(client.read_answer().1.text(), "ok");
}

/// Uploads `total` bytes while the upstream reads them; gives back the edge's largest resident size seen.
fn upload(edge: &Edge, upstream: &Upstream, head: &str, total: usize, chunked: bool) -> u64 {
    let mut client = edge.connect();
    client.send(head);
    let sender = thread::spawn(move || {
        let block = vec![b'u'; MIB];
        for _ in 0..total / MIB {
            client.send(if chunked { chunk(&block) } else { block.clone() });
        }
        if chunked {
            client.send(LAST_CHUNK);
        }
        client
    });
    let mut peer = upstream.accept();
    let seen = peer.read_head();
    assert_eq!(seen.is_chunked(), chunked, "{seen:?}");
    let (mut received, mut largest, mut next) = (0, 0, 0);
    while received < total {
        received += if chunked {
            peer.read_chunk().len()
        } else {
            peer.read_exact((total - received).min(MIB)).len()
        };
        if received >= next {
            largest = largest.max(edge.resident_bytes());
            next += 4 * MIB;
        }
    }
    if chunked {
        peer.read_last_chunk();
    }
    peer.send(answer("200 OK", &[], "stored"));
    let mut client = sender.join().expect("the client");
    assert_eq!(client.read_answer().1.text(), "stored");
    largest
}

#[test]
fn a_large_chunked_upload_is_streamed_in_bounded_memory() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let head = "POST /v1/files HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n";
    let largest = upload(&edge, &upstream, head, 64 * MIB, true);
    assert!(largest < 48 * MIB as u64, "{largest} bytes resident during an upload of 64 MiB");
}

#[test]
fn a_multipart_upload_is_streamed_in_bounded_memory() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let total = 256 * MIB;
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nHost: e\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {total}\r\n\r\n"
    );
    let largest = upload(&edge, &upstream, &head, total, false);
    assert!(largest < 48 * MIB as u64, "{largest} bytes resident during an upload of 256 MiB");
}

#[test]
fn an_answer_that_comes_before_the_upload_is_over_reaches_the_client() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut client = edge.connect();
    client.send(format!("POST /v1/files HTTP/1.1\r\nHost: e\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n", 64 * MIB));
    client.send(vec![b'u'; 64 * 1024]);
    let mut peer = upstream.accept();
    peer.read_head();
    peer.send(answer("413 Payload Too Large", &["Connection: close"], "too much"));
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), body.text().as_str()), (413, "too much"));
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::max_body(&upstream.url(), 1000));
    let mut client = edge.connect();
    client.send("POST /v1/files HTTP/1.1\r\nHost: e\r\nContent-Length: 1001\r\n\r\n");
    let (head, body) = client.read_answer();
    assert_eq!(head.status(), 413);
    error_code(&body.bytes());

    let mut client = edge.connect();
    client.send("POST /v1/embeddings HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(chunk("x".repeat(1001)));
    let (head, body) = client.read_answer();
    assert_eq!(head.status(), 413);
    error_code(&body.bytes());
}

#[test]
fn a_client_that_leaves_during_its_upload_cancels_the_upstream() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut client = edge.connect();
    client.send(format!("POST /v1/files HTTP/1.1\r\nHost: e\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n", 64 * MIB));
    client.send(vec![b'u'; 64 * 1024]);
    let mut peer = upstream.accept();
    peer.read_head();
    peer.read_exact(1024);
    client.close();
    peer.wait_closed();
}

#[test]
fn a_stale_pooled_connection_is_replaced_unseen() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    peer.send(answer("200 OK", &[], "one"));
    assert_eq!(client.read_answer().1.text(), "one");
    peer.close();
    client.send(get("/v1/models", &[]));
    let mut peer = upstream.accept();
    peer.read_head();
    peer.send(answer("200 OK", &[], "two"));
    assert_eq!(client.read_answer().1.text(), "two");
}

#[test]
fn a_pooled_connection_that_dies_under_a_get_is_replaced() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    peer.send(answer("200 OK", &[], "one"));
    assert_eq!(client.read_answer().1.text(), "one");
    client.send(get("/v1/models", &[]));
    // It was reused: the request arrived, and only then did the connection go, without a byte of an answer.
    peer.read_head();
    peer.close();
    let mut peer = upstream.accept();
    peer.read_head();
    peer.send(answer("200 OK", &[], "two"));
    assert_eq!(client.read_answer().1.text(), "two");
}

#[test]
fn an_unknown_path_is_a_404_in_openais_shape() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut client = edge.connect();
    for _ in 0..2 {
        client.send(get("/nowhere", &[]));
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 404);
        assert_eq!(head.get("content-type"), Some("application/json"));
        assert!(head.has("x-request-id"), "{head:?}");
        error_code(&body.bytes());
    }
}

#[test]
fn every_path_is_relayed_when_asked() {
    let upstream = Upstream::serve(|head, _| answer("200 OK", &[], &head.start));
    let edge = Edge::start(&["--relay-all", "--upstream", &upstream.url()]);
    let (head, body) = edge.ask(b"OPTIONS /nowhere HTTP/1.1\r\nHost: e\r\n\r\n");
    assert_eq!((head.status(), body.text().as_str()), (200, "OPTIONS /nowhere HTTP/1.1"));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_malformed_request_is_refused_and_the_connection_closed() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    for (raw, status) in [
        (&b"GET /v1/models HTTP/1.1\r\n\r\n"[..], 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Bad : y\r\n\r\n", 400),
        (b"GET /v1/models HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ] {
        let mut client = edge.connect();
        client.send(raw);
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), status, "{:?}", String::from_utf8_lossy(raw));
        error_code(&body.bytes());
        client.wait_closed();
    }
}

#[test]
fn a_head_beyond_the_limit_is_a_431() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut client = edge.connect();
    let _ = client.try_send(get("/v1/models", &[&format!("X-Large: {}", "x".repeat(MIB))]));
    let (head, body) = client.read_answer();
    assert_eq!(head.status(), 431);
    error_code(&body.bytes());
}
