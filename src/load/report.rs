//! What a test has found, and how it is written as JSON.
//!
//! Times are whole microseconds, in keys that end in `_us`; rates are of the measured part of a step. `load` is the number of
//! users (`"mode": "users"`) or the requests a second that were due (`"mode": "rate"`). Keys may be added, and keep what they
//! mean.

use std::collections::BTreeMap;
use std::io;
use std::io::Write;

use serde::Serialize;

use super::knee::{Knee, Point, knee};
use super::request::Request;
use super::tally::{Summary, Tally};
use super::{Load, LoadArgs};
use crate::config::UpstreamUrl;
use crate::runtime::clock::Micros;

/// A test, from its arguments to its knee.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// The version that measured.
    pub(crate) sedge: &'static str,
    /// The URL that was asked.
    pub(crate) url: String,
    /// `users` or `rate`.
    pub(crate) mode: &'static str,
    /// Whether streams were asked for.
    pub(crate) streamed: bool,
    /// How long a step is measured.
    pub(crate) duration_us: Micros,
    /// How long it ran before that.
    pub(crate) warmup_us: Micros,
    /// How long a request might take.
    pub(crate) timeout_us: Micros,
    /// Threads that made the load.
    pub(crate) threads: usize,
    /// Whether a signal ended the test.
    pub(crate) interrupted: bool,
    /// Where more load stops paying.
    pub(crate) knee: Option<Knee>,
    /// The steps, as they were run.
    pub(crate) steps: Vec<Step>,
    #[serde(skip)]
    pub(crate) unit: &'static str,
}

/// A step.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    /// Users, or requests a second.
    pub(crate) load: u32,
    /// How long it was measured: less than asked for, if a signal ended it.
    pub(crate) measured_us: Micros,
    /// Requests begun in that time.
    pub(crate) requests: u64,
    /// Those that ended well.
    pub(crate) completed: u64,
    /// Those that failed.
    pub(crate) failed: u64,
    /// Those that were given up when a signal ended the test.
    pub(crate) abandoned: u64,
    /// Failures by kind.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What the first failure of each kind told, if it told anything.
    pub(crate) examples: BTreeMap<String, String>,
    /// Requests that failed though they were begun in the warm-up.
    pub(crate) warmup_failed: u64,
    /// Requests sent once more because a kept connection had been closed.
    pub(crate) resent: u64,
    /// Requests that ended well in the measured time, a second.
    pub(crate) requests_per_s: f64,
    /// Events that arrived in the measured time, a second.
    pub(crate) events_per_s: f64,
    /// Events (without streams: requests) a second, less the share of requests that failed.
    pub(crate) goodput_per_s: f64,
    /// From the start to the first byte of the body.
    pub(crate) first_byte_us: Option<Summary>,
    /// Between two events.
    pub(crate) between_events_us: Option<Summary>,
    /// From the start to the end.
    pub(crate) end_us: Option<Summary>,
}

impl Report {
    pub(crate) fn new(args: &LoadArgs, request: &Request, threads: usize) -> Report {
        let url = UpstreamUrl { path: request.path.clone(), ..args.url.clone() };
        Report {
            sedge: env!("CARGO_PKG_VERSION"),
            url: url.to_string(),
            mode: if let Load::Users(_) = args.load { "users" } else { "rate" },
            streamed: request.streamed,
            duration_us: args.duration.as_micros() as Micros,
            warmup_us: args.warmup.as_micros() as Micros,
            timeout_us: args.timeout.as_micros() as Micros,
            threads,
            interrupted: false,
            knee: None,
            steps: Vec::with_capacity(args.load.steps().len()),
            unit: args.load.unit(),
        }
    }

    /// Finds the knee, once all steps are there.
    pub(crate) fn conclude(&mut self) {
        for step in &mut self.steps {
            let rate = if self.streamed { step.events_per_s } else { step.requests_per_s };
            let ended = step.completed + step.failed;
            step.goodput_per_s = rate * (step.completed as f64 / ended.max(1) as f64);
        }
        let point = |step: &Step| Point {
            load: step.load,
            goodput: step.goodput_per_s,
            first_byte_p99: step.first_byte_us.map(|summary| summary.p99),
        };
        self.knee = knee(&self.steps.iter().map(point).collect::<Vec<_>>());
    }

    /// Whether any request has failed.
    pub(crate) fn has_failures(&self) -> bool {
        self.steps.iter().any(|step| step.failed + step.warmup_failed > 0)
    }

    /// Writes it as JSON.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")
    }
}

impl Step {
    pub(crate) fn new(load: u32, measured_us: Micros, tally: Tally) -> Step {
        let failed = tally.failed();
        let a_second = |count: u64| match measured_us {
            0 => 0.0,
            _ => count as f64 * 1e6 / measured_us as f64,
        };
        let examples = tally.errors.iter().filter(|(_, failed)| !failed.example.is_empty());
        Step {
            load,
            measured_us,
            requests: tally.requests,
            completed: tally.completed,
            failed,
            abandoned: tally.requests.saturating_sub(tally.completed + failed),
            errors: tally.errors.iter().map(|(kind, failed)| (kind.to_string(), failed.count)).collect(),
            examples: examples.map(|(kind, failed)| (kind.to_string(), failed.example.clone())).collect(),
            warmup_failed: tally.warmup_failed,
            resent: tally.resent,
            requests_per_s: a_second(tally.completed_within),
            events_per_s: a_second(tally.events_within),
            goodput_per_s: 0.0,
            first_byte_us: tally.first_byte.summary(),
            between_events_us: tally.between.summary(),
            end_us: tally.end.summary(),
        }
    }
}

/// Reports of tests that never ran.
#[cfg(test)]
pub(crate) mod examples {
    use super::*;
    use crate::load::knee::Because;

    pub(crate) fn step(load: u32, events_per_s: f64, p99: Micros) -> Step {
        let summary = |p99| Some(Summary { count: 9, p50: p99 / 4, p90: p99 / 2, p99, max: p99 + 1 });
        Step {
            load,
            measured_us: 1_000_000,
            requests: 10,
            completed: 9,
            failed: 1,
            abandoned: 0,
            errors: BTreeMap::from([("cut".into(), 1)]),
            examples: BTreeMap::from([("cut".into(), "within <it>".into())]),
            warmup_failed: 0,
            resent: 2,
            requests_per_s: 9.0,
            events_per_s,
            goodput_per_s: events_per_s * 0.9,
            first_byte_us: summary(p99),
            between_events_us: None,
            end_us: summary(p99 * 10),
        }
    }

    pub(crate) fn report(steps: Vec<Step>) -> Report {
        Report {
            sedge: "0",
            url: "http://h/v1/chat/completions?<&>".into(),
            mode: "users",
            streamed: true,
            duration_us: 10_000_000,
            warmup_us: 500_000,
            timeout_us: 60_000_000,
            threads: 2,
            interrupted: false,
            knee: Some(Knee { load: 50, because: Because::Goodput }),
            steps,
            unit: "users",
        }
    }
}
