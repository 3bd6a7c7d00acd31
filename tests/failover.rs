//! An upstream that fails is followed by another, as long as nothing of an answer has reached the client, as often as the
//! route allows, and never when the request may have been acted upon unless the route says so.

mod support;

use std::time::Duration;

use support::{
    Edge, End, LAST_CHUNK, OUTCOMES, SSE_HEAD, Upstream, Wire, answer, chunk, error_code, get, nobody, post,
    stream_request, timed,
};

const RETRIES: &str = "sedge_upstream_retries_total";
const WITHHELD: &str = "sedge_upstream_retries_withheld_total";

/// Two upstreams, of which `a` is asked first, however often it has failed.
fn two(a: &str, b: &str, route: &str) -> String {
    format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{a}\"\nbreaker = false\n\n\
         [[upstream]]\nname = \"b\"\nurl = \"{b}\"\nbreaker = false\n\n\
         [[route]]\nname = \"r\"\nbalance = \"first\"\n{route}\n"
    )
}

fn one(url: &str, route: &str) -> String {
    format!("[[upstream]]\nname = \"a\"\nurl = \"{url}\"\n\n[[route]]\nname = \"r\"\n{route}\n")
}

/// An address where nobody listens.
fn refusing() -> String {
    format!("http://{}", nobody())
}

struct Scene {
    a: Upstream,
    b: Upstream,
    edge: Edge,
}

impl Scene {
    fn with(route: &str) -> Scene {
        let (a, b) = (Upstream::listen(), Upstream::listen());
        let edge = Edge::configured(&two(&a.url(), &b.url(), route));
        Scene { a, b, edge }
    }

    /// A client that has asked, and `a`'s side of it with the request read.
    fn ask(&self, request: &[u8]) -> (Wire, Wire) {
        let mut client = self.edge.connect();
        client.send(request);
        let mut peer = self.a.accept();
        let head = peer.read_head();
        peer.read_request_body(&head);
        (client, peer)
    }

    /// `b` gets the same and answers it, and the client gets that.
    fn b_answers(&self, client: &mut Wire, body: &str) {
        let mut peer = self.b.accept();
        let head = peer.read_head();
        assert_eq!(peer.read_request_body(&head).text(), body);
        peer.send(answer("200 OK", &["Content-Type: application/json"], "{\"from\":\"b\"}"));
        let (head, answer) = client.read_answer();
        assert_eq!((head.status(), answer.text().as_str()), (200, "{\"from\":\"b\"}"));
    }

    /// Only `a` was asked, on so many connections.
    #[track_caller]
    fn b_is_not_asked(&self, connections: f64) {
        assert_eq!(self.edge.upstream_connections(), connections);
    }
}

const BODY: &str = "{\"model\":\"m\"}";

fn ask() -> Vec<u8> {
    post("/v1/embeddings", &[], BODY)
}

#[test]
fn who_refuses_the_connection_is_followed_by_another_without_being_asked_for_it() {
    let b = Upstream::serve(|_, body| answer("200 OK", &[], body.bytes()));
    let edge = Edge::configured(&two(&refusing(), &b.url(), ""));
    let large = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "y".repeat(3 << 20));
    for body in [BODY, &large] {
        let (head, answer) = edge.ask(&post("/v1/embeddings", &[], body));
        assert_eq!((head.status(), answer.text() == *body), (200, true), "{} bytes", body.len());
    }
    edge.wait_metric(RETRIES, &["reason=\"connect\""], 2.0);
    let line = edge.stdout().wait_for("\"tried\"");
    assert!(line.contains("\"tried\":\"a: connect\"") && line.contains("\"upstream\":\"b\""), "{line}");
    assert!(line.contains("\"attempts\":2"), "{line}");
}

#[test]
fn what_an_upstream_may_have_acted_upon_is_not_sent_again() {
    for end in ["close", "reset", "head", "stall", "garbage"] {
        let scene = Scene::with(&first_byte(end, "100ms"));
        let (mut client, peer) = scene.ask(&ask());
        let peer = fail(peer, end);
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), if end == "stall" { 504 } else { 502 }, "{end}");
        error_code(&body.bytes());
        scene.b_is_not_asked(1.0);
        assert!(scene.edge.metric(RETRIES, &[]).abs() < f64::EPSILON, "{end}");
        drop(peer);
    }
}

