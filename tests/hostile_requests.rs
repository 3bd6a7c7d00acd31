//! A request that is refused is refused whole: it gets one answer, its connection ends, what follows it is never taken for
//! another request, and nothing of it reaches an upstream.

mod support;

use std::io::Write;

use support::{Edge, End, LAST_CHUNK, STREAM_BODY, Upstream, answer, chunk, config, error_code, get, post};

/// What someone would like to be taken for a request of its own.
const SMUGGLED: &[u8] = b"GET /livez HTTP/1.1\r\nHost: smuggled.test\r\n\r\n";

/// Sends `wire` and what is smuggled behind it; checks that there is one answer with `status` and then the end.
#[track_caller]
fn refused(edge: &Edge, wire: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&wire[..wire.len().min(120)]).into_owned();
    let mut client = edge.connect();
    // All of it in one segment, so that the smuggled request is there when the first one is refused.
    client.send([wire, SMUGGLED].concat());
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), body.end), (status, End::Whole), "{shown:?}: {}", body.text());
    assert_eq!(head.get("connection"), Some("close"), "{shown:?}");
    assert!(head.has("x-request-id"), "{head:?}");
    assert!(!error_code(&body.bytes()).is_empty(), "{}", body.text());
    let rest = client.read_to_close();
    assert_eq!(rest.text(), "", "a second answer to {shown:?}");
}

/// A head with a body that claims to be longer than it is, so that what follows would be part of it.
fn with_fields(fields: &[&str]) -> Vec<u8> {
    let mut wire = b"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\n".to_vec();
    fields.iter().for_each(|field| wire.extend([field.as_bytes(), b"\r\n"].concat()));
    wire.extend_from_slice(b"\r\n");
    wire
}

#[test]
fn what_cannot_be_understood_is_refused_and_forgotten() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let long = "a".repeat(8 * 1024);
    let half = "b".repeat(4 * 1024);
    let many: Vec<String> = (0..101).map(|n| format!("X-{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let large: Vec<String> = (0..9).map(|n| format!("X-{n}: {half}")).collect();
    let large: Vec<&str> = large.iter().map(String::as_str).collect();

    let cases: Vec<(u16, Vec<u8>)> = vec![
        (400, b"nonsense\r\n\r\n".to_vec()),
        (400, b"GET /v1/models HTTP/1.1\r\n\r\n".to_vec()),
        (400, b"GET /v1/models HTTP/1.1\nHost: e\n\n".to_vec()),
        (400, b"GET /v1/models HTTP/1.1\r\nHost: e\r\nHost: f\r\n\r\n".to_vec()),
        (400, b"GET /v1/models HTTP/1.1\r\nHost: e\r\n X: folded\r\n\r\n".to_vec()),
        (400, b"GET /v1/models HTTP/1.1\r\nHost: e\r\nX : space\r\n\r\n".to_vec()),
        (400, b"GET /v1/models HTTP/1.1\r\nHost: e\r\nX: a\0b\r\n\r\n".to_vec()),
        (400, with_fields(&["Content-Length: 5", "Content-Length: 6"])),
        (400, with_fields(&["Content-Length: 5", "Content-Length: 5"])),
        (400, with_fields(&["Content-Length: 5", "Transfer-Encoding: chunked"])),
        (400, with_fields(&["Content-Length: +5"])),
        (400, with_fields(&["Content-Length: 99999999999999999999"])),
        (400, with_fields(&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"])),
        (400, with_fields(&["Transfer-Encoding: chunked, gzip"])),
        (400, b"POST /v1/x HTTP/1.0\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
        (405, b"CONNECT e:443 HTTP/1.1\r\nHost: e:443\r\n\r\n".to_vec()),
        (405, b"TRACE /v1/models HTTP/1.1\r\nHost: e\r\n\r\n".to_vec()),
        (414, format!("GET /v1/{long} HTTP/1.1\r\nHost: e\r\n\r\n").into_bytes()),
        (417, with_fields(&["Expect: 200-ok", "Content-Length: 5"])),
        (431, with_fields(&[&format!("X: {long}")])),
        (431, with_fields(&many)),
        (431, with_fields(&large)),
        (501, with_fields(&["Transfer-Encoding: gzip, chunked"])),
        (501, format!("{} /v1/models HTTP/1.1\r\nHost: e\r\n\r\n", "M".repeat(40)).into_bytes()),
        (505, b"GET /v1/models HTTP/2.0\r\nHost: e\r\n\r\n".to_vec()),
        (505, b"GET /v1/models HTTP/1.2\r\nHost: e\r\n\r\n".to_vec()),
    ];
    for (status, wire) in cases {
        refused(&edge, &wire, status);
    }
    assert!(upstream.is_idle(), "something reached the upstream");
    assert_eq!(edge.metric("sedge_upstream_connections_opened_total", &[]), 0.0);
}

#[test]
fn what_is_not_served_leaves_its_body_unread() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    // Whole messages this time, whose bodies are requests.
    let inside = String::from_utf8_lossy(SMUGGLED);
    for path in ["/none", "/livez", "/metrics"] {
        let mut client = edge.connect();
        client.send([post(path, &[], &inside), SMUGGLED.to_vec()].concat());
        let (head, _) = client.read_answer();
        assert!(matches!(head.status(), 404 | 405), "{path}: {head:?}");
        assert_eq!(client.read_to_close().text(), "", "{path}");
    }
    assert!(upstream.is_idle());
}

#[test]
fn a_body_that_is_too_large_by_its_length_is_not_waited_for() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::max_body(&upstream.url(), 1000));
    // Not one byte of the body is sent; with an expectation, none is asked for.
    for field in ["X-Plain: 1", "Expect: 100-continue"] {
        let mut client = edge.connect();
        client.send(with_fields(&["Content-Length: 1001", field]));
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 413, "{}", body.text());
        error_code(&body.bytes());
        assert_eq!(client.read_to_close().text(), "");
    }
    refused(&edge, &with_fields(&["Content-Length: 1001"]), 413);
    assert!(upstream.is_idle());
}

