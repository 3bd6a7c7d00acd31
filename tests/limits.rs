//! What a key, a route or an upstream may use is kept exactly, over all cores and reloads; who asks for more is told when to
//! come again, in the words that SDKs understand; and what was guessed is set right when the answer has told.

mod support;

use std::net::TcpStream;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustix::process::Signal;
use support::limits::{REFUSED, REMAINING, number, ok, route, status};
use support::{
    Edge, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, Wire, answer, chunk, error_code, get, post, relayed,
    stream_request, streaming, timed,
};

/// Two keys, of which the first has limits.
fn keys(url: &str, key: &str) -> String {
    let sha256 = |secret: &str| -> String {
        digest(&SHA256, secret.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{url}\"\n\n[[key]]\nname = \"team\"\nsha256 = \"{}\"\n{key}\n\n\
         [[key]]\nname = \"free\"\nsha256 = \"{}\"\n",
        sha256("sk-team"),
        sha256("sk-free")
    )
}

fn as_team(body: &str) -> Vec<u8> {
    post("/v1/chat/completions", &["Authorization: Bearer sk-team"], body)
}

fn as_free(body: &str) -> Vec<u8> {
    post("/v1/chat/completions", &["Authorization: Bearer sk-free"], body)
}

fn is_near(value: u64, expected: u64) -> bool {
    value <= expected && value + 2 >= expected
}

#[test]
fn requests_by_the_minute_belong_to_a_key() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = Edge::configured(&keys(&upstream.url(), "limits = { requests_per_minute = 2 }"));
    let mut client = edge.connect();
    for left in [1, 0] {
        client.send(as_team(STREAM_BODY));
        let (head, _) = client.read_answer();
        assert_eq!((head.status(), number(&head, "x-ratelimit-limit-requests")), (200, 2));
        assert_eq!(number(&head, "x-ratelimit-remaining-requests"), left);
    }
    client.send(as_team(STREAM_BODY));
    let (head, body) = client.read_answer();
    assert_eq!(head.status(), 429);
    assert_eq!(error_code(&body.bytes()), "rate_limit_exceeded");
    let error: serde_json::Value = serde_json::from_slice(&body.bytes()).expect("JSON");
    assert_eq!(error["error"]["type"], "requests");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("key `team`")), "{error}");
    let (seconds, ms) = (number(&head, "retry-after"), number(&head, "retry-after-ms"));
    assert!((1..=30).contains(&seconds) && ms <= 30_000 && seconds == ms.div_ceil(1000), "{head:?}");
    for of in ["limit", "remaining", "reset"] {
        for what in ["requests", "tokens"] {
            assert!(head.has(&format!("x-ratelimit-{of}-{what}")), "{head:?}");
        }
    }
    assert_eq!(number(&head, "x-ratelimit-remaining-requests"), 0);
    // The connection stays: who backs off comes again on it. Another key is another's.
    client.send(as_free(STREAM_BODY));
    let (head, _) = client.read_answer();
    assert_eq!((head.status(), head.has("x-ratelimit-limit-requests")), (200, false));
    assert_eq!(upstream.requests().len(), 3);
    edge.wait_metric(REFUSED, &["scope=\"key\"", "name=\"team\"", "limit=\"requests\""], 1.0);
    edge.wait_metric(REMAINING, &["scope=\"key\"", "name=\"team\"", "limit=\"requests\""], 0.0);
    let line = edge.stdout().wait_for("\"limited\"");
    assert!(
        line.contains("\"limited\":\"key team: requests\"") && line.contains("\"key\":\"team\""),
        "{line}"
    );
}

#[test]
fn who_comes_when_told_is_let_in() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = Edge::configured(&route(&upstream.url(), "limits = { requests_per_minute = 30 }"));
    let mut client = edge.connect();
    let refused = loop {
        client.send(stream_request());
        let (head, _) = client.read_answer();
        if head.status() == 429 {
            break head;
        }
    };
    let wait = Duration::from_millis(number(&refused, "retry-after-ms"));
    assert!(wait <= Duration::from_secs(2), "{wait:?}");
    assert!(client.silent_for(wait));
    client.send(stream_request());
    assert_eq!(client.read_answer().0.status(), 200);
}

#[test]
fn several_cores_let_in_no_more_than_one() {
    const LIMIT: u64 = 40;
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let toml = route(&upstream.url(), &format!("limits = {{ requests_per_minute = {LIMIT} }}"));
    let edge = Edge::configured_with(&toml, &["--workers", "2"]);
    let addr = edge.addr();
    let ask = move || {
        let ask = |_| {
            let mut client = Wire::new(TcpStream::connect(addr).expect("connect"));
            client.send(post("/v1/chat/completions", &["Connection: close"], STREAM_BODY));
            client.read_answer().0.status() == 200
        };
        (0..25).filter(|n| ask(*n)).count() as u64
    };
    let (let_in, took) = timed(|| -> u64 {
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
    });
    let earned = took.as_secs_f64() * LIMIT as f64 / 60.0;
    assert!(let_in >= LIMIT && let_in <= LIMIT + earned.ceil() as u64, "{let_in}, with {earned} earned");
    assert_eq!(upstream.requests().len() as u64, let_in);
}

