//! Durable streams as someone asks for them who means harm: what is wrong is refused and said so, what is another key's stays
//! so, and nobody makes the others wait.

mod support;

use support::redis::Redis;
use support::streams::{append_with, create, next, path, read_all, request};
use support::{Edge, Head, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, Wire, chunk, get, post, relayed};

const TEXT: &str = "Content-Type: text/plain";
const JSON: &str = "Content-Type: application/json";

/// An edge with two keys, whose answers are kept as streams.
fn with_keys(upstream: &Upstream, streams: &str) -> Edge {
    let key = |name: &str| {
        format!(
            "[[key]]\nname = \"{name}\"\nsha256 = \"{}\"\n\n",
            sedge::testing::admission::sha256_hex(name.as_bytes())
        )
    };
    Edge::configured(&format!(
        "{streams}\n[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n[[route]]\ndurable = true\n\n{}{}",
        upstream.url(),
        key("alice"),
        key("mallory"),
    ))
}

/// The head of an answer, whatever comes behind it.
fn head_of(edge: &Edge, request: &[u8]) -> Head {
    let mut wire = edge.connect();
    wire.send(request);
    wire.read_head()
}

/// An answer that Alice has asked for, and where it is kept.
fn answer_of_alice(edge: &Edge, upstream: &Upstream) -> (Wire, Wire, String) {
    let asked = post("/v1/chat/completions", &["Authorization: Bearer alice"], STREAM_BODY);
    let (mut client, mut peer, ..) = relayed(edge, upstream, &asked);
    peer.send(SSE_HEAD);
    let location = client.read_head().get("location").expect("it is kept").to_owned();
    let body = "data: secret\n\ndata: [DONE]\n\n";
    peer.send([chunk(body), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), body.as_bytes());
    (client, peer, location)
}

/// Whoever knew the name of another key's answer (it stands in logs and in pages) could not read it, and could make a fork of
/// it, which was everyone's: found by reading who is asked for when a stream is made.
#[test]
fn a_fork_of_somebodys_answer_is_for_the_same_eyes() {
    let redis = Redis::start();
    for streams in [String::new(), redis.config()] {
        let upstream = Upstream::listen();
        let edge = with_keys(&upstream, &streams);
        let (_client, _peer, location) = answer_of_alice(&edge, &upstream);
        let from = format!("Stream-Forked-From: {location}");
        let fork = |key: &str, fields: &[&str]| {
            let key = format!("Authorization: Bearer {key}");
            let fields = [&[&*from, &*key], fields].concat();
            edge.ask(&request("PUT", &path("fork"), &fields, "")).0.status()
        };
        let status = |method: &str, key: &str| {
            let key = format!("Authorization: Bearer {key}");
            head_of(&edge, &request(method, &path("fork"), &[&key], "")).status()
        };
        // One that is another's is as one that is not there.
        assert_eq!(fork("mallory", &[]), 404);
        assert_eq!(fork("mallory", &["Content-Type: text/event-stream", "Stream-Fork-Offset: -1"]), 404);
        assert_eq!(status("GET", "mallory"), 404);
        assert_eq!(fork("alice", &["Stream-Fork-Offset: -1"]), 201);
        assert_eq!(fork("alice", &["Stream-Fork-Offset: -1"]), 200, "it is there as it was to be made");
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            assert_eq!(status(method, "mallory"), 404, "{method}");
        }
        assert_eq!(fork("mallory", &[]), 404);
        assert_eq!(status("GET", "alice"), 200);
        let (_, body) = edge.ask(&get("/v1/stream?name=fork", &["Authorization: Bearer mallory"]));
        assert!(!body.text().contains("secret"), "{}", body.text());
    }
}

