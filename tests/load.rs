//! The load test tells the truth: what is complete is complete, what is broken is counted by what broke it, and what it
//! measured is in its report.

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use sedge::testing::simulator::Simulator;
use serde_json::Value;
use support::edge::{command, scratch};
use support::{Edge, SSE_HEAD, Upstream, answer, chunk};

/// A short test: what is asserted does not depend on how much it measures.
const SHORT: [&str; 4] = ["--duration", "1s", "--warmup", "50ms"];

/// A test that goes on until it is ended.
const ENDLESS: [&str; 6] = ["--duration", "1h", "--warmup", "0", "--threads", "1"];

/// One `sedge load` and the files it writes.
struct Run {
    child: Child,
    json: PathBuf,
    svg: PathBuf,
}

/// What it left behind.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    table: String,
    stderr: String,
    report: Value,
    svg: String,
}

impl Run {
    fn start(url: &str, args: &[&str]) -> Run {
        let (json, svg) = (scratch("load.json"), scratch("load.svg"));
        let child = command()
            .args(["load", url])
            .args(args)
            .arg("--json")
            .arg(&json)
            .arg("--svg")
            .arg(&svg)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start sedge load");
        Run { child, json, svg }
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("kill");
    }

    fn told(self) -> Told {
        let Output { status, stdout, stderr } = self.child.wait_with_output().expect("its output");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let told = Told {
            code: status.code(),
            table: text(stdout),
            stderr: text(stderr),
            report: serde_json::from_slice(&std::fs::read(&self.json).expect("the report")).expect("JSON"),
            svg: std::fs::read_to_string(&self.svg).expect("the plot"),
        };
        let _ = (std::fs::remove_file(&self.json), std::fs::remove_file(&self.svg));
        told
    }
}

fn simulator() -> Simulator {
    Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), 1).expect("a simulator")
}

/// A short test of the simulator with the knobs in `headers`.
fn simulated(headers: &[&str], args: &[&str]) -> Told {
    let simulator = simulator();
    let mut all = [&SHORT, args].concat();
    headers.iter().for_each(|header| all.extend(["--header", header]));
    Run::start(&format!("http://{}", simulator.addr()), &all).told()
}

/// Whether all failures of all steps are of this one kind, and there are some.
#[track_caller]
fn assert_all_failed(told: &Told, kind: &str) {
    assert_eq!(told.code, Some(1), "{told:?}");
    for step in told.report["steps"].as_array().expect("steps") {
        let failed = step["failed"].as_u64().filter(|failed| *failed > 0).expect("failures");
        assert_eq!(step["completed"], 0, "{step}");
        assert_eq!(step["requests"], failed, "{step}");
        assert_eq!(step["errors"], serde_json::json!({ kind: failed }), "{step}");
        assert!(told.table.contains(&format!("{failed} {kind}")), "{}", told.table);
    }
    assert_eq!(told.report["knee"], Value::Null);
}

