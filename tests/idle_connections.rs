//! A connection to an upstream is given up before the upstream closes it, and what crosses its close all the same is sent again
//! where that is harmless.
//!
//! The story: idle connections were kept for 30 s. uvicorn, and with it vLLM and most Python servers, closes them after 5 s. A
//! request that was sent while the close was on its way was answered with 502, and nothing could be set against it that the
//! documentation named.

mod support;

use std::time::Duration;

use support::{Edge, OUTCOMES, Upstream, Wire, answer, error_code, get, post, relayed};

/// An upstream with these lines in its table.
fn edge(upstream: &Upstream, lines: &str) -> Edge {
    Edge::configured(&format!("[[upstream]]\nname = \"u\"\nurl = \"{}\"\n{lines}\n", upstream.url()))
}

/// A request and its answer; the client, and the upstream's connection, which is idle now.
fn idle(edge: &Edge, upstream: &Upstream, fields: &[&str]) -> (Wire, Wire) {
    let (mut client, mut peer, ..) = relayed(edge, upstream, &get("/v1/models", &[]));
    peer.send(answer("200 OK", fields, "{}"));
    assert_eq!(client.read_answer().0.status(), 200);
    (client, peer)
}

#[test]
fn an_idle_connection_is_given_up_before_common_servers_close_it() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (_client, mut peer) = idle(&edge, &upstream, &[]);
    // Before its keep-alive of 5 s is over, uvicorn sees the end.
    let (_, took) = support::timed(|| peer.wait_closed());
    assert!(took > Duration::from_secs(3), "it was hardly kept: {took:?}");
}

#[test]
fn the_life_of_an_idle_connection_is_learnt_from_its_upstream() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream, "pool_idle_timeout = \"60s\"");
    // What is said counts.
    let (_client, mut peer) = idle(&edge, &upstream, &["Keep-Alive: timeout=2, max=100"]);
    peer.wait_closed();
    // What is done counts as well: this one closes after some three seconds.
    let (_client, mut peer) = idle(&edge, &upstream, &[]);
    assert!(peer.silent_for(Duration::from_secs(3)));
    peer.close();
    edge.wait_metric("sedge_upstream_connections_idle", &[], 0.0);
    let (_client, mut peer) = idle(&edge, &upstream, &[]);
    peer.wait_closed();
}

#[test]
fn a_post_that_was_taken_is_not_sent_again() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer) = idle(&edge, &upstream, &[]);
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(100_000));
    for body in ["{}", &body] {
        client.send(post("/v1/chat/completions", &[], body));
        let head = peer.read_head();
        peer.read_request_body(&head);
        peer.close();
        let (head, error) = client.read_answer();
        assert_eq!((head.status(), error_code(&error.bytes()).as_str()), (502, "upstream_closed"));
        assert!(upstream.idle_for(Duration::from_millis(50)));
        (client, peer) = idle(&edge, &upstream, &[]);
    }
    edge.wait_metric(OUTCOMES, &["outcome=\"upstream_error\""], 2.0);
}

/// One that can be repeated goes out once more, with all of its body, over a fresh connection.
#[test]
fn what_can_be_repeated_is_sent_again_with_all_of_its_body() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(300_000));
    let sized = format!("PUT /v1/files HTTP/1.1\r\nHost: e\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunk = support::chunk(&body);
    let head = b"PUT /v1/files HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = [&head[..], &chunk, support::LAST_CHUNK].concat();
    for request in [sized.into_bytes(), chunked] {
        let (mut client, mut peer) = idle(&edge, &upstream, &[]);
        client.send(&request);
        let head = peer.read_head();
        peer.read_request_body(&head);
        peer.close();
        let mut fresh = upstream.accept();
        let head = fresh.read_head();
        assert_eq!(fresh.read_request_body(&head).text(), body);
        fresh.send(answer("200 OK", &["Connection: close"], "taken"));
        assert_eq!(client.read_answer().1.text(), "taken");
    }
    edge.wait_metric("sedge_upstream_retries_total", &["reason=\"stale\""], 2.0);
}