/// A chunked body that was too large, and was received whole with its head, was refused while it still lay in the
/// connection's buffer. Since it had ended, the connection was kept, and its payload was read as the next request.
#[test]
fn a_chunked_body_that_is_too_large_is_never_a_request() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::max_body(&upstream.url(), 40));
    assert!(SMUGGLED.len() > 40);
    for kind in ["application/json", "application/octet-stream"] {
        let kind = format!("Content-Type: {kind}");
        let head = with_fields(&["Transfer-Encoding: chunked", &kind]);
        let whole = [&head[..], &chunk(SMUGGLED), LAST_CHUNK].concat();
        refused(&edge, &whole, 413);
        let bytes: Vec<u8> = SMUGGLED.iter().flat_map(|byte| chunk([*byte])).collect();
        refused(&edge, &[&head[..], &bytes, LAST_CHUNK].concat(), 413);
    }
    assert!(upstream.is_idle(), "something reached the upstream");
}

#[test]
fn a_chunked_body_that_grows_too_large_is_cut_on_both_sides() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::max_body(&upstream.url(), 100_000));
    let mut client = edge.connect();
    client.send(with_fields(&["Transfer-Encoding: chunked", "Content-Type: application/octet-stream"]));
    // More than is held for its length's sake, as it is for every body at this path.
    client.send(chunk("x".repeat(70_000)));
    let mut peer = upstream.accept();
    let head = peer.read_head();
    client.send(chunk("y".repeat(60_000)));
    let (answer, body) = client.read_answer();
    assert_eq!(answer.status(), 413, "{}", body.text());
    client.wait_closed();
    let seen = peer.read_request_body(&head);
    assert_ne!(seen.end, End::Whole, "the upstream must not take it for the whole body");
    assert!(seen.bytes().len() <= 100_000);
}