#[test]
fn what_is_harmless_to_repeat_is_sent_again() {
    for request in [get("/v1/files", &[]), post("/v1/embeddings", &["Idempotency-Key: 1"], BODY)] {
        let scene = Scene::with("");
        let (mut client, peer) = scene.ask(&request);
        peer.reset();
        scene.b_answers(&mut client, if request.starts_with(b"GET") { "" } else { BODY });
    }
}

#[test]
fn a_route_that_says_so_repeats_whatever_failed_before_the_first_byte() {
    for (end, reason) in [
        ("close", "closed"),
        ("reset", "closed"),
        ("head", "invalid"),
        ("stall", "silence"),
        ("garbage", "invalid"),
    ] {
        // The other one has this time for its answer as well.
        let scene = Scene::with(&format!("retry = {{ repeat = true }}\n{}", first_byte(end, "2s")));
        let (mut client, peer) = scene.ask(&ask());
        let peer = fail(peer, end);
        let mut other = scene.b.accept();
        let head = other.read_head();
        assert_eq!(other.read_request_body(&head).text(), BODY, "{end}");
        other.send(answer("200 OK", &["Connection: close"], "{}"));
        assert_eq!(client.read_answer().0.status(), 200, "{end}");
        scene.edge.wait_metric(RETRIES, &[&format!("reason=\"{reason}\"")], 1.0);
        drop(peer);
    }
}

/// How long the edge waits for the first byte: `short` for one that stalls, and for the others longer than anything takes.
fn first_byte(how: &str, short: &str) -> String {
    format!("timeouts = {{ first_byte = \"{}\" }}", if how == "stall" { short } else { "1h" })
}

/// Ends, or does not, in one of several ways. A peer that stalls is given back, to be held.
fn fail(mut peer: Wire, how: &str) -> Option<Wire> {
    match how {
        "close" => peer.close(),
        "reset" => peer.reset(),
        "head" => {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Len");
            peer.close();
        }
        "garbage" => peer.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        _ => return Some(peer),
    }
    None
}

#[test]
fn a_large_body_is_sent_again_byte_for_byte() {
    let scene = Scene::with("retry = { repeat = true }");
    let body: String = (0..40_000).map(|n| format!("{n:08}")).collect();
    let body = format!("{{\"model\":\"m\",\"input\":\"{body}\"}}");
    // The first takes all of it, or only its first part.
    for all in [true, false] {
        let mut client = scene.edge.connect();
        client.send(post("/v1/embeddings", &[], &body));
        let mut peer = scene.a.accept();
        let head = peer.read_head();
        if all {
            assert_eq!(peer.read_request_body(&head).text(), body);
        } else {
            peer.read_exact(100_000);
        }
        peer.reset();
        scene.b_answers(&mut client, &body);
    }
}

#[test]
fn statuses_pass_as_they_are_unless_the_route_names_them() {
    let plain = Scene::with("");
    let (mut client, mut peer) = plain.ask(&ask());
    peer.send(answer("503 Service Unavailable", &["Retry-After: 7"], "busy"));
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), head.get("retry-after"), body.text().as_str()), (503, Some("7"), "busy"));
    plain.b_is_not_asked(1.0);

    let scene = Scene::with("retry = {}");
    for status in
        ["408 Request Timeout", "429 Too Many Requests", "500 Oops", "502 Bad", "503 Busy", "504 Late"]
    {
        let (mut client, mut peer) = scene.ask(&ask());
        peer.send(answer(status, &["Connection: close"], "no"));
        let mut other = scene.b.accept();
        let head = other.read_head();
        assert_eq!(other.read_request_body(&head).text(), BODY);
        other.send(answer("200 OK", &["Connection: close"], "{}"));
        assert_eq!(client.read_answer().0.status(), 200, "{status}");
    }
    let (mut client, mut peer) = scene.ask(&ask());
    peer.send(answer("400 Bad Request", &[], "wrong"));
    assert_eq!(client.read_answer().0.status(), 400);
    // One for each of the two before, and one for this.
    scene.b_is_not_asked(13.0);
}

