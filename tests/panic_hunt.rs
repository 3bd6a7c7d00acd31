//! No byte that an upstream or the receiver of a webhook sends, in whatever pieces, makes sedge panic.
//!
//! The story: an upstream sent more than 16 KiB of interim responses (103 Early Hints), paused, and sent one more. The search for
//! the end of the head indexed beyond a fresh buffer, and the request's task died: its client saw a closed connection instead of
//! a response. A receiver of webhooks could do the same, and its delivery was never tried again.

mod support;

use support::bytes::{Random, response, send_in_pieces, wait_read};
use support::subscriptions::{create, json, subscribe, to, webhook};
use support::{Edge, Upstream, Wire, answer, get, post, relayed, stream_request, wait_until};

const HINT_BYTES: usize = 600;

/// Interim responses of [`HINT_BYTES`] each.
fn hints(count: usize) -> String {
    let fields = "HTTP/1.1 103 Early Hints\r\nLink: \r\n\r\n".len();
    format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "a".repeat(HINT_BYTES - fields)).repeat(count)
}

/// More than a block of them, and each read before the next comes.
fn send_hints(peer: &mut Wire) {
    for _ in 0..3 {
        peer.send(hints(30));
        wait_read(peer);
    }
}

/// Nothing has panicked, and the edge serves.
#[track_caller]
fn is_well(edge: &Edge, upstream: &Upstream) {
    let lines = edge.stderr().all();
    assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:#?}");
    let metrics = edge.metrics();
    assert!(metrics.contains("\nsedge_panics_total 0\n"), "{metrics}");
    let (mut client, mut peer, ..) = relayed(edge, upstream, &get("/v1/well", &[]));
    peer.send(answer("200 OK", &[], "well"));
    assert_eq!(client.read_answer().1.text(), "well");
}

#[test]
fn interim_responses_beyond_a_block_disturb_nothing() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
    send_hints(&mut peer);
    peer.send(answer("200 OK", &[], "{}"));
    let (head, body) = client.read_answer();
    assert_eq!((head.status(), body.text().as_str()), (200, "{}"));
    drop(peer);
    drop(client);
    is_well(&edge, &upstream);
}

#[test]
fn a_flood_of_interim_responses_is_a_502() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    // By number, and by bytes.
    for flood in [hints(3000), "HTTP/1.1 100 Continue\r\n\r\n".repeat(101)] {
        let (mut client, mut peer, ..) = relayed(&edge, &upstream, &stream_request());
        for piece in flood.as_bytes().chunks(10 * HINT_BYTES) {
            if peer.try_send(piece).is_err() {
                break;
            }
            wait_read(&peer);
        }
        let (head, body) = client.read_answer();
        assert_eq!(
            (head.status(), support::error_code(&body.bytes()).as_str()),
            (502, "upstream_invalid_response")
        );
        assert!(body.text().contains("interim responses"), "{}", body.text());
        peer.wait_closed();
    }
    is_well(&edge, &upstream);
}

