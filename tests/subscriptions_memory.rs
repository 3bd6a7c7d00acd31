//! Subscriptions take no more memory than streams may.
//!
//! The story: 400 subscriptions to the same few thousand streams took 1.86 GiB of a process that was told to keep to 16 MiB, for
//! only what streams hold was counted.

mod support;

use serde_json::{Value, json};
use support::streams::request;
use support::subscriptions::{ask, create, pull, subscribe, subscription, to, webhook};
use support::{Edge, Upstream};

const MEMORY: f64 = (16 << 20) as f64;

const STREAMS: usize = 4000;

fn all() -> Value {
    let mut settings = pull();
    settings["pattern"] = "a/*".into();
    settings
}

/// Streams, in pipelined requests.
fn create_streams(edge: &Edge) {
    let mut client = edge.connect();
    let numbers: Vec<usize> = (0..STREAMS).collect();
    for part in numbers.chunks(100) {
        let put = |n: &usize| request("PUT", &format!("/v1/stream/a/{n}"), &["Content-Type: text/plain"], "");
        client.send(part.iter().flat_map(put).collect::<Vec<u8>>());
        for _ in part {
            assert_eq!(client.read_answer().0.status(), 201);
        }
    }
}

#[test]
fn what_subscriptions_hold_is_counted_refused_and_given_back() {
    let edge = Edge::configured("[streams]\nmemory = \"16MiB\"\n");
    let memory = || edge.metric("sedge_durable_memory_bytes", &[]);
    create_streams(&edge);
    let streams_alone = memory();
    let put = |n: usize| ask(&edge, "PUT", &subscription(&n.to_string()), &[], &all().to_string());
    let refused = (0..400).find(|n| put(*n).0.status() != 201).expect("there is an end");
    let (head, body) = put(refused);
    assert_eq!((head.status(), &body["error"]["code"]), (503, &json!("streams_full")), "{body}");
    assert!(refused > 1 && memory() <= MEMORY, "{refused} subscriptions, {} bytes", memory());
    let own = edge.metric("sedge_subscriptions_memory_bytes", &[]);
    assert_eq!(streams_alone + own, memory());
    assert!(own > (refused * STREAMS * 256) as f64, "{own}");
    // One that is there can be neither widened, nor is anything of it half done.
    let names: Vec<String> = (0..9999).map(|n| format!("named/{n:080}")).collect();
    let last = subscription("small");
    subscribe(&edge, "small", &json!({ "type": "pull-wake", "streams": ["named/x"], "wake_stream": "w" }));
    let (head, _) =
        ask(&edge, "POST", &format!("{last}/streams"), &[], &json!({ "streams": names }).to_string());
    assert_eq!(head.status(), 503);
    let (_, shown) = ask(&edge, "GET", &last, &[], "");
    assert_eq!(shown["streams"].as_array().map(Vec::len), Some(1));
    // What is deleted makes room again.
    for n in 0..refused {
        assert_eq!(ask(&edge, "DELETE", &subscription(&n.to_string()), &[], "").0.status(), 204);
    }
    assert_eq!(ask(&edge, "DELETE", &last, &[], "").0.status(), 204);
    assert_eq!(memory(), streams_alone);
    assert_eq!(put(refused).0.status(), 201);
}

#[test]
fn a_webhook_that_waits_is_counted_until_it_is_over() {
    let (edge, receiver) = (Edge::start(&[]), Upstream::listen());
    let memory = || edge.metric("sedge_durable_memory_bytes", &[]);
    subscribe(&edge, "s", &to(&receiver));
    create(&edge, "events/a");
    let (mut wire, _, body) = webhook(&receiver);
    let waiting = memory();
    wire.send(support::answer("200 OK", &[], r#"{"done":true}"#));
    edge.wait_metric("sedge_webhooks_total", &["outcome=\"done\""], 1.0);
    support::wait_until("it is given back", || waiting - memory() >= body.bytes().len() as f64);
}
