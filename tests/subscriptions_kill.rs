//! Subscriptions over crashes: the process is killed at any moment while appends are made, webhooks sent and answered. What was
//! appended is worked off in the end, no cursor goes back, and no generation comes twice with another wake.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::edge::scratch;
use support::{Edge, Upstream, answer, get, wait_while_it_goes_on};

const ROUNDS: u64 = 10;
const PATHS: u64 = 5;

const SUBSCRIPTION: &str = "/v1/stream/__ds/subscriptions/s";

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The cursors, by path.
fn acked(edge: &Edge) -> BTreeMap<String, String> {
    let (head, body) = edge.ask(&get(SUBSCRIPTION, &["Connection: close"]));
    assert_eq!(head.status(), 200, "the subscription is there");
    let body: Value = serde_json::from_slice(&body.bytes()).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let streams = body["streams"].as_array().expect("streams").iter();
    streams.map(|stream| (text(&stream["path"]), text(&stream["acked_offset"]))).collect()
}

#[test]
fn a_crash_at_any_moment_loses_no_work_and_takes_no_word_back() {
    let directory = scratch("subscriptions-kill");
    let directory = directory.to_str().expect("UTF-8");
    // Each wake that a receiver has seen, by generation.
    let seen: Arc<Mutex<Vec<(u64, String)>>> = Arc::default();
    let receiver = {
        let seen = Arc::clone(&seen);
        Upstream::serve(move |_, body| {
            let wake: Value = serde_json::from_slice(&body.bytes()).expect("JSON");
            let generation = wake["generation"].as_u64().expect("a generation");
            let id = wake["wake_id"].as_str().expect("an id").to_owned();
            let mut seen = seen.lock().expect("no panic");
            seen.push((generation, id));
            // Mostly it does its work, and sometimes it fails.
            match support::chaos::mix(seen.len() as u64) % 16 {
                0 => answer("503 Service Unavailable", &[], ""),
                _ => answer("200 OK", &[], r#"{"done":true}"#),
            }
        })
    };
    let settings = json!({ "type": "webhook", "pattern": "events/*", "webhook": { "url": receiver.url() } });
    let mut before = BTreeMap::new();
    for round in 0..=ROUNDS {
        let mut edge = Edge::start(&["--data-dir", directory]);
        if round == 0 {
            let (head, body) = edge.ask(&request("PUT", SUBSCRIPTION, &settings.to_string()));
            assert_eq!(head.status(), 201, "{}", body.text());
        }
        let now = acked(&edge);
        for (path, was) in &before {
            assert!(
                now.get(path).is_some_and(|now| now >= was),
                "round {round}: {path} was at {was}: {now:?}"
            );
        }
        if round == ROUNDS {
            let tail = |path: &str| {
                let (head, _) = edge.ask(
                    b"HEAD /v1/stream/"
                        .iter()
                        .copied()
                        .chain(path.bytes())
                        .chain(b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".iter().copied())
                        .collect::<Vec<u8>>()
                        .as_slice(),
                );
                head.get("stream-next-offset").expect("an offset").to_owned()
            };
            wait_while_it_goes_on(
                "all is worked off",
                || acked(&edge),
                || {
                    let acked = acked(&edge);
                    acked.len() as u64 == PATHS && acked.iter().all(|(path, acked)| *acked == tail(path))
                },
            );
            continue;
        }
        let target = edge.addr();
        let publisher = thread::spawn(move || {
            // Until the process is gone.
            for n in 0.. {
                let path = format!("/v1/stream/events/{}", n % PATHS);
                let method = if round == 0 && n < PATHS { "PUT" } else { "POST" };
                let Ok(stream) = std::net::TcpStream::connect(target) else { return };
                let mut wire = support::Wire::new(stream);
                if wire.try_send(request(method, &path, r#"{"n":1}"#)).is_err()
                    || wire.try_read_head().is_err()
                {
                    return;
                }
            }
        });
        // Killed after so many webhooks of this round, whatever else is under way then.
        let wanted = seen.lock().expect("no panic").len() as u64 + 1 + support::chaos::mix(round) % 8;
        let sent = || seen.lock().expect("no panic").len() as u64;
        wait_while_it_goes_on("webhooks are sent", sent, || sent() >= wanted);
        before = acked(&edge);
        edge.signal(Signal::KILL);
        edge.wait_exit();
        publisher.join().expect("the publisher");
    }
    let seen = seen.lock().expect("no panic");
    let mut last = &seen[0];
    for next in seen.iter() {
        assert!(next.0 >= last.0, "the generation went back from {last:?} to {next:?}");
        assert_eq!(next.0 == last.0, next.1 == last.1, "one generation, one wake: {last:?}, {next:?}");
        last = next;
    }
    std::fs::remove_dir_all(directory).expect("remove");
}
