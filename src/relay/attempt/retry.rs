//! Whether a request is sent again, and after how long. No socket, clock or task: what happened, a time and chance in, a
//! decision out.
//!
//! | what happened | sent again |
//! | --- | --- |
//! | no connection, no TLS; closed before a byte of the request was taken | always: nobody has acted upon it |
//! | an answer with a status that the route's `on` names | always: that is what the route says |
//! | an error in the first words of a stream that was held back | if repeating it is harmless, or the route says `repeat`, which `first_content` does |
//! | closed, reset, silent or not understood after the request was sent | if repeating it is harmless, or the route says `repeat` |
//! | the client left, its body is broken, the time is over | never |
//!
//! An upstream that has not been asked is asked at once. One that has been is asked after a wait: a random part of a time
//! that doubles (full jitter, so that those who failed together do not come back together), and never before the time that it
//! has named itself. A wait that would outlast the route's longest or the request's time is no wait but the end: the client
//! gets what there is, and with it the upstream's own `Retry-After`.

use std::fmt;

use crate::config::Retry;
use crate::downstream::deadlines::Timeout;
use crate::relay::request::body::UploadError;
use crate::runtime::clock::Millis;
use crate::telemetry::Again;
use crate::upstream::client::Stop;

/// What must be left of a request's time for another attempt: less is over before the wheel's next tick.
pub(crate) const LEFT_MIN_MS: Millis = 50;

/// Why an attempt has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// No connection.
    Connect,
    /// It did not come about in time.
    ConnectTimeout,
    /// The connection ended without an answer.
    Closed,
    /// No answer in time.
    Silence,
    /// The answer was not HTTP, or broke off in its head.
    Invalid,
    /// The answer was a stream that began with an error, and nothing of it has been passed on.
    Error,
    /// This answer.
    Status(u16),
}

impl Why {
    /// What became of an attempt, if it is the upstream's doing. The second says that the upstream may have acted upon it.
    pub(crate) fn of(stop: &Stop) -> Option<(Why, bool)> {
        Some(match stop {
            Stop::Dial(_) => (Why::Connect, false),
            Stop::Timeout(Timeout::Connect | Timeout::UpstreamTls) => (Why::ConnectTimeout, false),
            Stop::Timeout(Timeout::FirstByte) => (Why::Silence, true),
            Stop::Closed { untouched } => (Why::Closed, !untouched),
            Stop::Upload(UploadError::Upstream(_)) => (Why::Closed, true),
            Stop::Invalid(_) => (Why::Invalid, true),
            Stop::Gone | Stop::Stopped(_) | Stop::Timeout(_) | Stop::Upload(_) => return None,
        })
    }

    /// The same in metrics.
    pub(crate) const fn reason(self) -> Again {
        match self {
            Why::Connect => Again::Connect,
            Why::ConnectTimeout => Again::ConnectTimeout,
            Why::Closed => Again::Closed,
            Why::Silence => Again::Silence,
            Why::Invalid => Again::Invalid,
            Why::Error => Again::Error,
            Why::Status(429) => Again::RateLimited,
            Why::Status(_) => Again::Status,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Status(status) => write!(f, "{status}"),
            other => f.write_str(other.reason().label()),
        }
    }
}

/// Whether such an attempt may be followed by another at all. `repeatable` is the request's own word.
pub(crate) fn may_follow(retry: &Retry, why: Why, acted_upon: bool, repeatable: bool) -> bool {
    match why {
        Why::Status(status) => retry.on.contains(&status),
        _ => !acted_upon || repeatable || retry.repeat,
    }
}

/// How long to wait, in milliseconds, before an upstream that has failed is asked again; none if that is longer than it may
/// be. `again` is how many waits there were before, `chance` any number, `asked` the upstream's own `Retry-After`.
pub(crate) fn wait(retry: &Retry, again: u32, chance: u64, asked: Option<Millis>) -> Option<Millis> {
    let longest = retry.max_backoff.as_millis() as Millis;
    let step = (retry.backoff.as_millis() as Millis).saturating_mul(1 << again.min(16)).min(longest);
    let wait = (chance % (step + 1)).max(asked.unwrap_or(0));
    (wait <= longest).then_some(wait)
}

/// Whether an attempt that begins `wait` from `now` can come to an answer: nothing is started that cannot finish. `until` is
/// when the request must be over, 0 for never.
pub(crate) fn fits(until: Millis, now: Millis, wait: Millis) -> bool {
    until == 0 || now + wait + LEFT_MIN_MS <= until
}

/// The time that an answer asks to be left alone for: `retry-after-ms`, or else `Retry-After` in seconds (RFC 9110, 10.2.3).
/// A date is taken for no time: it depends on the other's clock.
pub(crate) fn retry_after(ms: Option<&[u8]>, seconds: Option<&[u8]>) -> Option<Millis> {
    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.trim().parse::<f64>().ok();
    let millis = ms.and_then(number).or_else(|| seconds.and_then(number).map(|seconds| seconds * 1000.0))?;
    (millis.is_finite() && millis >= 0.0).then_some(millis as Millis)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn retry() -> Retry {
        Retry {
            attempts: 3,
            on: vec![429, 503],
            repeat: false,
            same: true,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_millis(1000),
            budget: 20,
            max_body: 1 << 20,
        }
    }

    #[test]
    fn what_may_have_been_acted_upon_is_sent_again_only_where_that_is_harmless() {
        let (careful, bold) = (retry(), Retry { repeat: true, ..retry() });
        for why in [Why::Closed, Why::Silence, Why::Invalid] {
            assert!(!may_follow(&careful, why, true, false));
            assert!(may_follow(&careful, why, true, true));
            assert!(may_follow(&bold, why, true, false));
            assert!(may_follow(&careful, why, false, false));
        }
        assert!(may_follow(&careful, Why::Status(429), true, false));
        assert!(!may_follow(&bold, Why::Status(500), true, true));
        assert!(Why::of(&Stop::Gone).is_none());
        assert!(Why::of(&Stop::Timeout(Timeout::Total)).is_none());
    }

    #[test]
    fn an_upstreams_own_time_is_kept_or_nothing_is_waited_for() {
        assert_eq!(wait(&retry(), 0, 7, Some(900)), Some(900));
        assert_eq!(wait(&retry(), 0, 7, Some(1001)), None);
        assert_eq!(retry_after(None, Some(b"2")), Some(2000));
        assert_eq!(retry_after(Some(b"150.5"), Some(b"2")), Some(150));
        assert_eq!(retry_after(None, Some(b"Wed, 21 Oct 2026 07:28:00 GMT")), None);
        assert_eq!(retry_after(None, Some(b"-1")), None);
        assert_eq!(retry_after(None, Some(b"inf")), None);
    }

    #[test]
    fn nothing_begins_that_cannot_finish() {
        assert!(fits(0, 1000, 1_000_000));
        assert!(fits(1100, 1000, 50));
        assert!(!fits(1100, 1000, 51));
        assert!(!fits(900, 1000, 0));
    }

    proptest! {
        #[test]
        fn a_wait_is_any_part_of_a_time_that_doubles(again in 0u32..100, chance: u64) {
            let most = (100 * 2u64.pow(again.min(16))).min(1000);
            prop_assert!(wait(&retry(), again, chance, None).unwrap() <= most);
        }

        #[test]
        fn no_header_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = retry_after(Some(&value), Some(&value));
        }
    }
}
