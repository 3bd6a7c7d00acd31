//! Routing by model looks into bodies, and what it sees costs no more than its bytes: depth is a counter, size is bounded by
//! `max_model_peek`, and what two readers would read differently goes nowhere.

mod support;

use std::fmt::Write as _;
use std::thread;

use support::{Edge, End, Upstream, answer, chunk, config, error_code, get, post};

const MIB: usize = 1 << 20;

/// How much of a body may be held while its model is looked for.
const PEEK: usize = 4 * MIB;

/// An edge whose routes depend on the model.
fn by_model(upstream: &str) -> Edge {
    let routes = config::routes(&[("a", upstream), ("b-*", upstream)]);
    Edge::configured(&format!("{routes}[limits]\nmax_model_peek = {PEEK}\n"))
}

/// One upstream for every model.
fn by_nothing(upstream: &str) -> Edge {
    Edge::start(&["--upstream", upstream])
}

fn length_of_body() -> support::upstream::Served {
    Upstream::serve(|_, body| answer("200 OK", &[], body.bytes().len().to_string()))
}

/// Sends a body, in chunks if so; gives back the status, the answer, and how much memory it cost the edge at its peak.
#[track_caller]
fn cost(edge: &Edge, body: &str, chunked: bool) -> (u16, String, u64) {
    assert_eq!(edge.ask(&get("/livez", &[])).0.status(), 200);
    let before = edge.resident_bytes();
    let mut client = edge.connect();
    let wire = match chunked {
        false => post("/v1/chat/completions", &[], body),
        true => {
            let mut wire = b"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\n".to_vec();
            wire.extend_from_slice(b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
            body.as_bytes().chunks(50_000).for_each(|part| wire.extend(chunk(part)));
            wire.extend_from_slice(support::LAST_CHUNK);
            wire
        }
    };
    // A refusal may come before all of it is sent, and reading must not wait for that.
    let mut sender = support::Wire::new(client.stream().try_clone().expect("a handle"));
    let sending = thread::spawn(move || drop(sender.try_send(wire)));
    let (head, body) = client.read_answer();
    assert_eq!(body.end, End::Whole);
    let peak = edge.peak_bytes().saturating_sub(before);
    drop(client);
    sending.join().expect("the sender");
    (head.status(), body.text(), peak)
}

fn nested(levels: usize, open: &str, close: &str) -> String {
    open.repeat(levels) + "1" + &close.repeat(levels)
}

#[test]
fn depth_costs_no_more_than_its_bytes() {
    const LEVELS: usize = MIB;
    let upstream = length_of_body();
    for (open, close) in [("[", "]"), ("{\"\":", "}")] {
        let deep = nested(LEVELS / open.len(), open, close);
        // Before the model, behind it, and unbalanced.
        for (body, status) in [
            (format!("{{\"messages\":{deep},\"model\":\"a\"}}"), 200),
            (format!("{{\"model\":\"a\",\"messages\":{deep}}}"), 200),
            (format!("{{\"messages\":{}", open.repeat(LEVELS / open.len())), 400),
        ] {
            for chunked in [false, true] {
                let edge = by_model(&upstream.url());
                let (got, answer, peak) = cost(&edge, &body, chunked);
                assert!(got == status || (status == 400 && got == 404), "{got}: {answer}");
                if status == 200 {
                    assert_eq!(answer, body.len().to_string());
                }
                let bound = 2 * body.len() + MIB;
                assert!(peak < bound as u64, "{peak} bytes for a body of {}", body.len());
                assert_eq!(edge.ask(&get("/livez", &[])).0.status(), 200);
            }
        }
    }
}

#[test]
fn a_huge_body_is_held_up_to_the_bound_and_no_further() {
    let upstream = length_of_body();
    let text = "x".repeat(64 * MIB);
    for chunked in [false, true] {
        // The model last: it is not waited for.
        let edge = by_model(&upstream.url());
        let (status, answer, peak) =
            cost(&edge, &format!("{{\"input\":\"{text}\",\"model\":\"a\"}}"), chunked);
        assert_eq!((status, error_code(answer.as_bytes()).as_str()), (413, "model_not_found_in_time"));
        eprintln!("model last, chunked {chunked}: {peak} bytes");
        assert!(peak < (2 * PEEK + MIB) as u64, "{peak} bytes");

        // The model first: the rest is not held.
        let edge = by_model(&upstream.url());
        let body = format!("{{\"model\":\"a\",\"input\":\"{text}\"}}");
        let (status, answer, peak) = cost(&edge, &body, chunked);
        assert_eq!((status, answer), (200, body.len().to_string()));
        eprintln!("model first, chunked {chunked}: {peak} bytes");
        assert!(peak < MIB as u64, "{peak} bytes");
    }
}

#[test]
fn a_body_without_a_model_costs_nothing_where_routes_do_not_ask() {
    let upstream = length_of_body();
    let edge = by_nothing(&upstream.url());
    let body = format!("{{\"input\":\"{}\"}}", "x".repeat(64 * MIB));
    let (status, answer, peak) = cost(&edge, &body, false);
    assert_eq!((status, answer), (200, body.len().to_string()));
    assert!(peak < MIB as u64, "{peak} bytes");
}

#[test]
fn a_million_keys_are_as_cheap_as_one() {
    let upstream = length_of_body();
    let edge = by_model(&upstream.url());
    let mut body = String::from("{");
    (0..200_000).for_each(|n| write!(body, "\"k{n}\":{n},").expect("a string"));
    body += "\"model\":\"b-2\"}";
    let (status, answer, peak) = cost(&edge, &body, false);
    assert_eq!((status, answer), (200, body.len().to_string()));
    assert!(peak < (2 * body.len() + MIB) as u64, "{peak} bytes");
}

/// Bodies that name two models, or one in a way that readers do not agree about.
const AMBIGUOUS: [&str; 7] = [
    r#"{"model":"a","model":"b-1"}"#,
    r#"{"model":"a","Model":"b-1"}"#,
    r#"{"model":"a","mod\u0065l":"b-1"}"#,
    r#"{"model":"a","messages":[],"model":"a"}"#,
    r#"{"model":"a","stream":true,"stream":false}"#,
    "{\"model\":\"a\\q\"}",
    r#"{"model":"a\ud800"}"#,
];

#[test]
fn two_models_are_a_400_where_the_route_depends_on_one() {
    let upstream = Upstream::listen();
    let edge = by_model(&upstream.url());
    for body in AMBIGUOUS {
        let (head, answer) = edge.ask(&post("/v1/chat/completions", &[], body));
        assert_eq!(head.status(), 400, "{body}: {}", answer.text());
        error_code(&answer.bytes());
        // Nor by pieces, nor with a name that is not JSON's.
        let chunks: Vec<u8> = body.bytes().flat_map(|byte| chunk([byte])).collect();
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
            let head = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nContent-Type: {kind}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n"
            );
            let (head, _) = edge.ask(&[head.as_bytes(), &chunks, support::LAST_CHUNK].concat());
            assert_eq!(head.status(), 400, "{body} as {kind}");
        }
    }
    assert!(upstream.is_idle(), "something reached the upstream");

    // What is in it is nobody's business where nothing depends on it.
    let upstream = length_of_body();
    let edge = by_nothing(&upstream.url());
    for body in AMBIGUOUS {
        let (head, answer) = edge.ask(&post("/v1/chat/completions", &[], body));
        assert_eq!((head.status(), answer.text()), (200, body.len().to_string()), "{body}");
    }
}

