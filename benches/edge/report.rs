//! The table and the JSON: medians with their range, and what they are beside the floor's and axum's.

use std::fmt::Write;

use serde_json::{Value, json};

use super::peers::Kind;
use super::scenes::{Sample, Scene};

/// All samples of one scene.
pub struct Results {
    /// The scene.
    pub scene: Scene,
    /// The samples of each peer, and what went wrong.
    pub peers: Vec<(Kind, Vec<Sample>, Vec<String>)>,
}

/// A column: its title, digits behind the point, and how it is read off a sample.
type Column = (&'static str, usize, fn(&Sample) -> f64);

const COLUMNS: [Column; 11] = [
    ("CPU us", 2, |sample| sample.cpu_us),
    ("user %", 0, |sample| 100.0 * sample.user),
    ("calls", 2, |sample| sample.calls),
    ("KiB", 2, |sample| sample.kib),
    ("held KiB", 0, |sample| sample.held_kib),
    ("per s", 0, |sample| sample.rate),
    ("idle us/s", 0, |sample| sample.idle_us),
    ("delay p50", 0, |sample| sample.delay_us[0]),
    ("delay p99", 0, |sample| sample.delay_us[1]),
    ("first p50", 0, |sample| sample.first_us[0]),
    ("first p99", 0, |sample| sample.first_us[1]),
];

impl Results {
    /// As text. What no peer was measured for is left out.
    pub fn table(&self) -> String {
        let mut text = format!("\n{}: CPU time for each {}\n", self.scene.name(), self.scene.unit());
        let columns: Vec<&Column> = COLUMNS
            .iter()
            .filter(|(_, _, read)| self.peers.iter().any(|(_, samples, _)| median(samples, *read).is_some()))
            .collect();
        let _ = write!(text, "{:16}", "");
        for (title, ..) in &columns {
            let width = if *title == "CPU us" { 28 } else { 10 };
            let _ = write!(text, "{title:>width$}");
        }
        let _ = writeln!(text, "{:>10}{:>10}", "x floor", "x axum");
        for (kind, samples, errors) in &self.peers {
            let _ = write!(text, "{:16}", kind.name());
            for (title, digits, read) in &columns {
                let value = median(samples, *read).map_or("-".into(), |value| format!("{value:.digits$}"));
                let range = match (*title, range(samples, *read)) {
                    ("CPU us", Some((least, most))) => format!(" [{least:6.digits$} {most:6.digits$}]"),
                    _ => String::new(),
                };
                let width = if *title == "CPU us" { 28 } else { 10 };
                let _ = write!(text, "{:>width$}", value + &range);
            }
            for other in [Kind::Floor, Kind::Axum] {
                let ratio = self.ratio(*kind, other).map_or("-".into(), |ratio| format!("{ratio:.2}"));
                let _ = write!(text, "{ratio:>10}");
            }
            text.push('\n');
            for error in errors {
                let _ = writeln!(text, "{:16}FAILED: {error}", "");
            }
        }
        text
    }

    /// The median over the rounds of one peer's CPU time as a multiple of another's in the same round.
    pub fn ratio(&self, kind: Kind, other: Kind) -> Option<f64> {
        let of =
            |kind: Kind| self.peers.iter().find(|(peer, ..)| *peer == kind).map(|(_, samples, _)| samples);
        let ratios: Vec<f64> =
            of(kind)?.iter().zip(of(other)?).map(|(one, other)| one.cpu_us / other.cpu_us).collect();
        middle(ratios)
    }

    /// The median CPU time of a peer, in microseconds.
    pub fn cpu_us(&self, kind: Kind) -> Option<f64> {
        let (_, samples, _) = self.peers.iter().find(|(peer, ..)| *peer == kind)?;
        median(samples, |sample| sample.cpu_us)
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let peers = self.peers.iter().map(|(kind, samples, errors)| {
            let mut fields = serde_json::Map::new();
            for (title, _, read) in COLUMNS {
                if let (Some(median), Some((min, max))) = (median(samples, read), range(samples, read)) {
                    fields.insert(title.into(), json!({ "median": median, "min": min, "max": max }));
                }
            }
            fields.insert("x floor".into(), json!(self.ratio(*kind, Kind::Floor)));
            fields.insert("x axum".into(), json!(self.ratio(*kind, Kind::Axum)));
            fields.insert("errors".into(), json!(errors));
            (kind.name().to_owned(), Value::Object(fields))
        });
        json!({ "scene": self.scene.name(), "unit": self.scene.unit(), "peers": Value::Object(peers.collect()) })
    }
}

fn measured(samples: &[Sample], read: fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(read).filter(|value| !value.is_nan()).collect()
}

fn median(samples: &[Sample], read: fn(&Sample) -> f64) -> Option<f64> {
    middle(measured(samples, read))
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

fn range(samples: &[Sample], read: fn(&Sample) -> f64) -> Option<(f64, f64)> {
    let values = measured(samples, read);
    Some((values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?))
}
