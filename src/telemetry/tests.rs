//! The room as a whole: what is counted on the cores is what a scrape shows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::counters::MAX_REQUEST_SERIES;
use super::*;

/// The samples of a page by their series, after a check of the page's form.
fn scrape(registry: &Registry) -> HashMap<String, f64> {
    let mut page = String::new();
    render(registry, &mut page);
    let mut samples = HashMap::new();
    let (mut family, mut kind) = ("", "");
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split_once(' ').unwrap().0;
            continue;
        }
        if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, of) = of.split_once(' ').unwrap();
            assert_eq!(name, family, "HELP and TYPE stand together");
            assert_eq!(of == "counter", name.ends_with("_total"), "{name} is a {of}");
            kind = of;
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let suffix = name.strip_prefix(family).expect("samples stand under their family");
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{series}");
        let twice = samples.insert(series.to_owned(), value.parse().unwrap());
        assert_eq!(twice, None, "{series} stands twice");
    }
    samples
}

#[test]
fn a_new_registry_shows_zeros() {
    let samples = scrape(&Registry::new(2));
    assert_eq!(samples["sedge_ready"], 0.0);
    assert_eq!(samples["sedge_cores"], 2.0);
    assert_eq!(samples["sedge_events_relayed_total"], 0.0);
    assert_eq!(samples["sedge_connections_refused_total{reason=\"tls_failed\"}"], 0.0);
    assert_eq!(samples[&format!("sedge_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
    assert!(samples["process_start_time_seconds"] > 1.7e9);
}

#[test]
fn cores_are_summed() {
    let registry = Registry::new(2);
    for (core, n) in registry.cores().iter().zip([3, 4]) {
        core.events_relayed.add(n);
        core.streams_open.add(n + 1);
        core.streams_open.sub(1);
        core.connection_refused(Refusal::Limit);
    }
    registry.cores()[0].upstream_idle.set(9);
    registry.cores()[0].upstream_idle.set(5);
    registry.set_ready(true);
    registry.reloads_failed.inc();
    let samples = scrape(&registry);
    assert_eq!(samples["sedge_events_relayed_total"], 7.0);
    assert_eq!(samples["sedge_streams_open"], 7.0);
    assert_eq!(samples["sedge_upstream_connections_idle"], 5.0);
    assert_eq!(samples["sedge_connections_refused_total{reason=\"limit\"}"], 2.0);
    assert_eq!(samples["sedge_connections_refused_total{reason=\"no_fd\"}"], 0.0);
    assert_eq!(samples["sedge_config_reloads_total{result=\"failed\"}"], 1.0);
    assert_eq!(samples["sedge_ready"], 1.0);
}

#[test]
fn finished_requests_are_told_apart_by_route_upstream_status_and_outcome() {
    let registry = Registry::new(2);
    let (route, upstream) = (registry.labels.intern("chat"), registry.labels.intern("ea\"s\\t\n"));
    for core in registry.cores() {
        core.request_finished(route, upstream, 200, Outcome::Finished);
    }
    registry.cores()[1].request_finished(route, LabelId::NONE, 401, Outcome::Refused);
    let samples = scrape(&registry);
    let escaped = r#"sedge_requests_total{route="chat",upstream="ea\"s\\t\n",status="200"}"#;
    assert_eq!(samples[escaped], 2.0);
    assert_eq!(samples[r#"sedge_requests_total{route="chat",upstream="",status="401"}"#], 1.0);
    assert_eq!(samples[r#"sedge_request_outcomes_total{route="chat",outcome="finished"}"#], 2.0);
    assert_eq!(samples[r#"sedge_request_outcomes_total{route="chat",outcome="refused"}"#], 1.0);
}

#[test]
fn an_upstream_with_ever_new_statuses_does_not_make_ever_new_series() {
    let registry = Registry::new(1);
    let core = &registry.cores()[0];
    let routes: Vec<LabelId> = (0..8).map(|n| registry.labels.intern(&format!("route-{n}"))).collect();
    for route in routes {
        for status in 100..1000 {
            core.request_finished(route, LabelId::NONE, status, Outcome::Finished);
        }
    }
    // The classes 1xx to 9xx of "other" come on top.
    assert!(core.finished().by_status.len() <= MAX_REQUEST_SERIES + 9);
    assert_eq!(core.finished().by_status.values().sum::<u64>(), 8 * 900);
    let samples = scrape(&registry);
    assert!(samples[r#"sedge_requests_total{route="other",upstream="other",status="400"}"#] > 0.0);
}

#[test]
fn histograms_are_cumulative_and_in_seconds() {
    let registry = Registry::new(2);
    for core in registry.cores() {
        core.time_to_first_token.observe_us(1_000);
        core.time_to_first_token.observe_us(1_001);
        core.time_to_first_token.observe_us(11_000_000);
    }
    let samples = scrape(&registry);
    let at_most = |le: &str| samples[&format!("sedge_time_to_first_token_seconds_bucket{{le=\"{le}\"}}")];
    assert_eq!(at_most("0.001"), 2.0);
    assert_eq!(at_most("0.005"), 4.0);
    assert_eq!(at_most("7.5"), 4.0);
    assert_eq!(at_most("10"), 4.0);
    assert_eq!(at_most("+Inf"), 6.0);
    assert_eq!(samples["sedge_time_to_first_token_seconds_count"], 6.0);
    assert_eq!(samples["sedge_time_to_first_token_seconds_sum"], 22.004002);
    assert!(samples.contains_key("sedge_overhead_seconds_bucket{le=\"0.00001\"}"));
}

#[test]
fn a_scrape_sees_every_count_while_the_cores_go_on() {
    const ROUNDS: u64 = 20_000;
    let registry = Registry::new(2);
    let route = registry.labels.intern("chat");
    let is_done = AtomicBool::new(false);
    let read = |samples: &HashMap<String, f64>| {
        let requests = r#"sedge_requests_total{route="chat",upstream="",status="200"}"#;
        [
            samples["sedge_events_relayed_total"],
            samples["sedge_request_duration_seconds_count"],
            samples.get(requests).copied().unwrap_or_default(),
        ]
    };
    thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let mut before = [0.0; 3];
            while !is_done.load(Ordering::Acquire) {
                let samples = scrape(&registry);
                let now = read(&samples);
                assert!(
                    before.iter().zip(&now).all(|(before, now)| before <= now),
                    "{before:?} then {now:?}"
                );
                let inf = samples["sedge_request_duration_seconds_bucket{le=\"+Inf\"}"];
                assert_eq!(inf, samples["sedge_request_duration_seconds_count"]);
                before = now;
            }
        });
        let cores: Vec<_> = registry.cores().iter().collect();
        let owners = cores.into_iter().map(|core| {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    core.requests_open.add(1);
                    core.events_relayed.add(3);
                    core.request_duration.observe_us(round * 100);
                    core.request_finished(route, LabelId::NONE, 200, Outcome::Finished);
                    core.requests_open.sub(1);
                }
            })
        });
        owners.collect::<Vec<_>>().into_iter().for_each(|owner| owner.join().unwrap());
        is_done.store(true, Ordering::Release);
        scraper.join().unwrap();
    });
    let samples = scrape(&registry);
    assert_eq!(read(&samples), [6.0, 2.0, 2.0].map(|each| each * ROUNDS as f64));
    assert_eq!(samples["sedge_requests_open"], 0.0);
}

#[test]
fn discriminants_are_indices_and_labels_differ() {
    for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
        assert_eq!(outcome as usize, index);
    }
    for (index, reason) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
    let labels: std::collections::HashSet<_> = Outcome::ALL.map(Outcome::label).into();
    assert_eq!(labels.len(), Outcome::ALL.len());
    assert_eq!(Outcome::TimeoutFirstByte.label(), "timeout_first_byte");
}
