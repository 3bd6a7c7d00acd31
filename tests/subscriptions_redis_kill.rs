//! Subscriptions over crashes of nodes and of Redis: whichever of two nodes or Redis itself gets SIGKILL, at any moment, what was
//! appended is worked off in the end; no two workers hold one wake, no wakes share a generation, generations never go back, and no
//! cursor does.
//!
//! Publishers append to a few streams at either node. A webhook subscription and a pull-wake subscription have all of them; a
//! receiver mostly does its work and sometimes fails or calls back, and workers race, work, give up or vanish. After a random number
//! of finished wakes a node or Redis, which syncs what it acknowledges, is killed and comes back. A few rounds by default;
//! `SEDGE_KILL_ROUNDS` for more, `SEDGE_KILL_SEED` for others.

mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::chaos::mix;
use support::redis::Redis;
use support::subscriptions::{bearer, create, progress, subscribe, subscription};
use support::{Edge, Upstream, Wire, answer, wait_until, wait_while_it_goes_on};

const ROUNDS: u64 = 6;
const PATHS: u64 = 4;
const WORKERS: u64 = 3;

/// The most wakes that are finished between two kills.
const WAKES_MAX: u64 = 40;

#[derive(Debug, Default)]
struct Shared {
    /// Where the nodes are now.
    nodes: Mutex<[Option<SocketAddr>; 2]>,
    /// The wakes that receivers and workers have seen, by subscription and generation.
    wakes: Mutex<BTreeMap<(String, u64), String>>,
    /// The last generation that a worker has got.
    claimed: Mutex<u64>,
    /// Appends that were answered.
    appends: AtomicU64,
    /// Wakes that were finished.
    finished: AtomicU64,
    /// Webhooks that were received.
    received: AtomicU64,
    /// Leases that were left to end.
    vanished: AtomicU64,
    /// Answers that said that Redis could not be asked.
    refused: AtomicU64,
    over: AtomicBool,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// One request, to either node; none if it got no answer, or one that says that nothing is known.
    fn ask(&self, turn: u64, request: &[u8]) -> Option<(u16, Value)> {
        let node = self.nodes.lock().expect("the nodes")[(turn % 2) as usize]?;
        let mut wire = Wire::new(TcpStream::connect(node).ok()?);
        wire.try_send(request).ok()?;
        let head = wire.try_read_head().ok()?;
        let length: usize = head.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
        let body = match head.status() {
            204 => Vec::new(),
            _ => wire.read_exact(length),
        };
        if head.status() == 503 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some((head.status(), serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// A wake was seen: no other has its generation.
    fn saw(&self, id: &str, wake: &Value) {
        let generation = wake["generation"].as_u64().expect("a generation");
        let wake_id = wake["wake_id"].as_str().expect("an id").to_owned();
        let mut wakes = self.wakes.lock().expect("the wakes");
        let known = wakes.entry((id.to_owned(), generation)).or_insert_with(|| wake_id.clone());
        assert_eq!(*known, wake_id, "{id}: two wakes of generation {generation}");
    }

    /// How many wakes of a subscription were seen.
    fn seen(&self, id: &str) -> usize {
        self.wakes.lock().expect("the wakes").keys().filter(|(of, _)| of == id).count()
    }
}

fn request(method: &str, path: &str, token: Option<&Value>, body: &str) -> Vec<u8> {
    let token = token.map_or(String::new(), |token| format!("{}\r\n", bearer(token)));
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{token}\
         Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn publish(shared: &Shared, seed: u64) {
    for n in 0.. {
        if shared.is_over() {
            return;
        }
        // No faster than work is done, or there would never be an end of it.
        let path = format!("/v1/stream/events/{}", mix(seed + n) % PATHS);
        let before = shared.finished.load(Ordering::Acquire);
        let answered = shared.ask(n, &request("POST", &path, None, r#"{"n":1}"#));
        shared.appends.fetch_add(u64::from(answered.is_some()), Ordering::Relaxed);
        wait_until("a wake is finished", || {
            shared.is_over() || answered.is_none() || shared.finished.load(Ordering::Acquire) != before
        });
    }
}

/// Claims, works, and mostly says so.
fn work(shared: &Shared, seed: u64) {
    let door = |verb: &str| format!("{}/{verb}", subscription("pull"));
    let mut number = seed;
    while !shared.is_over() {
        number += 1;
        let random = mix(number);
        let before = *shared.claimed.lock().expect("the last one");
        let Some((status, wake)) =
            shared.ask(random, &request("POST", &door("claim"), None, r#"{"worker":"w"}"#))
        else {
            continue;
        };
        if status != 200 {
            assert_eq!(status, 409, "{wake}");
            continue;
        }
        let generation = wake["generation"].as_u64().expect("a generation");
        assert!(generation > before, "the generation went back, from {before} to {generation}");
        {
            // Whoever holds a wake is the only one who ever does.
            let taken = shared.wakes.lock().expect("the wakes").contains_key(&("pull".into(), generation));
            assert!(!taken, "generation {generation} was held twice");
            shared.saw("pull", &wake);
            let mut claimed = shared.claimed.lock().expect("the last one");
            *claimed = generation.max(*claimed);
        }
        let token = Some(&wake["token"]);
        match random >> 8 & 15 {
            // It is never heard of again.
            0 if !shared.is_over() => drop(shared.vanished.fetch_add(1, Ordering::Relaxed)),
            1 => {
                let body = json!({ "wake_id": wake["wake_id"], "generation": generation }).to_string();
                shared.ask(random >> 1, &request("POST", &door("release"), token, &body));
            }
            kind => {
                if kind == 2 {
                    let ack = progress(&wake, false);
                    shared.ask(random >> 2, &request("POST", &door("ack"), token, &ack));
                }
                let ack = progress(&wake, true);
                // At either node, until somebody has answered: then it is finished, or was before.
                for n in 0..20 {
                    if let Some((status, body)) = shared.ask(n, &request("POST", &door("ack"), token, &ack)) {
                        assert!(matches!(status, 200 | 409), "{status} {body}");
                        break;
                    }
                }
                shared.finished.fetch_add(1, Ordering::Release);
            }
        }
    }
}

/// What the receiver of webhooks does with one.
fn receive(shared: &Arc<Shared>, body: &[u8]) -> Vec<u8> {
    let wake: Value = serde_json::from_slice(body).expect("JSON");
    shared.saw("hooks", &wake);
    match mix(shared.received.fetch_add(1, Ordering::Relaxed) ^ 0x5eed) % 16 {
        0 => answer("503 Service Unavailable", &[], ""),
        1 | 2 => {
            // It is taken, and worked off by somebody else.
            let shared = Arc::clone(shared);
            thread::spawn(move || {
                let door = format!("{}/callback", subscription("hooks"));
                let done = request("POST", &door, Some(&wake["callback_token"]), &progress(&wake, true));
                let _ = (0..20).any(|turn| shared.ask(turn, &done).is_some());
                shared.finished.fetch_add(1, Ordering::Release);
            });
            answer("202 Accepted", &[], "")
        }
        _ => {
            shared.finished.fetch_add(1, Ordering::Release);
            answer("200 OK", &[], r#"{"done":true}"#)
        }
    }
}

/// The cursors of a subscription, by path; none if they cannot be asked for.
fn cursors(shared: &Shared, turn: u64, id: &str) -> Option<BTreeMap<String, String>> {
    let (status, body) = shared.ask(turn, &request("GET", &subscription(id), None, ""))?;
    assert_eq!(status, 200, "{body}");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let streams = body["streams"].as_array().expect("streams").iter();
    Some(streams.map(|stream| (text(&stream["path"]), text(&stream["acked_offset"]))).collect())
}

/// Looks at cursors, at either node, which never go back.
fn watch(shared: &Shared) {
    let mut last: [BTreeMap<String, String>; 2] = Default::default();
    for turn in 0.. {
        if shared.is_over() {
            return;
        }
        for (id, last) in ["hooks", "pull"].into_iter().zip(&mut last) {
            let Some(now) = cursors(shared, turn, id) else { continue };
            for (path, was) in &*last {
                assert!(now.get(path).is_some_and(|now| now >= was), "{id}: {path} was at {was}: {now:?}");
            }
            *last = now;
        }
        thread::yield_now();
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn a_crash_at_any_moment_loses_no_work_and_takes_no_word_back() {
    let (rounds, seed) = (number("SEDGE_KILL_ROUNDS", ROUNDS), number("SEDGE_KILL_SEED", 1) << 32);
    let mut redis = Redis::start();
    let mut nodes = [redis.node(), redis.node()];
    let shared = Arc::new(Shared::default());
    *shared.nodes.lock().expect("the nodes") = nodes.each_ref().map(|node| Some(node.addr()));
    let receiver = {
        let shared = Arc::clone(&shared);
        Upstream::serve(move |_, body| receive(&shared, &body.bytes()))
    };
    create(&nodes[0], "wake/pool");
    let hooks = json!({
        "type": "webhook", "pattern": "events/*", "lease_ttl_ms": 1_000, "webhook": { "url": receiver.url() },
    });
    subscribe(&nodes[0], "hooks", &hooks);
    subscribe(&nodes[1], "pull", &support::subscriptions::pull());
    (0..PATHS).for_each(|path| create(&nodes[(path % 2) as usize], &format!("events/{path}")));

    let start = |task: fn(&Shared, u64), count: u64| {
        (0..count)
            .map(|n| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || task(&shared, seed + (n << 16)))
            })
            .collect::<Vec<_>>()
    };
    let mut tasks = start(publish, 2);
    tasks.extend(start(work, WORKERS));
    tasks.extend(start(|shared, _| watch(shared), 1));
    for round in 0..rounds {
        let wanted = shared.finished.load(Ordering::Acquire) + 1 + mix(seed + round) % WAKES_MAX;
        let finished = || shared.finished.load(Ordering::Acquire);
        wait_while_it_goes_on("wakes are finished", finished, || {
            shared.finished.load(Ordering::Acquire) >= wanted
                || tasks.iter().any(thread::JoinHandle::is_finished)
        });
        assert!(
            !tasks.iter().any(thread::JoinHandle::is_finished),
            "round {round}: one of them has given up"
        );
        match (round % 3) as usize {
            2 => {
                redis.kill();
                let refused = shared.refused.load(Ordering::Relaxed);
                wait_until("somebody is refused", || shared.refused.load(Ordering::Relaxed) > refused);
                redis.come_back();
            }
            node => {
                nodes[node].signal(Signal::KILL);
                nodes[node].wait_exit();
                shared.nodes.lock().expect("the nodes")[node] = None;
                nodes[node] = redis.node();
                shared.nodes.lock().expect("the nodes")[node] = Some(nodes[node].addr());
            }
        }
    }

    let before = [shared.seen("hooks"), shared.seen("pull")];
    let seen = || (shared.seen("hooks"), shared.seen("pull"));
    wait_while_it_goes_on("both go on after the last", seen, || {
        shared.seen("hooks") > before[0] + 3 && shared.seen("pull") > before[1] + 3
    });
    let tail = |node: &Edge, path: &str| {
        let (head, _) = node.ask(&request("HEAD", &format!("/v1/stream/{path}"), None, ""));
        head.get("stream-next-offset").expect("an offset").to_owned()
    };
    // Nobody appends any more, and workers go on until all is done.
    shared.over.store(true, Ordering::Release);
    tasks.into_iter().for_each(|task| task.join().expect("no panic"));
    shared.over.store(false, Ordering::Release);
    let workers = start(work, WORKERS);
    for id in ["hooks", "pull"] {
        let done = || cursors(&shared, 0, id);
        wait_while_it_goes_on("all is worked off", done, || {
            let Some(acked) = cursors(&shared, 0, id) else { return false };
            acked.len() as u64 == PATHS && acked.iter().all(|(path, acked)| *acked == tail(&nodes[1], path))
        });
    }
    shared.over.store(true, Ordering::Release);
    workers.into_iter().for_each(|worker| worker.join().expect("a worker"));
    let said = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    eprintln!(
        "{rounds} rounds: {} appends worked off by both, {} wakes of webhooks and {} of workers, none doubled; {} leases left to end, {} refused while Redis was away",
        said(&shared.appends),
        shared.seen("hooks"),
        shared.seen("pull"),
        said(&shared.vanished),
        said(&shared.refused),
    );
}