#[test]
fn a_webhook_whose_receiver_floods_has_failed_and_comes_again() {
    let (edge, receiver) = (Edge::start(&[]), Upstream::listen());
    subscribe(&edge, "s", &to(&receiver));
    create(&edge, "events/a");
    let (mut wire, _, first) = webhook(&receiver);
    send_hints(&mut wire);
    // One hundred and one in all.
    let _ = wire.try_send(hints(11));
    let (mut wire, _, again) = webhook(&receiver);
    assert_eq!(json(&again)["wake_id"], json(&first)["wake_id"]);
    send_hints(&mut wire);
    wire.send(answer("200 OK", &[], r#"{"done":true}"#));
    edge.wait_metric("sedge_webhooks_total", &["outcome=\"done\""], 1.0);
    assert_eq!(edge.metric("sedge_webhooks_total", &["outcome=\"failed\""]), 1.0);
    assert!(edge.metrics().contains("\nsedge_panics_total 0\n"));
}

/// Answers the next request with what no upstream should say, in any pieces.
fn answer_badly(upstream: &Upstream, random: &mut Random) {
    let mut peer = upstream.accept();
    let head = peer.read_head();
    peer.read_request_body(&head);
    let wire = response(random);
    send_in_pieces(&mut peer, &wire, random);
    if random.one_in(2) { peer.reset() } else { peer.close() }
}

#[test]
fn no_response_of_an_upstream_makes_it_panic() {
    let [one, two] = [Upstream::listen(), Upstream::listen()];
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"one\"\nurl = \"{}\"\nmax_idle = 0\nbreaker = false\n\n\
         [[upstream]]\nname = \"two\"\nurl = \"{}\"\nmax_idle = 0\nbreaker = false\n\n\
         [[route]]\nmodels = [\"held\"]\nupstreams = [\"one\"]\ncommit = \"first_content\"\n\n\
         [[route]]\nmodels = [\"*\"]\nupstreams = [\"one\"]\n\n\
         [timeouts]\nfirst_byte = \"5s\"\nidle = \"5s\"\n",
        one.url(),
        two.url(),
    ));
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut client = edge.connect();
        let close = ["Connection: close"];
        let request = match random.below(7) {
            1 => b"HEAD /v1/files HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n".to_vec(),
            2 => get("/v1/files", &close),
            3 => post(
                "/v1/chat/completions",
                &["Connection: close", "Sedge-Durable: true"],
                r#"{"model":"m","stream":true}"#,
            ),
            4 | 5 => post("/v1/chat/completions", &close, r#"{"model":"held","stream":true}"#),
            6 => b"GET /v1/files HTTP/1.0\r\n\r\n".to_vec(),
            _ => post("/v1/chat/completions", &close, r#"{"model":"m","stream":true}"#),
        };
        client.send(request);
        answer_badly(&one, &mut random);
        // However it ends, it ends.
        client.read_to_close();
        let lines = edge.stderr().all();
        assert!(!lines.iter().any(|line| line.contains("panicked")), "seed {seed}: {lines:#?}");
    }
    edge.wait_metric("sedge_requests_open", &[], 0.0);
    is_well(&edge, &one);
}

#[test]
fn no_list_of_models_makes_it_panic() {
    let [one, two] = [Upstream::listen(), Upstream::listen()];
    for seed in 0..12 {
        let mut random = Random(seed);
        // Another one each time: an upstream that gave no list is left alone for a while.
        let edge = Edge::configured(&format!(
            "[[upstream]]\nurl = \"{}\"\n\n[[upstream]]\nurl = \"{}\"\n\n[timeouts]\nfirst_byte = \"5s\"\n",
            one.url(),
            two.url(),
        ));
        let mut client = edge.connect();
        client.send(get("/v1/models", &["Connection: close"]));
        answer_badly(&one, &mut random);
        answer_badly(&two, &mut random);
        client.read_to_close();
        let lines = edge.stderr().all();
        assert!(!lines.iter().any(|line| line.contains("panicked")), "seed {seed}: {lines:#?}");
    }
}

#[test]
fn no_response_of_a_receiver_makes_it_panic() {
    const SUBSCRIPTIONS: u64 = 30;
    let (edge, receiver) = (Edge::start(&[]), Upstream::listen());
    for id in 0..SUBSCRIPTIONS {
        subscribe(&edge, &format!("s{id}"), &to(&receiver));
    }
    create(&edge, "events/a");
    for seed in 0..SUBSCRIPTIONS {
        let mut random = Random(seed);
        let (mut wire, ..) = webhook(&receiver);
        let bytes = response(&mut random);
        send_in_pieces(&mut wire, &bytes, &mut random);
        if random.one_in(2) { wire.reset() } else { wire.close() }
    }
    wait_until("each has an outcome", || edge.metric("sedge_webhooks_total", &[]) >= SUBSCRIPTIONS as f64);
    let lines = edge.stderr().all();
    assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:#?}");
    assert!(edge.metrics().contains("\nsedge_panics_total 0\n"));
}
