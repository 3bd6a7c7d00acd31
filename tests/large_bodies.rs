//! A large body can be sent again like a small one. Only 1 MiB was kept for another attempt, in fact less, and of a body in chunks
//! 64 KiB: an image of 2 MiB got its upstream's 503 where a text would have been answered by the next one, and nothing said why.
//! Now up to `retry.max_body` is kept as it came, and where that does not suffice the log and the metrics say so.

mod support;

use support::{Edge, LAST_CHUNK, Upstream, Wire, answer, chunk, post};

const WITHHELD: &str = "sedge_upstream_retries_withheld_total";

const MIB: usize = 1 << 20;

/// Two upstreams, of which `a` is asked first.
fn two(a: &Upstream, b: &Upstream, route: &str, more: &str) -> Edge {
    Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\nbreaker = false\n\n[[upstream]]\nname = \"b\"\nurl = \"{}\"\nbreaker = false\n\n\
         [[route]]\nname = \"r\"\nbalance = \"first\"\nupstreams = [\"a\", \"b\"]\n{route}\n\n{more}",
        a.url(),
        b.url()
    ))
}

/// JSON of about so many bytes, no two parts of which are alike.
fn body(bytes: usize) -> String {
    let words: String = (0..bytes / 8).map(|n| format!("{n:07} ")).collect();
    format!("{{\"model\":\"m\",\"input\":\"{words}\"}}")
}

fn in_chunks(body: &str) -> Vec<u8> {
    let mut wire = b"POST /v1/embeddings HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    body.as_bytes().chunks(10_007).for_each(|part| wire.extend(chunk(part)));
    wire.extend_from_slice(LAST_CHUNK);
    wire
}

fn sent(edge: &Edge, request: Vec<u8>) -> Wire {
    let client = edge.connect();
    let mut other = client.stream().try_clone().expect("clone");
    // It is longer than sockets hold.
    std::thread::spawn(move || std::io::Write::write_all(&mut other, &request));
    client
}

#[track_caller]
fn takes(upstream: &Upstream, body: &str) -> Wire {
    let mut peer = upstream.accept();
    let head = peer.read_head();
    let got = peer.read_request_body(&head);
    assert!(got.text() == body, "{head:?}: {} of {} bytes, or others", got.text().len(), body.len());
    peer
}

#[test]
fn a_large_body_fails_over_whole_however_it_is_framed() {
    let (a, b) = (Upstream::listen(), Upstream::listen());
    let edge = two(&a, &b, "retry = { on = [503] }", "");
    let body = body(6 * MIB);
    for request in [post("/v1/embeddings", &[], &body), in_chunks(&body)] {
        let mut client = sent(&edge, request);
        takes(&a, &body).send(answer("503 Busy", &["Connection: close"], "busy"));
        takes(&b, &body).send(answer("200 OK", &["Connection: close"], "b"));
        let (head, got) = client.read_answer();
        assert_eq!((head.status(), got.text().as_str()), (200, "b"));
    }
    assert!(edge.stdout().wait_for_nth("\"tried\":\"a: 503\"", 1).contains("\"status\":200"));
}

/// The client has not sent all of it when the upstream breaks off: what is here goes to the next, and the rest behind it.
#[test]
fn an_upload_that_breaks_off_goes_on_elsewhere() {
    let (a, b) = (Upstream::listen(), Upstream::listen());
    let edge = two(&a, &b, "retry = { repeat = true }", "");
    let body = body(MIB);
    for request in [post("/v1/embeddings", &[], &body), in_chunks(&body)] {
        let (first, rest) = request.split_at(request.len() - 100_000);
        let mut client = edge.connect();
        client.send(first);
        let mut peer = a.accept();
        peer.read_head();
        peer.read_exact(300_000);
        peer.reset();
        client.send(rest);
        takes(&b, &body).send(answer("200 OK", &["Connection: close"], "b"));
        assert_eq!(client.read_answer().1.text(), "b");
    }
}

#[test]
fn a_hedge_and_a_fallback_get_a_large_body_too() {
    let (a, b) = (Upstream::listen(), Upstream::listen());
    let body = body(2 * MIB);
    let edge = two(&a, &b, "hedge = { after = \"50ms\" }", "");
    for request in [post("/v1/embeddings", &[], &body), in_chunks(&body)] {
        let mut client = sent(&edge, request);
        let _silent = takes(&a, &body);
        takes(&b, &body).send(answer("200 OK", &["Connection: close"], "b"));
        assert_eq!(client.read_answer().1.text(), "b");
    }
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n[[upstream]]\nname = \"b\"\nurl = \"{}\"\n\n\
         [[route]]\nname = \"r\"\nmodels = [\"m\"]\nupstreams = [\"a\"]\nfallback = \"other\"\n\n\
         [[route]]\nname = \"s\"\nmodels = [\"other\"]\nupstreams = [\"b\"]\n",
        a.url(),
        b.url()
    ));
    for request in [post("/v1/embeddings", &[], &body), in_chunks(&body)] {
        let mut client = sent(&edge, request);
        takes(&a, &body).send(answer("503 Busy", &["Connection: close"], "busy"));
        let renamed = body.replace("\"m\"", "\"other\"");
        takes(&b, &renamed).send(answer("200 OK", &["Connection: close"], "b"));
        let (head, got) = client.read_answer();
        assert_eq!((head.get("sedge-degraded"), got.text().as_str()), (Some("fallback"), "b"));
    }
}

#[test]
fn beyond_its_bound_the_log_and_a_metric_say_why_it_was_not_sent_again() {
    let (a, b) = (Upstream::listen(), Upstream::listen());
    let edge = two(&a, &b, "retry = { on = [503], max_body = \"300KiB\" }", "");
    let fits = body(200 << 10);
    let mut client = sent(&edge, in_chunks(&fits));
    takes(&a, &fits).send(answer("503 Busy", &["Connection: close"], "busy"));
    takes(&b, &fits).send(answer("200 OK", &["Connection: close"], "b"));
    assert_eq!(client.read_answer().0.status(), 200);
    let large = body(400 << 10);
    for (before, request) in [post("/v1/embeddings", &[], &large), in_chunks(&large)].into_iter().enumerate()
    {
        let mut client = sent(&edge, request);
        takes(&a, &large).send(answer("503 Busy", &["Connection: close"], "busy"));
        let (head, got) = client.read_answer();
        assert_eq!((head.status(), got.text().as_str()), (503, "busy"));
        edge.wait_metric(WITHHELD, &["reason=\"body\""], before as f64 + 1.0);
        edge.stdout().wait_for_nth("\"not_retried\":\"body\"", before);
    }
    assert_eq!(edge.metric(WITHHELD, &["reason=\"memory\""]), 0.0);
}

/// What is kept counts as held: a client's bodies do not take the memory of others, and the request is served without it.
#[test]
fn where_there_is_no_room_it_is_served_once() {
    let (a, b) = (Upstream::listen(), Upstream::listen());
    let edge =
        two(&a, &b, "retry = { on = [503], max_body = \"1MiB\" }", "[limits]\nstream_memory = \"1MiB\"\n");
    let large = body(800 << 10);
    let mut client = sent(&edge, post("/v1/embeddings", &[], &large));
    takes(&a, &large).send(answer("503 Busy", &["Connection: close"], "busy"));
    assert_eq!(client.read_answer().0.status(), 503);
    edge.wait_metric(WITHHELD, &["reason=\"memory\""], 1.0);
    edge.stdout().wait_for("\"not_retried\":\"memory\"");
    edge.wait_metric("sedge_buffers_in_use", &[], 0.0);
}
