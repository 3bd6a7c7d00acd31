//! Under full load, with upstreams that fail in every way: each stream that was begun is complete, byte for byte, or ends in a way
//! that tells so; none is cut silently, none doubled, every request is accounted for, and in the end nothing is left behind.
//!
//! `SEDGE_SOAK_SECONDS=600 cargo test --release --test soak -- --nocapture` runs it for longer than the few seconds that the gate has.

#![allow(clippy::print_stdout, reason = "the figures are for reading")]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans are for the edge's data path; this is the other side of the wire"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::chaos::{Chaos, ERROR_EVENT, REFUSAL, events, mix};
use support::{Edge, End, OUTCOMES, STREAM_BODY, Wire, error_code, nobody, post, wait_until};

/// Clients at a time.
const CLIENTS: u64 = 96;

/// What resident memory may grow by after the first quarter, in bytes: an allocator's moods, and no leak under this load.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

/// What a client heard, and how often.
type Heard = BTreeMap<String, u64>;

#[test]
fn every_stream_is_whole_or_says_that_it_is_not() {
    let seconds = std::env::var("SEDGE_SOAK_SECONDS").map_or(8, |text| text.parse().expect("seconds"));
    let upstreams = [1, 2, 3].map(Chaos::start);
    let toml = config(&upstreams, &format!("http://{}", nobody()));
    let edge = Edge::configured_with(&toml, &["--workers", "2"]);
    // The first scrape settles what the admin's listener needs for itself.
    edge.metrics();
    let descriptors = edge.metric("process_open_fds", &[]);

    let (until, next) = (Instant::now() + Duration::from_secs(seconds), AtomicU64::new(1));
    let mut heard = Heard::new();
    let mut early_bytes = 0;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| client(&edge, &next, until))).collect();
        let mut turn = 0;
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(1000).min(until - Instant::now().min(until)));
            turn += 1;
            match turn % 3 {
                0 => upstreams[(turn / 3) % 3].restart(),
                1 => edge.signal(Signal::HUP),
                _ => {}
            }
            if early_bytes == 0 && Instant::now() + Duration::from_secs(seconds * 3 / 4) > until {
                early_bytes = edge.resident_bytes();
            }
        }
        for client in clients {
            for (what, count) in client.join().expect("a client") {
                *heard.entry(what).or_default() += count;
            }
        }
    });
    let late_bytes = edge.resident_bytes();
    let asked = next.load(Ordering::SeqCst) - 1;

    // Everybody is gone; what the edge keeps for itself closes after a second.
    edge.wait_metric("sedge_requests_open", &[], 0.0);
    edge.wait_metric("sedge_upstream_in_flight", &[], 0.0);
    edge.wait_metric("sedge_upstream_queue", &[], 0.0);
    edge.wait_metric("sedge_streams_open", &[], 0.0);
    edge.wait_metric("sedge_buffers_in_use", &[], 0.0);
    edge.wait_metric("sedge_partial_head_bytes", &[], 0.0);
    edge.wait_metric("sedge_connections_open", &[], 0.0);
    edge.wait_metric(OUTCOMES, &[], asked as f64);
    wait_until("all descriptors are closed", || edge.metric("process_open_fds", &[]) <= descriptors);

    println!(
        "{asked} requests in {seconds} s over {CLIENTS} connections, answered by {:?}",
        upstreams.each_ref().map(Chaos::asked)
    );
    heard.iter().for_each(|(what, count)| println!("{count:>9} {what}"));
    for name in ["sedge_upstream_retries_total", "sedge_upstream_opens_total", "sedge_upstream_shed_total"] {
        println!("{:>9} {name}", edge.metric(name, &[]));
    }
    println!(
        "resident: {} KiB after a quarter, {} KiB at the end; descriptors: {descriptors}",
        early_bytes / 1024,
        late_bytes / 1024
    );
    assert_eq!(heard.values().sum::<u64>(), asked);
    assert!(heard.get("complete").is_some_and(|complete| complete * 2 > asked), "{heard:?}");
    assert!(late_bytes <= early_bytes + GROWTH_BYTES_MAX, "{early_bytes}, then {late_bytes}");
}