/// To find the message at which a fork of a fork begins, all messages before it were counted from the first one each, under the
/// lock of all names: with a million of them every request to streams waited for hours.
#[test]
fn counting_messages_up_to_a_fork_keeps_nobody_waiting() {
    let edge = Edge::configured_freely("");
    let (each, appends) = (65_536, 16);
    let many = each * appends;
    let body = format!("[{}0]", "0,".repeat(each - 1));
    let put = |name: &str, fields: &[&str], body: &str| {
        let (head, told) = edge.ask(&request("PUT", &path(name), fields, body));
        assert_eq!(head.status(), 201, "{name}: {}", told.text());
    };
    put("trunk", &[JSON], &body);
    for _ in 1..appends {
        let (head, told) = edge.ask(&request("POST", &path("trunk"), &[JSON], &body));
        assert_eq!(head.status(), 204, "{}", told.text());
    }
    put("branch", &["Stream-Forked-From: /v1/stream/trunk"], "[1, 2]");
    let count = format!("Stream-Fork-Sub-Offset: {}", many + 1);
    put("twig", &["Stream-Forked-From: /v1/stream/branch", "Stream-Fork-Offset: -1", &count], "");
    let (bytes, _) = read_all(&edge, "twig", "-1");
    assert!(bytes.ends_with(b",0,0,1]"), "{}", String::from_utf8_lossy(&bytes[bytes.len() - 20..]));
    for (count, status) in [(many + 2, 201), (many + 3, 400), (usize::MAX, 400)] {
        let count = format!("Stream-Fork-Sub-Offset: {count}");
        let fields = ["Stream-Forked-From: /v1/stream/branch", "Stream-Fork-Offset: -1", &count];
        let leaf = path(&count[count.len() - 7..]);
        assert_eq!(edge.ask(&request("PUT", &leaf, &fields, "")).0.status(), status, "{count}");
    }
}

/// A stream may be a page, and a browser that is led there would run it with the rights of the playground's own.
#[test]
fn a_page_in_a_stream_is_none_of_this_origin() {
    let edge = Edge::configured_freely("");
    let html = ["Content-Type: text/html"];
    assert_eq!(edge.ask(&request("PUT", &path("page"), &html, "<script>alert(1)</script>")).0.status(), 201);
    for target in [path("page"), format!("{}?offset=-1", path("page")), path("missing")] {
        let (head, _) = edge.ask(&get(&target, &[]));
        assert_eq!(head.get("content-security-policy"), Some("sandbox"), "{target}");
        assert_eq!(head.get("x-content-type-options"), Some("nosniff"), "{target}");
    }
}