#[test]
fn every_stream_through_the_edge_is_complete_and_all_of_it_is_reported() {
    let edge = Edge::start(&[]);
    let args = [&SHORT[..], &["--steps", "2,4,8", "--header", "x-sim-events: 5"]].concat();
    let told = Run::start(&format!("http://{}/v1", edge.addr()), &args).told();
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(told.stderr, "", "nothing moves where nobody looks");

    let report = &told.report;
    assert_eq!(report["url"], format!("http://{}/v1/chat/completions", edge.addr()));
    assert_eq!((&report["mode"], &report["streamed"]), (&"users".into(), &true.into()));
    assert_eq!((&report["duration_us"], &report["warmup_us"]), (&1_000_000.into(), &50_000.into()));
    assert_eq!(report["interrupted"], false);
    assert!(report["knee"]["load"].is_u64(), "{report}");
    let steps = report["steps"].as_array().expect("steps");
    assert_eq!(
        steps.iter().map(|step| step["load"].as_u64()).collect::<Vec<_>>(),
        [Some(2), Some(4), Some(8)]
    );
    for step in steps {
        let count = |name: &str| step[name].as_u64().unwrap_or_else(|| panic!("{name}: {step}"));
        assert!(count("requests") > 0, "{step}");
        assert_eq!(count("completed"), count("requests"), "{step}");
        assert_eq!((count("failed"), count("abandoned"), count("warmup_failed")), (0, 0, 0), "{step}");
        assert_eq!(step["errors"], serde_json::json!({}));
        for latency in ["first_byte_us", "end_us"] {
            let summary = &step[latency];
            assert_eq!(summary["count"], step["completed"], "{step}");
            let at = |name: &str| summary[name].as_u64().expect("a time");
            assert!(at("p50") <= at("p90") && at("p90") <= at("p99") && at("p99") <= at("max"), "{summary}");
        }
        // The role, five of content, the finish, [DONE]: one gap less than events.
        assert!(step["between_events_us"]["count"].as_u64() >= Some(6 * count("completed")), "{step}");
        assert!(step["events_per_s"].as_f64() > step["requests_per_s"].as_f64(), "{step}");
    }

    assert!(told.table.contains("first byte, ms") && told.table.contains("\nknee: "), "{}", told.table);
    assert!(told.svg.starts_with("<svg ") && told.svg.ends_with("</svg>\n"));
    for tag in ["svg", "text", "title", "style", "circle"] {
        let count = |text: String| told.svg.matches(&text).count();
        let opened = count(format!("<{tag} ")) + count(format!("<{tag}>"));
        assert_eq!(opened, count(format!("</{tag}>")), "{tag}");
    }
    assert_eq!(told.svg.matches("<circle").count(), 9);
}

