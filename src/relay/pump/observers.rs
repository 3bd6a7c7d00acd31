//! Observers of a response: they see its bytes pass, change nothing, and know whether a stream has said that it is over.
//!
//! HTTP says that a body is whole, not that a stream is: servers that fail end their streams tidily, and proxies make tidy ends of
//! broken ones. So a stream of a conversation API ([`Api::says_end`]) that was answered with 200 has to say it itself:
//!
//! | API | finished by |
//! | --- | --- |
//! | chat, completions | `data: [DONE]`; or a `finish_reason` that is not null, since some servers leave `[DONE]` out |
//! | responses | an event `response.completed`, `response.failed` or `response.incomplete`, by its name or its `type` |
//! | messages | an event `message_stop`, likewise; or a `stop_reason` |
//! | gemini | a `finishReason` or `blockReason` |
//! | each of them | an event `error`, or one that is an error: the client knows; or that it is no stream but a whole JSON document |
//! | any other | its tidy end |
//!
//! | its body ends | and it is finished | and it is not |
//! | --- | --- | --- |
//! | tidily: last chunk, length | whole | cut ([`Cut::Unfinished`](super::cut::Cut)): no last chunk |
//! | by close, where that is its framing | whole, if no event is open | cut |
//! | by close or reset within its framing | finished, if the last event has come (a reason to end is not enough: usage may be missing) | cut |
//!
//! A JSON document that ends by close is whole if its last bracket has come.

use super::Framing;
use crate::downstream::outbox::Beat;
use crate::proto::openai::{Api, Sideband};
use crate::proto::sse::Scanner;

/// Observer of a response, by what it is.
pub(crate) enum Look {
    /// An event stream in the clear.
    Events(Scanner, Sideband),
    /// A JSON document in the clear, and whether it is an error if it says so: one that was made for this request, and no object that
    /// was asked for, which may tell of an error in its past.
    Json(Sideband, bool),
    /// Anything else, compressed streams included.
    Opaque,
}

impl Look {
    /// Looks at events of `api`.
    pub(crate) fn events(api: Api) -> Look {
        Look::Events(Scanner::default(), Sideband::events(api))
    }

    /// Looks at a JSON document of `api`; `is_made` says that it was made for this request.
    pub(crate) fn json(api: Api, is_made: bool) -> Look {
        Look::Json(Sideband::json(api), is_made)
    }

    /// Whether the last event of the stream has come, so that a client which then leaves has not missed anything.
    pub(crate) fn terminal(&self) -> bool {
        matches!(self, Look::Events(scanner, sideband) if scanner.terminal() || sideband.terminal())
    }

    /// Whether it told of an error.
    pub(crate) fn error_seen(&self) -> bool {
        match self {
            Look::Events(scanner, sideband) => scanner.error_seen() || sideband.error_seen(),
            Look::Json(sideband, is_made) => *is_made && sideband.error_seen(),
            Look::Opaque => false,
        }
    }

    /// Whether nothing is missing where its body ends, of a kind that says so if `says_end`.
    #[cold]
    pub(crate) fn is_finished(&self, says_end: bool) -> bool {
        let Look::Events(_, sideband) = self else { return true };
        let has_ended = self.terminal() || sideband.finish_reason().is_some() || sideband.is_document();
        !says_end || has_ended || self.error_seen()
    }

    /// The same of a body that ends by close.
    #[cold]
    pub(crate) fn is_closed(&self, says_end: bool) -> bool {
        match self {
            Look::Events(scanner, _) => scanner.at_boundary() && self.is_finished(says_end),
            Look::Json(sideband, _) => sideband.is_complete(),
            Look::Opaque => true,
        }
    }

    /// Whether a heartbeat may follow what was looked at last, where the body is framed so.
    pub(crate) fn beat(&self, framing: Framing) -> Beat {
        match self {
            Look::Events(scanner, _) if scanner.at_boundary() => framing.beat(),
            _ => Beat::Hold,
        }
    }

    /// How the events stand, of an event stream in the clear.
    pub(crate) fn scanner(&self) -> Scanner {
        match self {
            Look::Events(scanner, _) => *scanner,
            Look::Json(..) | Look::Opaque => Scanner::default(),
        }
    }

    /// Facts that the response told of itself.
    pub(crate) fn sideband(&self) -> Option<&Sideband> {
        match self {
            Look::Events(_, sideband) | Look::Json(sideband, _) => Some(sideband),
            Look::Opaque => None,
        }
    }
}
