//! Whatever an append was answered is in the stream, once and in order, whichever of two nodes or Redis itself gets SIGKILL, at any
//! moment; and who follows goes on at the other node as if nothing had happened.
//!
//! Six producers append numbered records to two streams, each time they connect to another node, and send what got no answer,
//! or one that says that it is not known, again (`Producer-Seq`); readers follow as a browser's EventSource does. After a random
//! number of answers a node or Redis, which syncs what it acknowledges, is killed and comes back. A few rounds by default;
//! `SEDGE_KILL_ROUNDS` for more.

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use support::redis::Redis;
use support::streams::{Events, close, create, path, read_all, request};
use support::{Edge, Wire, get, wait_until, wait_while_it_goes_on};

const ROUNDS: u64 = 6;
const STREAMS: usize = 2;
const PRODUCERS: usize = 6;

/// The most answers between two kills.
const ANSWERS_MAX: u64 = 800;

#[derive(Debug, Default)]
struct Shared {
    /// Where the nodes are now.
    nodes: Mutex<[Option<SocketAddr>; 2]>,
    /// How many records of each producer were answered.
    answered: [AtomicU64; PRODUCERS],
    answers: AtomicU64,
    /// Answers that said it was there already.
    again: AtomicU64,
    /// Answers that said that Redis could not be asked.
    refused: AtomicU64,
    over: AtomicBool,
}

