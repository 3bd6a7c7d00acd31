//! What a subscription asks to be done, and how that went.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::streams::model::json::Messages;
use crate::streams::model::kind::{Form, Kind};

/// Something to be done, in the order in which it was asked for.
///
/// Nothing that stands behind a [`Action::Store`] may be done, and no answer given, before that is as durable as configured: a
/// wake that was told and is forgotten would be told again under the same generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Keep a record, to be given to [`super::Subscriptions::restore`] at the next start.
    Store {
        /// The subscription.
        id: Arc<str>,
        /// JSON.
        record: Vec<u8>,
        /// It says everything: those before it, of this subscription, are worth nothing any more.
        whole: bool,
    },
    /// The subscription was deleted: forget its records.
    Forget {
        /// The subscription.
        id: Arc<str>,
    },
    /// Send a webhook, and say with [`super::Subscriptions::delivered`] what came of it.
    Deliver(Delivery),
    /// Append an event to the stream that workers read, and say with [`super::Subscriptions::announced`] whether it is there.
    Announce(Announcement),
}

/// A webhook to be sent, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The subscription.
    pub(crate) id: Arc<str>,
    /// The wake.
    pub(crate) wake_id: String,
    /// Where to.
    pub(crate) url: String,
    /// The body, `application/json`; it is signed when it is sent.
    pub(crate) body: Vec<u8>,
    /// An answer that takes longer, in milliseconds, comes too late.
    pub(crate) timeout_ms: u64,
}

/// An event to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// The subscription.
    pub(crate) id: Arc<str>,
    /// The wake.
    pub(crate) wake_id: String,
    /// The path of the stream; it must be there, nobody makes it.
    pub(crate) stream: String,
    /// The name of the key that may append to it.
    pub(crate) key: Option<Box<str>>,
    /// The event, one JSON object.
    pub(crate) event: Vec<u8>,
}

impl Announcement {
    /// The event as a stream of this kind takes it: one of JSON a message, any other a line.
    pub(crate) fn messages(&self, kind: &Kind) -> Option<(Bytes, Box<[u32]>)> {
        if kind.form == Form::Json {
            return Messages::read(&self.event).ok().map(|Messages { bytes, ends }| (bytes, ends));
        }
        Some(([&self.event[..], b"\n"].concat().into(), Box::default()))
    }
}

/// What came of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The receiver has done the work.
    Done,
    /// The receiver has taken it, and will call back.
    Accepted,
    /// It was not taken.
    Failed,
}

impl Delivered {
    /// By the receiver's answer: its status, and its body if that is not too long.
    pub(crate) fn by_answer(status: u16, body: &[u8]) -> Delivered {
        if !(200..300).contains(&status) {
            return Delivered::Failed;
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match body.get("done") {
            Some(Value::Bool(true)) => Delivered::Done,
            _ => Delivered::Accepted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_done_in_one_way_alone() {
        assert_eq!(Delivered::by_answer(200, br#"{"done":true}"#), Delivered::Done);
        for body in [&b""[..], b"{}", b"done", br#"{"done":"true"}"#, br#"{"done":false}"#, b"[true]"] {
            assert_eq!(Delivered::by_answer(202, body), Delivered::Accepted);
        }
        for status in [199, 301, 404, 500] {
            assert_eq!(Delivered::by_answer(status, br#"{"done":true}"#), Delivered::Failed);
        }
    }
}