#[test]
fn broken_chunks_are_a_400_and_the_end() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let head = with_fields(&["Transfer-Encoding: chunked", "Content-Type: application/json"]);
    for broken in [
        &b"zz\r\n{}\r\n0\r\n\r\n"[..],
        b"2\n{}\r\n0\r\n\r\n",
        b"2\r\n{}0\r\n\r\n",
        b"2\r\n{}xx0\r\n\r\n",
        b" 2\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"10000000000000002\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nno colon\r\n\r\n",
    ] {
        refused(&edge, &[&head[..], broken].concat(), 400);
    }
    assert!(upstream.is_idle(), "something reached the upstream");
}

#[test]
fn a_late_head_or_body_is_a_408_and_the_end() {
    let upstream = Upstream::listen();
    let limits = [("request_head", "300ms"), ("request_body", "300ms")];
    let edge = Edge::configured(&config::timeouts(&upstream.url(), &limits));
    let body = with_fields(&["Content-Length: 1000"]);
    for part in [&b"GET /v1/models HTTP/1.1\r\nHost: e"[..], &body] {
        let mut client = edge.connect();
        client.send(part);
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 408, "{}", body.text());
        error_code(&body.bytes());
        // Too late for anything, a request of its own included.
        let _ = client.stream().write_all(SMUGGLED);
        assert_eq!(client.read_to_close().text(), "");
    }
    assert!(upstream.is_idle());
}

/// An answer may begin before the request has been sent whole. When the client then broke its request off, the half of it
/// that was sent counted as sent, and its connection went into the pool: the next client's request would have been read
/// as the rest of that body.
#[test]
fn a_request_that_breaks_after_its_answer_began_takes_its_connection_with_it() {
    let routed = |url: &str| config::routes(&[("m", url), ("n", url)]);
    let broken: [(&str, Vec<u8>, &[u8]); 2] = [
        ("a broken chunk", with_fields(&["Transfer-Encoding: chunked"]), b"zz\r\n"),
        // A second `model` in a body whose first has decided where it goes.
        (
            "a second model",
            with_fields(&["Content-Length: 100000", "Content-Type: application/json"]),
            b",\"model\":\"n\"",
        ),
    ];
    for (what, head, end) in broken {
        let upstream = Upstream::listen();
        let edge = Edge::configured(&routed(&upstream.url()));
        let begin = format!("{{\"model\":\"m\",\"input\":\"{}\"", "x".repeat(70_000));
        let mut client = edge.connect();
        client.send(&head);
        let chunked = head.windows(7).any(|part| part == b"chunked");
        client.send(if chunked { chunk(&begin) } else { begin.into_bytes() });
        let mut peer = upstream.accept();
        let seen = peer.read_head();
        assert!(seen.has("content-length") || seen.is_chunked());
        // The answer begins, the request breaks, the answer ends.
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
        assert_eq!(client.read_head().status(), 200);
        assert_eq!(client.read_exact(4), b"half");
        client.send(end);
        // The edge looks at the request each time it has passed on a part of the answer: after this one, at the latest.
        for part in [&b"ha"[..], b"lf"] {
            peer.send(part);
            assert_eq!(client.read_exact(2), part);
        }
        client.wait_closed();

        let mut other = edge.connect();
        other.send(post("/v1/chat/completions", &[], STREAM_BODY));
        let mut fresh = upstream.accept();
        assert_eq!(fresh.read_head().start, "POST /v1/chat/completions HTTP/1.1", "after {what}");
        fresh.send(answer("200 OK", &[], "mine"));
        assert_eq!(other.read_answer().1.text(), "mine");
        peer.wait_closed();
    }
}

#[test]
fn a_good_request_is_served_after_all_of_that() {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let edge = Edge::start(&["--upstream", &upstream.url()]);
    for _ in 0..100 {
        refused(&edge, b"\0\0\0\r\n\r\n", 400);
    }
    let mut client = edge.connect();
    client.send([get("/v1/models", &[]), SMUGGLED.to_vec()].concat());
    assert_eq!(client.read_answer().1.text(), "{}");
    assert_eq!(client.read_answer().1.text(), "alive\n");
}
