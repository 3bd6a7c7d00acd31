//! Connections are kept on both sides, and counted on neither twice: many requests need few of them, and one that is at work is not
//! idle.

mod support;

use std::thread;

use support::{Edge, End, LAST_CHUNK, OUTCOMES, Upstream, answer, chunk, config, get, post, streaming};

/// An upstream whose connections are kept for longer than a test takes.
fn kept(url: &str) -> String {
    format!("[[upstream]]\nurl = \"{url}\"\npool_idle_timeout = \"1h\"\n")
}

const CLIENTS: usize = 16;
const REQUESTS: usize = 50;

/// A connection of a pool that is given to two, or forgotten, shows under load alone: each client must get its own answer, and no
/// more connections may be opened than requests ever were on their way at once.
#[test]
fn many_requests_need_no_more_connections_than_clients() {
    let upstream = Upstream::serve(|head, body| {
        answer("200 OK", &[], format!("{} {}", head.get("x-client").unwrap_or_default(), body.text()))
    });
    let edge = Edge::configured(&kept(&upstream.url()));
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let edge = &edge;
            scope.spawn(move || {
                let (mut wire, own) = (edge.connect(), format!("X-Client: {client}"));
                for number in 0..REQUESTS {
                    let body = format!("{{\"n\":{number}}}");
                    wire.send(post("/v1/embeddings", &[&own], &body));
                    let (head, answer) = wire.read_answer();
                    assert_eq!((head.status(), answer.text()), (200, format!("{client} {body}")));
                    assert!(!head.has("connection"), "{head:?}");
                }
            });
        }
    });
    let all = (CLIENTS * REQUESTS) as f64;
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], all);
    let opened = edge.upstream_connections();
    let reused = edge.metric("sedge_upstream_connections_reused_total", &[]);
    assert!(opened <= CLIENTS as f64, "{opened} connections for {CLIENTS} requests at once");
    assert_eq!(opened + reused, all);
    assert_eq!(upstream.requests().len(), CLIENTS * REQUESTS);
}

#[test]
fn a_connection_at_work_is_not_idle() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::timeouts(&upstream.url(), &[("keep_alive", "500ms")]));
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    // By the time that a connection is closed which has been idle since.
    let mut idle = edge.connect();
    idle.send(get("/livez", &[]));
    assert_eq!(idle.read_answer().0.status(), 200);
    assert_eq!(idle.wait_closed(), End::Closed);
    edge.settle();
    assert!(client.is_silent());
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
    client.read_last_chunk();
    // From now on it is, and goes without a word.
    assert_eq!(client.wait_closed(), End::Closed);
    edge.wait_metric("sedge_connections_open", &[], 0.0);
}
