//! An error is an error whatever its status. Upstreams answer 200 and then say that they failed; only an event that began with exactly
//! `{"error"` was seen, `{"error":null}` was taken for one, and a whole JSON body never was. The log said `finished`, breakers stayed
//! closed, and a request that could have gone elsewhere did not.

mod support;

use support::{
    CLOSING_SSE_HEAD, Edge, LAST_CHUNK, OUTCOMES, SSE_HEAD, Upstream, Wire, answer, chunk, get, post,
    relayed, stream_request,
};

const FAILED: &str = "outcome=\"upstream_error\"";
const FINISHED: &str = "outcome=\"finished\"";
const DONE: &str = "data: [DONE]\n\n";
const WORD: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n";

const JSON: &[&str] = &["Content-Type: application/json"];

/// A request to `path` for a stream.
fn ask(path: &str) -> Vec<u8> {
    post(path, &[], r#"{"model":"m","stream":true,"input":"hi"}"#)
}

#[test]
fn an_event_that_is_an_error_is_the_outcome() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut failed = 0.0;
    for (path, event) in [
        ("/v1/chat/completions", "data: { \"error\": {\"message\":\"overloaded\"}}\n\n"),
        (
            "/v1/chat/completions",
            "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"error\":{\"code\":500}}\n\n",
        ),
        ("/v1/chat/completions", "event: error\ndata: overloaded\n\n"),
        (
            "/v1/responses",
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{}}}\n\n",
        ),
        ("/v1/responses", "data: {\"response\":{\"status\":\"failed\"},\"type\":\"response.failed\"}\n\n"),
        (
            "/v1/messages",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
        ),
        ("/v1/messages", "data: {\"error\":{\"type\":\"api_error\"},\"type\":\"error\"}\n\n"),
        ("/v1/models/m:streamGenerateContent", "data: {\"error\": {\"code\": 503}}\r\n\r\n"),
        ("/v1/something/else", "data: {\"error\":\"no\"}\n\n"),
    ] {
        // In one segment, and split where that hurts.
        for cut in [0, event.len() / 2, event.len() - 1] {
            let (mut client, mut peer, ..) = relayed(&edge, &upstream, &ask(path));
            peer.send(CLOSING_SSE_HEAD);
            let head = client.read_head();
            if cut > 0 {
                peer.send(chunk(&event[..cut]));
                assert_eq!(client.read_chunk(), &event.as_bytes()[..cut]);
            }
            peer.send([&chunk(&event[cut..]), LAST_CHUNK].concat());
            let body = client.read_body(&head);
            assert_eq!(
                (body.text().as_str(), body.end),
                (&event[cut..], support::End::Whole),
                "it is passed on"
            );
            failed += 1.0;
            edge.wait_metric(OUTCOMES, &[FAILED], failed);
            peer.close();
        }
    }
}

#[test]
fn what_merely_speaks_of_an_error_is_none() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut finished = 0.0;
    for event in [
        "data: {\"error\":null,\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"error\": null, \"choices\":[]}\n\n",
        "data: {\"error\":\"\",\"choices\":[]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"{\\\"error\\\":{\\\"type\\\":\\\"error\\\"}}\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"error\"}}],\"x\":{\"error\":{\"status\":\"failed\"}}}\n\n",
        "data: error\n\n: {\"error\":{}}\n\n",
        "event: errors\ndata: {\"type\":\"terror\"}\n\n",
    ] {
        let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
        peer.send([CLOSING_SSE_HEAD, &chunk(event), &chunk(DONE), LAST_CHUNK].concat());
        let (_, body) = client.read_answer();
        assert_eq!(body.text(), [event, DONE].concat());
        finished += 1.0;
        edge.wait_metric(OUTCOMES, &[FINISHED], finished);
        peer.close();
    }
}

#[test]
fn a_document_that_is_an_error_is_the_outcome() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let long = format!("{{\"id\":\"{}\",\"error\":{{\"message\":\"no\"}}}}", "x".repeat(40_000));
    let (mut failed, mut finished) = (0.0, 0.0);
    for (path, body, is_error) in [
        ("/v1/chat/completions", "{\"error\":{\"message\":\"no\"}}", true),
        ("/v1/chat/completions", "{\n  \"id\": \"x\",\n  \"error\": \"no\"\n}", true),
        ("/v1/embeddings", long.as_str(), true),
        ("/v1/responses", "{\"id\":\"r\",\"status\":\"failed\",\"error\":null}", true),
        ("/v1/messages", "{\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}", true),
        ("/v1/models/m:generateContent", "[{\"candidates\":[]},{\"error\":{\"code\":503}}]", true),
        ("/v1/chat/completions", "{\"error\":null,\"choices\":[{\"error\":{}}]}", false),
        ("/v1/chat/completions", "{\"choices\":[{\"message\":{\"content\":\"{\\\"error\\\":{}}\"}}]}", false),
        // An object that tells of its past is no failure of the one that keeps it.
        (
            "/v1/fine_tuning/jobs/j/cancel",
            "{\"object\":\"fine_tuning.job\",\"status\":\"failed\",\"error\":{}}",
            false,
        ),
    ] {
        let chunked = [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", &chunk(&body[..body.len() / 2])[..], &chunk(&body[body.len() / 2..]), LAST_CHUNK].concat();
        for wire in [answer("200 OK", &[JSON[0], "Connection: close"], body), chunked] {
            let (mut client, mut peer, ..) = relayed(&edge, &upstream, &post(path, &[], "{\"model\":\"m\"}"));
            peer.send(wire);
            let (head, got) = client.read_answer();
            assert_eq!((head.status(), got.text().as_str()), (200, body), "it is passed on");
            *if is_error { &mut failed } else { &mut finished } += 1.0;
            edge.wait_metric(
                OUTCOMES,
                &[if is_error { FAILED } else { FINISHED }],
                if is_error { failed } else { finished },
            );
            peer.close();
        }
    }
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/responses/r", &[]));
    peer.send(answer("200 OK", JSON, "{\"id\":\"r\",\"status\":\"failed\",\"error\":{}}"));
    client.read_answer();
    edge.wait_metric(OUTCOMES, &[FINISHED], finished + 1.0);
}