#[test]
fn tokens_are_guessed_and_then_settled_with_what_the_answer_says() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = Edge::configured(&keys(&upstream.url(), "limits = { tokens_per_minute = 100000 }"));
    let body = r#"{"model":"m","max_completion_tokens":60000,"messages":[]}"#;
    let mut client = edge.connect();
    client.send(as_team(body));
    let (head, _) = client.read_answer();
    let left = number(&head, "x-ratelimit-remaining-tokens");
    assert!(is_near(left, 100_000 - 60_000 - body.len().div_ceil(4) as u64), "{left}");
    // 7 were used, so the same fits again.
    client.send(as_team(body));
    let (head, _) = client.read_answer();
    let left = number(&head, "x-ratelimit-remaining-tokens");
    assert!(head.status() == 200 && left >= 100_000 - 60_000 - body.len().div_ceil(4) as u64 - 7, "{left}");
}

#[test]
fn a_stream_without_a_word_on_its_usage_has_used_its_events() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&route(
        &upstream.url(),
        "limits = { tokens_per_minute = 1000, assumed_tokens = 900 }",
    ));
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    let mut second = edge.connect();
    second.send(stream_request());
    let (head, body) = second.read_answer();
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (429, "rate_limit_exceeded"));
    assert!(body.text().contains("\"type\":\"tokens\""), "{}", body.text());
    for event in ["data: a\n\n", "data: b\n\n", "data: [DONE]\n\n"] {
        peer.send(chunk(event));
        assert_eq!(client.read_chunk(), event.as_bytes());
    }
    peer.send(LAST_CHUNK);
    client.read_last_chunk();
    // The prompt and three events, and not 900; a little of it earned again.
    edge.wait_metric(support::OUTCOMES, &["outcome=\"finished\""], 1.0);
    let left = edge.metric(REMAINING, &["scope=\"route\"", "limit=\"tokens\""]);
    assert!(left >= 1000.0 - STREAM_BODY.len().div_ceil(4) as f64 - 3.0, "{left}");
    // And what broke off before anything came has used nothing.
    second.send(stream_request());
    let head = peer.read_head();
    peer.read_request_body(&head);
    peer.send("HTTP/1.1 2");
    peer.close();
    assert_eq!(second.read_answer().0.status(), 502);
    edge.wait_metric(support::OUTCOMES, &["outcome=\"upstream_error\""], 1.0);
    assert!(edge.metric(REMAINING, &["scope=\"route\"", "limit=\"tokens\""]) >= left);
}

#[test]
fn what_cost_more_than_was_guessed_is_owed() {
    let usage = r#"{"usage":{"prompt_tokens":5,"completion_tokens":1995,"total_tokens":2000}}"#;
    let upstream = Upstream::serve(move |_, _| answer("200 OK", &["Content-Type: application/json"], usage));
    let edge = Edge::configured(&route(&upstream.url(), "limits = { tokens_per_minute = 1000 }"));
    assert_eq!(status(&edge, &stream_request()), 200);
    edge.wait_metric(support::OUTCOMES, &["outcome=\"finished\""], 1.0);
    let (head, _) = edge.ask(&post("/v1/chat/completions", &[], r#"{"max_tokens":1}"#));
    let seconds = number(&head, "retry-after");
    assert!(head.status() == 429 && (55..=61).contains(&seconds), "{head:?}");
}

/// What a client and its upstream do to end a stream.
type End = fn(Wire, Wire);

#[test]
fn a_seat_is_free_again_however_its_request_ends() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&keys(&upstream.url(), "limits = { streams = 1 }"));
    let ends: [(&str, End); 4] = [
        ("finished", |mut client, mut peer| {
            peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
            assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
            client.read_last_chunk();
        }),
        ("client_gone", |client, mut peer| {
            client.close();
            peer.wait_closed();
        }),
        ("upstream_cut", |mut client, peer| {
            peer.close();
            client.read_to_close();
        }),
        ("client_gone", |client, _| client.reset()),
    ];
    let free = &["scope=\"key\"", "name=\"team\"", "limit=\"streams\""];
    for (outcome, end) in ends {
        let (client, mut peer, _, _) = relayed(&edge, &upstream, &as_team(STREAM_BODY));
        let mut client = client;
        peer.send(SSE_HEAD);
        assert_eq!(client.read_head().status(), 200);
        edge.wait_metric(REMAINING, free, 0.0);
        let (head, body) = edge.ask(&as_team(STREAM_BODY));
        assert_eq!((head.status(), number(&head, "retry-after")), (429, 1), "{outcome}");
        assert!(body.text().contains("requests at once"), "{}", body.text());
        end(client, peer);
        edge.wait_metric(REMAINING, free, 1.0);
    }
    // One that does not even get to an upstream.
    let mut client = edge.connect();
    client.send(as_team(STREAM_BODY));
    let mut peer = upstream.accept();
    peer.read_head();
    client.close();
    edge.wait_metric(REMAINING, free, 1.0);
}

