//! Whatever an append to a durable stream was answered is there after `kill -9` of the edge, at any moment: once, in order, under
//! the position that was told; and who follows goes on as if nothing had happened.
//!
//! Twelve producers append numbered records to four streams, each over its own connection, and send what got no answer again
//! (`Producer-Seq`); readers follow them as a browser's EventSource does, one each and one all of them. After a random number of
//! answers the edge gets SIGKILL and is started again on the same directory. A few rounds by default; `SEDGE_KILL_ROUNDS` for more.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rustix::process::Signal;
use support::edge::scratch;
use support::streams::{Events, create, directory, path, read, read_all, remove, request};
use support::{Edge, PATIENCE, Wire, get};

const ROUNDS: u64 = 5;
const STREAMS: usize = 4;
const PRODUCERS: usize = 12;

/// A killed process loses nothing that it has written, whenever that reaches the disk.
const FSYNC: [&str; 3] = ["always", "20ms", "never"];

/// The most answers in one life of the edge.
const ANSWERS_MAX: u64 = 1_500;

/// Where the edge is now: which life of it, and its address.
#[derive(Debug, Default)]
struct Address {
    now: Mutex<(u64, Option<SocketAddr>)>,
    changed: Condvar,
}

impl Address {
    fn set(&self, addr: Option<SocketAddr>) {
        let mut now = self.now.lock().expect("the address");
        *now = (now.0 + u64::from(addr.is_some()), addr);
        self.changed.notify_all();
    }

    /// A connection to a life of the edge after this one, or to the same if it still takes any.
    fn connect(&self) -> Wire {
        let mut failed = 0;
        loop {
            let now = self.now.lock().expect("the address");
            let (now, timeout) = self
                .changed
                .wait_timeout_while(now, PATIENCE, |(life, addr)| addr.is_none() || *life == failed)
                .expect("the address");
            assert!(!timeout.timed_out(), "the edge does not come back");
            let (life, addr) = *now;
            drop(now);
            match TcpStream::connect(addr.expect("an address")) {
                Ok(stream) => return Wire::new(stream),
                Err(_) => failed = life,
            }
        }
    }
}

/// What one producer was told.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Records that were answered.
    answered: u64,
    /// The position after the last of them.
    offset: String,
}

#[derive(Debug, Default)]
struct Shared {
    address: Address,
    told: [Mutex<Told>; PRODUCERS],
    answers: AtomicU64,
    /// Answers that said it was there already: the first answer was lost.
    again: AtomicU64,
    over: AtomicBool,
}

fn name(stream: usize) -> String {
    format!("kill/{stream}")
}

fn record(producer: usize, number: u64) -> String {
    // Now and then one that takes several writes.
    let pad = if number % 97 == 13 { 70_000 } else { (number as usize * 7_919 + producer) % 700 };
    format!("{producer}:{number}:{}\n", "x".repeat(pad))
}

/// Appends, until it is over; each record until it is answered.
fn produce(shared: &Shared, producer: usize) {
    let target = path(&name(producer % STREAMS));
    let id = format!("Producer-Id: p{producer}");
    let mut number = 0;
    while !shared.over.load(Ordering::Acquire) {
        let mut wire = shared.address.connect();
        while !shared.over.load(Ordering::Acquire) {
            let seq = format!("Producer-Seq: {number}");
            let fields = ["Content-Type: text/plain", &id, "Producer-Epoch: 0", &seq];
            if wire.try_send(request("POST", &target, &fields, record(producer, number))).is_err() {
                break;
            }
            let Ok(head) = wire.try_read_head() else { break };
            assert!(matches!(head.status(), 200 | 204), "producer {producer}, {number}: {head:?}");
            let offset = head.get("stream-next-offset").expect("where it ends").to_owned();
            number += 1;
            {
                let mut told = shared.told[producer].lock().expect("told");
                assert!(offset > told.offset, "producer {producer}: {offset} after {}", told.offset);
                *told = Told { answered: number, offset };
            }
            shared.again.fetch_add(u64::from(head.status() == 204), Ordering::Relaxed);
            shared.answers.fetch_add(1, Ordering::Release);
        }
    }
}

