//! Who is asked: whoever fails or is slow is asked less or not at all, and comes back; 429 is obeyed to the millisecond; a client
//! stays where its prompts are warm; and when nobody is left, the client learns when to come again.

#![allow(
    clippy::disallowed_methods,
    reason = "the bans are for the edge's data path; this is the other side of the wire"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Edge, Upstream, answer, error_code, post, wait_until};

const STATE: &str = "sedge_upstream_state";
const OPENS: &str = "sedge_upstream_opens_total";
const IN_FLIGHT: &str = "sedge_upstream_in_flight";

/// An upstream that answers its name with a status that can be changed, after a time that can be.
struct Flaky {
    url: String,
    asked: Arc<AtomicUsize>,
    status: Arc<AtomicUsize>,
    pause_ms: Arc<AtomicU64>,
}

impl Flaky {
    fn new(name: &'static str) -> Flaky {
        let (asked, status, pause_ms) =
            (Arc::<AtomicUsize>::default(), Arc::new(AtomicUsize::new(200)), Arc::<AtomicU64>::default());
        let (count, code, pause) = (Arc::clone(&asked), Arc::clone(&status), Arc::clone(&pause_ms));
        let served = Upstream::serve(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(pause.load(Ordering::SeqCst)));
            match code.load(Ordering::SeqCst) {
                200 => answer("200 OK", &[], name),
                429 => answer("429 Slow", &["Retry-After-Ms: 3000"], name),
                other => answer(&format!("{other} Oops"), &[], name),
            }
        });
        Flaky { url: served.url(), asked, status, pause_ms }
    }

    fn says(&self, status: usize) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Upstreams called `a`, `b` and so on, each with these keys of its own, and one route over all of them.
fn config(upstreams: &[(&Flaky, &str)], route: &str) -> String {
    let tables = upstreams.iter().zip('a'..).map(|((upstream, keys), name)| {
        format!("[[upstream]]\nname = \"{name}\"\nurl = \"{}\"\n{keys}\n\n", upstream.url)
    });
    tables.collect::<String>() + &format!("[[route]]\nname = \"r\"\n{route}\n")
}

const QUICK: &str =
    "breaker = { min_calls = 4, cool_down = \"400ms\", max_cool_down = \"800ms\", probes = 2 }";

/// Nobody comes back within a test.
const LONG: &str = "breaker = { min_calls = 4, cool_down = \"1h\", max_cool_down = \"1h\" }";

fn ask(edge: &Edge) -> (u16, String) {
    let (head, body) = edge.ask(&post("/v1/embeddings", &["Connection: close"], "{\"model\":\"m\"}"));
    (head.status(), body.text())
}

#[test]
fn who_fails_gets_out_of_the_rotation_and_comes_back() {
    let (a, b) = (Flaky::new("a"), Flaky::new("b"));
    let edge = Edge::configured(&config(&[(&a, QUICK), (&b, QUICK)], "balance = \"first\"\nretry = {}"));
    a.says(500);
    for _ in 0..20 {
        assert_eq!(ask(&edge), (200, "b".into()), "nobody sees it");
    }
    assert!(a.asked() < 20, "{} requests went to one that fails", a.asked());
    assert!(edge.metric(OPENS, &["upstream=\"a\"", "reason=\"errors\""]) >= 1.0);
    assert!(edge.metric(OPENS, &["upstream=\"b\""]).abs() < f64::EPSILON);
    a.says(200);
    wait_until("a is asked again", || ask(&edge).1 == "a");
    wait_until("its breaker is closed", || {
        ask(&edge);
        edge.metric(STATE, &["upstream=\"a\"", "state=\"closed\""]) > 0.0
    });
    edge.wait_metric(IN_FLIGHT, &[], 0.0);
}

#[test]
fn who_refuses_connections_is_not_dialed_each_time() {
    let (a, b) = (Flaky::new("a"), Flaky::new("b"));
    let gone = Flaky { url: "http://127.0.0.1:1".into(), ..a };
    let edge = Edge::configured(&config(&[(&gone, ""), (&b, "")], "balance = \"first\""));
    for _ in 0..6 {
        assert_eq!(ask(&edge), (200, "b".into()));
    }
    let dialed = edge.metric("sedge_upstream_retries_total", &["reason=\"connect\""]);
    assert!((3.0..6.0).contains(&dialed), "{dialed}");
    assert!(edge.metric(OPENS, &["upstream=\"a\"", "reason=\"connect\""]) >= 1.0);
}

