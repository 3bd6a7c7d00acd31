//! A core is not stopped by its subscriptions, however many of them have work at once.
//!
//! The story: 300 subscriptions to one pattern and one new stream hung a core for good. 256 wakes may be under way; the worker
//! found the other 44 waiting, woke itself for them, found them waiting, and never let anything else run on its core, not even
//! the answers of the receivers that would have made room. After a restart it found the same and hung again, while `/livez`
//! said that all was well.

mod support;

use rustix::process::Signal;
use support::edge::scratch;
use support::subscriptions::{create, subscribe, to, webhook};
use support::{Edge, Upstream, Wire, answer, get};

/// More than may be under way at once.
const SUBSCRIPTIONS: usize = 300;

const UNDER_WAY: usize = 256;

/// Every wake that may be under way is, and no receiver answers yet.
fn take(receiver: &Upstream) -> Vec<Wire> {
    (0..UNDER_WAY).map(|_| webhook(receiver).0).collect()
}

#[track_caller]
fn is_served(edge: &Edge) {
    let (head, _) = edge.ask(&get("/livez", &["Connection: close"]));
    assert_eq!(head.status(), 200);
}

#[test]
fn more_wakes_than_may_be_under_way_do_not_stop_a_core_even_over_a_restart() {
    let (directory, receiver) = (scratch("many"), Upstream::listen());
    let directory = directory.to_str().expect("UTF-8");
    let mut edge = Edge::start(&["--data-dir", directory]);
    for number in 0..SUBSCRIPTIONS {
        subscribe(&edge, &format!("s-{number}"), &to(&receiver));
    }
    create(&edge, "events/a");
    let wires = take(&receiver);
    is_served(&edge);
    edge.signal(Signal::KILL);
    edge.wait_exit();
    drop(wires);

    let edge = Edge::start(&["--data-dir", directory]);
    let wires = take(&receiver);
    is_served(&edge);
    // Each that ends makes room for one of those that wait.
    for mut wire in wires {
        wire.send(answer("200 OK", &[], r#"{"done":true}"#));
    }
    for _ in UNDER_WAY..SUBSCRIPTIONS {
        let (mut wire, ..) = webhook(&receiver);
        wire.send(answer("200 OK", &[], r#"{"done":true}"#));
    }
    edge.wait_metric("sedge_webhooks_total", &["outcome=\"done\""], SUBSCRIPTIONS as f64);
    drop(edge);
    std::fs::remove_dir_all(directory).expect("remove");
}

/// The story: a receiver whose interim heads filled more than a block, and then went on, made the client that reads them panic.
/// Each such webhook kept its place among the 256 for good: after as many of them no webhook was sent any more.
#[test]
fn a_webhook_gives_its_place_back_however_it_ends() {
    let (edge, hostile, receiver) = (Edge::start(&[]), Upstream::listen(), Upstream::listen());
    for number in 0..UNDER_WAY {
        subscribe(&edge, &format!("hostile-{number}"), &to(&hostile));
    }
    create(&edge, "events/a");
    let mut wires = take(&hostile);
    // Those that come again find nobody.
    drop(hostile);
    let head = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(1000));
    for wire in &mut wires {
        wire.send(head.repeat(20));
    }
    // All of that has been read when this is answered, for one core does both.
    is_served(&edge);
    is_served(&edge);
    for wire in &mut wires {
        let _ = wire.try_send(&head);
    }
    drop(wires);
    let mut settings = to(&receiver);
    settings["pattern"] = "others/*".into();
    subscribe(&edge, "honest", &settings);
    create(&edge, "others/a");
    let (mut wire, ..) = webhook(&receiver);
    wire.send(answer("200 OK", &[], r#"{"done":true}"#));
    edge.wait_metric("sedge_webhooks_total", &["outcome=\"done\""], 1.0);
}
