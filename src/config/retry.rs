//! A route's word on asking again: how often, after what, how soon.

use std::time::Duration;

use super::document::{Table, Value};
use super::units::{duration, size};

/// The most times that a request may be sent.
const ATTEMPTS_MAX: u64 = 10;

/// The longest time to wait before another attempt.
const BACKOFF_MAX_MS: u64 = 60_000;

/// Statuses that say "not now" or "not here", and not that the request is wrong.
const STATUSES: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// The most bytes of a body that is kept for another attempt, where nothing else is said.
const MAX_BODY_BYTES: u64 = 16 << 20;

/// When a second upstream is asked beside the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HedgeAfter {
    /// After so many milliseconds.
    Millis(u32),
    /// After the time in which 95 of 100 of the route's answers have begun.
    P95,
}

impl HedgeAfter {
    /// From a route's `hedge`.
    pub(crate) fn read(table: &Table<'_>) -> Option<HedgeAfter> {
        let after =
            table.require("after", "say when, as in { after = \"800ms\" } or { after = \"p95\" }", |value| {
                if value.string() == Ok("p95") {
                    return Ok(HedgeAfter::P95);
                }
                match duration(value)?.as_millis() as u32 {
                    0 => Err("is no time: every request would be sent twice".to_owned()),
                    ms => Ok(HedgeAfter::Millis(ms)),
                }
            });
        table.finish(|_| None);
        after
    }
}

/// When and how a request is sent again. It never is once a byte of an answer is committed to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// The most upstreams asked for one request, the first included.
    pub(crate) attempts: u32,
    /// The answers that are not passed on while another attempt is left.
    pub(crate) on: Vec<u16>,
    /// A request that an upstream may have acted upon without an answer (it closed, or fell silent) is sent again, too, whatever
    /// its method. Without it only those are whose repetition is harmless (RFC 9110, 9.2.2).
    pub(crate) repeat: bool,
    /// An upstream that has failed is asked again if there is no other.
    pub(crate) same: bool,
    /// The mean of the first wait is half of this; each next one is twice as long.
    pub(crate) backoff: Duration,
    /// The longest wait, an upstream's own `Retry-After` included.
    pub(crate) max_backoff: Duration,
    /// The share of a route's requests, in percent, that may be sent again.
    pub(crate) budget: u32,
    /// Bytes of a request's body that are kept until its answer begins, so that it can be sent again.
    pub(crate) max_body: u64,
}

impl Retry {
    /// For a route that says nothing: what has certainly not been acted upon goes to another upstream, once each.
    pub(crate) fn failover() -> Retry {
        Retry { on: Vec::new(), same: false, ..Retry::asked_for() }
    }

    /// Likewise, but an answer that says "not now" is no answer to pass on: for a route that has something to fall back to.
    pub(crate) fn failover_on_statuses() -> Retry {
        Retry { on: STATUSES.to_vec(), ..Retry::failover() }
    }

    /// For a route that says `retry = {}`.
    fn asked_for() -> Retry {
        Retry {
            attempts: 3,
            on: STATUSES.to_vec(),
            repeat: false,
            same: true,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            budget: 20,
            max_body: MAX_BODY_BYTES,
        }
    }

    /// From a route's `retry`, in a process that may hold `memory` bytes for all requests.
    pub(crate) fn read(table: &Table<'_>, memory: u64) -> Retry {
        let mut retry = Retry::asked_for();
        let millis = |value: &Value<'_>| value.integer(1..=BACKOFF_MAX_MS).map(Duration::from_millis);
        table.set("attempts", |value| Ok(value.integer(1..=ATTEMPTS_MAX)? as u32), &mut retry.attempts);
        table.set("on", |value| Ok(value.each(status)), &mut retry.on);
        table.set("repeat", Value::boolean, &mut retry.repeat);
        table.set("backoff_ms", millis, &mut retry.backoff);
        table.set("max_backoff_ms", millis, &mut retry.max_backoff);
        table.set("budget_percent", |value| Ok(value.integer(0..=100)? as u32), &mut retry.budget);
        let body = |value: &Value<'_>| match size(0)(value)? {
            bytes if bytes > memory => {
                Err(format!("is more than [limits] stream_memory, {memory} bytes for all requests"))
            }
            bytes => Ok(bytes),
        };
        table.set("max_body", body, &mut retry.max_body);
        if retry.backoff > retry.max_backoff && table.is_sound() {
            table.fault("backoff_ms", "is longer than max_backoff_ms; raise that one, too");
        }
        table.finish(|_| None);
        retry
    }
}

fn status(value: &Value<'_>) -> Result<u16, String> {
    let status = value.integer(400..=599)? as u16;
    match status {
        408 | 409 | 425 | 429 | 500.. => Ok(status),
        _ => Err(format!(
            "has {status}, which tells that the request itself is refused: it would be everywhere; name 408, 409, 425, 429 or from 500 on"
        )),
    }
}
