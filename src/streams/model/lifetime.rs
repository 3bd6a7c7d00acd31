//! How long a stream lives (PROTOCOL.md, sections 4 and 5.1).

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest time that is kept as it was said, in bytes: RFC 3339 lets a second have any number of digits.
const TIME_BYTES_MAX: usize = 64;

/// How long a stream lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lifetime {
    /// Until it is deleted.
    #[default]
    Unbounded,
    /// Until nobody has read or written it for so many seconds.
    Idle(u64),
    /// Until a moment.
    Until {
        /// As it was said.
        text: Box<str>,
        /// In milliseconds since 1970.
        at: u64,
    },
}

impl Lifetime {
    /// What `Stream-TTL` says: a number without sign, fraction or leading zeros. `None` if it is not one.
    pub(crate) fn of_ttl(text: &str) -> Option<Lifetime> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        plain.then(|| text.parse().ok()).flatten().map(Lifetime::Idle)
    }

    /// What `Stream-Expires-At` says (RFC 3339). `None` if it is no time, or is not worth keeping as it was said.
    pub(crate) fn of_time(text: &str) -> Option<Lifetime> {
        if text.len() > TIME_BYTES_MAX {
            return None;
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let at = u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        Some(Lifetime::Until { text: text.into(), at })
    }

    /// When it ends, if it was last used at `used`; both in milliseconds since 1970. `None` is never.
    pub(crate) fn end(&self, used: u64) -> Option<u64> {
        match self {
            Lifetime::Unbounded => None,
            Lifetime::Idle(seconds) => Some(used.saturating_add(seconds.saturating_mul(1000))),
            Lifetime::Until { at, .. } => Some(*at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_has_one_spelling() {
        assert_eq!(Lifetime::of_ttl("3600"), Some(Lifetime::Idle(3600)));
        assert_eq!(Lifetime::of_ttl("0"), Some(Lifetime::Idle(0)));
        for wrong in ["", "+1", "01", "1.0", "1e3", "-1", " 1", "99999999999999999999"] {
            assert_eq!(Lifetime::of_ttl(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_is_one_of_rfc_3339() {
        let until = Lifetime::of_time("1970-01-01T01:00:01.5+01:00").expect("a time");
        assert_eq!(until.end(0), Some(1500));
        let long = format!("2099-01-01T00:00:00.{}Z", "1".repeat(5000));
        for wrong in ["", "1970-01-01", "tomorrow", "1970-01-01T00:00:00", &long] {
            assert_eq!(Lifetime::of_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn use_moves_only_an_idle_limit() {
        assert_eq!(Lifetime::Idle(2).end(500), Some(2500));
        assert_eq!(Lifetime::Idle(u64::MAX).end(u64::MAX), Some(u64::MAX));
        assert_eq!(Lifetime::Unbounded.end(1), None);
    }
}
