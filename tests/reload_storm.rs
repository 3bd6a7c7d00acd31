//! SIGHUP again and again, faster than anybody writes files, while requests are served: none of them notices, what was last written
//! is in force in the end, and nothing is left of the configurations before.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use support::limits::{ok, status};
use support::upstream::Served;
use support::{Edge, LAST_CHUNK, SSE_HEAD, Upstream, Wire, answer, chunk, get, post, wait_until};

const SIGNALS: usize = 200;
const CLIENTS: usize = 8;

/// What resident memory may grow by in a storm, in bytes: room for an allocator's moods, and none for two hundred configurations.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

const RELOADS: &str = "sedge_config_reloads_total";

fn named(name: &'static str) -> Served {
    Upstream::serve(move |_, _| answer("200 OK", &[], name))
}

/// Model `s` leads to the upstream of the stream, `l` to one request a minute, and all others where it says.
fn config(stream: &Upstream, others: &Served) -> String {
    format!(
        "workers = 2\naccess_log = \"off\"\n\
         [[upstream]]\nname = \"stream\"\nurl = \"{}\"\n\n[[upstream]]\nname = \"others\"\nurl = \"{}\"\n\n\
         [[route]]\nname = \"s\"\nmodels = [\"s\"]\nupstreams = [\"stream\"]\n\n\
         [[route]]\nname = \"l\"\nmodels = [\"l\"]\nupstreams = [\"others\"]\nlimits = {{ requests_per_minute = 1 }}\n\n\
         [[route]]\nname = \"others\"\nmodels = [\"*\"]\nupstreams = [\"others\"]\n",
        stream.url(),
        others.url()
    )
}

fn to(model: &str) -> Vec<u8> {
    post("/v1/chat/completions", &[], &format!("{{\"model\":\"{model}\",\"stream\":true}}"))
}

/// Asks on one connection until it is over; says how often.
fn ask_on(edge: &Edge, over: &AtomicBool, asked: &AtomicUsize) {
    let mut client = edge.connect();
    while !over.load(Ordering::Relaxed) {
        client.send(to("m"));
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 200, "{}", body.text());
        assert!(["one", "two"].contains(&body.text().as_str()), "{}", body.text());
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

/// A stream whose events come one by one, each when it is told.
struct Told {
    client: Wire,
    peer: Wire,
}

impl Told {
    fn begin(edge: &Edge, upstream: &Upstream) -> Told {
        let mut client = edge.connect();
        client.send(to("s"));
        let mut peer = upstream.accept();
        let head = peer.read_head();
        peer.read_request_body(&head);
        peer.send(SSE_HEAD);
        assert_eq!(client.read_head().status(), 200);
        Told { client, peer }
    }

    fn next(&mut self, number: usize) {
        let event = format!("data: {number}\n\n");
        self.peer.send(chunk(&event));
        assert_eq!(self.client.read_chunk(), event.as_bytes());
    }

    fn end(mut self) {
        self.peer.send([chunk("data: [DONE]\n\n"), LAST_CHUNK.to_vec()].concat());
        assert_eq!(self.client.read_chunk(), b"data: [DONE]\n\n");
        self.client.read_last_chunk();
    }
}

#[test]
fn a_storm_of_reloads_costs_nobody_anything() {
    let (one, two, streamed) = (named("one"), named("two"), Upstream::listen());
    let files = [config(&streamed, &one), config(&streamed, &two)];
    let edge = Edge::configured_freely(&files[0]);
    assert_eq!(status(&edge, &to("l")), 200);
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let descriptors = edge.metric("process_open_fds", &[]);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| ask_on(&edge, &over, &asked));
        }
        let mut stream = Told::begin(&edge, &streamed);
        wait_until("requests are served", || asked.load(Ordering::Relaxed) > CLIENTS);
        let before = edge.resident_bytes();
        for number in 0..SIGNALS {
            // The last one leads to `two`.
            edge.rewrite_config(&files[number % 2]);
            edge.signal(Signal::HUP);
            if number.is_multiple_of(10) {
                stream.next(number);
            }
        }
        wait_until("the last file is in force", || edge.ask(&to("m")).1.text() == "two");
        for number in 0..10 {
            stream.next(number);
            assert_eq!(edge.ask(&to("m")).1.text(), "two", "and stays so");
        }
        stream.end();
        let at_once = asked.load(Ordering::Relaxed);
        wait_until("requests go on", || asked.load(Ordering::Relaxed) > at_once + CLIENTS);
        let grown = edge.resident_bytes().saturating_sub(before);
        eprintln!(
            "{} reloads of {SIGNALS} signals, {} requests; memory grew by {grown} bytes",
            edge.metric(RELOADS, &["result=\"ok\""]),
            asked.load(Ordering::Relaxed)
        );
        assert!(grown < GROWTH_BYTES_MAX, "grew by {grown} bytes");
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(edge.metric(RELOADS, &["result=\"failed\""]), 0.0);
    // What was used stays used, whatever was read since.
    assert_eq!(status(&edge, &to("l")), 429);
    // Connections to upstreams that are in no configuration any more are closed, and nothing else is open.
    wait_until("nothing is left open", || {
        edge.metric("process_open_fds", &[])
            <= descriptors + edge.metric("sedge_upstream_connections_idle", &[])
    });
}

/// Files that are written while they are read, or wrong, come and go: what was in force stays so until a good one is there.
#[test]
fn what_is_wrong_in_a_storm_changes_nothing() {
    let (one, streamed) = (named("one"), Upstream::listen());
    let good = config(&streamed, &one);
    let edge = Edge::configured_freely(&good);
    let mut client = edge.connect();
    for number in 0..60 {
        // Cut at any place, most of which make it wrong.
        edge.rewrite_config(&good[..good.len() * (number + 1) / 61]);
        edge.signal(Signal::HUP);
        client.send(get("/livez", &[]));
        assert_eq!(client.read_answer().0.status(), 200);
    }
    edge.rewrite_config("nonsense = true\n");
    edge.signal(Signal::HUP);
    edge.stderr().wait_for("nonsense");
    assert!(edge.metric(RELOADS, &["result=\"failed\""]) >= 1.0);
    assert_eq!(edge.ask(&get("/livez", &[])).0.status(), 200);

    let two = Upstream::serve(|_, _| ok(&[]));
    // A part of a file may be a good one, and lead elsewhere: nothing is asked before the whole one is in force.
    let taken = edge.metric(RELOADS, &["result=\"ok\""]);
    edge.rewrite_config(&config(&streamed, &two));
    edge.signal(Signal::HUP);
    edge.wait_metric(RELOADS, &["result=\"ok\""], taken + 1.0);
    wait_until("a good one is taken", || edge.ask(&to("m")).1.text().contains("usage"));
}
