//! Two hundred streams live through reloads and a drain: every one is whole, and every one has the same bytes.

mod support;

use rustix::process::Signal;
use support::{Edge, post};

const STREAMS: usize = 200;

#[test]
fn no_stream_is_lost_to_a_reload_or_a_drain() {
    let mut edge = Edge::configured("heartbeat = \"200ms\"\ndrain_timeout = \"1h\"\naccess_log = \"off\"\n");
    let knobs = ["x-sim-events: 60", "x-sim-interval-ms: 20"];
    let request = post("/v1/chat/completions", &knobs, r#"{"model":"m","stream":true,"messages":[]}"#);
    let mut clients: Vec<_> = (0..STREAMS).map(|_| edge.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&request));
    let heads: Vec<_> = clients.iter_mut().map(|client| client.read_head()).collect();
    assert!(heads.iter().all(|head| head.status() == 200));
    for nth in 0..5 {
        edge.signal(Signal::HUP);
        edge.stderr().wait_for_nth("configuration reloaded", nth);
    }
    edge.signal(Signal::TERM);
    edge.stderr().wait_for("draining");
    let readers = clients.into_iter().zip(heads).map(|(mut client, head)| {
        std::thread::spawn(move || {
            let body = client.read_body(&head);
            client.wait_closed();
            body.text()
        })
    });
    let bodies: Vec<String> =
        readers.collect::<Vec<_>>().into_iter().map(|reader| reader.join().unwrap()).collect();
    // Heartbeats may stand between two events; nothing else may differ.
    let events = |body: &String| {
        let events: Vec<&str> = body.split("\n\n").map(|event| event.trim_start_matches(":\n")).collect();
        events.join("\n\n")
    };
    let first = events(&bodies[0]);
    assert!(first.ends_with("data: [DONE]\n\n"), "{first}");
    assert_eq!(first.matches("data: ").count(), 1 + 60 + 1 + 1);
    assert!(bodies.iter().all(|body| events(body) == first));
    assert_eq!(edge.wait_exit().code(), Some(0));
}
