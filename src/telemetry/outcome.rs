//! How a request ended and why a connection or an append was refused, as the words that appear in metrics and in the access log.
//! The words are part of the outside face: renaming one breaks somebody's dashboard.

/// How a request ended. Every request has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Outcome {
    /// The answer was passed on to its end.
    Finished,
    /// The upstream closed or broke its answer off after the first byte, or ended a stream that has not said that it is over.
    UpstreamCut,
    /// No answer to pass on: dialing failed, or what came before the first byte was no valid response; or the answer, whatever its
    /// status, was an error.
    UpstreamError,
    /// The client closed before the end.
    ClientGone,
    /// The client stopped reading for longer than is allowed.
    ClientStalled,
    /// No upstream connection within its time.
    TimeoutConnect,
    /// No TLS session with the upstream within its time.
    TimeoutTls,
    /// The client's body did not arrive within its time.
    TimeoutRequestBody,
    /// The upstream's first byte did not arrive within its time.
    TimeoutFirstByte,
    /// The upstream went silent in the middle of its answer.
    TimeoutIdle,
    /// The request took longer than a request may.
    TimeoutTotal,
    /// Answered here with an error (4xx): key, limit, route, malformed.
    Refused,
    /// Answered here: a page, a health check.
    Local,
    /// Cut by shutdown, after the time to drain had passed.
    Drained,
    /// Answered here with the text that the route has for when no upstream answers.
    Degraded,
}

impl Outcome {
    /// All outcomes, in the order of their discriminants.
    #[cfg(test)]
    pub(crate) const ALL: [Outcome; 15] = [
        Outcome::Finished,
        Outcome::UpstreamCut,
        Outcome::UpstreamError,
        Outcome::ClientGone,
        Outcome::ClientStalled,
        Outcome::TimeoutConnect,
        Outcome::TimeoutTls,
        Outcome::TimeoutRequestBody,
        Outcome::TimeoutFirstByte,
        Outcome::TimeoutIdle,
        Outcome::TimeoutTotal,
        Outcome::Refused,
        Outcome::Local,
        Outcome::Drained,
        Outcome::Degraded,
    ];

    /// The word for it in metrics and logs.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Outcome::Finished => "finished",
            Outcome::UpstreamCut => "upstream_cut",
            Outcome::UpstreamError => "upstream_error",
            Outcome::ClientGone => "client_gone",
            Outcome::ClientStalled => "client_stalled",
            Outcome::TimeoutConnect => "timeout_connect",
            Outcome::TimeoutTls => "timeout_tls",
            Outcome::TimeoutRequestBody => "timeout_request_body",
            Outcome::TimeoutFirstByte => "timeout_first_byte",
            Outcome::TimeoutIdle => "timeout_idle",
            Outcome::TimeoutTotal => "timeout_total",
            Outcome::Refused => "refused",
            Outcome::Local => "local",
            Outcome::Drained => "drained",
            Outcome::Degraded => "degraded",
        }
    }
}

/// Why an accepted connection was closed before it could carry a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refusal {
    /// As many connections are open as may be.
    Limit,
    /// The TLS handshake failed.
    TlsFailed,
    /// The process is out of file descriptors.
    NoFd,
}

impl Refusal {
    /// All reasons, in the order of their discriminants.
    pub(crate) const ALL: [Refusal; 3] = [Refusal::Limit, Refusal::TlsFailed, Refusal::NoFd];

    /// The word for it in metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Refusal::Limit => "limit",
            Refusal::TlsFailed => "tls_failed",
            Refusal::NoFd => "no_fd",
        }
    }
}

/// Why an append to a durable stream was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum AppendRefusal {
    /// The stream was deleted.
    Gone,
    /// It is closed.
    Closed,
    /// It is a kept response, to which only sedge appends.
    Generated,
    /// It holds something else.
    ContentType,
    /// A newer session of the producer has taken over.
    StaleEpoch,
    /// An append of the producer before it is missing, or its session does not begin with the first.
    Sequence,
    /// The stream knows as many producers as it may.
    TooManyProducers,
    /// The streams of the key hold as much as they may.
    Quota,
    /// No memory is left for streams.
    Full,
    /// It cannot be stored.
    Storage,
}

impl AppendRefusal {
    /// All reasons, in the order of their discriminants.
    pub(crate) const ALL: [AppendRefusal; 10] = [
        AppendRefusal::Gone,
        AppendRefusal::Closed,
        AppendRefusal::Generated,
        AppendRefusal::ContentType,
        AppendRefusal::StaleEpoch,
        AppendRefusal::Sequence,
        AppendRefusal::TooManyProducers,
        AppendRefusal::Quota,
        AppendRefusal::Full,
        AppendRefusal::Storage,
    ];

    /// The word for it in metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            AppendRefusal::Gone => "gone",
            AppendRefusal::Closed => "closed",
            AppendRefusal::Generated => "kept_response",
            AppendRefusal::ContentType => "content_type",
            AppendRefusal::StaleEpoch => "stale_epoch",
            AppendRefusal::Sequence => "sequence",
            AppendRefusal::TooManyProducers => "too_many_producers",
            AppendRefusal::Quota => "quota",
            AppendRefusal::Full => "full",
            AppendRefusal::Storage => "storage",
        }
    }
}