#[test]
fn what_the_client_did_wrong_is_not_the_upstreams_fault() {
    let (a, b) = (Flaky::new("a"), Flaky::new("b"));
    let edge = Edge::configured(&config(&[(&a, QUICK), (&b, QUICK)], "balance = \"first\""));
    a.says(404);
    for _ in 0..20 {
        assert_eq!(ask(&edge), (404, "a".into()));
    }
    assert!((edge.metric(STATE, &["state=\"closed\""]) - 2.0).abs() < f64::EPSILON);
}

#[test]
fn who_is_slow_gets_less() {
    let (a, b) = (Flaky::new("a"), Flaky::new("b"));
    a.pause_ms.store(1_000, Ordering::SeqCst);
    let edge = Edge::configured(&config(&[(&a, ""), (&b, "")], ""));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| assert_eq!(ask(&edge).0, 200)));
        }
    });
    assert!(a.asked() >= 1 && a.asked() < 40, "{} of 200 went to the slow one", a.asked());
}

#[test]
fn a_429_is_obeyed_exactly_as_long_as_it_says() {
    let (a, b) = (Flaky::new("a"), Flaky::new("b"));
    let edge = Edge::configured(&config(&[(&a, ""), (&b, "")], "balance = \"first\""));
    a.says(429);
    // It is parked at some time after this.
    let before = Instant::now();
    assert_eq!(ask(&edge), (429, "a".into()), "what the route does not retry is passed on");
    a.says(200);
    assert!(edge.metric(STATE, &["upstream=\"a\"", "state=\"parked\""]) > 0.0);
    while ask(&edge).1 == "b" {}
    // The edge's coarse clock is up to one tick of 50 ms old.
    let took = before.elapsed();
    assert!(took >= Duration::from_millis(2_900) && a.asked() == 2, "{took:?}, {}", a.asked());
    assert!(b.asked() > 1);
}

#[test]
fn a_session_stays_where_it_was_and_others_are_elsewhere() {
    let all = ["a", "b", "c", "d"].map(Flaky::new);
    let upstreams: Vec<_> = all.iter().map(|upstream| (upstream, QUICK)).collect();
    let toml = config(&upstreams, "balance = { sticky = \"X-Session\" }\nretry = {}");
    let ask = |edge: &Edge, session: usize| {
        let field = format!("x-session: s{session}");
        let fields = [&field[..], "Connection: close"];
        edge.ask(&post("/v1/embeddings", &fields, "{\"model\":\"m\"}")).1.text()
    };
    let edge = Edge::configured(&toml);
    let before: Vec<_> = (0..24).map(|session| ask(&edge, session)).collect();
    for name in ["a", "b", "c", "d"] {
        assert!(before.iter().any(|place| place == name), "{before:?}");
    }
    // Another process knows the same.
    let other = Edge::configured(&toml);
    assert_eq!(before, (0..24).map(|session| ask(&other, session)).collect::<Vec<_>>());
    all[0].says(500);
    for (session, place) in before.iter().enumerate() {
        let now = ask(&edge, session);
        assert!(if place == "a" { now != "a" } else { now == *place }, "{session}: {place}, {now}");
    }
    // Without the field it is the client that counts, and all of these are one.
    let places: Vec<_> = (0..5).map(|_| self::ask(&edge).1).collect();
    assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
}

#[test]
fn a_lower_priority_is_for_when_the_others_are_out() {
    let (a, b, c) = (Flaky::new("a"), Flaky::new("b"), Flaky::new("c"));
    let route =
        "upstreams = [{ name = \"c\", priority = 2 }, \"a\", \"b\"]\nretry = { budget_percent = 100 }";
    // One failure is enough: what the budget of retries allows would otherwise be used up before both are out.
    let touchy = "breaker = { min_calls = 1, error_percent = 1, cool_down = \"500ms\", max_cool_down = \"500ms\", probes = 1 }";
    let edge = Edge::configured(&config(&[(&a, touchy), (&b, touchy), (&c, "")], route));
    for _ in 0..20 {
        assert_ne!(ask(&edge).1, "c");
    }
    assert_eq!(c.asked(), 0);
    a.says(500);
    b.says(500);
    for _ in 0..10 {
        assert_eq!(ask(&edge), (200, "c".into()));
    }
    a.says(200);
    wait_until("the first are asked again", || ask(&edge).1 == "a");
}