/// Follows streams to their end; gives back all of each, as it was seen. One alone, or all on one connection.
fn follow(shared: &Shared, alone: Option<usize>) -> [String; STREAMS] {
    let target = match alone {
        Some(stream) => path(&name(stream)),
        None => {
            let names: Vec<_> = (0..STREAMS).map(|stream| format!("name={}", name(stream))).collect();
            format!("/v1/stream?{}", names.join("&"))
        }
    };
    let (mut seen, mut last) = (<[String; STREAMS]>::default(), None::<String>);
    loop {
        let mut wire = shared.address.connect();
        let id = last.as_ref().map(|last| format!("Last-Event-ID: {last}"));
        let fields: Vec<&str> = ["Accept: text/event-stream"].into_iter().chain(id.as_deref()).collect();
        if wire.try_send(get(&target, &fields)).is_err() {
            continue;
        }
        let Ok(head) = wire.try_read_head() else { continue };
        if head.status() == 204 {
            return seen;
        }
        assert_eq!(head.status(), 200, "{head:?}");
        let mut events = Events::of(wire);
        while let Ok(event) = events.try_next() {
            match (event.name.as_deref(), alone) {
                (Some("control"), _) => {}
                (Some("reset"), _) => panic!("{target} was reset: {event:?} after {last:?}"),
                (_, Some(stream)) => {
                    seen[stream] += &event.data;
                    last = event.id;
                }
                (_, None) => {
                    let told = event.json();
                    let stream = (0..STREAMS).find(|stream| told["stream"] == *name(*stream));
                    seen[stream.expect("one of them")] += told["data"].as_str().expect("text");
                    last = event.id;
                }
            }
        }
    }
}

/// What the test itself has read of a stream.
#[derive(Debug)]
struct Known {
    epoch: String,
    at: String,
    text: String,
}

/// Reads what has come to a stream; every producer's records have to be 0, 1, 2, ... in it, with their own bytes.
fn read_on(edge: &Edge, known: &mut Known, stream: usize, counts: &mut [u64; PRODUCERS]) {
    let (bytes, at) = read_all(edge, &name(stream), &known.at);
    let text = String::from_utf8(bytes).expect("text");
    for line in text.split_inclusive('\n') {
        let producer: usize = line.split(':').next().and_then(|word| word.parse().ok()).expect("a producer");
        assert_eq!(producer % STREAMS, stream, "another stream's");
        let number = counts[producer];
        assert!(line == record(producer, number), "producer {producer}: {line:.40?} instead of {number}");
        counts[producer] += 1;
    }
    assert_eq!(at.rsplit_once('-').expect("an epoch").0, known.epoch, "its epoch goes on");
    assert!(at >= known.at, "{at} after {}", known.at);
    (known.at, known.text) = (at, std::mem::take(&mut known.text) + &text);
}

