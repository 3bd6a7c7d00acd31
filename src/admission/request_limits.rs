//! What is known of a request's limits while it is on its way: in a place of its own, since most requests have none.

use std::fmt;
use std::sync::Arc;

use super::api_key::Holder;
use super::meter::{Exhausted, Limit, Limited};
use super::rate::Nanos;
use super::reservation::{Pass, refusal};
use crate::proto::openai::ApiError;

/// A request's limits.
#[derive(Default)]
pub(crate) struct Account {
    /// Whose key it came with, where keys are asked for.
    pub(crate) holder: Option<Arc<Holder>>,
    /// What was taken for it.
    pub(crate) pass: Option<Pass>,
    /// Lines for the answer that tell what is left.
    pub(crate) fields: Option<Box<[u8]>>,
    /// The limit that it was refused for: whose, and what.
    pub(crate) limited: Option<Box<str>>,
}

impl Account {
    /// It is refused for a limit, which is counted.
    pub(crate) fn note_refused(&mut self, by: &Limited, limit: Limit) {
        by.count_refused(limit);
        self.limited = Some(format!("{} {}: {}", by.scope.label(), by.name, limit.label()).into());
    }

    /// It is refused because there is nothing left; what the client is told. `others` are the request's other limits.
    pub(crate) fn refuse(&mut self, exhausted: &Exhausted, others: &[&Arc<Limited>], now: Nanos) -> ApiError {
        self.note_refused(&exhausted.limited, exhausted.limit);
        let (error, fields) = refusal(exhausted, others, now);
        self.fields = Some(fields.into_boxed_slice());
        error
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("holder", &self.holder)
            .field("limited", &self.limited)
            .finish_non_exhaustive()
    }
}
