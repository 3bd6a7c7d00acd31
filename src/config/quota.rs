//! What a key, a route or an upstream may use.

use super::document::Table;
use super::units::size;

/// The highest limit on what comes in a minute: the cost of a single one must still be some time, 60 ns.
const PER_MINUTE_MAX: u64 = 1_000_000_000;

/// The highest limit on what is under way at a time.
const STREAMS_MAX: u64 = 100_000_000;

/// The highest number of tokens that an answer can be limited to.
const TOKENS_MAX: u64 = 1_000_000_000;

/// Less, and hardly a stream fits.
const STREAM_BYTES_MIN: u64 = 64 << 10;

/// What an answer is taken to use whose request does not limit it, until it has said so itself.
const ASSUMED_TOKENS: u64 = 1024;

/// The limits of one key, route or upstream; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Requests in a minute. As many may come at once.
    pub(crate) requests_per_minute: Option<u64>,
    /// Tokens in a minute, of prompts and answers together. As many may come at once.
    pub(crate) tokens_per_minute: Option<u64>,
    /// Requests whose answer has not ended, streams or not.
    pub(crate) streams: Option<u64>,
    /// Tokens that a request may ask for.
    pub(crate) max_tokens: Option<u64>,
    /// Bytes that durable streams of a key may hold.
    pub(crate) stream_bytes: Option<u64>,
    /// Tokens of an answer whose request names no most, as far as they have to be guessed.
    pub(crate) assumed_tokens: u64,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota {
            requests_per_minute: None,
            tokens_per_minute: None,
            streams: None,
            max_tokens: None,
            stream_bytes: None,
            assumed_tokens: ASSUMED_TOKENS,
        }
    }
}

impl Quota {
    /// The `limits` of `table`, whose keys are called `name` with it.
    pub(crate) fn read(table: &Table<'_>, name: &str) -> Quota {
        let mut quota = Quota::default();
        let Some(limits) = table.table("limits", name) else { return quota };
        let number = |key, max| {
            limits.get(key, |value| {
                value.integer(1..=max).map_err(|what| format!("{what}; leave it out for no limit"))
            })
        };
        quota.requests_per_minute = number("requests_per_minute", PER_MINUTE_MAX);
        quota.tokens_per_minute = number("tokens_per_minute", PER_MINUTE_MAX);
        quota.streams = number("streams", STREAMS_MAX);
        quota.max_tokens = number("max_tokens", TOKENS_MAX);
        if name.starts_with("[[key]]") {
            quota.stream_bytes = limits.get("stream_bytes", size(STREAM_BYTES_MIN));
        }
        if let Some(tokens) = number("assumed_tokens", TOKENS_MAX) {
            quota.assumed_tokens = tokens;
        }
        limits.finish(|key| match key {
            "rpm" => Some("write requests_per_minute".to_owned()),
            "tpm" => Some("write tokens_per_minute".to_owned()),
            _ => None,
        });
        quota
    }

    /// Whether it matters how many tokens a request asks for.
    pub(crate) fn limits_tokens(&self) -> bool {
        self.max_tokens.is_some() || self.tokens_per_minute.is_some()
    }

    /// Whether no request is limited; what streams may hold is not the requests' business.
    pub(crate) fn is_unlimited(&self) -> bool {
        let Quota {
            requests_per_minute,
            tokens_per_minute,
            streams,
            max_tokens,
            stream_bytes: _,
            assumed_tokens: _,
        } = self;
        [requests_per_minute, tokens_per_minute, streams, max_tokens].iter().all(|limit| limit.is_none())
    }
}