#[test]
fn the_last_answer_is_the_clients() {
    let a = Upstream::serve(|_, _| answer("500 Oops", &[], "a"));
    let b = Upstream::serve(|_, _| answer("429 Slow", &["Retry-After: 3600", "X-Why: quota"], "b"));
    let edge = Edge::configured(&two(&a.url(), &b.url(), "retry = { attempts = 2 }"));
    let (head, body) = edge.ask(&ask());
    assert_eq!((head.status(), body.text().as_str()), (429, "b"));
    assert_eq!((head.get("retry-after"), head.get("x-why")), (Some("3600"), Some("quota")));
    let line = edge.stdout().wait_for("\"tried\"");
    assert!(line.contains("\"tried\":\"a: 500\""), "{line}");
}

#[test]
fn an_upstreams_own_time_is_waited_for_or_the_client_is_told() {
    let a = Upstream::listen();
    let edge =
        Edge::configured(&one(&a.url(), "retry = { attempts = 2, backoff_ms = 1, max_backoff_ms = 1000 }"));
    let mut client = edge.connect();
    client.send(ask());
    let mut peer = a.accept();
    peer.read_head();
    let (mut peer, after) = timed(|| {
        peer.send(answer("429 Slow", &["Retry-After-Ms: 300", "Connection: close"], ""));
        a.accept()
    });
    // The edge's coarse clock is up to one tick of 50 ms old.
    assert!(after >= Duration::from_millis(250), "{after:?}");
    peer.read_head();
    peer.send(answer("200 OK", &["Connection: close"], "{}"));
    assert_eq!(client.read_answer().0.status(), 200);

    // Longer than the route waits: there is nothing left but to tell.
    client.send(ask());
    let mut peer = a.accept();
    peer.read_head();
    peer.send(answer("429 Slow", &["Retry-After: 2"], ""));
    let head = client.read_answer().0;
    assert_eq!((head.status(), head.get("retry-after")), (429, Some("2")));
}

#[test]
fn nothing_is_sent_again_after_the_first_byte() {
    let scene = Scene::with("retry = { repeat = true }");
    let (mut client, mut peer) = scene.ask(&stream_request());
    peer.send([SSE_HEAD, &chunk("data: a\n\n")].concat());
    let head = client.read_head();
    assert_eq!(client.read_chunk(), b"data: a\n\n");
    peer.reset();
    assert_ne!(client.read_body(&head).end, End::Whole);
    scene.b_is_not_asked(1.0);
}

#[test]
fn an_early_stream_goes_on_with_another_upstream() {
    let scene = Scene::with("early_heartbeat_ms = 1\nheartbeat = \"0\"\nretry = {}");
    let (mut client, mut peer) = scene.ask(&stream_request());
    let head = client.read_head();
    assert_eq!(head.status(), 200);
    peer.send(answer("503 Busy", &[], ""));
    let mut other = scene.b.accept();
    other.read_head();
    other.send([SSE_HEAD, &chunk("data: a\n\ndata: [DONE]\n\n"), LAST_CHUNK].concat());
    let body = client.read_body(&head);
    assert_eq!((body.text().as_str(), body.end), ("data: a\n\ndata: [DONE]\n\n", End::Whole));
}

#[test]
fn retries_are_a_share_of_the_traffic() {
    let a = Upstream::serve(|_, _| answer("503 Busy", &[], ""));
    let b = Upstream::serve(|_, _| answer("503 Busy", &[], ""));
    let edge = Edge::configured(&two(&a.url(), &b.url(), "retry = { attempts = 2, budget_percent = 10 }"));
    let mut client = edge.connect();
    let ((), took) = timed(|| {
        for _ in 0..200 {
            client.send(ask());
            assert_eq!(client.read_answer().0.status(), 503);
        }
    });
    let retries = edge.metric(RETRIES, &[]);
    let most = 10.0 + 20.0 + took.as_secs_f64() + 1.0;
    assert!((10.0..=most).contains(&retries), "{retries}, at most {most}");
    edge.wait_metric(WITHHELD, &["reason=\"budget\""], 200.0 - retries);
}

#[test]
fn a_client_that_leaves_while_the_edge_waits_ends_it() {
    let a = Upstream::listen();
    let edge = Edge::configured(&one(&a.url(), "retry = { max_backoff_ms = 60000 }"));
    let mut client = edge.connect();
    client.send(ask());
    let mut peer = a.accept();
    peer.read_head();
    peer.send(answer("503 Busy", &["Retry-After: 60", "Connection: close"], ""));
    edge.wait_metric(RETRIES, &[], 1.0);
    client.close();
    edge.wait_metric(OUTCOMES, &["outcome=\"client_gone\""], 1.0);
}