#[test]
fn when_all_are_out_the_client_is_told_when_to_come_again() {
    let (a, b) = (Flaky::new("a"), Flaky::new("b"));
    let (edge, strict) = (
        Edge::configured(&config(&[(&a, ""), (&b, "")], "balance = \"first\"")),
        Edge::configured(&config(&[(&a, "breaker = true")], "")),
    );
    let both = [(&edge, 2), (&strict, 1)];
    a.says(429);
    b.says(429);
    let mut longest = 0;
    for (edge, count) in both {
        for _ in 0..count {
            assert_eq!(ask(edge).0, 429);
        }
        let asked = a.asked() + b.asked();
        let (head, body) = edge.ask(&post("/v1/embeddings", &[], "{\"model\":\"m\"}"));
        assert_eq!(head.status(), 503);
        assert_eq!(error_code(&body.bytes()), "upstreams_unavailable");
        let wait: u64 = head.get("retry-after-ms").and_then(|ms| ms.parse().ok()).expect("milliseconds");
        assert!((1..=3000).contains(&wait), "{wait}");
        assert_eq!(head.get("retry-after"), Some(wait.div_ceil(1000).to_string().as_str()));
        assert_eq!(a.asked() + b.asked(), asked, "nobody is bothered");
        longest = longest.max(wait);
    }
    a.says(200);
    b.says(200);
    // It is true: who comes then is served.
    thread::sleep(Duration::from_millis(longest + 60));
    assert!(both.iter().all(|(edge, _)| ask(edge).0 == 200));
}

#[test]
fn the_only_upstream_is_asked_whatever_it_has_answered_unless_it_has_a_breaker() {
    let a = Flaky::new("a");
    let edge = Edge::configured(&config(&[(&a, "")], ""));
    a.says(500);
    for _ in 0..30 {
        assert_eq!(ask(&edge), (500, "a".into()));
    }
    assert_eq!(a.asked(), 30);
}

#[test]
fn nobody_left_is_somebody_elses_answer_where_the_route_has_one() {
    let (a, b) = (Flaky::new("a"), Flaky::new("b"));
    let toml = config(&[(&a, LONG), (&b, "")], "upstreams = [\"a\"]\nmodels = [\"m\"]\nfallback = \"other\"")
        + "[[route]]\nname = \"other\"\nupstreams = [\"b\"]\n";
    let edge = Edge::configured(&toml);
    a.says(500);
    for _ in 0..10 {
        assert_eq!(ask(&edge), (200, "b".into()));
    }
    assert!(a.asked() < 10);
    let line = edge.stdout().wait_for("\"tried\":\"r: out\"");
    assert!(line.contains("\"degraded\":\"fallback\"") && line.contains("\"attempts\":1"), "{line}");
}

#[test]
fn a_reload_changes_the_rules_and_not_what_is_known() {
    let (a, b) = (Flaky::new("a"), Flaky::new("b"));
    let toml = |route: &str| config(&[(&a, LONG), (&b, "")], &format!("balance = \"first\"\n{route}"));
    let edge = Edge::configured(&toml("retry = {}"));
    a.says(500);
    (0..6).for_each(|_| assert_eq!(ask(&edge), (200, "b".into())));
    a.says(200);
    let asked = a.asked();
    edge.rewrite_config(&toml("retry = { attempts = 2 }"));
    edge.signal(Signal::HUP);
    edge.stderr().wait_for("configuration reloaded");
    (0..6).for_each(|_| assert_eq!(ask(&edge), (200, "b".into())));
    assert!(edge.metric(STATE, &["upstream=\"a\"", "state=\"open\""]) > 0.0);
    assert_eq!(a.asked(), asked);
    // Another address is another upstream, of which nothing is known.
    edge.rewrite_config(&toml("").replace(&a.url, &(a.url.clone() + "/v1")));
    edge.signal(Signal::HUP);
    edge.stderr().wait_for_nth("configuration reloaded", 1);
    assert_eq!(ask(&edge), (200, "a".into()));
}

/// One request at a time, and one more that waits for so long.
fn one_place(upstream: &Upstream, queue_wait: &str) -> Edge {
    Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\
         concurrency = {{ latency = \"1h\", max = 1, queue = 1, queue_wait = \"{queue_wait}\" }}\n\n[[route]]\nname = \"r\"\n",
        upstream.url()
    ))
}