/// What someone sends, and what it is answered with.
fn shapes() -> Vec<(&'static str, String, Vec<String>, String, u16)> {
    let mut shapes = Vec::new();
    let mut shape = |method, name: &str, fields: &[&str], body: &str, status| {
        let fields = fields.iter().map(|&field| field.to_owned()).collect();
        shapes.push((method, path(name), fields, body.to_owned(), status));
    };
    let (long, longer) = ("x".repeat(512), "x".repeat(513));
    for (name, status) in [
        ("", 400),
        (".", 400),
        ("..", 400),
        ("a/../b", 400),
        ("%2e", 400),
        ("a/%2E%2e/b", 400),
        ("a%00b", 400),
        ("a%0d%0aX-Forged:%201", 400),
        ("a%7f", 400),
        ("%c2%85", 400),
        ("%ff", 400),
        ("__ds", 404),
        ("__ds/x", 404),
        ("%5f%5fds/x", 400),
        (&longer, 400),
        (&long, 201),
        ("//", 201),
        ("a%2fb", 201),
        ("gen_0123456789abcdef", 201),
        ("%E2%80%A8", 201),
        ("%zz", 400),
        ("{a}:*", 201),
        ("due", 201),
    ] {
        shape("PUT", name, &[TEXT], "", status);
    }
    let (type_long, type_longer) = (
        format!("Content-Type: text/plain;{}", "a".repeat(245)),
        format!("Content-Type: text/plain;{}", "a".repeat(246)),
    );
    for (kind, status) in [
        (&*type_long, 201),
        (&*type_longer, 400),
        ("Content-Type: text", 400),
        ("Content-Type: text/", 400),
        ("Content-Type: text/plain, text/html", 400),
        ("Content-Type: text/plain\tx", 400),
        ("Content-Type: text/plain; a=\"\u{e4}\"", 400),
    ] {
        shape("PUT", "kinds", &[kind], "", status);
    }
    shape("PUT", "kinds-2", &[TEXT, TEXT], "", 400);
    let digits = format!("Stream-Expires-At: 2099-01-01T00:00:00.{}Z", "1".repeat(4000));
    for (life, status) in [
        ("Stream-TTL: 0", 201),
        ("Stream-TTL: 18446744073709551615", 201),
        ("Stream-TTL: 18446744073709551616", 400),
        ("Stream-TTL: -1", 400),
        ("Stream-TTL: 01", 400),
        ("Stream-TTL: 1.5", 400),
        ("Stream-TTL: ", 400),
        ("Stream-Expires-At: 9999-12-31T23:59:59Z", 201),
        ("Stream-Expires-At: 0000-01-01T00:00:00Z", 201),
        ("Stream-Expires-At: 1969-01-01T00:00:00Z", 201),
        ("Stream-Expires-At: -0001-01-01T00:00:00Z", 400),
        ("Stream-Expires-At: 10000-01-01T00:00:00Z", 400),
        ("Stream-Expires-At: 2099-02-30T00:00:00Z", 400),
        ("Stream-Expires-At: 2099-01-01T00:00:00+99:99", 400),
        (&digits, 400),
    ] {
        shape("PUT", &format!("life-{}", shapes_key(life)), &[TEXT, life], "", status);
    }
    shape("PUT", "text", &[TEXT], "", 201);
    let word = format!("Stream-Event: {}", "x".repeat(257));
    for (event, status) in [
        ("Stream-Event: a b", 204),
        ("Stream-Event: data: x", 204),
        ("Stream-Event: \u{2028}", 204),
        ("Stream-Event: control", 400),
        ("Stream-Event: reset", 400),
        ("Stream-Event: error", 400),
        ("Stream-Event: open", 400),
        ("Stream-Event: ", 400),
        ("Stream-Event: a\u{1}b", 400),
        (&word, 400),
    ] {
        shape("POST", "text", &[TEXT, event], "x", status);
    }
    for (epoch, seq, status) in [
        ("0", "0", 200),
        ("9007199254740991", "0", 200),
        ("9007199254740992", "0", 400),
        ("18446744073709551616", "0", 400),
        ("-1", "0", 400),
        ("0x1", "0", 400),
        ("", "0", 400),
        ("0", "9007199254740991", 409),
        ("0", "99999999999999999999", 400),
    ] {
        let (id, epoch, seq) = (
            format!("Producer-Id: {epoch}/{seq}"),
            format!("Producer-Epoch: {epoch}"),
            format!("Producer-Seq: {seq}"),
        );
        shape("POST", "text", &[TEXT, &id, &epoch, &seq], "x", status);
    }
    for (fields, status) in [
        (&[TEXT, "Producer-Id: p"][..], 400),
        (&[TEXT, "Stream-Seq: b"], 204),
        (&[TEXT, "Stream-Seq: a"], 409),
        (&[TEXT, "Content-Encoding: gzip"], 415),
        (&["Content-Type: text/html"], 409),
        (&[], 400),
        (&[TEXT, "Content-Type: text/plain"], 400),
    ] {
        shape("POST", "text", fields, "x", status);
    }
    shape("POST", "text", &[TEXT], "", 400);
    shape("PUT", "fork", &["Stream-Fork-Offset: -1"], "", 400);
    for (from, offset, status) in [
        ("/v1/stream/none", "-1", 404),
        ("/v1/stream/fork", "-1", 404),
        ("/v1/stream/__ds/x", "-1", 400),
        ("/v1/models", "-1", 400),
        ("/v1/stream/text", "18446744073709551615", 400),
        ("/v1/stream/text", "0000000000000000-00000000000000000000", 400),
        ("/v1/stream/text?x", "-1", 404),
        ("/v1/stream/text", "now", 201),
    ] {
        let (from, offset) = (format!("Stream-Forked-From: {from}"), format!("Stream-Fork-Offset: {offset}"));
        shape("PUT", "fork", &[&from, &offset], "", status);
    }
    shape("PUT", "json", &[JSON], "", 201);
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let large = "9".repeat(100_000);
    for (body, status) in [
        ("[]", 400),
        ("", 400),
        (" ", 400),
        ("[1,]", 400),
        ("1 1", 400),
        ("\u{c}[1]", 400),
        ("\u{feff}1", 400),
        ("NaN", 400),
        ("\"a\tb\"", 400),
        (&nested(130), 400),
        (&nested(100_000), 400),
        (&nested(129), 204),
        (&large, 204),
        ("1e999", 204),
        ("{\"a\":1,\"a\":2}", 204),
        ("\"\\ud800\"", 204),
    ] {
        shape("POST", "json", &[JSON], body, status);
    }
    for (offset, status) in [
        ("-1", 200),
        ("now", 200),
        ("0000000000000000_0000000000000000", 200),
        ("", 400),
        ("0", 400),
        ("-2", 400),
        ("NOW", 400),
        ("-1%20", 400),
        ("%00", 400),
        ("%ff", 400),
        ("18446744073709551616", 400),
        ("0123456789abcdef-99999999999999999999", 400),
        ("0123456789ABCDEF-00000000000000000000", 400),
        ("0123456789abcdef-00000000000000000000", 410),
        ("0123456789abcdef-18446744073709551615", 410),
        ("-1&offset=-1", 400),
        ("-1&live=forever", 400),
    ] {
        shape("GET", &format!("text?offset={offset}"), &[], "", status);
    }
    for method in ["PATCH", "OPTIONS"] {
        shape(method, "text", &[], "", if method == "OPTIONS" { 204 } else { 405 });
    }
    shapes
}

