//! Which fields pass, which stay on their own hop, and which the edge adds: in both directions.

mod support;

use support::{Edge, Head, LAST_CHUNK, STREAM_BODY, Upstream, answer, chunk, get, post, relayed, streaming};

/// The request as the upstream saw it, and the answer's head as the client saw it.
fn through(request: &[u8], reply: &[u8]) -> (Head, Head) {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, seen, _) = relayed(&edge, &upstream, request);
    peer.send(reply);
    (seen, client.read_head())
}

#[test]
fn a_requests_hop_by_hop_fields_stay_behind() {
    let fields = [
        "Connection: keep-alive, X-Nominated, x-also",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "X-Nominated: secret",
        "X-Also: secret",
        "TE: trailers",
        "Upgrade: websocket",
        "Proxy-Authorization: Basic eDp5",
        "X-Stays: yes",
    ];
    let (seen, _) = through(&post("/v1/embeddings", &fields, "{}"), &answer("200 OK", &[], "{}"));
    for name in
        ["keep-alive", "proxy-connection", "x-nominated", "x-also", "te", "upgrade", "proxy-authorization"]
    {
        assert!(!seen.has(name), "{name} went on: {seen:?}");
    }
    let connection = seen.all("connection").join(",").to_ascii_lowercase();
    assert!(!connection.contains("nominated") && !connection.contains("also"), "{seen:?}");
    assert_eq!(seen.get("x-stays"), Some("yes"));
}

#[test]
fn an_answers_hop_by_hop_fields_stay_behind() {
    let reply = answer(
        "200 OK",
        &[
            "Connection: X-Nominated",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "X-Nominated: secret",
            "Upgrade: h2c",
            "Trailer: X-T",
            "X-Stays: yes",
        ],
        "{}",
    );
    let (_, head) = through(&get("/v1/models", &[]), &reply);
    for name in ["keep-alive", "proxy-connection", "x-nominated", "upgrade", "trailer"] {
        assert!(!head.has(name), "{name} went on: {head:?}");
    }
    assert_eq!(head.get("x-stays"), Some("yes"));
}

#[test]
fn end_to_end_fields_pass_both_ways_as_they_are() {
    let passing = [
        "Authorization: Bearer sk-client",
        "OpenAI-Organization: org-1",
        "OpenAI-Beta: assistants=v2",
        "X-Stainless-Lang: python",
        "User-Agent: OpenAI/Python 2.0",
        "Accept: application/json",
        "Idempotency-Key: 7",
        "Cookie: a=1; b=2",
    ];
    let back = [
        "Content-Type: application/json",
        "x-ratelimit-limit-requests: 60",
        "x-ratelimit-remaining-tokens: 149984",
        "x-ratelimit-reset-requests: 1s",
        "retry-after: 2",
        "retry-after-ms: 1500",
        "x-should-retry: true",
        "openai-processing-ms: 12",
        "openai-version: 2020-10-01",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
    ];
    let (seen, head) =
        through(&post("/v1/embeddings", &passing, "{}"), &answer("429 Too Many Requests", &back, "{}"));
    for (fields, side) in [(&passing[..], &seen), (&back[..], &head)] {
        for field in fields {
            let (name, value) = field.split_once(": ").expect("a field");
            assert!(side.all(name).contains(&value), "{field} did not pass: {side:?}");
        }
    }
    assert_eq!(head.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(head.start, "HTTP/1.1 429 Too Many Requests");
}

#[test]
fn path_and_query_pass_as_they_are() {
    let target = "/v1/files/a%2Fb/c?x=1&y=%20&z=a+b&&=";
    let (seen, _) = through(&get(target, &[]), &answer("200 OK", &[], "{}"));
    assert_eq!(seen.start, format!("GET {target} HTTP/1.1"));
}

#[test]
fn a_path_in_the_upstreams_url_stands_for_v1() {
    let upstream = Upstream::listen();
    let edge = Edge::start(&["--upstream", &format!("{}/openai/v9", upstream.url())]);
    let (_client, _peer, seen, _) = relayed(&edge, &upstream, &get("/v1/models?limit=2", &[]));
    assert_eq!(seen.start, "GET /openai/v9/models?limit=2 HTTP/1.1");
}

#[test]
fn the_host_is_the_upstreams() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (_client, _peer, seen, _) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    assert_eq!(seen.get("host"), Some(upstream.addr().to_string().as_str()));
}

