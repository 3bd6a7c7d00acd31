//! Every wait has an end, and its end has a name: before the first byte a status, within a stream an error event, on
//! an idle connection a plain close.

mod support;

use std::io::Write;

use support::{
    Edge, End, OUTCOMES, STREAM_BODY, Upstream, Wire, answer, chunk, config, error_code, error_event_code,
    get, post, relayed, stream_request, streaming,
};

fn edge(upstream: &Upstream, timeouts: &[(&str, &str)]) -> Edge {
    Edge::configured(&config::timeouts(&upstream.url(), timeouts))
}

#[track_caller]
fn refused(client: &mut Wire, status: u16) -> String {
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), body.end), (status, End::Whole), "{}", body.text());
    assert!(head.has("x-request-id"), "{head:?}");
    error_code(&body.bytes())
}

/// The rest of a stream that was cut between two events: one error event and no last chunk.
#[track_caller]
fn cut(client: &mut Wire, head: &support::Head) -> String {
    let body = client.read_body(head);
    assert_ne!(body.end, End::Whole, "{}", body.text());
    error_event_code(&body.bytes())
}

/// A stream that says this as it begins, and nothing after it.
fn said(edge: &Edge, upstream: &Upstream, text: &str) -> (Wire, Wire, support::Head) {
    let (mut client, mut peer, ..) = relayed(edge, upstream, &stream_request());
    peer.send([support::SSE_HEAD, &chunk(text)].concat());
    let head = client.read_head();
    assert_eq!(client.read_chunk(), text.as_bytes());
    (client, peer, head)
}

#[test]
fn connecting_takes_so_long_and_no_longer() {
    // A listener that never accepts: with its queue full the kernel drops every further SYN.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    socket.listen(0).expect("listen");
    let addr = socket.local_addr().expect("address").as_socket().expect("an IP address");
    let _fills_the_queue = Wire::connect(addr);
    let edge = Edge::configured(&config::timeouts(&format!("http://{addr}"), &[("connect", "300ms")]));
    let mut client = edge.connect();
    client.send(stream_request());
    refused(&mut client, 504);
    edge.wait_metric(OUTCOMES, &["outcome=\"timeout_connect\""], 1.0);
}

#[test]
fn the_first_byte_takes_so_long_and_no_longer() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream, &[("first_byte", "300ms")]);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    refused(&mut client, 504);
    peer.wait_closed();
    edge.wait_metric(OUTCOMES, &["outcome=\"timeout_first_byte\""], 1.0);
    // The client's connection goes on.
    client.send(get("/livez", &[]));
    assert_eq!(client.read_answer().1.text(), "alive\n");
}

#[test]
fn half_a_head_is_no_first_byte_for_ever() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream, &[("first_byte", "300ms")]);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    peer.send("HTTP/1.1 200 OK\r\nContent-Ty");
    refused(&mut client, 504);
    peer.wait_closed();
}

#[test]
fn an_upstream_that_goes_silent_is_told_in_band() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream, &[("idle", "300ms")]);
    let (mut client, mut peer, head) = said(&edge, &upstream, "data: a\n\n");
    cut(&mut client, &head);
    peer.wait_closed();
    edge.wait_metric(OUTCOMES, &["outcome=\"timeout_idle\""], 1.0);
}

#[test]
fn an_upstream_that_goes_silent_inside_an_event_is_cut_without_a_word() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream, &[("idle", "300ms")]);
    let (mut client, mut peer, head) = said(&edge, &upstream, "data: {\"half");
    let body = client.read_body(&head);
    assert_ne!(body.end, End::Whole);
    assert_eq!(body.text(), "");
    peer.wait_closed();
}

#[test]
fn a_request_takes_so_long_in_all() {
    let upstream = Upstream::listen();
    // Long enough for both to begin.
    let edge = edge(&upstream, &[("total", "3s")]);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    let (mut waiting, mut silent, ..) = relayed(&edge, &upstream, &stream_request());
    cut(&mut client, &head);
    peer.wait_closed();
    refused(&mut waiting, 504);
    silent.wait_closed();
    edge.wait_metric(OUTCOMES, &["outcome=\"timeout_total\""], 2.0);
}

#[test]
fn a_client_may_ask_for_less_time() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let request = post("/v1/chat/completions", &["X-Request-Timeout-Ms: 3000"], STREAM_BODY);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &request);
    peer.send(support::SSE_HEAD);
    let head = client.read_head();
    let (mut waiting, mut silent, ..) = relayed(&edge, &upstream, &request);
    cut(&mut client, &head);
    peer.wait_closed();
    refused(&mut waiting, 504);
    silent.wait_closed();
}

#[test]
fn a_slow_head_is_a_408() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream, &[("request_head", "300ms")]);
    let mut client = edge.connect();
    client.send("GET /v1/models HTTP/1.1\r\nHost: e\r\nX-Slow");
    refused(&mut client, 408);
    client.wait_closed();
}

#[test]
fn a_slow_body_is_a_408() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream, &[("request_body", "300ms")]);
    let mut client = edge.connect();
    client.send("POST /v1/embeddings HTTP/1.1\r\nHost: e\r\nContent-Length: 100\r\n\r\n{\"slow");
    refused(&mut client, 408);
    client.wait_closed();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let edge = Edge::configured(&config::timeouts(&upstream.url(), &[("keep_alive", "300ms")]));
    let mut client = edge.connect();
    client.send(get("/v1/models", &[]));
    assert_eq!(client.read_answer().1.text(), "{}");
    let rest = client.read_to_close();
    assert_eq!((rest.text().as_str(), rest.end), ("", End::Closed));
}

#[test]
fn a_client_that_stops_reading_is_dropped() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream, &[("client_stall", "500ms")]);
    let (_client, mut peer, _) = streaming(&edge, &upstream);
    let block = chunk("data: x\n\n".repeat(8 * 1024));
    // Sends until the edge has closed: nobody reads, so every buffer on the way fills up first.
    let ended = (0..10_000).find_map(|_| peer.stream().write_all(&block).err());
    assert!(ended.is_some(), "the edge took 700 MB for a client that reads nothing");
    peer.wait_closed();
    edge.wait_metric(OUTCOMES, &["outcome=\"client_stalled\""], 1.0);
}
