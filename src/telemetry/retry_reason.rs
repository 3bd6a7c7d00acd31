//! Why a request was sent to an upstream once more, as the words that appear in metrics.

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Again {
    /// A pooled connection turned out to be closed.
    Stale,
    /// No connection.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// The connection ended without an answer.
    Closed,
    /// No answer in time.
    Silence,
    /// The answer was not HTTP.
    Invalid,
    /// The answer was a stream that began with an error.
    Error,
    /// The answer was 429.
    RateLimited,
    /// The answer was another status that the route retries.
    Status,
}

impl Again {
    /// All reasons, in the order of their discriminants.
    pub(crate) const ALL: [Again; 9] = [
        Again::Stale,
        Again::Connect,
        Again::ConnectTimeout,
        Again::Closed,
        Again::Silence,
        Again::Invalid,
        Again::Error,
        Again::RateLimited,
        Again::Status,
    ];

    /// The word for it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Again::Stale => "stale",
            Again::Connect => "connect",
            Again::ConnectTimeout => "connect_timeout",
            Again::Closed => "closed",
            Again::Silence => "silence",
            Again::Invalid => "invalid",
            Again::Error => "error",
            Again::RateLimited => "rate_limited",
            Again::Status => "status",
        }
    }
}

/// What was answered in place of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Degraded {
    /// Another route, or another model.
    Fallback,
    /// A fixed text.
    Static,
}

impl Degraded {
    /// Both, in the order of their discriminants.
    pub(crate) const ALL: [Degraded; 2] = [Degraded::Fallback, Degraded::Static];

    /// The word for it in metrics, the log and the answer's head.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Degraded::Fallback => "fallback",
            Degraded::Static => "static",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_at_its_own_place() {
        for (place, reason) in Again::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{}", reason.label());
        }
    }
}
