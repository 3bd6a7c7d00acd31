//! What can be counted is gated: user instructions, allocations and system calls for a relayed event, instructions for a stream, a
//! request, a message of its body and telling a reader of an append, and the memory of a stream and of a reader that wait. Never time.
//!
//! The events go one by one, each sent when the one before has arrived, so that each is a wake-up of its own: the dearest way. A
//! count is the slope between two lengths, so that what is done once, and what the tool itself adds, falls out.
//!
//! The bounds are for the release binary, which `SEDGE_BIN` names; with another, or without valgrind or strace, there is
//! nothing to hold against them, and a test says so and ends.

#![allow(clippy::print_stdout, reason = "counts are for reading, even when they pass")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::streams::{Events, append, create, path};
use support::{
    Edge, LAST_CHUNK, SSE_HEAD, Upstream, Wire, answer, callgrind, chunk, crowd, edge, post, relayed,
    stream_request, streaming,
};

/// What a count may be at most: of the plain release build, and of one that was guided by a profile (`benches/pgo`), where
/// `SEDGE_PROFILED` says that the binary is one.
struct Bound {
    plain: f64,
    profiled: f64,
}

impl Bound {
    const fn same(max: f64) -> Bound {
        Bound { plain: max, profiled: max }
    }

    fn max(&self) -> f64 {
        if std::env::var_os("SEDGE_PROFILED").is_some() { self.profiled } else { self.plain }
    }
}

/// User instructions to relay an event. Measured: 2,590 (callgrind 3.19, x86-64); with a profile 2,010.
const EVENT_INSTRUCTIONS: Bound = Bound { plain: 2660.0, profiled: 2300.0 };

/// User instructions for a stream of one event on a connection of its own, from its acceptance to its close, the upstream's
/// connection kept. Measured: 34,900, with a profile 29,000.
const STREAM_INSTRUCTIONS: Bound = Bound { plain: 36_000.0, profiled: 31_500.0 };

/// User instructions for a request with an answer of 800 bytes of JSON, both connections kept. Measured: 28,600, with a profile 23,200.
const REQUEST_INSTRUCTIONS: Bound = Bound { plain: 28_800.0, profiled: 25_000.0 };

/// User instructions for one more message of a chat, of 240 bytes with 12 escapes: looked through for what stands beside the
/// messages, and copied. Measured: 715 to 760, as the compiler lays it out.
const MESSAGE_INSTRUCTIONS: Bound = Bound::same(820.0);

/// Allocations for a relayed event. Measured: 0; what is there is the tick's.
const EVENT_ALLOCATIONS: Bound = Bound::same(0.01);

/// System calls to relay an event that comes alone: epoll_wait, recv, send. Measured: 3.00.
const EVENT_SYSTEM_CALLS: Bound = Bound::same(3.3);

/// Resident bytes of a stream that waits for its next event. Measured: 2,400.
const STREAM_BYTES: Bound = Bound::same(2540.0);

/// User instructions to tell one more reader of an append, where all have been told everything before it. Measured: 1,060; with a
/// profile 780.
const DELIVERY_INSTRUCTIONS: Bound = Bound { plain: 1120.0, profiled: 920.0 };

/// System calls for it: one write. Measured: 1.00.
const DELIVERY_SYSTEM_CALLS: Bound = Bound::same(1.05);

/// Resident bytes of a reader of events who has been told all. Measured: 1,010.
const READER_BYTES: Bound = Bound::same(1065.0);

/// The same of two streams on one connection. Measured: 2,080.
const SEVERAL_BYTES: Bound = Bound::same(2150.0);

/// One of OpenAI's events, with its blank line.
const EVENT: &str = "data: {\"id\":\"chatcmpl-01\",\"object\":\"chat.completion.chunk\",\"created\":1767607200,\
    \"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" a word and more\"},\
    \"logprobs\":null,\"finish_reason\":null}]}\n\n";

#[test]
fn an_event_costs_few_instructions() {
    if !can_count("valgrind") {
        return;
    }
    let run = |events: usize| {
        callgrind::profile(|edge, upstream| {
            let (mut client, mut peer, _) = streaming(edge, upstream);
            relay(&mut client, &mut peer, events);
            finish(&mut client, &mut peer);
        })
    };
    let (few, many) = (500, 2500);
    let (short, long) = (run(few), run(many));
    let more = many - few;
    assert_slope("instructions an event", short.instructions, long.instructions, more, &EVENT_INSTRUCTIONS);
    let allocations = long.allocations.abs_diff(short.allocations) as f64 / more as f64;
    println!("allocations an event: {allocations:.4}");
    assert!(allocations <= EVENT_ALLOCATIONS.max(), "allocations an event: {allocations:.4}");
}