#[test]
fn errors_inside_open_the_breaker() {
    let failing = Upstream::serve(|_, _| answer("200 OK", JSON, "{\"id\":\"x\",\"error\":{}}"));
    let good = Upstream::serve(|_, _| answer("200 OK", JSON, "{}"));
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\nbreaker = {{ min_calls = 3, cool_down = \"60s\", max_cool_down = \"60s\" }}\n\n\
         [[upstream]]\nname = \"b\"\nurl = \"{}\"\n\n[[route]]\nbalance = \"first\"\n",
        failing.url(),
        good.url()
    ));
    for _ in 0..6 {
        edge.ask(&post("/v1/chat/completions", &["Connection: close"], "{\"model\":\"m\"}"));
    }
    assert_eq!(failing.requests().len(), 3);
    assert_eq!(good.requests().len(), 3);
}

/// Two upstreams, of which `a` is asked first.
struct Scene {
    a: Upstream,
    b: Upstream,
    edge: Edge,
}

impl Scene {
    fn new(route: &str) -> Scene {
        let (a, b) = (Upstream::listen(), Upstream::listen());
        let edge = Edge::configured(&format!(
            "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n[[upstream]]\nname = \"b\"\nurl = \"{}\"\n\n\
             [[route]]\nupstreams = [{{ name = \"a\", weight = 1000000 }}, {{ name = \"b\", weight = 1 }}]\n{route}\n",
            a.url(),
            b.url()
        ));
        Scene { a, b, edge }
    }

    /// Asks for `path`, and lets `a` answer so; `b` then says `good`, which has to arrive.
    fn goes_elsewhere(&self, request: &[u8], wire: &[u8], good: &[u8], text: &str) {
        let mut client = self.edge.connect();
        client.send(request);
        let peer = take(&self.a, wire);
        let other = take(&self.b, good);
        let (head, body) = client.read_answer();
        assert_eq!((head.status(), body.text().as_str()), (200, text));
        drop((peer, other));
    }
}

fn take(upstream: &Upstream, wire: &[u8]) -> Wire {
    let mut peer = upstream.accept();
    let head = peer.read_head();
    peer.read_request_body(&head);
    peer.send(wire);
    peer
}

#[test]
fn a_stream_that_begins_with_any_kind_of_error_goes_elsewhere() {
    let good = [SSE_HEAD, &chunk(WORD), &chunk(DONE), LAST_CHUNK].concat();
    for event in [
        "event: error\ndata: overloaded\n\n",
        "data: {\"id\":\"x\", \"error\": {\"code\":500}}\n\n",
        "data: {\"type\":\"error\"}\n\n",
        "data: {\"response\":{},\"type\":\"response.failed\"}\n\n",
    ] {
        let scene = Scene::new("commit = \"first_content\"");
        let wire = [SSE_HEAD, &chunk(": hello\n\n"), &chunk(event)].concat();
        scene.goes_elsewhere(&stream_request(), &wire, &good, &[WORD, DONE].concat());
    }
    // It ends tidily, and has said nothing at all.
    let scene = Scene::new("commit = \"first_content\"");
    let wire = [SSE_HEAD, &chunk(": hello\n\n"), LAST_CHUNK].concat();
    scene.goes_elsewhere(&stream_request(), &wire, &good, &[WORD, DONE].concat());
}

#[test]
fn a_document_that_is_an_error_goes_elsewhere() {
    let good = answer("200 OK", JSON, "{\"choices\":[]}");
    let request = post("/v1/chat/completions", &[], "{\"model\":\"m\"}");
    for route in ["commit = \"first_content\"", "retry = { repeat = true }"] {
        for body in ["{\"error\":{}}", "{\"id\":\"x\",\"error\":{\"code\":500}}"] {
            let scene = Scene::new(route);
            let wire = answer("200 OK", JSON, body);
            scene.goes_elsewhere(&request, &wire, &good, "{\"choices\":[]}");
            let line = scene.edge.stdout().wait_for("\"tried\"");
            assert!(line.contains("\"tried\":\"a: error\""), "{line}");
        }
        // One that breaks off, in each framing.
        for head in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n", ""] {
            let scene = Scene::new(route);
            let mut client = scene.edge.connect();
            client.send(&request);
            let part = if head.starts_with('T') { chunk("{\"choices\":") } else { b"{\"choices\":".to_vec() };
            let wire = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{head}\r\n");
            take(&scene.a, &[wire.as_bytes(), &part].concat()).close();
            let _other = take(&scene.b, &good);
            assert_eq!(client.read_answer().1.text(), "{\"choices\":[]}");
        }
    }
    // One whose end is that the connection closes is passed on, whole.
    let scene = Scene::new("commit = \"first_content\"");
    let mut client = scene.edge.connect();
    client.send(&request);
    take(&scene.a, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"choices\":[]}").close();
    let (head, body) = client.read_answer();
    assert_eq!(
        (head.status(), body.text().as_str(), body.end),
        (200, "{\"choices\":[]}", support::End::Whole)
    );
}