#[test]
fn max_tokens_has_a_cap_wherever_it_stands() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = Edge::configured(&keys(&upstream.url(), "limits = { max_tokens = 100 }"));
    let long = "x".repeat(100_000);
    for (fields, fits) in [
        (r#""max_tokens":100"#.to_owned(), true),
        (r#""max_tokens":101"#.to_owned(), false),
        (r#""max_completion_tokens":1e3"#.to_owned(), false),
        (r#""max_output_tokens":null"#.to_owned(), true),
        (r#""max_tokens":5,"max_completion\u005ftokens":500"#.to_owned(), false),
        (format!(r#""messages":["{long}"],"max_tokens":101"#), false),
        (format!(r#""messages":["{long}",{{"max_tokens":101}}]"#), true),
    ] {
        let (head, body) = edge.ask(&as_team(&format!("{{\"model\":\"m\",{fields}}}")));
        let shown = &fields[..fields.len().min(60)];
        assert_eq!(head.status(), if fits { 200 } else { 400 }, "{shown}: {}", body.text());
        if !fits {
            assert_eq!(error_code(&body.bytes()), "invalid_value");
            assert!(body.text().contains("key `team` allows at most 100"), "{}", body.text());
        }
    }
    // What cannot be seen through could ask for anything.
    let plain = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-team\r\n\
        Content-Type: multipart/form-data\r\nContent-Length: 20\r\n\r\n{\"max_tokens\":99999}";
    let (head, body) = edge.ask(plain);
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (415, "unsupported_content_type"));
    assert_eq!(status(&edge, &as_free(r#"{"max_tokens":101}"#)), 200);
}

#[test]
fn a_key_may_ask_its_models_and_no_others() {
    let list = r#"{"object":"list","data":[{"id":"small-1"},{"id":"large"}]}"#;
    let upstream = Upstream::serve(move |head, _| {
        let body = if head.start.starts_with("GET") { list } else { "{}" };
        answer("200 OK", &["Content-Type: application/json"], body)
    });
    let edge = Edge::configured(&keys(&upstream.url(), "models = [\"small-*\"]"));
    assert_eq!(status(&edge, &as_team(r#"{"model":"small-1"}"#)), 200);
    for body in [r#"{"model":"large"}"#, "{}", r#"{"messages":[]}"#] {
        let (head, answer) = edge.ask(&as_team(body));
        assert_eq!((head.status(), error_code(&answer.bytes()).as_str()), (403, "model_not_found"), "{body}");
    }
    assert_eq!(status(&edge, &as_team(r#"{"model":"small-1","model":"large"}"#)), 400);
    assert_eq!(status(&edge, &as_free(r#"{"model":"large"}"#)), 200);
    let (_, models) = edge.ask(&get("/v1/models", &["Authorization: Bearer sk-team"]));
    assert!(models.text().contains("small-1") && !models.text().contains("large"), "{}", models.text());
    let (_, models) = edge.ask(&get("/v1/models", &["Authorization: Bearer sk-free"]));
    assert_eq!(models.text(), list);
    edge.wait_metric(REFUSED, &["name=\"team\"", "limit=\"models\""], 3.0);
}

#[test]
fn what_was_used_outlives_a_reload() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = Edge::configured(&keys(&upstream.url(), "limits = { requests_per_minute = 1 }"));
    assert_eq!(status(&edge, &as_team(STREAM_BODY)), 200);
    edge.rewrite_config(&keys(&upstream.url(), "limits = { requests_per_minute = 1, streams = 5 }"));
    edge.signal(Signal::HUP);
    edge.stderr().wait_for("reloaded");
    assert_eq!(status(&edge, &as_team(STREAM_BODY)), 429);
    edge.rewrite_config(&keys(&upstream.url(), ""));
    edge.signal(Signal::HUP);
    edge.stderr().wait_for_nth("reloaded", 1);
    assert_eq!(status(&edge, &as_team(STREAM_BODY)), 200);
}