#[test]
fn what_was_answered_survives_kill_9() {
    let rounds = std::env::var("SEDGE_KILL_ROUNDS")
        .map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let data = directory("streams-kill");
    let config = scratch("streams-kill.toml");
    let start = |round: u64| {
        let fsync = FSYNC[round as usize % FSYNC.len()];
        std::fs::write(&config, format!("[streams]\nfsync = \"{fsync}\"\n")).expect("a configuration");
        let config = config.to_str().expect("UTF-8");
        Edge::run(support::edge::command(), &["--workers", "2", "--data-dir", &data, "--config", config])
    };
    let shared = Arc::new(Shared::default());
    let mut edge = start(0);
    let mut known: Vec<Known> = (0..STREAMS)
        .map(|stream| {
            let at = create(&edge, &name(stream), "text/plain");
            let epoch = at.rsplit_once('-').expect("an epoch").0.to_owned();
            Known { epoch, at, text: String::new() }
        })
        .collect();
    shared.address.set(Some(edge.addr()));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || produce(&shared, producer))
        })
        .collect();
    let followers: Vec<_> = (0..STREAMS)
        .map(Some)
        .chain([None])
        .map(|alone| {
            let shared = Arc::clone(&shared);
            (alone, thread::spawn(move || follow(&shared, alone)))
        })
        .collect();

    let (mut counts, mut unanswered) = ([0; PRODUCERS], 0);
    for round in 0..rounds {
        let until = shared.answers.load(Ordering::Acquire)
            + 1
            + (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % ANSWERS_MAX;
        // A whole stream at once, and a fork: they are there from their answer on as well.
        let done = format!("kill/done-{round}");
        let fields = ["Content-Type: text/plain", "Stream-Closed: true"];
        assert_eq!(edge.ask(&request("PUT", &path(&done), &fields, "all")).0.status(), 201);
        let fork = format!("kill/fork-{round}");
        let fields = [
            "Stream-Forked-From: /v1/stream/kill/0".to_owned(),
            format!("Stream-Fork-Offset: {}", known[0].at),
        ];
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let (head, body) = edge.ask(&request("PUT", &path(&fork), &fields, ""));
        assert_eq!(head.status(), 201, "{}", body.text());
        let inherited = known[0].text.len();

        let answers = || shared.answers.load(Ordering::Acquire);
        support::wait_while_it_goes_on("answers", answers, || {
            let failed = producers.iter().any(|producer| producer.is_finished())
                || followers.iter().any(|(_, follower)| follower.is_finished());
            failed || shared.answers.load(Ordering::Acquire) >= until
        });
        assert!(shared.answers.load(Ordering::Acquire) >= until, "round {round}: one of them has given up");
        shared.address.set(None);
        edge.signal(Signal::KILL);
        edge.wait_exit();
        drop(edge);

        edge = start(round + 1);
        for (stream, known) in known.iter_mut().enumerate() {
            read_on(&edge, known, stream, &mut counts);
        }
        for (producer, count) in counts.iter().enumerate() {
            let told = shared.told[producer].lock().expect("told");
            let (answered, at) = (told.answered, &known[producer % STREAMS].at);
            assert!(
                *count >= answered,
                "round {round}, producer {producer}: {answered} answered, {count} there"
            );
            assert!(*count <= answered + 1, "round {round}, producer {producer}: one is ever in flight");
            assert!(told.offset <= *at, "round {round}, producer {producer}: {} is after {at}", told.offset);
            unanswered += count - answered;
        }
        let (head, body) = read(&edge, &done, "-1");
        assert_eq!((head.get("stream-closed"), body.text().as_str()), (Some("true"), "all"), "round {round}");
        let (bytes, _) = read_all(&edge, &fork, "-1");
        assert_eq!(bytes.len(), inherited, "round {round}: a fork has what was before it and no more");
        assert_eq!(edge.ask(&request("DELETE", &path(&fork), &[], "")).0.status(), 204);
        shared.address.set(Some(edge.addr()));
    }

    shared.over.store(true, Ordering::Release);
    producers.into_iter().for_each(|producer| producer.join().expect("a producer"));
    for (stream, known) in known.iter_mut().enumerate() {
        read_on(&edge, known, stream, &mut counts);
        support::streams::close(&edge, &name(stream));
        let (whole, _) = read_all(&edge, &name(stream), "-1");
        assert!(whole == known.text.as_bytes(), "read in pieces and as a whole it is the same");
    }
    for (alone, follower) in followers {
        let seen = follower.join().expect("a follower");
        for stream in (0..STREAMS).filter(|stream| alone.is_none_or(|alone| alone == *stream)) {
            assert!(
                seen[stream] == known[stream].text,
                "{alone:?}, {stream}: who followed saw each record once"
            );
        }
    }
    let (answers, again) = (shared.answers.load(Ordering::Relaxed), shared.again.load(Ordering::Relaxed));
    eprintln!(
        "{rounds} rounds: {answers} answered, none lost or doubled; {unanswered} there without their answer when the edge came \
         back, {again} sent again and known"
    );
    drop(edge);
    remove(&data);
    let _ = std::fs::remove_file(&config);
}
