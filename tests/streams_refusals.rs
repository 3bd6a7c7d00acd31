//! What is asked of durable streams that cannot be: it is told what is wrong, nothing happens, and the connection goes on. Beside
//! it, what may look like that and is fine.

mod support;

use support::streams::{TEXT, append, create, of_three, path, read, read_all, request};
use support::{Edge, End, error_code, get};

fn edge() -> Edge {
    Edge::start(&[])
}

#[test]
fn text_that_is_no_position_is_refused() {
    let edge = edge();
    let (_, offsets) = of_three(&edge);
    let long = "1".repeat(500);
    for wrong in [
        "0",
        "",
        "%20",
        "a,b",
        "%00",
        "..",
        "-2",
        "NOW",
        &long,
        &offsets[0].to_uppercase().replace("-0", "-+"),
    ] {
        let (head, body) = edge.ask(&get(&format!("{}?offset={wrong}", path("a")), &[]));
        assert_eq!(head.status(), 400, "{wrong:?}: {}", body.text());
        assert_eq!(head.get("content-type"), Some("application/json"), "{wrong:?}");
        error_code(&body.bytes());
    }
    for wrong in ["offset=-1&offset=-1", "offset=%ff", "live=sse", "live=long-poll", "offset=-1&live=yes"] {
        let (head, body) = edge.ask(&get(&format!("{}?{wrong}", path("a")), &[]));
        assert_eq!(head.status(), 400, "{wrong:?}: {}", body.text());
        error_code(&body.bytes());
    }
}

#[test]
fn a_connection_is_kept_after_whatever_was_said_on_it() {
    let edge = edge();
    create(&edge, "a", TEXT);
    let mut client = edge.connect();
    for number in 0..3 {
        for (request, status) in [
            (request("POST", &path("a"), &["Content-Type: text/plain"], "x"), 204),
            (request("POST", &path("a"), &["Content-Type: text/html"], "x"), 409),
            (request("POST", &path("a"), &["Content-Type: text/plain"], ""), 400),
            (request("PUT", &path("a"), &["Content-Type: text/plain"], ""), 200),
            (get(&path("missing"), &[]), 404),
            (get(&path("a"), &[]), 200),
        ] {
            client.send(&request);
            let (head, body) = client.read_answer();
            let shown = String::from_utf8_lossy(&request).into_owned();
            assert_eq!(
                (head.status(), body.end),
                (status, End::Whole),
                "{number}: {shown:?} {}",
                body.text()
            );
        }
        client.send(b"HEAD /v1/stream/a HTTP/1.1\r\nHost: e\r\n\r\n");
        assert_eq!(client.read_head().status(), 200);
    }
    let (bytes, _) = read_all(&edge, "a", "-1");
    assert_eq!(bytes, b"xxx");
}

