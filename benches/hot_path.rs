//! The pieces of the hot path, one at a time, on the bytes that they see in service. What they cost together, with the kernel's
//! part, is for `--bench edge` to say.
//!
//!     cargo bench --bench hot_path [-- FILTER]

#![allow(missing_docs, reason = "nothing here is a library")]

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sedge::testing::admission::meters::Meters;
use sedge::testing::cli::{self, Command};
use sedge::testing::config;
use sedge::testing::http1::body::BodyDecoder;
use sedge::testing::http1::chunked::ChunkDecoder;
use sedge::testing::http1::request::{self, HeadScanner, RequestBody};
use sedge::testing::http1::response;
use sedge::testing::openai::{Peek, Sideband};
use sedge::testing::relay::rechunk::{self, HEAD_ROOM, TAIL_ROOM};
use sedge::testing::relay::{Left, Request, Settings};
use sedge::testing::routing::Healths;
use sedge::testing::runtime::block::{BLOCK_BYTES, Pool};
use sedge::testing::runtime::wheel::{TICK_MS, Timed, Timer, Wheel};
use sedge::testing::sse::{Scanner, write_event};
use sedge::testing::telemetry::{Ids, Registry};

/// Timers of a core with as many streams.
const TIMERS: u64 = 10_000;

/// What openai-python sends.
const REQUEST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\n\
Host: 127.0.0.1:8080\r\n\
Accept-Encoding: gzip, deflate\r\n\
Connection: keep-alive\r\n\
Accept: application/json\r\n\
Content-Type: application/json\r\n\
User-Agent: OpenAI/Python 1.109.1\r\n\
X-Stainless-Lang: python\r\n\
X-Stainless-Package-Version: 1.109.1\r\n\
X-Stainless-OS: Linux\r\n\
X-Stainless-Arch: x64\r\n\
X-Stainless-Runtime: CPython\r\n\
X-Stainless-Runtime-Version: 3.11.2\r\n\
Authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n\
X-Stainless-Async: false\r\n\
x-stainless-retry-count: 0\r\n\
x-stainless-read-timeout: 600\r\n\
Content-Length: 1024\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Date: Mon, 05 Jan 2026 10:00:00 GMT\r\n\
Content-Type: text/event-stream; charset=utf-8\r\n\
Transfer-Encoding: chunked\r\n\
Connection: keep-alive\r\n\
access-control-expose-headers: X-Request-ID\r\n\
openai-organization: bench\r\n\
openai-processing-ms: 184\r\n\
openai-version: 2020-10-01\r\n\
x-ratelimit-limit-requests: 10000\r\n\
x-ratelimit-remaining-requests: 9999\r\n\
x-request-id: req_0123456789abcdef0123456789abcdef\r\n\
strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n\r\n";

/// One of OpenAI's events, of 220 bytes.
fn event() -> Vec<u8> {
    let front = b"data: {\"id\":\"chatcmpl-01\",\"object\":\"chat.completion.chunk\",\"created\":1767607200,\
        \"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" ";
    let back = b"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    let filling = vec![b'w'; 220 - front.len() - back.len()];
    [&front[..], &filling, back].concat()
}

/// As many events as fit into `bytes`.
fn burst(bytes: usize) -> Vec<u8> {
    let event = event();
    event.repeat(bytes / event.len())
}

/// The same, each in a chunk of its own.
fn chunks(bytes: usize) -> Vec<u8> {
    let event = event();
    let chunk = [format!("{:x}\r\n", event.len()).as_bytes(), &event, b"\r\n"].concat();
    chunk.repeat(bytes / chunk.len())
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("request, scanned and parsed", |b| {
        b.iter(|| {
            let end = HeadScanner::default().scan(black_box(REQUEST)).expect("a head").expect("all of it");
            black_box(request::parse(&REQUEST[..end]).expect("a request").fields.len())
        });
    });
    let mut ids = Ids::from_seed([7; 32]);
    let head = request::parse(REQUEST).expect("a request");
    group.bench_function("request, taken over", |b| {
        b.iter(|| Request::new(black_box(&head), false, &mut ids));
    });
    let request = Request::new(&head, false, &mut ids);
    let settings = settings();
    group.bench_function("request, written to the upstream", |b| {
        b.iter(|| {
            request.write(
                black_box(&settings.targets[0]),
                &RequestBody::Length(1024),
                Left { total: Some(3_600_000), answer: None },
            )
        });
    });
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response, found and parsed", |b| {
        b.iter(|| {
            let end = response::find_head_end(black_box(RESPONSE), 0).expect("a head").expect("all of it");
            black_box(response::parse(&RESPONSE[..end], false).expect("a response").fields.len())
        });
    });
    group.finish();
}

