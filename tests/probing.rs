//! Active probes: an upstream that is not well is left alone before a request has found out, and asked again when it is.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::{Edge, Upstream, answer, post};

/// Tells how it is at `/health`, and counts what else it is asked.
fn upstream(
    well: &Arc<AtomicBool>,
    asked: &Arc<AtomicUsize>,
    name: &'static str,
) -> support::upstream::Served {
    let (well, asked) = (Arc::clone(well), Arc::clone(asked));
    Upstream::serve(move |head, _| {
        if !head.start.starts_with("GET /health ") {
            asked.fetch_add(1, Ordering::Relaxed);
            return answer("200 OK", &[], name);
        }
        assert_eq!(head.get("authorization"), None);
        match well.load(Ordering::Relaxed) {
            true => answer("200 OK", &["Connection: close"], "well"),
            false => answer("503 Service Unavailable", &["Connection: close"], "not well"),
        }
    })
}

#[test]
fn who_is_not_well_is_not_asked_and_comes_back_when_it_is() {
    let (well, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let first = upstream(&well, &asked, "first");
    let second = Upstream::serve(|_, _| answer("200 OK", &[], "second"));
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"first\"\nurl = \"{}/v1\"\n\
         probe = {{ path = \"/health\", interval = \"100ms\", timeout = \"1s\" }}\n\
         breaker = {{ connect_failures = 2, cool_down = \"4s\", max_cool_down = \"4s\", probes = 2 }}\n\n\
         [[upstream]]\nname = \"second\"\nurl = \"{}/v1\"\n\n\
         [[route]]\nmodels = [\"*\"]\nupstreams = [\"first\", \"second\"]\nbalance = \"first\"\n",
        first.url(),
        second.url()
    ));
    let ask = || edge.ask(&post("/v1/chat/completions", &[], "{}")).1.text();
    let state = |state: &str| {
        let label = format!("state=\"{state}\"");
        edge.metric("sedge_upstream_state", &["upstream=\"first\"", &label])
    };
    support::wait_until("it is found out", || state("closed") == 0.0);
    // When its time is over it is half-open, and may be tried by whoever comes first, a request or a probe: until then it is
    // left alone.
    let (mut left_alone, mut tried) = (0, 0);
    while left_alone < 10 {
        support::wait_until("it is out", || state("open") == 1.0);
        let is_first = ask() == "first";
        if state("open") == 1.0 {
            assert!(!is_first, "a request has found out");
            left_alone += 1;
        }
        tried += usize::from(is_first);
    }
    assert_eq!(asked.load(Ordering::Relaxed), tried);
    assert!(edge.metric("sedge_upstream_opens_total", &["upstream=\"first\"", "reason=\"connect\""]) >= 1.0);
    assert!(edge.metric("sedge_upstream_probes_total", &["upstream=\"first\"", "result=\"failed\""]) >= 2.0);

    well.store(true, Ordering::Relaxed);
    support::wait_until("it is let in again", || state("closed") == 1.0);
    assert_eq!(asked.load(Ordering::Relaxed), tried, "a request has tried it");
    assert_eq!(ask(), "first");
    assert!(edge.metric("sedge_upstream_probes_total", &["upstream=\"first\"", "result=\"ok\""]) >= 2.0);
    assert_eq!(edge.metric("sedge_upstream_probes_total", &["upstream=\"second\""]), 0.0);
}
