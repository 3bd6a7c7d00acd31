//! A stream ends as it ended: what was cut never looks finished, what finished is never called cut, and nobody keeps
//! an upstream busy for a client that has gone.

mod support;

use support::{
    Edge, End, LAST_CHUNK, OUTCOMES, Upstream, Wire, chunk, error_code, error_event_code, get, post, relayed,
    stream_request, streaming,
};

#[test]
fn a_cut_between_events_is_told_in_band_and_stays_unfinished() {
    for reset in [false, true] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, head) = streaming(&edge, &upstream);
        peer.send(chunk("data: a\n\n"));
        assert_eq!(client.read_chunk(), b"data: a\n\n");
        end(peer, reset);
        let body = client.read_body(&head);
        assert_ne!(body.end, End::Whole, "a cut stream has no last chunk");
        assert!(!error_event_code(&body.bytes()).is_empty());
        edge.wait_metric(OUTCOMES, &["outcome=\"upstream_cut\""], 1.0);
    }
}

#[test]
fn a_cut_inside_an_event_adds_nothing_at_all() {
    for (partial, reset) in [("data: {\"half", false), ("data: whole line\n", false), ("data: {\"half", true)]
    {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, head) = streaming(&edge, &upstream);
        peer.send(chunk(partial));
        assert_eq!(client.read_chunk(), partial.as_bytes());
        end(peer, reset);
        let body = client.read_body(&head);
        assert_ne!(body.end, End::Whole, "a cut stream has no last chunk");
        assert_eq!(body.text(), "", "an event boundary was made up after {partial:?}");
    }
}

#[test]
fn a_cut_inside_a_chunk_is_a_cut() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    peer.send(b"ff\r\ndata: a\n\nda");
    assert_eq!(client.read_chunks(11), b"data: a\n\nda");
    peer.close();
    let body = client.read_body(&head);
    assert_ne!(body.end, End::Whole);
    assert_eq!(body.text(), "");
}

#[test]
fn a_broken_chunk_header_is_a_cut() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    peer.send(chunk("data: a\n\n"));
    assert_eq!(client.read_chunk(), b"data: a\n\n");
    peer.send(b"not a size\r\n");
    let body = client.read_body(&head);
    assert_ne!(body.end, End::Whole);
    assert!(!body.text().contains("[DONE]") && !body.text().contains("not a size"), "{:?}", body.text());
    peer.wait_closed();
}

#[test]
fn a_close_delimited_stream_that_was_reset_is_a_cut() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n");
    let head = client.read_head();
    assert_eq!(client.read_chunk(), b"data: a\n\n");
    peer.reset();
    let body = client.read_body(&head);
    assert_ne!(body.end, End::Whole);
    assert!(!body.text().contains("[DONE]"), "{:?}", body.text());
}

#[test]
fn a_clean_last_chunk_without_done_stays_what_it_was() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    peer.send([chunk("data: a\n\n"), LAST_CHUNK.to_vec()].concat());
    let body = client.read_body(&head);
    assert_eq!((body.text().as_str(), body.end), ("data: a\n\n", End::Whole));
}

#[test]
fn a_short_body_with_a_length_is_cut_short_for_the_client_too() {
    for reset in [false, true] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
        peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"half\"",
        );
        let head = client.read_head();
        assert_eq!(client.read_exact(7), b"{\"half\"");
        end(peer, reset);
        let body = client.read_body(&head);
        assert_ne!(body.end, End::Whole);
        assert_eq!(body.text(), "");
    }
}

#[test]
fn an_upstream_that_closes_before_it_answers_is_a_502() {
    for reset in [false, true] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        // A POST is not repeated: the upstream may have acted on it.
        let (mut client, peer, ..) = relayed(&edge, &upstream, &stream_request());
        end(peer, reset);
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 502, "{head:?} {}", body.text());
        error_code(&body.bytes());
    }
}

#[test]
fn an_upstream_that_speaks_no_http_is_a_502() {
    for garbage in
        ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"]
    {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
        peer.send(garbage);
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 502, "{garbage:?}");
        error_code(&body.bytes());
        peer.wait_closed();
    }
}

#[test]
fn an_unreachable_upstream_is_a_502() {
    let edge = Edge::start(&["--upstream", &format!("http://{}", support::nobody())]);
    let (head, body) = edge.ask(&stream_request());
    assert_eq!(head.status(), 502);
    assert!(head.has("x-request-id"), "{head:?}");
    error_code(&body.bytes());
}

#[test]
fn a_client_that_leaves_before_the_first_byte_cancels_the_upstream() {
    for reset in [false, true] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
        end(client, reset);
        // The edge's own timeouts are minutes away: only the client's going can have closed this.
        peer.wait_closed();
        edge.wait_metric(OUTCOMES, &["outcome=\"client_gone\""], 1.0);
    }
}

#[test]
fn a_client_that_leaves_a_silent_stream_cancels_the_upstream() {
    for reset in [false, true] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, _) = streaming(&edge, &upstream);
        peer.send(chunk("data: a\n\n"));
        assert_eq!(client.read_chunk(), b"data: a\n\n");
        end(client, reset);
        peer.wait_closed();
        edge.wait_metric(OUTCOMES, &["outcome=\"client_gone\""], 1.0);
    }
}

#[test]
fn a_client_that_closes_after_done_has_finished() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    peer.send(chunk("data: a\n\ndata: [DONE]\n\n"));
    assert_eq!(client.read_chunk(), b"data: a\n\ndata: [DONE]\n\n");
    client.close();
    peer.wait_closed();
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 1.0);
    assert!(edge.metric(OUTCOMES, &["outcome=\"client_gone\""]).abs() < f64::EPSILON);
}

#[test]
fn a_cut_after_done_is_a_finished_stream() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    peer.send(chunk("data: [DONE]\n\n"));
    assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
    peer.close();
    let body = client.read_body(&head);
    assert_eq!(body.text(), "", "nothing comes after [DONE]");
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 1.0);
}

#[test]
fn a_whole_answer_counts_as_finished() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    peer.send([chunk("data: a\n\ndata: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_body(&head).end, End::Whole);
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 1.0);
}

#[test]
fn a_cut_ends_the_clients_connection_and_a_new_one_works() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, peer, _) = streaming(&edge, &upstream);
    peer.close();
    client.wait_closed();
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &post("/v1/embeddings", &[], "{}"));
    peer.send(support::answer("200 OK", &[], "{}"));
    assert_eq!(client.read_answer().1.text(), "{}");
}

fn end(wire: Wire, reset: bool) {
    if reset { wire.reset() } else { wire.close() }
}
