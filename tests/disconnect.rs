//! Where a route says `on_disconnect = "drain"`, an upstream is read to its end though the client has left, for a while, and
//! what it used is counted. (That it is cancelled otherwise is a promise of `endings`.)

mod support;

use support::{
    Edge, LAST_CHUNK, OUTCOMES, SSE_HEAD, Upstream, Wire, answer, chunk, get, relayed, stream_request,
    streaming,
};

const DRAINED: &str = "sedge_answers_drained_total";
const ABANDONED: &str = "sedge_answers_abandoned_total";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5,\"total_tokens\":8}}\n\n";

fn edge(upstream: &Upstream, how: &str) -> Edge {
    let url = upstream.url();
    Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{url}\"\n\n[[route]]\non_disconnect = {how}\n"
    ))
}

/// The upstream's connection carries the next request: its answer was read to its end.
fn goes_on(edge: &Edge, mut peer: Wire) {
    let mut client = edge.connect();
    client.send(get("/v1/files", &[]));
    assert!(peer.read_head().start.starts_with("GET /v1/files"));
    peer.send(answer("200 OK", &[], "{}"));
    assert_eq!(client.read_answer().1.text(), "{}");
}

#[test]
fn a_stream_is_read_to_its_end_and_its_usage_counted() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream, "\"drain\"");
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    peer.send(chunk("data: a\n\n"));
    assert_eq!(client.read_chunk(), b"data: a\n\n");
    client.close();
    edge.wait_metric(ABANDONED, &[], 1.0);
    // More than any socket holds: somebody reads it.
    let event = chunk(format!("data: {}\n\n", "x".repeat(60_000)));
    (0..200).for_each(|_| peer.send(&event));
    peer.send([chunk(USAGE), chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    edge.wait_metric(DRAINED, &[], 1.0);
    edge.wait_metric(OUTCOMES, &["outcome=\"client_gone\""], 1.0);
    let line = edge.stdout().wait_for("client_gone");
    assert!(line.contains("\"completion_tokens\":5"), "{line}");
    edge.wait_metric(support::STREAMS, &[], 0.0);
    goes_on(&edge, peer);
}

#[test]
fn so_is_an_answer_that_had_not_begun() {
    for whole in [true, false] {
        let upstream = Upstream::listen();
        let edge = edge(&upstream, "\"drain\"");
        let (client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
        client.close();
        edge.wait_metric(ABANDONED, &[], 1.0);
        let rest = [chunk(USAGE), chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat();
        if whole {
            peer.send([SSE_HEAD, &rest].concat());
        } else {
            peer.send([SSE_HEAD, &chunk("data: a\n\n")].concat());
            peer.send(rest);
        }
        let line = edge.stdout().wait_for("\"completion_tokens\":5");
        assert!(line.contains("\"outcome\":\"client_gone\""), "{line}");
        edge.wait_metric(DRAINED, &[], 1.0);
        goes_on(&edge, peer);
    }
}

#[test]
fn it_takes_no_longer_than_the_route_allows() {
    for begun in [true, false] {
        let upstream = Upstream::listen();
        let edge = edge(&upstream, "{ drain = \"200ms\" }");
        let (client, mut peer) = if begun {
            let (client, peer, _) = streaming(&edge, &upstream);
            (client, peer)
        } else {
            let (client, peer, ..) = relayed(&edge, &upstream, &stream_request());
            (client, peer)
        };
        client.close();
        // Every other limit is minutes away.
        peer.wait_closed();
        assert!(edge.metric(DRAINED, &[]).abs() < f64::EPSILON);
    }
}
