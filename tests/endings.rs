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

/// A document whose framing is that the connection closes had a made-up end wherever it broke off.
#[test]
fn a_document_that_is_cut_is_never_whole_whatever_its_framing() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let body = "{\"choices\":[{\"text\":\"}]}\"}]}";
    let mut cut = 0.0;
    for (framing, request) in [
        (format!("Content-Length: {}", body.len()), post("/v1/completions", &[], "{}")),
        ("Transfer-Encoding: chunked".to_owned(), post("/v1/completions", &[], "{}")),
        ("Connection: close".to_owned(), post("/v1/completions", &[], "{}")),
        ("Connection: close".to_owned(), get("/v1/models/m", &[])),
    ] {
        for at in 1..body.len() {
            let (mut client, mut peer, ..) = relayed(&edge, &upstream, &request);
            let part = if framing.starts_with("Transfer") { chunk(&body[..at]) } else { body[..at].into() };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{framing}\r\n\r\n");
            peer.send([head.as_bytes(), &part].concat());
            peer.close();
            let (_, got) = client.read_answer();
            assert_ne!(got.end, End::Whole, "{framing} {at}");
            assert_eq!(got.text(), body[..at]);
            cut += 1.0;
        }
    }
    edge.wait_metric(OUTCOMES, &["outcome=\"upstream_cut\""], cut);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &post("/v1/completions", &[], "{}"));
    peer.send(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{body}\n"));
    peer.close();
    let (_, got) = client.read_answer();
    assert_eq!((got.text(), got.end), (format!("{body}\n"), End::Whole));
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 1.0);
}

#[test]
fn an_answer_without_a_body_is_whole() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let chat = post("/v1/chat/completions", &[], "{}");
    let head = String::from_utf8(get("/v1/chat/completions", &[])).expect("text").replacen("GET", "HEAD", 1);
    for (request, status, length) in [
        (chat.clone(), "204 No Content", ""),
        (chat, "304 Not Modified", "Content-Length: 100\r\n"),
        (head.clone().into_bytes(), "200 OK", "Content-Length: 100\r\n"),
        (head.into_bytes(), "200 OK", "Transfer-Encoding: chunked\r\n"),
    ] {
        for kind in ["application/json", "text/event-stream"] {
            let (mut client, mut peer, ..) = relayed(&edge, &upstream, &request);
            peer.send(format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n{length}\r\n"
            ));
            let got = client.read_head();
            assert_eq!(got.start, format!("HTTP/1.1 {status}"));
            // It can carry the next request: nothing is cut.
            client.send(get("/livez", &[]));
            assert_eq!(client.read_answer().1.text(), "alive\n");
            peer.close();
        }
    }
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 8.0);
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