impl Shared {
    /// A connection to the node whose turn it is, or else to the other one.
    fn connect(&self, turn: &mut usize) -> Wire {
        let mut wire = None;
        wait_until("a node takes a connection", || {
            *turn += 1;
            let node = self.nodes.lock().expect("the nodes")[*turn % 2];
            wire = node.and_then(|node| std::net::TcpStream::connect(node).ok());
            wire.is_some()
        });
        Wire::new(wire.expect("a connection"))
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

fn name(stream: usize) -> String {
    format!("kill/{stream}")
}

fn record(producer: usize, number: u64) -> String {
    format!("{producer}:{number}:{}\n", "x".repeat((number as usize * 7_919 + producer) % 700))
}

/// Appends, until it is over; each record until it is answered.
fn produce(shared: &Shared, producer: usize) {
    let target = path(&name(producer % STREAMS));
    let id = format!("Producer-Id: p{producer}");
    let (mut number, mut turn) = (0, producer);
    while !shared.is_over() {
        let mut wire = shared.connect(&mut turn);
        while !shared.is_over() {
            let seq = format!("Producer-Seq: {number}");
            let fields = ["Content-Type: text/plain", &id, "Producer-Epoch: 0", &seq];
            if wire.try_send(request("POST", &target, &fields, record(producer, number))).is_err() {
                break;
            }
            let Ok(head) = wire.try_read_head() else { break };
            if head.status() == 503 {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                break;
            }
            assert!(matches!(head.status(), 200 | 204), "producer {producer}, {number}: {head:?}");
            number += 1;
            shared.answered[producer].store(number, Ordering::Release);
            shared.again.fetch_add(u64::from(head.status() == 204), Ordering::Relaxed);
            shared.answers.fetch_add(1, Ordering::Release);
        }
    }
}

/// Follows a stream to its end; gives back all of it, as it was seen.
fn follow(shared: &Shared, stream: usize) -> String {
    let target = path(&name(stream));
    let (mut seen, mut last, mut turn) = (String::new(), None::<String>, stream);
    loop {
        let mut wire = shared.connect(&mut turn);
        let id = last.as_ref().map(|last| format!("Last-Event-ID: {last}"));
        let fields: Vec<&str> = ["Accept: text/event-stream"].into_iter().chain(id.as_deref()).collect();
        if wire.try_send(get(&target, &fields)).is_err() {
            continue;
        }
        let Ok(head) = wire.try_read_head() else { continue };
        if head.status() == 204 {
            return seen;
        }
        // A browser would stay away for good after any other.
        assert_eq!(head.status(), 200, "{head:?}");
        if !head.is_chunked() {
            // Nothing can be told now: it is to come again.
            continue;
        }
        let mut events = Events::of(wire);
        while let Ok(event) = events.try_next() {
            match event.name.as_deref() {
                Some("control") => {}
                Some("reset") => panic!("{target} was reset: {event:?} after {last:?}"),
                _ => {
                    seen += &event.data;
                    last = event.id;
                }
            }
        }
    }
}

/// Every producer's records have to be 0, 1, 2, ... with their own bytes; gives back how many there are.
fn count(text: &str, stream: usize) -> [u64; PRODUCERS] {
    let mut counts = [0; PRODUCERS];
    for line in text.split_inclusive('\n') {
        let producer: usize = line.split(':').next().and_then(|word| word.parse().ok()).expect("a producer");
        assert_eq!(producer % STREAMS, stream, "another stream's");
        assert!(line == record(producer, counts[producer]), "producer {producer}: {line:.40?}");
        counts[producer] += 1;
    }
    counts
}

#[test]
fn what_was_answered_survives_kills_of_nodes_and_of_redis() {
    let rounds = std::env::var("SEDGE_KILL_ROUNDS")
        .map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let mut redis = Redis::start();
    let mut nodes = [redis.node(), redis.node()];
    (0..STREAMS).for_each(|stream| drop(create(&nodes[0], &name(stream), "text/plain")));
    let shared = Arc::new(Shared::default());
    *shared.nodes.lock().expect("the nodes") = nodes.each_ref().map(|node| Some(node.addr()));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || produce(&shared, producer))
        })
        .collect();
    let followers: Vec<_> = (0..STREAMS * 2)
        .map(|follower| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || follow(&shared, follower % STREAMS))
        })
        .collect();

    for round in 0..rounds {
        let more = 1 + (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % ANSWERS_MAX;
        let until = shared.answers.load(Ordering::Acquire) + more;
        let answers = || shared.answers.load(Ordering::Acquire);
        wait_while_it_goes_on("answers", answers, || {
            let failed = producers.iter().any(|producer| producer.is_finished())
                || followers.iter().any(|follower| follower.is_finished());
            failed || shared.answers.load(Ordering::Acquire) >= until
        });
        assert!(shared.answers.load(Ordering::Acquire) >= until, "round {round}: one of them has given up");
        match round as usize % 3 {
            2 => {
                redis.kill();
                let refused = shared.refused.load(Ordering::Relaxed);
                wait_until("an append is refused", || shared.refused.load(Ordering::Relaxed) > refused);
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

    let before = shared.answers.load(Ordering::Acquire);
    let answers = || shared.answers.load(Ordering::Acquire);
    wait_while_it_goes_on("it goes on after the last", answers, || answers() > before + 100);
    shared.over.store(true, Ordering::Release);
    nodes.iter().for_each(|node| node.wait_metric("sedge_redis_up", &[], 1.0));
    producers.into_iter().for_each(|producer| producer.join().expect("a producer"));
    let texts: Vec<String> = (0..STREAMS)
        .map(|stream| {
            let [one, other] = nodes.each_ref().map(|node: &Edge| read_all(node, &name(stream), "-1").0);
            assert!(one == other, "both nodes tell the same");
            let text = String::from_utf8(one).expect("text");
            for (producer, count) in
                count(&text, stream).into_iter().enumerate().skip(stream).step_by(STREAMS)
            {
                let answered = shared.answered[producer].load(Ordering::Acquire);
                assert!(
                    (answered..=answered + 1).contains(&count),
                    "{producer}: {answered} answered, {count} there"
                );
            }
            close(&nodes[stream % 2], &name(stream));
            text
        })
        .collect();
    for (follower, seen) in followers.into_iter().enumerate() {
        let seen = seen.join().expect("a follower");
        assert!(seen == texts[follower % STREAMS], "follower {follower} saw each record once");
    }
    let said = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    eprintln!(
        "{rounds} rounds: {} answered, none lost or doubled; {} sent again and known, {} refused while Redis was away",
        said(&shared.answers),
        said(&shared.again),
        said(&shared.refused),
    );
}
