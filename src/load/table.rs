//! The report as people read it: a row for each step, as soon as it is over, and what follows from them.

use std::fmt::Write as _;

use super::knee::Because;
use super::report::{Report, Step};
use super::tally::Summary;
use crate::runtime::clock::Micros;

/// What is tested, and the heads of the columns.
pub(crate) fn header(report: &Report) -> String {
    let seconds = |time: Micros| time as f64 / 1e6;
    let group = |name: &str| format!("  {name:-^27}");
    let quantiles = format!("  {:>6} {:>6} {:>6} {:>6}", "p50", "p90", "p99", "max").repeat(3);
    format!(
        "{}: {} s a step after {} s of warm-up, {} {}\n\n{:>33}{}{}{}\n{:>7} {:>8} {:>8} {:>7}{quantiles}\n",
        report.url,
        seconds(report.duration_us),
        seconds(report.warmup_us),
        report.threads,
        if report.threads == 1 { "thread" } else { "threads" },
        "",
        group(" first byte, ms "),
        group(" between events, ms "),
        group(" to the end, ms "),
        if report.mode == "users" { "users" } else { "rate" },
        "req/s",
        "events/s",
        "failed",
    )
}

/// A step's row.
pub(crate) fn row(step: &Step) -> String {
    let failed = step.failed + step.warmup_failed;
    format!(
        "{:>7} {:>8} {:>8} {failed:>7}{}{}{}\n",
        step.load,
        short(step.requests_per_s),
        short(step.events_per_s),
        quantiles(step.first_byte_us),
        quantiles(step.between_events_us),
        quantiles(step.end_us),
    )
}

/// Failures by kind, and the knee.
pub(crate) fn footer(report: &Report) -> String {
    let mut text = String::from("\n");
    for step in &report.steps {
        let mut told = |count: u64, what: &str, example: &str| {
            let dash = if example.is_empty() { "" } else { ": " };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {}: {count} {what}{dash}{example}", step.load, report.unit);
        };
        for (kind, count) in &step.errors {
            told(*count, kind, step.examples.get(kind).map_or("", String::as_str));
        }
        if step.requests == 0 {
            told(0, "requests began in the measured time", "answers take longer; raise --duration");
        }
        if step.warmup_failed > 0 {
            told(step.warmup_failed, "failed in the warm-up", "");
        }
        if step.resent > 0 {
            told(step.resent, "sent again, over a new connection", "");
        }
        if step.abandoned > 0 {
            told(step.abandoned, "given up when the test was ended", "");
        }
    }
    let knee = report.knee.map(|knee| (knee, report.unit));
    text += &match knee {
        None => "knee: none, no request of the first step ended well\n".to_owned(),
        Some((knee, unit)) => {
            let why = match knee.because {
                Because::Goodput => "with more, goodput grew by less than a tenth of its share",
                Because::Latency => {
                    "with more, the p99 of the first byte was more than three times the first step's"
                }
                Because::NotReached => "the last step; it is not reached yet",
            };
            format!("knee: {} {unit} ({why})\n", knee.load)
        }
    };
    if report.interrupted {
        text += "the test was ended by a signal\n";
    }
    text
}

fn quantiles(summary: Option<Summary>) -> String {
    let Some(Summary { p50, p90, p99, max, .. }) = summary else {
        return format!("  {0:>6} {0:>6} {0:>6} {0:>6}", "-");
    };
    let [p50, p90, p99, max] = [p50, p90, p99, max].map(|time| short(time as f64 / 1000.0));
    format!("  {p50:>6} {p90:>6} {p99:>6} {max:>6}")
}

/// A number with three digits, or as many as stand before its point.
pub(crate) fn short(number: f64) -> String {
    let decimals = match number {
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::examples::{report, step};

    #[test]
    fn numbers_have_three_digits() {
        for (number, text) in
            [(0.0, "0.00"), (0.314, "0.31"), (9.996, "10.0"), (99.96, "100"), (12_345.6, "12346")]
        {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn columns_stand_below_their_heads() {
        let report = report(vec![step(50, 1000.0, 1500)]);
        let (header, row) = (header(&report), row(&report.steps[0]));
        let heads = header.lines().last().unwrap();
        assert_eq!(heads.len(), row.trim_end_matches('\n').len());
        assert!(header.lines().all(|line| line.len() <= 120), "{header}");
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "50", "9.00", "1000", "1", "0.38", "0.75", "1.50", "1.50", "-", "-", "-", "-", "3.75",
                "7.50", "15.0", "15.0"
            ]
        );
        assert!(header.starts_with(
            "http://h/v1/chat/completions?<&>: 10 s a step after 0.5 s of warm-up, 2 threads\n"
        ));
    }

    #[test]
    fn failures_and_the_knee_are_told() {
        let text = footer(&report(vec![step(50, 1000.0, 1500), step(100, 1010.0, 9000)]));
        assert!(text.contains("\n50 users: 1 cut: within <it>\n"), "{text}");
        assert!(text.contains("\n100 users: 2 sent again, over a new connection\n"), "{text}");
        assert!(!text.contains("began"), "{text}");
        let idle = report(vec![Step { requests: 0, ..step(50, 1000.0, 1500) }]);
        assert!(
            footer(&idle).contains("\n50 users: 0 requests began in the measured time: answers take longer")
        );
        assert!(text.contains("\nknee: 50 users (with more, goodput grew by less"), "{text}");
    }
}