#[test]
fn a_stream_costs_few_instructions() {
    if !can_count("valgrind") {
        return;
    }
    let run = |streams: usize| {
        instructions(|edge, upstream| {
            let (mut client, mut peer, _) = streaming(edge, upstream);
            finish(&mut client, &mut peer);
            for _ in 1..streams {
                client = edge.connect();
                client.send(stream_request());
                let head = peer.read_head();
                peer.read_request_body(&head);
                peer.send(SSE_HEAD);
                assert_eq!(client.read_head().status(), 200);
                relay(&mut client, &mut peer, 1);
                finish(&mut client, &mut peer);
            }
        })
    };
    let (few, many) = (20, 120);
    assert_slope("instructions a stream", run(few), run(many), many - few, &STREAM_INSTRUCTIONS);
}

#[test]
fn a_request_costs_few_instructions() {
    if !can_count("valgrind") {
        return;
    }
    let body = format!(
        "{{\"id\":\"chatcmpl-01\",\"object\":\"chat.completion\",\"created\":1767607200,\"model\":\"m\",\"choices\":[{{\
         \"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{}\"}},\"finish_reason\":\"stop\"}}],\
         \"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":9,\"total_tokens\":14}}}}",
        "x y ".repeat(145)
    );
    let run = |requests: usize| {
        let json = answer("200 OK", &["Content-Type: application/json"], &body);
        instructions(|edge, upstream| {
            let (mut client, mut peer, _, _) = relayed(edge, upstream, &stream_request());
            for first in (0..requests).map(|number| number == 0) {
                if !first {
                    client.send(stream_request());
                    let head = peer.read_head();
                    peer.read_request_body(&head);
                }
                peer.send(&json);
                assert_eq!(client.read_answer().1.text(), body);
            }
        })
    };
    let (few, many) = (100, 600);
    assert_slope("instructions a request", run(few), run(many), many - few, &REQUEST_INSTRUCTIONS);
}

