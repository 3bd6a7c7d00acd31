//! A second upstream is asked when the first is slow; whoever has content first wins, and the other is cancelled at once.

mod support;

use support::{
    Edge, End, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, Wire, answer, chunk, post, stream_request,
};

const HEDGES: &str = "sedge_hedges_total";
const WON: &str = "sedge_hedges_won_total";

const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const WORD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

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
             [[route]]\nbalance = \"first\"\n{keys}\n",
            a.url(),
            b.url()
        ));
        Scene { a, b, edge }
    }

    /// A request that both have been sent: the client, `a` and `b`.
    fn hedged(&self, request: &[u8], body: &str) -> (Wire, Wire, Wire) {
        let mut client = self.edge.connect();
        client.send(request);
        let [a, b] = [&self.a, &self.b].map(|upstream| {
            let mut peer = upstream.accept();
            let head = peer.read_head();
            assert_eq!(peer.read_request_body(&head).text(), body);
            peer
        });
        (client, a, b)
    }
}

fn speaks(peer: &mut Wire) {
    peer.send([SSE_HEAD, &chunk(ROLE), &chunk(WORD), &chunk(DONE), LAST_CHUNK].concat());
}

#[track_caller]
fn hears(client: &mut Wire) {
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), body.text(), body.end), (200, [ROLE, WORD, DONE].concat(), End::Whole));
}

const SOON: &str = "hedge = { after = \"100ms\" }";

#[test]
fn the_second_wins_and_the_first_is_cancelled() {
    let scene = Scene::new(SOON);
    let (mut client, mut a, mut b) = scene.hedged(&stream_request(), STREAM_BODY);
    speaks(&mut b);
    hears(&mut client);
    a.wait_closed();
    scene.edge.wait_metric(WON, &[], 1.0);
    let line = scene.edge.stdout().wait_for("\"tried\"");
    assert!(line.contains("\"tried\":\"a: slow\"") && line.contains("\"upstream\":\"b\""), "{line}");
    assert!(line.contains("\"attempts\":2"), "{line}");
}

#[test]
fn the_first_wins_and_the_second_is_cancelled_whatever_it_has_announced() {
    let scene = Scene::new(SOON);
    let (mut client, mut a, mut b) = scene.hedged(&stream_request(), STREAM_BODY);
    b.send([SSE_HEAD, &chunk(ROLE)].concat());
    scene.edge.settle();
    assert!(client.is_silent());
    speaks(&mut a);
    hears(&mut client);
    b.wait_closed();
    scene.edge.wait_metric(HEDGES, &[], 1.0);
    assert!(scene.edge.metric(WON, &[]).abs() < f64::EPSILON);
}

#[test]
fn one_that_fails_leaves_it_to_the_other() {
    let scene = Scene::new(SOON);
    for first in [true, false] {
        let (mut client, mut a, mut b) = scene.hedged(&stream_request(), STREAM_BODY);
        if first {
            a.reset();
            scene.edge.settle();
            assert!(client.is_silent());
            speaks(&mut b);
        } else {
            b.send([SSE_HEAD, &chunk("data: {\"error\":{}}\n\n")].concat());
            b.wait_closed();
            speaks(&mut a);
        }
        hears(&mut client);
        let tried = if first { "\"tried\":\"a: closed\"" } else { "\"tried\":\"b: error\"" };
        scene.edge.stdout().wait_for(tried);
    }
}

#[test]
fn an_answer_in_time_is_not_hedged() {
    let scene = Scene::new("hedge = { after = \"1h\" }");
    let mut client = scene.edge.connect();
    client.send(stream_request());
    let mut a = scene.a.accept();
    let head = a.read_head();
    a.read_request_body(&head);
    speaks(&mut a);
    hears(&mut client);
    assert_eq!(scene.edge.upstream_connections(), 1.0);
    assert_eq!(scene.edge.metric(HEDGES, &[]), 0.0);
}

#[test]
fn a_hedge_is_paid_from_the_budget() {
    let scene = Scene::new(&format!("{SOON}\nretry = {{ budget_percent = 0 }}"));
    let mut client = scene.edge.connect();
    client.send(stream_request());
    let mut a = scene.a.accept();
    let head = a.read_head();
    a.read_request_body(&head);
    scene.edge.wait_metric("sedge_upstream_retries_withheld_total", &["reason=\"budget\""], 1.0);
    assert_eq!(scene.edge.upstream_connections(), 1.0);
    speaks(&mut a);
    hears(&mut client);
}

#[test]
fn a_large_body_is_sent_whole_to_both() {
    let scene = Scene::new(SOON);
    let body = format!("{{\"model\":\"m\",\"input\":\"{}\"}}", "0123456789".repeat(30_000));
    let (mut client, mut a, mut b) = scene.hedged(&post("/v1/embeddings", &[], &body), &body);
    b.send(answer("200 OK", &[], "{}"));
    assert_eq!(client.read_answer().1.text(), "{}");
    a.wait_closed();
}

#[test]
fn the_delay_can_be_what_is_usual() {
    let scene = Scene::new("hedge = { after = \"p95\" }");
    let mut client = scene.edge.connect();
    client.send(stream_request());
    let mut peer = scene.a.accept();
    for turn in 0..20 {
        let head = peer.read_head();
        peer.read_request_body(&head);
        speaks(&mut peer);
        hears(&mut client);
        if turn < 19 {
            client.send(stream_request());
        }
    }
    // Twenty answers came at once: the next is late soon.
    client.send(stream_request());
    let head = peer.read_head();
    peer.read_request_body(&head);
    let mut b = scene.b.accept();
    let head = b.read_head();
    b.read_request_body(&head);
    speaks(&mut b);
    hears(&mut client);
    peer.wait_closed();
}
