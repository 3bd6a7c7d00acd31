//! SIGHUP takes up a configuration whole or not at all; SIGTERM lets what is in flight finish; a second one does not wait.

mod support;

use rustix::process::Signal;
use support::{Edge, LAST_CHUNK, Upstream, Wire, answer, chunk, config, get, post, relayed, streaming};

fn ask(edge: &Edge) -> String {
    edge.ask(&post("/v1/chat/completions", &[], r#"{"model":"m","messages":[]}"#)).1.text()
}

#[test]
fn a_reload_applies_to_the_next_request() {
    let one = Upstream::serve(|_, _| answer("200 OK", &[], "one"));
    let two = Upstream::serve(|_, _| answer("200 OK", &[], "two"));
    let edge = Edge::configured(&config::routes(&[("*", &one.url())]));
    assert_eq!(ask(&edge), "one");
    edge.rewrite_config(&config::routes(&[("*", &two.url())]));
    edge.signal(Signal::HUP);
    edge.stderr().wait_for("reloaded");
    assert_eq!(ask(&edge), "two");
}

#[test]
fn a_stream_in_flight_outlives_a_reload() {
    let (upstream, other) = (Upstream::listen(), Upstream::listen());
    let edge = Edge::configured(&config::routes(&[("*", &upstream.url())]));
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    edge.rewrite_config(&config::routes(&[("*", &other.url())]));
    edge.signal(Signal::HUP);
    edge.stderr().wait_for("reloaded");
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
    client.read_last_chunk();
}

#[test]
fn a_bad_file_changes_nothing_and_says_where() {
    let one = Upstream::serve(|_, _| answer("200 OK", &[], "one"));
    let edge = Edge::configured(&config::routes(&[("*", &one.url())]));
    for (number, bad) in ["no_such_key = 1\n", "not toml", "listen = 7\n"].iter().enumerate() {
        edge.rewrite_config(&format!("# the first line is fine\n{bad}"));
        edge.signal(Signal::HUP);
        edge.stderr().wait_for_nth("sedge.toml:2", number);
        assert_eq!(ask(&edge), "one", "after {bad:?}");
    }
}

#[test]
fn sigterm_drains() {
    for signal in [Signal::TERM, Signal::INT] {
        let upstream = Upstream::listen();
        let mut edge = Edge::to(&upstream);
        let (mut client, mut peer, _) = streaming(&edge, &upstream);
        let mut idle = edge.connect();
        let (head, _) = edge.ask_admin("/readyz");
        assert_eq!(head.status(), 200);
        edge.signal(signal);
        // An idle connection is closed, which also tells that the drain has begun.
        let rest = idle.read_to_close();
        assert_eq!(rest.text(), "");
        assert_eq!(edge.ask_admin("/readyz").0.status(), 503);
        assert_eq!(edge.ask_admin("/livez").0.status(), 200);
        peer.send(chunk("data: a\n\n"));
        assert_eq!(client.read_chunk(), b"data: a\n\n");
        peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
        assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
        client.read_last_chunk();
        client.wait_closed();
        assert_eq!(edge.wait_exit().code(), Some(0));
    }
}

#[test]
fn an_answer_during_the_drain_says_that_the_connection_ends() {
    let upstream = Upstream::listen();
    let mut edge = Edge::to(&upstream);
    let mut idle = edge.connect();
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    edge.signal(Signal::TERM);
    idle.wait_closed();
    peer.send(answer("200 OK", &[], "{}"));
    let (head, body) = client.read_answer();
    assert_eq!((head.get("connection"), body.text().as_str()), (Some("close"), "{}"));
    client.wait_closed();
    assert_eq!(edge.wait_exit().code(), Some(0));
}

#[test]
fn no_new_connection_is_taken_during_a_drain() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (_client, _peer, _) = streaming(&edge, &upstream);
    let mut idle = edge.connect();
    edge.signal(Signal::TERM);
    idle.wait_closed();
    if let Ok(stream) = std::net::TcpStream::connect(edge.addr()) {
        // Between the signal and the closing of a listener the kernel may still complete a handshake; nobody answers.
        let mut late = Wire::new(stream);
        let _ = late.try_send(get("/v1/models", &[]));
        assert!(late.try_read_head().is_err(), "a new connection was served");
    }
}

/// The listener closed with the signal, while load balancers still sent new clients: these found a closed port.
#[test]
fn new_connections_are_served_until_load_balancers_know() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&format!(
        "drain_delay = \"10m\"\n{}",
        config::drain_timeout(&upstream.url(), "60s")
    ));
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    let mut idle = edge.connect();
    edge.signal(Signal::TERM);
    edge.stderr().wait_for("new connections are served for 600 s more");
    assert_eq!(edge.ask_admin("/readyz").0.status(), 503);
    assert_eq!(edge.ask(&get("/readyz", &[])).0.status(), 503);
    assert_eq!(edge.ask(&get("/livez", &[])).0.status(), 200);
    let (mut late, mut late_peer, ..) = relayed(&edge, &upstream, &get("/v1/models", &[]));
    late_peer.send(answer("200 OK", &[], "{}"));
    assert_eq!(late.read_answer().0.status(), 200);
    idle.send(get("/livez", &[]));
    assert_eq!(idle.read_answer().0.status(), 200);
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
    client.read_last_chunk();
}

#[test]
fn after_the_delay_a_drain_is_one() {
    let upstream = Upstream::listen();
    let mut edge = Edge::configured(&format!(
        "drain_delay = \"100ms\"\n{}",
        config::drain_timeout(&upstream.url(), "60s")
    ));
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    let mut idle = edge.connect();
    edge.signal(Signal::TERM);
    idle.wait_closed();
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
    client.read_last_chunk();
    assert_eq!(edge.wait_exit().code(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait_for_the_delay() {
    let upstream = Upstream::listen();
    let mut edge = Edge::configured(&format!(
        "drain_delay = \"10m\"\n{}",
        config::drain_timeout(&upstream.url(), "60s")
    ));
    edge.signal(Signal::TERM);
    edge.stderr().wait_for("new connections are served for");
    edge.signal(Signal::INT);
    edge.wait_exit();
}

#[test]
fn a_second_signal_stops_at_once() {
    let upstream = Upstream::listen();
    let mut edge = Edge::to(&upstream);
    let (mut client, _peer, head) = streaming(&edge, &upstream);
    let mut idle = edge.connect();
    edge.signal(Signal::TERM);
    idle.wait_closed();
    edge.signal(Signal::TERM);
    edge.wait_exit();
    assert_ne!(client.read_body(&head).end, support::End::Whole, "a cut stream has no last chunk");
}

#[test]
fn a_drain_that_takes_too_long_cuts_what_is_left() {
    let upstream = Upstream::listen();
    let mut edge = Edge::configured(&config::drain_timeout(&upstream.url(), "300ms"));
    let (mut client, mut peer, head) = streaming(&edge, &upstream);
    edge.signal(Signal::TERM);
    assert_ne!(client.read_body(&head).end, support::End::Whole, "a cut stream has no last chunk");
    peer.wait_closed();
    edge.wait_exit();
}
