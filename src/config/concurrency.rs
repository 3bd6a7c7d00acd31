//! How much at a time an upstream is asked, found out by how fast it answers.

use std::time::Duration;

use super::document::{Table, Value};
use super::units::duration;

/// The highest limit that can be asked for.
const LIMIT_MAX: u64 = 1_000_000;

/// The longest queue: each place in it is looked through when another is given away.
const QUEUE_MAX: u64 = 1024;

/// The longest time in it.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// An upstream's adaptive limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Concurrency {
    /// An answer that takes longer to begin says that there are too many at a time.
    pub(crate) latency: Duration,
    /// The least that the limit becomes.
    pub(crate) min: u32,
    /// The most.
    pub(crate) max: u32,
    /// Requests that wait for a place.
    pub(crate) queue: usize,
    /// How long each waits at most.
    pub(crate) queue_wait: Duration,
}

impl Concurrency {
    /// From an upstream's `concurrency`.
    pub(crate) fn read(table: &Table<'_>) -> Option<Concurrency> {
        let advice = "say how soon an answer should begin, as in { latency = \"2s\" }";
        let latency = table.require("latency", advice, |value| match duration(value)? {
            Duration::ZERO => Err("is no time: every answer takes longer".to_owned()),
            latency => Ok(latency),
        });
        let mut limit = Concurrency {
            latency: latency.unwrap_or_default(),
            min: 1,
            max: 256,
            queue: 32,
            queue_wait: Duration::from_secs(1),
        };
        let count = |value: &Value<'_>| Ok(value.integer(1..=LIMIT_MAX)? as u32);
        table.set("min", count, &mut limit.min);
        table.set("max", count, &mut limit.max);
        table.set("queue", |value| Ok(value.integer(0..=QUEUE_MAX)? as usize), &mut limit.queue);
        table.set("queue_wait", wait, &mut limit.queue_wait);
        if limit.min > limit.max && table.is_sound() {
            table.fault("min", "is more than max; raise that one, too");
        }
        table.finish(|_| None);
        latency.map(|_| limit)
    }
}

fn wait(value: &Value<'_>) -> Result<Duration, String> {
    match duration(value)? {
        Duration::ZERO => Err("is no time; queue = 0 lets nobody wait".to_owned()),
        wait if wait > WAIT_MAX => Err(format!("is longer than {} s", WAIT_MAX.as_secs())),
        wait => Ok(wait),
    }
}