#[test]
fn a_schedule_is_kept_to_the_request() {
    let told = simulated(&[], &["--rate", "20,40", "--threads", "2"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(told.report["mode"], "rate");
    let requests: Vec<_> =
        told.report["steps"].as_array().expect("steps").iter().map(|s| &s["completed"]).collect();
    assert_eq!(requests, [20, 40], "a second of 20 and 40 a second");
}

#[test]
fn a_schedule_does_not_wait_for_answers() {
    let upstream = Upstream::listen();
    let run = Run::start(&upstream.url(), &[&ENDLESS[..], &["--rate", "50"]].concat());
    let held: Vec<_> = (0..5).map(|_| upstream.accept()).collect();
    run.interrupt();
    let told = run.told();
    assert!(told.report["steps"][0]["abandoned"].as_u64() >= Some(held.len() as u64), "{told:?}");
}

#[test]
fn whole_answers_are_asked_for_and_read() {
    let told = simulated(&[], &["--steps", "2", "--no-stream"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let step = &told.report["steps"][0];
    assert_eq!((&told.report["streamed"], &step["between_events_us"]), (&false.into(), &Value::Null));
    assert_eq!(step["events_per_s"], 0.0);
    assert_eq!(step["completed"], step["requests"]);
}

#[test]
fn a_body_from_a_file_goes_where_it_belongs() {
    let body = scratch("body.json");
    std::fs::write(&body, r#"{"model":"sim","input":"hi","stream":true}"#).expect("write");
    let told = simulated(&[], &["--steps", "2", "--body", body.to_str().expect("UTF-8")]);
    let _ = std::fs::remove_file(&body);
    assert_eq!(told.code, Some(0), "{told:?}");
    let url = told.report["url"].as_str().expect("a URL");
    assert!(url.ends_with("/v1/responses"), "{url}");
}

#[test]
fn failures_are_counted_by_what_broke() {
    assert_all_failed(&simulated(&["x-sim-cut-after: 3"], &["--steps", "1,2"]), "cut");
    let refused = simulated(&["x-sim-status: 429"], &["--steps", "2"]);
    assert_all_failed(&refused, "http_429");
    assert!(refused.table.contains("The simulator was asked for a 429"), "{}", refused.table);
    assert_all_failed(
        &simulated(&["x-sim-stall-after: 3"], &["--steps", "2", "--timeout", "200ms"]),
        "timeout",
    );
    // Nobody listens on a port that was just given back.
    let gone = format!("http://{}", simulator().addr());
    assert_all_failed(&Run::start(&gone, &[&SHORT[..], &["--steps", "2"]].concat()).told(), "connect");
}

#[test]
fn what_the_edge_says_of_a_cut_is_an_error() {
    let edge = Edge::start(&[]);
    let args = [&SHORT[..], &["--steps", "2", "--header", "x-sim-cut-after: 3"]].concat();
    let told = Run::start(&format!("http://{}", edge.addr()), &args).told();
    assert_all_failed(&told, "error_event");
}

#[test]
fn an_end_without_a_last_event_is_none() {
    let served = Upstream::serve(|_, _| [SSE_HEAD, &chunk("data: {}\n\n"), b"0\r\n\r\n"].concat());
    let told = Run::start(&served.url(), &[&SHORT[..], &["--steps", "2"]].concat()).told();
    assert_all_failed(&told, "unfinished");
}

/// A server may close a connection that it kept just when it is used again: any client sends the request once more.
#[test]
fn a_kept_connection_that_closes_costs_no_request() {
    let upstream = Upstream::listen();
    let run = Run::start(&upstream.url(), &[&ENDLESS[..], &["--steps", "1", "--no-stream"]].concat());
    let mut first = upstream.accept();
    for again in [false, true] {
        let head = first.read_head();
        first.read_request_body(&head);
        if !again {
            first.send(answer("200 OK", &["Content-Type: application/json"], "{}"));
        }
    }
    first.close();
    let mut second = upstream.accept();
    second.read_head();
    run.interrupt();
    let told = run.told();
    let step = &told.report["steps"][0];
    assert_eq!(told.code, Some(0), "{told:?}");
    let counts = ["requests", "completed", "failed", "abandoned", "resent"].map(|name| step[name].as_u64());
    assert_eq!(counts, [Some(2), Some(1), Some(0), Some(1), Some(1)], "{step}");
}

#[test]
fn a_signal_ends_it_and_what_it_has_is_told() {
    let upstream = Upstream::listen();
    let waiting = Run::start(&upstream.url(), &[&ENDLESS[..], &["--steps", "1,2"]].concat());
    let _held = upstream.accept();
    waiting.interrupt();
    let told = waiting.told();
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(told.report["interrupted"], true);
    assert_eq!(told.report["steps"].as_array().map(Vec::len), Some(1), "no step begins after it");
    assert!(told.table.contains("\nthe test was ended by a signal\n"), "{}", told.table);
}

#[test]
fn an_edge_with_tls_is_trusted_by_its_ca_alone() {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let cert = params.self_signed(&key).expect("a certificate");
    let (cert_file, key_file) = (scratch("cert.pem"), scratch("key.pem"));
    std::fs::write(&cert_file, cert.pem()).expect("write");
    std::fs::write(&key_file, key.serialize_pem()).expect("write");
    let path = |file: &PathBuf| file.to_str().expect("UTF-8").to_owned();
    let (cert, key) = (path(&cert_file), path(&key_file));
    let edge = Edge::start(&["--tls-cert", &cert, "--tls-key", &key]);
    let url = format!("https://{}", edge.addr());
    let args = [&SHORT[..], &["--steps", "2"]].concat();
    let trusted = Run::start(&url, &[&args[..], &["--ca", &cert]].concat()).told();
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    assert!(trusted.report["steps"][0]["completed"].as_u64() > Some(0));
    let stranger = Run::start(&url, &args).told();
    assert_all_failed(&stranger, "connect");
    assert!(stranger.table.contains("TLS: invalid peer certificate"), "{}", stranger.table);
}

#[test]
fn a_bad_command_line_is_told_before_anything_is_sent() {
    let missing = scratch("missing");
    let missing = missing.to_str().expect("UTF-8");
    for (args, expected) in [
        (&["load"][..], "needs the API's base"),
        (&["load", "http://127.0.0.1:1", "--steps", "x"], "--steps: "),
        (&["load", "http://127.0.0.1:1", "--body", missing], "No such file"),
        (&["load", "http://127.0.0.1:1", "--ca", missing], "no certificate could be read"),
        (&["load", "http://127.0.0.1:1", "--json", "/"], "directory"),
    ] {
        let output = command().args(args).output().expect("run sedge load");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
        assert_eq!(output.stdout, b"", "{args:?}");
    }
}