#[test]
fn the_upstream_is_asked_for_plain_bytes() {
    let request = post("/v1/chat/completions", &["Accept-Encoding: gzip, br"], STREAM_BODY);
    let (seen, _) = through(&request, &answer("200 OK", &[], "{}"));
    assert_eq!(seen.get("accept-encoding"), Some("identity"));
}

#[test]
fn requests_carry_via() {
    let (seen, _) = through(&get("/v1/models", &["Via: 1.1 first"]), &answer("200 OK", &[], "{}"));
    let via = seen.all("via").join(", ");
    assert!(via.starts_with("1.1 first, 1.1 "), "{via:?}");
}

#[test]
fn a_request_id_is_kept_when_the_client_sent_one() {
    let request = get("/v1/models", &["X-Request-Id: from-the-client_1.2"]);
    let (seen, head) = through(&request, &answer("200 OK", &[], "{}"));
    assert_eq!(seen.get("x-request-id"), Some("from-the-client_1.2"));
    assert_eq!(head.get("x-request-id"), Some("from-the-client_1.2"));
}

#[test]
fn a_request_id_is_made_when_the_client_sent_none() {
    let (one, head) = through(&get("/v1/models", &[]), &answer("200 OK", &[], "{}"));
    let (two, _) = through(&get("/v1/models", &[]), &answer("200 OK", &[], "{}"));
    let (one, two) = (one.get("x-request-id").expect("an id"), two.get("x-request-id").expect("an id"));
    assert_eq!(head.get("x-request-id"), Some(one), "the client is told the same id");
    assert_ne!(one, two);
    assert!(one.len() >= 16 && one.bytes().all(|b| b.is_ascii_graphic()), "{one:?}");
}

#[test]
fn the_upstreams_own_request_id_passes() {
    let (_, head) =
        through(&get("/v1/models", &[]), &answer("200 OK", &["x-request-id: req_upstream"], "{}"));
    assert_eq!(head.get("x-request-id"), Some("req_upstream"));
}

/// W3C Trace Context, version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
fn traceparent(head: &Head) -> (String, String, String) {
    let value = head.get("traceparent").expect("a traceparent");
    let parts: Vec<_> = value.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { panic!("not four parts: {value}") };
    assert_eq!(version, "00");
    assert_eq!((trace.len(), parent.len(), flags.len()), (32, 16, 2), "{value}");
    assert!(value.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{value}");
    assert!(trace.bytes().any(|b| b != b'0') && parent.bytes().any(|b| b != b'0'), "{value}");
    (trace.into(), parent.into(), flags.into())
}

#[test]
fn a_trace_is_continued() {
    let fields =
        ["traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate: a=1,b=2"];
    let (seen, _) = through(&get("/v1/models", &fields), &answer("200 OK", &[], "{}"));
    let (trace, _, flags) = traceparent(&seen);
    assert_eq!((trace.as_str(), flags.as_str()), ("0af7651916cd43dd8448eb211c80319c", "01"));
    assert_eq!(seen.get("tracestate"), Some("a=1,b=2"));
}

#[test]
fn a_trace_is_begun_where_there_is_none_or_a_broken_one() {
    for fields in [
        &[][..],
        &["traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01"],
        &["traceparent: x"],
    ] {
        let (seen, _) = through(&get("/v1/models", fields), &answer("200 OK", &[], "{}"));
        traceparent(&seen);
    }
}

#[test]
fn a_stream_tells_caches_and_proxies_to_keep_out() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    assert_eq!(head.get("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(head.get("x-accel-buffering"), Some("no"));
    assert_eq!(head.get("content-type"), Some("text/event-stream"));
    assert!(!head.has("content-length") && head.is_chunked(), "{head:?}");
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_body(&head).text(), "data: [DONE]\n\n");
}

#[test]
fn a_streams_own_cache_control_is_replaced_not_doubled() {
    let reply =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: max-age=60\r\n\
        X-Accel-Buffering: yes\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (_, head) = through(&post("/v1/chat/completions", &[], STREAM_BODY), reply);
    assert_eq!(head.get("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(head.get("x-accel-buffering"), Some("no"));
}

#[test]
fn other_answers_keep_their_cache_control() {
    let (_, head) = through(&get("/v1/models", &[]), &answer("200 OK", &["Cache-Control: max-age=60"], "{}"));
    assert_eq!(head.get("cache-control"), Some("max-age=60"));
    assert!(!head.has("x-accel-buffering"), "{head:?}");
}
