//! Where a route commits at the first content, a stream that has begun and said nothing can still go elsewhere; what is passed on
//! is passed on unchanged.

mod support;

use support::{Edge, End, LAST_CHUNK, SSE_HEAD, Upstream, Wire, answer, chunk, post, stream_request};

const RETRIES: &str = "sedge_upstream_retries_total";

const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const WORD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const ERROR: &str =
    "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"x\",\"param\":null,\"code\":null}}\n\n";

struct Scene {
    a: Upstream,
    b: Upstream,
    edge: Edge,
}

impl Scene {
    fn new(keys: &str) -> Scene {
        let (a, b) = (Upstream::listen(), Upstream::listen());
        let edge = Edge::configured(&format!(
            "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n[[upstream]]\nname = \"b\"\nurl = \"{}\"\n\n\
             [[route]]\nupstreams = [{{ name = \"a\", weight = 1000000 }}, {{ name = \"b\", weight = 1 }}]\n\
             commit = \"first_content\"\n{keys}\n",
            a.url(),
            b.url()
        ));
        Scene { a, b, edge }
    }

    /// A stream that `a` has begun with these events, each in a chunk.
    fn begun(&self, events: &[&str]) -> (Wire, Wire) {
        let mut client = self.edge.connect();
        client.send(stream_request());
        let mut peer = self.a.accept();
        let head = peer.read_head();
        peer.read_request_body(&head);
        peer.send(SSE_HEAD);
        events.iter().for_each(|event| peer.send(chunk(event)));
        (client, peer)
    }

    fn b_answers(&self, client: &mut Wire) {
        let mut peer = self.b.accept();
        let head = peer.read_head();
        peer.read_request_body(&head);
        let wire = [SSE_HEAD, &chunk(ROLE), &chunk(WORD), &chunk(DONE), LAST_CHUNK].concat();
        peer.send(wire);
        let (head, body) = client.read_answer();
        assert_eq!((head.status(), body.end), (200, End::Whole));
        assert_eq!(body.text(), [ROLE, WORD, DONE].concat());
    }
}

#[test]
fn an_error_inside_a_200_goes_to_another() {
    let scene = Scene::new("");
    let (mut client, _peer) = scene.begun(&[": PROCESSING\n\n", ROLE, ERROR]);
    scene.b_answers(&mut client);
    scene.edge.wait_metric(RETRIES, &["reason=\"error\""], 1.0);
    let line = scene.edge.stdout().wait_for("\"tried\"");
    assert!(line.contains("\"tried\":\"a: error\""), "{line}");
}

#[test]
fn a_break_or_silence_before_the_first_word_goes_to_another() {
    for (end, reason) in
        [("close", "closed"), ("reset", "closed"), ("silence", "silence"), ("lie", "invalid")]
    {
        // The other one has this time for its answer as well.
        let silence = if end == "silence" { "2s" } else { "1h" };
        let scene = Scene::new(&format!("timeouts = {{ first_byte = \"{silence}\" }}"));
        let (mut client, mut peer) = scene.begun(&[ROLE]);
        let _held = match end {
            "close" => {
                peer.close();
                None
            }
            "reset" => {
                peer.reset();
                None
            }
            "lie" => {
                peer.send("xyz\r\n");
                Some(peer)
            }
            _ => Some(peer),
        };
        scene.b_answers(&mut client);
        scene.edge.wait_metric(RETRIES, &[&format!("reason=\"{reason}\"")], 1.0);
    }
}

#[test]
fn what_was_held_leaves_with_the_first_word_as_it_was() {
    let scene = Scene::new("");
    let (mut client, mut peer) = scene.begun(&[": a comment\n\n", ROLE]);
    scene.edge.settle();
    assert!(client.is_silent());
    // The word itself in two pieces: nothing leaves before its line is whole.
    let word = chunk(WORD);
    peer.send(&word[..30]);
    scene.edge.settle();
    assert!(client.is_silent());
    peer.send(&word[30..]);
    let head = client.read_head();
    assert_eq!(head.status(), 200);
    let held = [": a comment\n\n", ROLE, WORD].concat();
    assert_eq!(client.read_chunks(held.len()), held.as_bytes());
    // From here on it is a stream like any other.
    peer.send(chunk(ERROR));
    assert_eq!(client.read_chunk(), ERROR.as_bytes());
    peer.send([chunk(DONE), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_body(&head).text(), DONE);
    assert_eq!(scene.edge.upstream_connections(), 1.0);
}

#[test]
fn without_anybody_else_an_error_is_passed_on_as_it_is() {
    let scene = Scene::new("retry = { attempts = 1 }");
    let (mut client, mut peer) = scene.begun(&[ROLE, ERROR]);
    peer.send([chunk(DONE), LAST_CHUNK.to_vec()].concat());
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), body.text()), (200, [ROLE, ERROR, DONE].concat()));
}

#[test]
fn no_more_is_held_than_may_be() {
    let scene = Scene::new("");
    let comment = format!(": {}\n\n", "x".repeat(9_997));
    let (mut client, mut peer) = scene.begun(&[comment.as_str(); 8]);
    let head = client.read_head();
    peer.send([chunk(DONE), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_body(&head).text(), comment.repeat(8) + DONE);
}

#[test]
fn what_is_neither_a_stream_nor_a_document_is_not_held() {
    let scene = Scene::new("");
    let mut client = scene.edge.connect();
    client.send(post("/v1/audio/speech", &[], "{\"model\":\"m\"}"));
    let mut peer = scene.a.accept();
    let head = peer.read_head();
    peer.read_request_body(&head);
    let wire = answer("200 OK", &["Content-Type: audio/mpeg"], "{\"error\":{}}");
    peer.send(&wire[..wire.len() - 2]);
    let head = client.read_head();
    peer.send(&wire[wire.len() - 2..]);
    assert_eq!(client.read_body(&head).text(), "{\"error\":{}}");
}
