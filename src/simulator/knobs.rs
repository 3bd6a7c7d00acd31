//! What a request's `x-sim-` fields ask for.

use crate::proto::http1::request::RequestHead;
use crate::proto::openai::ApiError;

/// Content chunks at most.
pub(crate) const EVENTS_MAX: u64 = 1_000_000;

/// Content bytes of a chunk at most.
pub(crate) const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A pause at most, in milliseconds.
pub(crate) const PAUSE_MS_MAX: u64 = 3_600_000;

/// The knobs, as far as they were turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knobs {
    /// `x-sim-events`: content chunks.
    pub(crate) events: u64,
    /// `x-sim-bytes`: content bytes of each; natural words otherwise.
    pub(crate) bytes: Option<u64>,
    /// `x-sim-interval-ms`: pause between two chunks.
    pub(crate) interval_ms: u64,
    /// `x-sim-first-ms`: pause before the first byte.
    pub(crate) first_ms: u64,
    /// `x-sim-status`: answer this status, with an error.
    pub(crate) status: Option<u16>,
    /// `x-sim-cut-after`: close the connection after this many events, of whatever kind.
    pub(crate) cut_after: Option<u64>,
    /// `x-sim-stall-after`: fall silent after this many.
    pub(crate) stall_after: Option<u64>,
}

impl Default for Knobs {
    fn default() -> Knobs {
        Knobs {
            events: 32,
            bytes: None,
            interval_ms: 0,
            first_ms: 0,
            status: None,
            cut_after: None,
            stall_after: None,
        }
    }
}

impl Knobs {
    /// Reads them from a head. What cannot be read is an error, not a default.
    pub(crate) fn read(head: &RequestHead<'_>) -> Result<Knobs, ApiError> {
        let knob = |name: &'static str, max: u64| match head.field(name) {
            None => Ok(None),
            Some(value) => number(value, max).map(Some).ok_or_else(|| {
                ApiError::new(400, "invalid_knob", format!("{name} must be a whole number from 0 to {max}"))
            }),
        };
        let usual = Knobs::default();
        let status = knob("x-sim-status", 599)?;
        if status.is_some_and(|status| status < 200) {
            return Err(ApiError::new(
                400,
                "invalid_knob",
                "x-sim-status must be a final status, from 200 to 599",
            ));
        }
        Ok(Knobs {
            events: knob("x-sim-events", EVENTS_MAX)?.unwrap_or(usual.events),
            bytes: knob("x-sim-bytes", BYTES_MAX)?,
            interval_ms: knob("x-sim-interval-ms", PAUSE_MS_MAX)?.unwrap_or(usual.interval_ms),
            first_ms: knob("x-sim-first-ms", PAUSE_MS_MAX)?.unwrap_or(usual.first_ms),
            status: status.map(|status| status as u16),
            cut_after: knob("x-sim-cut-after", EVENTS_MAX)?,
            stall_after: knob("x-sim-stall-after", EVENTS_MAX)?,
        })
    }
}

fn number(value: &[u8], max: u64) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok().filter(|&number| number <= max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http1::request::parse;

    fn read(fields: &str) -> Result<Knobs, ApiError> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        Knobs::read(&parse(head.as_bytes()).unwrap())
    }

    #[test]
    fn what_is_not_turned_has_its_default() {
        assert_eq!(read("").unwrap(), Knobs::default());
        let knobs = read("x-sim-events: 7\r\nX-Sim-Cut-After: 0\r\nx-sim-status: 429\r\n").unwrap();
        assert_eq!((knobs.events, knobs.cut_after, knobs.status), (7, Some(0), Some(429)));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "x-sim-events: many\r\n",
            "x-sim-status: 99\r\n",
            "x-sim-bytes: 99999999999\r\n",
            "x-sim-first-ms: -1\r\n",
        ] {
            assert_eq!(read(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