/// Something to tell names apart by.
fn shapes_key(text: &str) -> String {
    sedge::testing::admission::sha256_hex(text.as_bytes())
}

/// Each of them on a connection with the one before, so that whatever is left of one would be taken for the next.
#[test]
fn what_is_wrong_is_refused_and_what_is_odd_is_not() {
    let redis = Redis::start();
    let directory = support::streams::directory("shapes");
    let kept = format!("data_dir = \"{directory}\"\n");
    for config in ["", &kept, &redis.config()] {
        let edge = Edge::configured_freely(config);
        let mut wire = edge.connect();
        for (method, target, fields, body, status) in shapes() {
            // Redis is asked again for what was made, and what is over when it begins is not found again there.
            let is_over =
                |field: &String| ["TTL: 0", "At: 0000-", "At: 1969-"].iter().any(|over| field.contains(over));
            if config.contains("redis") && fields.iter().any(is_over) {
                continue;
            }
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            wire.send(request(method, &target, &fields, &body));
            let (head, told) = wire.read_answer();
            let shown = format!("{config:?} {method} {target:.40} {fields:.60?} {body:.20}");
            assert_eq!(head.status(), status, "{shown}: {}", told.text());
            if status >= 400 {
                assert!(!support::error_code(&told.bytes()).is_empty(), "{shown}: {}", told.text());
            }
            if head.get("connection") == Some("close") {
                wire = edge.connect();
            }
        }
    }
    support::streams::remove(&directory);
}

/// Names are parts of keys in Redis, with nothing behind them, and none of them leads to another stream or to what is kept
/// beside the streams.
#[test]
fn names_that_look_like_keys_are_streams_of_their_own() {
    let redis = Redis::start();
    let edge = redis.node();
    let names =
        ["a", "a:", "s:a", "l:a", "p:a", "due", "epoch", "order", "{a}", "{a", "%5c", "a%20b", "*", "%3f"];
    for name in names {
        create(&edge, name, "text/plain");
        append_with(&edge, name, &["Stream-Event: n"], name);
    }
    for name in names {
        let (bytes, _) = read_all(&edge, name, "-1");
        assert_eq!(String::from_utf8_lossy(&bytes), name);
    }
    let (head, _) = edge.ask(&request("DELETE", &path("a"), &[], ""));
    assert_eq!(head.status(), 204);
    let head = head_of(&edge, &get(&path("s:a"), &[]));
    assert!(next(&head).ends_with('3'), "{head:?}");
}