fn config(upstreams: &[Chaos], gone: &str) -> String {
    let breaker =
        "breaker = { min_calls = 20, error_percent = 70, cool_down = \"50ms\", max_cool_down = \"400ms\" }";
    let table = |(upstream, name): (&Chaos, char)| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nurl = \"{}\"\npool_idle_timeout = \"1s\"\n{breaker}\n\n",
            upstream.url()
        )
    };
    let tables: String = upstreams.iter().zip('a'..).map(table).collect();
    format!(
        "access_log = \"off\"\nheartbeat = \"300ms\"\n\n{}concurrency = {{ latency = \"2s\", max = 8, queue = 4, queue_wait = \"100ms\" }}\n\n\
         [[upstream]]\nname = \"gone\"\nurl = \"{gone}\"\n\n\
         [[route]]\nname = \"r\"\ncommit = \"first_content\"\nhedge = {{ after = \"300ms\" }}\n\
         retry = {{ attempts = 3, backoff_ms = 5, max_backoff_ms = 200, budget_percent = 50 }}\n\
         timeouts = {{ connect = \"1s\", first_byte = \"1s\", idle = \"1s\" }}\n",
        tables.trim_end().to_owned() + "\n"
    )
}

/// Asks until it is time, on one connection as long as that holds.
fn client(edge: &Edge, next: &AtomicU64, until: Instant) -> Heard {
    let (mut heard, mut kept) = (Heard::new(), None);
    while Instant::now() < until {
        let id = next.fetch_add(1, Ordering::SeqCst);
        let mut wire = kept.take().unwrap_or_else(|| edge.connect());
        wire.send(post("/v1/chat/completions", &[&format!("x-soak-id: {id}")], STREAM_BODY));
        let (what, again) = hear(wire, id);
        *heard.entry(what).or_default() += 1;
        kept = again;
    }
    heard
}

/// What came of it; anything that was not told or is not so is a panic.
fn hear(mut wire: Wire, id: u64) -> (String, Option<Wire>) {
    let chance = mix(id);
    let head = match wire.try_read_head() {
        Ok(head) => head,
        Err(end) => panic!("{id}: {end:?} instead of an answer"),
    };
    if head.status() == 200 && chance.is_multiple_of(25) {
        let _ = wire.try_read_chunk();
        return ("left in the middle".to_owned(), None);
    }
    if chance.is_multiple_of(31) {
        thread::sleep(Duration::from_millis(30));
    }
    let mut body = wire.read_body(&head);
    let whole = body.end == End::Whole;
    body.chunks.retain(|chunk| chunk != b":\n");
    let text = body.text();
    let again = (whole && !head.has("connection")).then_some(wire);
    if head.status() != 200 {
        assert!(whole, "{id}: {head:?} {text}");
        let code = if text == REFUSAL { "an upstream's".to_owned() } else { error_code(text.as_bytes()) };
        // As the SDKs do.
        let wait = head.get("retry-after-ms").map_or(0, |ms| ms.parse().expect("milliseconds"));
        thread::sleep(Duration::from_millis(wait));
        return (format!("status {} ({code})", head.status()), again);
    }
    let expected = events(id).concat();
    let what = match text.strip_prefix(ERROR_EVENT) {
        _ if text == expected => "complete".to_owned(),
        Some("") => "error event of an upstream".to_owned(),
        _ if whole => panic!("{id}: a last chunk after\n{text}\ninstead of\n{expected}"),
        _ if expected.starts_with(&text) => "cut without a last chunk".to_owned(),
        _ => {
            let at = text
                .rfind("data: {\"error\":")
                .unwrap_or_else(|| panic!("{id}: {text}\ninstead of\n{expected}"));
            let (before, event) = text.split_at(at);
            assert!(
                expected.starts_with(before) && (before.is_empty() || before.ends_with("\n\n")),
                "{id}: {text}"
            );
            format!("error event ({})", support::error_event_code(event.as_bytes()))
        }
    };
    (what, again)
}