#[test]
fn a_second_model_behind_a_long_value_is_found_too() {
    let upstream = Upstream::listen();
    let edge = by_model(&upstream.url());
    // The first model decides, and what follows is passed on as it comes: the upstream must not get a whole body.
    let body = format!("{{\"model\":\"a\",\"input\":\"{}\",\"model\":\"b-1\"}}", "x".repeat(MIB));
    let mut client = edge.connect();
    client.send(post("/v1/chat/completions", &[], &body));
    let mut peer = upstream.accept();
    let head = peer.read_head();
    assert_ne!(peer.read_request_body(&head).end, End::Whole);
    let (head, answer) = client.read_answer();
    assert_eq!(head.status(), 400, "{}", answer.text());
    error_code(&answer.bytes());
}

/// Servers that read JSON do not all ask what a body calls itself. What is not looked into here must not get to a model
/// that its route would have kept it from.
#[test]
fn a_body_by_another_name_is_routed_by_its_model_too() {
    let (first, second) = (Upstream::serve(told("first")), Upstream::serve(told("second")));
    let edge = Edge::configured(&config::routes(&[("a", &first.url()), ("*", &second.url())]));
    for kind in ["text/plain", "application/octet-stream", "application/x-www-form-urlencoded", "nonsense"] {
        for path in ["/v1/chat/completions", "/v1/responses", "/v1/embeddings/"] {
            let body = r#"{"model":"a"}"#;
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: e\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let (head, answer) = edge.ask(request.as_bytes());
            assert_eq!((head.status(), answer.text().as_str()), (200, "first"), "{kind} to {path}");
        }
    }
    // Compressed, it cannot be looked into, whatever it calls itself.
    let request = "POST /v1/responses HTTP/1.1\r\nHost: e\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\n\
                   Content-Length: 2\r\n\r\n{}";
    assert_eq!(edge.ask(request.as_bytes()).0.status(), 415);
    // Where nobody reads JSON, a body is what it says.
    let request =
        "PUT /v1/notes HTTP/1.1\r\nHost: e\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\n{not so}";
    assert_eq!(edge.ask(request.as_bytes()).1.text(), "second");
}

fn told(name: &'static str) -> impl Fn(&support::Head, &support::Body) -> Vec<u8> {
    move |_, _| answer("200 OK", &[], name)
}

#[test]
fn a_compressed_body_cannot_choose_a_route_by_model() {
    let gzip = "\u{1f}not really gzip";
    let upstream = Upstream::listen();
    let edge = by_model(&upstream.url());
    for coding in ["gzip", "br", "gzip, identity", "x-unknown"] {
        let field = format!("Content-Encoding: {coding}");
        let (head, answer) = edge.ask(&post("/v1/chat/completions", &[&field], gzip));
        assert_eq!(head.status(), 415, "{coding}: {}", answer.text());
        error_code(&answer.bytes());
    }
    assert!(upstream.is_idle(), "something reached the upstream");

    let upstream = Upstream::serve(|head, body| {
        answer("200 OK", &[], format!("{} {}", head.get("content-encoding").unwrap_or("none"), body.text()))
    });
    let edge = by_nothing(&upstream.url());
    let (head, answer) = edge.ask(&post("/v1/chat/completions", &["Content-Encoding: gzip"], gzip));
    assert_eq!((head.status(), answer.text()), (200, format!("gzip {gzip}")));
}
