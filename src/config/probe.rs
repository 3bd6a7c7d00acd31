//! Whether an upstream is asked how it is when nobody else asks it.

use std::time::Duration;

use super::document::{Table, Value};
use super::units::duration;

/// More often than this, a probe is a load of its own.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The longest path.
const PATH_MAX_BYTES: usize = 1024;

/// An upstream's active probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// What is asked for: a path from the upstream's root, whatever its URL says.
    pub(crate) path: String,
    /// How often.
    pub(crate) interval: Duration,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
}

impl Probe {
    /// From an upstream's `probe`.
    pub(crate) fn read(table: &Table<'_>) -> Option<Probe> {
        let path = table.require("path", "say what is asked for, as in { path = \"/health\" }", path);
        let mut probe = Probe {
            path: path.clone().unwrap_or_default(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        };
        table.set("interval", interval, &mut probe.interval);
        table.set("timeout", interval, &mut probe.timeout);
        table.finish(|_| None);
        path.map(|_| probe)
    }
}

fn interval(value: &Value<'_>) -> Result<Duration, String> {
    match duration(value)? {
        time if time < INTERVAL_MIN => Err(format!("is too short; {INTERVAL_MIN:?} is the least")),
        time => Ok(time),
    }
}

fn path(value: &Value<'_>) -> Result<String, String> {
    let path = value.name(PATH_MAX_BYTES)?;
    match path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(path),
        false => Err(format!("{path:?} is no path: it begins with a slash, and has no spaces")),
    }
}