/// What a stranger sends: it is told what is wrong, and the edge goes on.
#[test]
fn hostile_requests_are_refused_and_nothing_else_happens() {
    let edge = Edge::configured("[limits]\nmax_body = 100000\n");
    create(&edge, "a", TEXT);
    append(&edge, "a", "kept");
    let plain = "Content-Type: text/plain";
    let large = "x".repeat(100_001);
    let long_name = format!("/v1/stream/{}", "n".repeat(2_000));
    let long_id = format!("Producer-Id: {}", "p".repeat(2_000));
    let put = |target: &str, fields: &[&str]| request("PUT", target, fields, "");
    let post = |fields: &[&str]| request("POST", "/v1/stream/a", &[&[plain], fields].concat(), "x");
    let producer = |epoch: &str, seq: &str| {
        post(&["Producer-Id: p", &format!("Producer-Epoch: {epoch}"), &format!("Producer-Seq: {seq}")])
    };
    let hostile: Vec<(Vec<u8>, &[u16])> = vec![
        (put("/v1/stream/", &[plain]), &[400, 404, 405]),
        (put("/v1/stream", &[plain]), &[400, 404, 405]),
        (put("/v1/stream/..", &[plain]), &[400]),
        (put("/v1/stream/a/../../../etc/passwd", &[plain]), &[400]),
        (put("/v1/stream/%2e%2e/%2e%2e/x", &[plain]), &[400]),
        (put("/v1/stream/a%00b", &[plain]), &[400]),
        (put("/v1/stream/a%0d%0aSet-Cookie:%20x", &[plain]), &[400]),
        (put("/v1/stream/%ff%fe", &[plain]), &[400]),
        (put(&long_name, &[plain]), &[400, 414]),
        (put("/v1/stream/x", &["Content-Type: no/type/at all"]), &[400]),
        (put("/v1/stream/x", &["Content-Type:"]), &[400]),
        (put("/v1/stream/x", &[plain, "Content-Type: text/html"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL: -1"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL: 1e3"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL: 99999999999999999999999"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL:"]), &[400]),
        (put("/v1/stream/x", &["Stream-TTL: 60", "Stream-TTL: 61"]), &[400]),
        (put("/v1/stream/x", &["Stream-Expires-At: tomorrow"]), &[400]),
        (put("/v1/stream/x", &["Stream-Expires-At: 2026-13-45T99:99:99Z"]), &[400]),
        (put("/v1/stream/x", &["Stream-Forked-From: /etc/passwd"]), &[400, 404]),
        (put("/v1/stream/x", &["Stream-Forked-From: http://other.example/v1/stream/a"]), &[400, 404]),
        (put("/v1/stream/x", &["Stream-Forked-From: /v1/stream/../stream/a"]), &[400, 404]),
        (put("/v1/stream/x", &["Stream-Forked-From: /v1/stream/a", "Stream-Fork-Offset: 17"]), &[400]),
        (put("/v1/stream/x", &["Stream-Forked-From: /v1/stream/a", "Stream-Fork-Sub-Offset: -1"]), &[400]),
        (
            put("/v1/stream/x", &["Stream-Forked-From: /v1/stream/a", "Stream-Fork-Sub-Offset: 18446744073709551615"]),
            &[400],
        ),
        (post(&["Producer-Id: p"]), &[400]),
        (post(&["Producer-Id:", "Producer-Epoch: 0", "Producer-Seq: 0"]), &[400]),
        (post(&[&long_id, "Producer-Epoch: 0", "Producer-Seq: 0"]), &[400]),
        (producer("-1", "0"), &[400]),
        (producer("0", "0x0"), &[400]),
        (producer("9007199254740992", "0"), &[400]),
        (producer("0", "18446744073709551616"), &[400]),
        (producer("0", "7"), &[409]),
        (
            post(&["Producer-Id: p", "Producer-Epoch: 0", "Producer-Epoch: 1", "Producer-Seq: 0"]),
            &[400],
        ),
        (request("POST", "/v1/stream/a", &[], "x"), &[400]),
        (request("POST", "/v1/stream/a", &[plain], &large), &[413]),
        (b"POST /v1/stream/a HTTP/1.1\r\nHost: e\r\nContent-Type: text/plain\r\nContent-Length: 99999999999\r\n\r\n".to_vec(), &[413]),
        (b"POST /v1/stream/a HTTP/1.1\r\nHost: e\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(), &[400]),
        (b"PATCH /v1/stream/a HTTP/1.1\r\nHost: e\r\nContent-Length: 0\r\n\r\n".to_vec(), &[405]),
        (get("/v1/stream/a?offset=-1", &["Last-Event-ID: zzz"]), &[400]),
        (get("/v1/stream/a?offset=-1", &["Last-Event-ID: -1", "Last-Event-ID: now"]), &[400]),
    ];
    let mut wrong = Vec::new();
    for (wire, statuses) in hostile {
        let mut client = edge.connect();
        // It may be refused before all of it is sent.
        let _ = client.try_send(&wire);
        let (head, body) = client.read_answer();
        if statuses.contains(&head.status()) && body.end == End::Whole {
            error_code(&body.bytes());
        } else {
            let shown = String::from_utf8_lossy(&wire[..wire.len().min(200)]).into_owned();
            wrong.push((head.start, shown));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(read_all(&edge, "a", "-1").0, b"kept", "nothing was appended");
    assert_eq!(read(&edge, "x", "-1").0.status(), 404, "nothing was made");
    assert!(edge.stderr().all().iter().all(|line| !line.contains("panicked")), "{:?}", edge.stderr().all());
}

#[test]
fn what_a_name_may_be_it_is() {
    let edge = edge();
    for name in [
        "a/b/c",
        "%C3%A4%F0%9F%8C%8A",
        "with%20space",
        "a.b..c",
        "%25",
        "a%2Fb",
        "~user;x=1,2",
        &"n".repeat(500),
    ] {
        create(&edge, name, TEXT);
        append(&edge, name, name);
        assert_eq!(read_all(&edge, name, "-1").0, name.as_bytes());
        let (head, _) = edge.ask(&request("DELETE", &path(name), &[], ""));
        assert_eq!(head.status(), 204, "{name}");
    }
}

/// A page reads a stream with the protocol's own client, which goes by the fields of the answers.
#[test]
fn a_page_of_an_origin_that_may_can_read_where_it_is() {
    let edge = Edge::configured("[cors]\norigins = [\"https://app.example\"]\n");
    create(&edge, "a", TEXT);
    append(&edge, "a", "1");
    let origin = "Origin: https://app.example";
    let preflight =
        ["Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: stream-ttl", origin];
    let (head, _) = edge.ask(&request("OPTIONS", &path("a"), &preflight, ""));
    assert_eq!(head.status(), 204, "{head:?}");
    assert_eq!(head.get("access-control-allow-origin"), Some("https://app.example"), "{head:?}");
    assert_eq!(head.get("access-control-allow-headers"), Some("stream-ttl"), "{head:?}");
    for target in [path("a"), format!("{}?offset=-1&live=sse", path("a"))] {
        let mut client = edge.connect();
        client.send(get(&target, &[origin]));
        let head = client.read_head();
        assert_eq!(head.get("access-control-allow-origin"), Some("https://app.example"), "{head:?}");
        let exposed = head.get("access-control-expose-headers").expect("fields that it may read");
        for field in ["stream-next-offset", "stream-closed", "stream-sse-data-encoding", "producer-epoch"] {
            assert!(exposed.split(", ").any(|name| name == field), "{field}: {exposed}");
        }
    }
    // Whoever asks without [cors] learns what there is, and no page may come.
    let edge = self::edge();
    let (head, _) = edge.ask(&request("OPTIONS", &path("a"), &preflight, ""));
    assert_eq!((head.status(), head.has("access-control-allow-origin")), (204, false), "{head:?}");
    assert!(head.get("allow").is_some_and(|methods| methods.contains("PUT")), "{head:?}");
}
