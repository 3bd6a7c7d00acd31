//! The ways a request fails, by kind: what a report counts.

use std::borrow::Cow;
use std::fmt;

/// The longest text that is kept of one failure.
const DETAIL_CHARS_MAX: usize = 200;

/// What went wrong. `Display` is the name in tables and reports: one word, for people and programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub(crate) enum Kind {
    /// No connection: the name, the address or the TLS handshake.
    Connect,
    /// Not over within `--timeout`.
    Timeout,
    /// Due, but every connection allowed was still busy when the step ended (open loop only).
    NotSent,
    /// The connection ended before the first byte of an answer.
    NoResponse,
    /// No HTTP/1.1 response head that could be trusted.
    InvalidHead,
    /// Any status but 200 to 299.
    Status(u16),
    /// The body broke the rules of its chunked coding.
    InvalidFraming,
    /// The connection ended before the body did.
    Cut,
    /// A stream was asked for, and the answer is none.
    NotAStream,
    /// An event's data, or the whole answer, is neither JSON nor `[DONE]`.
    NotJson,
    /// An event, or a whole answer, longer than is taken in.
    TooLarge,
    /// The stream told of an error.
    ErrorEvent,
    /// The body ended by the rules of HTTP, but no event had said that the stream is over.
    Unfinished,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Connect => "connect",
            Kind::Timeout => "timeout",
            Kind::NotSent => "not_sent",
            Kind::NoResponse => "no_response",
            Kind::InvalidHead => "invalid_head",
            Kind::Status(status) => return write!(f, "http_{status}"),
            Kind::InvalidFraming => "invalid_framing",
            Kind::Cut => "cut",
            Kind::NotAStream => "not_a_stream",
            Kind::NotJson => "not_json",
            Kind::TooLarge => "too_large",
            Kind::ErrorEvent => "error_event",
            Kind::Unfinished => "unfinished",
        })
    }
}

/// One failure: its kind, and what can be said of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What is counted.
    pub(crate) kind: Kind,
    /// What an example tells; may be empty.
    pub(crate) detail: Cow<'static, str>,
}

impl Failure {
    /// One that has the same cause each time.
    pub(crate) const fn new(kind: Kind, detail: &'static str) -> Failure {
        Failure { kind, detail: Cow::Borrowed(detail) }
    }

    /// One that a peer's bytes, or the system, tell more of. They end on a terminal, so nothing that steers one is kept.
    pub(crate) fn told(kind: Kind, detail: &str) -> Failure {
        let mut plain: String = detail.chars().take(DETAIL_CHARS_MAX).collect();
        if plain.len() < detail.len() {
            plain.push('…');
        }
        let plain: String = plain.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Failure { kind, detail: Cow::Owned(plain.trim().to_owned()) }
    }

    /// As [`Failure::told`], of bytes that need not be text.
    pub(crate) fn of_bytes(kind: Kind, bytes: &[u8]) -> Failure {
        // A character has four bytes at most.
        let bytes = &bytes[..bytes.len().min(4 * DETAIL_CHARS_MAX + 4)];
        Failure::told(kind, &String::from_utf8_lossy(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_single_words() {
        assert_eq!(Kind::Status(429).to_string(), "http_429");
        assert_eq!(Kind::ErrorEvent.to_string(), "error_event");
    }

    #[test]
    fn details_are_short_and_do_not_steer_a_terminal() {
        let failure = Failure::of_bytes(Kind::Cut, b"\x1b[2Ja\nb\xff");
        assert_eq!(failure.detail, "[2Ja b\u{fffd}");
        let failure = Failure::told(Kind::Cut, &"ü".repeat(5000));
        assert_eq!(failure.detail.chars().count(), DETAIL_CHARS_MAX + 1);
        let failure = Failure::of_bytes(Kind::Cut, "ü".repeat(5000).as_bytes());
        assert_eq!(failure.detail.chars().count(), DETAIL_CHARS_MAX + 1);
    }
}