fn settings() -> Settings {
    let args = ["--upstream", "http://127.0.0.1:9", "--admin", "off"].map(Into::into);
    let Ok(Command::Serve(args)) = cli::parse(args, &|_| None) else { panic!("a command line") };
    let config = config::load(&args, &|_| None).expect("a configuration");
    Settings::new(config, &Registry::new(1), &Meters::default(), &Healths::default()).expect("settings")
}

fn framing(c: &mut Criterion) {
    for (name, wire) in [("one event", chunks(230)), ("16 KiB of events", chunks(16 * 1024))] {
        let mut group = c.benchmark_group(format!("chunks, {name}"));
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_function("whole", |b| {
            let mut decoder = ChunkDecoder::default();
            b.iter(|| decoder.whole(black_box(&wire)).expect("whole chunks"));
        });
        let mut block = vec![0; HEAD_ROOM + wire.len() + TAIL_ROOM];
        group.bench_function("decoded in place and framed anew", |b| {
            b.iter(|| {
                let read = HEAD_ROOM..HEAD_ROOM + wire.len();
                block[read.clone()].copy_from_slice(&wire);
                let mut decoder = BodyDecoder::Chunked(ChunkDecoder::default());
                let segment = rechunk::decode(&mut decoder, &mut block, read).expect("chunks");
                black_box(rechunk::chunk(&mut block, segment.payload, false))
            });
        });
        group.finish();
    }
}

fn events(c: &mut Criterion) {
    let long = [b"data: ", &vec![b'x'; 64 * 1024 - 8][..], b"\n\n"].concat();
    for (name, bytes) in
        [("one event", event()), ("16 KiB of events", burst(16 * 1024)), ("one event of 64 KiB", long)]
    {
        let mut group = c.benchmark_group(format!("stream, {name}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("event ends", |b| {
            let mut scanner = Scanner::default();
            b.iter(|| scanner.feed(black_box(&bytes)));
        });
        group.bench_function("side band", |b| {
            let mut sideband = Sideband::default();
            b.iter(|| sideband.feed(black_box(&bytes)));
        });
        group.finish();
    }
    let (mut out, data) = (Vec::with_capacity(1024), event());
    let data = &data[6..data.len() - 2];
    let mut group = c.benchmark_group("event");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("written", |b| {
        b.iter(|| {
            out.clear();
            write_event(&mut out, None, Some("1f-000000000123"), None, black_box(data)).expect("an event");
        });
    });
    group.finish();
}

fn prompts(c: &mut Criterion) {
    let mut group = c.benchmark_group("prompt");
    group.sample_size(20);
    let text = "What does the fox say? ".repeat(10 * 1024 * 1024 / 23);
    let body = format!(
        "{{\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}],\"model\":\"m\",\"stream\":true}}"
    );
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("model and stream behind 10 MiB", |b| {
        b.iter(|| {
            let mut peek = Peek::default();
            for piece in black_box(body.as_bytes()).chunks(BLOCK_BYTES) {
                peek.feed(piece);
            }
            assert_eq!((peek.model(), peek.stream()), (Some("m"), Some(true)));
        });
    });
    group.finish();
}

/// Counts how often it was called.
#[derive(Default)]
struct Probe(Cell<u64>);

impl Timed for Probe {
    fn fire(&self, _now: u64) {
        self.0.set(self.0.get() + 1);
    }
}

fn shard(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard");
    let probes: Vec<Rc<Probe>> = (0..TIMERS).map(|_| Rc::default()).collect();
    let timers = |wheel: &Wheel| -> Vec<Timer> {
        let timer = |probe: &Rc<Probe>| wheel.timer(Rc::downgrade(&(Rc::clone(probe) as Rc<dyn Timed>)));
        let timers: Vec<Timer> = probes.iter().map(timer).collect();
        timers.iter().zip(0..).for_each(|(timer, number)| timer.arm(5000 + number));
        timers
    };
    let wheel = Wheel::default();
    let armed = timers(&wheel);
    group.bench_function("a timer armed, later than it stands", |b| {
        b.iter(|| armed[17].arm(black_box(60_000)));
    });
    group.throughput(Throughput::Elements(TIMERS));
    group.bench_function("10,000 timers, due over ten seconds", |b| {
        let fresh = || {
            let wheel = Wheel::default();
            let timers = timers(&wheel);
            (wheel, timers)
        };
        let turn = |(wheel, timers)| {
            let wheel: Wheel = wheel;
            (0..16_000).step_by(TICK_MS as usize).for_each(|now| wheel.advance(now));
            (wheel, timers)
        };
        b.iter_batched(fresh, turn, BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(1));
    let pool = Rc::new(Pool::default());
    group.bench_function("a block taken and given back", |b| b.iter(|| black_box(pool.take()).len()));
    group.finish();
}

criterion_group!(hot_path, heads, framing, events, prompts, shard);
criterion_main!(hot_path);