/// A prompt is mostly text with escapes, and what is sought stands beside it: it was once looked through string by string, for two and
/// a half times as much.
#[test]
fn a_message_of_a_chat_costs_few_instructions() {
    if !can_count("valgrind") {
        return;
    }
    let text = r#"Tell me more about rivers and \"sedges\", please.\nThanks! "#.repeat(4);
    let requests = 200;
    let run = |messages: usize| {
        let list = vec![format!(r#"{{"role":"user","content":"{text}"}}"#); messages].join(",");
        let request = post(
            "/v1/chat/completions",
            &[],
            &format!(r#"{{"messages":[{list}],"model":"m","stream":true}}"#),
        );
        let json = answer("200 OK", &["Content-Type: application/json"], "{}");
        instructions(|edge, upstream| {
            let (mut client, mut peer, _, _) = relayed(edge, upstream, &request);
            for first in (0..requests).map(|number| number == 0) {
                if !first {
                    client.send(&request);
                    let head = peer.read_head();
                    peer.read_request_body(&head);
                }
                peer.send(&json);
                assert_eq!(client.read_answer().1.text(), "{}");
            }
        })
    };
    // Few enough that the copies do not get too long for vectors: of longer ones callgrind counts every byte.
    let (few, many) = (2, 6);
    let more = (many - few) * requests;
    assert_slope("instructions a message", run(few), run(many), more, &MESSAGE_INSTRUCTIONS);
}

#[test]
fn an_event_costs_few_system_calls() {
    if !can_count("strace") {
        return;
    }
    let run = |events: usize| {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, _) = streaming(&edge, &upstream);
        relay(&mut client, &mut peer, 10);
        system_calls(edge.pid(), || relay(&mut client, &mut peer, events))
    };
    let (short, long) = (500, 2500);
    assert_slope("system calls an event", run(short), run(long), long - short, &EVENT_SYSTEM_CALLS);
}

#[test]
fn a_stream_that_waits_costs_little_memory() {
    if !is_release() {
        return;
    }
    crowd::raise_descriptors();
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut open = Vec::new();
    let mut grow = |count: usize| {
        while open.len() < count {
            let (mut client, mut peer, _) = streaming(&edge, &upstream);
            relay(&mut client, &mut peer, 1);
            open.push((client, peer));
        }
        edge.resident_bytes()
    };
    let (few, many) = (200, 2000);
    assert_slope("bytes a stream", grow(few), grow(many), many - few, &STREAM_BYTES);
}

#[test]
fn a_delivery_costs_few_instructions() {
    if !can_count("valgrind") {
        return;
    }
    let (few, many) = (20, 120);
    // What an append costs and what a reader costs each fall out: a delivery is what is left.
    let run = |readers: usize, appends: usize| {
        instructions(|edge, _| {
            create(edge, "a", "text/plain");
            let mut all: Vec<Events> = (0..readers).map(|_| reader(edge)).collect();
            deliver(edge, &mut all, appends);
        })
    };
    let short = run(many, few) - run(few, few);
    let long = run(many, many) - run(few, many);
    let more = (many - few) * (many - few);
    assert_slope("instructions a delivery", short, long, more, &DELIVERY_INSTRUCTIONS);
}

#[test]
fn a_delivery_costs_one_system_call() {
    if !can_count("strace") {
        return;
    }
    let edge = Edge::start(&[]);
    create(&edge, "a", "text/plain");
    let (few, many, appends) = (20, 120, 50);
    let mut all = Vec::new();
    let mut calls = |readers: usize| {
        all.resize_with(readers, || reader(&edge));
        deliver(&edge, &mut all, 2);
        system_calls(edge.pid(), || deliver(&edge, &mut all, appends))
    };
    let what = "system calls a delivery";
    assert_slope(what, calls(few), calls(many), (many - few) * appends, &DELIVERY_SYSTEM_CALLS);
}

#[test]
fn a_reader_that_waits_costs_little_memory() {
    if !is_release() {
        return;
    }
    crowd::raise_descriptors();
    let edge = Edge::start(&[]);
    create(&edge, "a", "text/plain");
    let mut all = Vec::new();
    let mut grow = |readers: usize| {
        all.resize_with(readers, || reader(&edge));
        deliver(&edge, &mut all, 1);
        edge.resident_bytes()
    };
    let (few, many) = (500, 3500);
    assert_slope("bytes a reader", grow(few), grow(many), many - few, &READER_BYTES);
}

#[test]
fn a_reader_of_several_streams_costs_little_memory() {
    if !is_release() {
        return;
    }
    crowd::raise_descriptors();
    let edge = Edge::start(&[]);
    create(&edge, "a", "text/plain");
    create(&edge, "b", "text/plain");
    let target = "/v1/stream?name=a&name=b&offset=now";
    let mut all = Vec::new();
    let mut grow = |readers: usize| {
        all.resize_with(readers, || Events::source(&edge, target, None));
        deliver(&edge, &mut all, 1);
        edge.resident_bytes()
    };
    let (few, many) = (500, 3500);
    assert_slope("bytes a reader of two", grow(few), grow(many), many - few, &SEVERAL_BYTES);
}

/// One more reader of stream `a`, from now on.
fn reader(edge: &Edge) -> Events {
    Events::source(edge, &format!("{}?offset=now", path("a")), None)
}

/// Appends so often, and each time waits until all `readers` have it.
fn deliver(edge: &Edge, readers: &mut [Events], appends: usize) {
    let body = "y".repeat(200);
    for _ in 0..appends {
        append(edge, "a", &body);
        for reader in &mut *readers {
            // One of several streams says beside it which one it is of.
            let data = reader.data().data;
            assert!(data.contains(&body), "{data}");
        }
    }
}

/// Relays `events` events, one after the other.
fn relay(client: &mut Wire, peer: &mut Wire, events: usize) {
    let wire = chunk(EVENT);
    for _ in 0..events {
        peer.send(&wire);
        assert_eq!(client.read_chunk(), EVENT.as_bytes());
    }
}

fn finish(client: &mut Wire, peer: &mut Wire) {
    peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
    client.read_last_chunk();
}

#[track_caller]
fn assert_slope(what: &str, short: u64, long: u64, more: usize, bound: &Bound) {
    let max = bound.max();
    let each = (long as f64 - short as f64) / more as f64;
    println!("{what}: {each:.1}, at most {max}");
    assert!(each > 0.0, "{short} and {long} for {more} more");
    assert!(each <= max, "{what}: {each:.1}, more than {max}");
}

/// User instructions of the edge's whole life, with `run` in it.
fn instructions(run: impl FnOnce(&Edge, &Upstream)) -> u64 {
    callgrind::profile(run).instructions
}

/// System calls that a process makes while `run` runs, but for the ticks of its cores.
fn system_calls(pid: u32, run: impl FnOnce()) -> u64 {
    let out = edge::scratch("strace.out");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-p", &pid.to_string(), "-o"])
        .arg(&out)
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace");
    let mut said = BufReader::new(strace.stderr.take().expect("stderr")).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("attached")), "strace did not attach");
    run();
    kill_process(Pid::from_child(&strace), Signal::INT).expect("signal");
    strace.wait().expect("strace");
    let report = std::fs::read_to_string(&out).expect("strace's report");
    let calls = |name: &str| -> Option<u64> {
        report.lines().find_map(|line| line.trim().strip_suffix(name)?.trim().parse().ok())
    };
    let total = calls("total").unwrap_or_else(|| panic!("no total: {report}"));
    // How often a core ticks meanwhile is up to the machine: it waits, and reads its timer. Nothing else is read so.
    total - 2 * calls(" read").unwrap_or(0)
}

fn can_count(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !there {
        println!("skipped: no {tool}");
    }
    there && is_release()
}

fn is_release() -> bool {
    let named = std::env::var_os("SEDGE_BIN").is_some() || !cfg!(debug_assertions);
    if !named {
        println!("skipped: the bounds are for the release binary, which SEDGE_BIN names");
    }
    named
}