#[test]
fn who_finds_no_place_waits_or_is_told_at_once() {
    let upstream = Upstream::listen();
    let edge = one_place(&upstream, "60s");
    let request = post("/v1/embeddings", &[], "{\"model\":\"m\"}");
    let (mut first, mut peer, ..) = support::relayed(&edge, &upstream, &request);
    let mut second = edge.connect();
    second.send(&request);
    edge.wait_metric("sedge_upstream_queue", &["upstream=\"a\""], 1.0);
    let (head, body) = edge.ask(&request);
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (503, "overloaded"));
    assert_eq!(head.get("retry-after"), Some("1"));
    // The first is answered: it is the second's turn.
    peer.send(answer("200 OK", &[], "one"));
    assert_eq!(first.read_answer().1.text(), "one");
    let head = peer.read_head();
    peer.read_request_body(&head);
    peer.send(answer("200 OK", &[], "two"));
    assert_eq!(second.read_answer().1.text(), "two");
    for (reason, count) in [("full", 1.0), ("waited", 0.0), ("evicted", 0.0)] {
        edge.wait_metric("sedge_upstream_shed_total", &[&format!("reason=\"{reason}\"")], count);
    }
    edge.wait_metric(IN_FLIGHT, &[], 0.0);
    edge.stdout().wait_for("\"error_code\":\"overloaded\"");
}

#[test]
fn who_waits_in_vain_is_told() {
    let upstream = Upstream::listen();
    let edge = one_place(&upstream, "200ms");
    let request = post("/v1/embeddings", &[], "{\"model\":\"m\"}");
    let (mut first, mut peer, ..) = support::relayed(&edge, &upstream, &request);
    let (head, body) = edge.ask(&request);
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (503, "overloaded"));
    peer.send(answer("200 OK", &[], "one"));
    assert_eq!(first.read_answer().1.text(), "one");
    for (reason, count) in [("full", 0.0), ("waited", 1.0), ("evicted", 0.0)] {
        edge.wait_metric("sedge_upstream_shed_total", &[&format!("reason=\"{reason}\"")], count);
    }
    edge.wait_metric(IN_FLIGHT, &[], 0.0);
}

#[test]
fn who_leaves_the_queue_leaves_its_place_to_the_next() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\
         concurrency = {{ latency = \"1h\", max = 1, queue_wait = \"60s\" }}\n",
        upstream.url()
    ));
    let request = post("/v1/embeddings", &[], "{\"model\":\"m\"}");
    let (mut first, mut peer, ..) = support::relayed(&edge, &upstream, &request);
    let (mut leaves, mut stays) = (edge.connect(), edge.connect());
    leaves.send(&request);
    edge.wait_metric("sedge_upstream_queue", &[], 1.0);
    stays.send(&request);
    edge.wait_metric("sedge_upstream_queue", &[], 2.0);
    leaves.close();
    edge.wait_metric("sedge_upstream_queue", &[], 1.0);
    peer.send(answer("200 OK", &[], "one"));
    assert_eq!(first.read_answer().1.text(), "one");
    let head = peer.read_head();
    peer.read_request_body(&head);
    peer.send(answer("200 OK", &[], "two"));
    assert_eq!(stays.read_answer().1.text(), "two");
}

#[test]
fn the_limit_follows_what_the_upstream_takes() {
    let (a, b) = (Flaky::new("a"), Flaky::new("b"));
    // Far more than an answer takes that comes at once.
    let keys = "concurrency = { latency = \"2s\", min = 2, max = 64 }\nbreaker = false";
    let edge = Edge::configured(&config(&[(&a, keys), (&b, "")], "upstreams = [\"a\"]"));
    let limit = || edge.metric("sedge_upstream_concurrency_limit", &["upstream=\"a\""]);
    let load = |clients: usize, requests: usize| {
        thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| (0..requests).for_each(|_| drop(ask(&edge))));
            }
        });
    };
    assert!((limit() - 16.0).abs() < f64::EPSILON);
    load(12, 5);
    let risen = limit();
    assert!(risen > 16.0, "{risen}");
    a.pause_ms.store(2_500, Ordering::SeqCst);
    load(8, 1);
    assert!(limit() < risen, "{} after {risen}", limit());
}
