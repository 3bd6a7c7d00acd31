//! What is asked of a subscription by its own doors.

use super::glob::Glob;
use super::settings;
use super::settings::Settings;
use super::webhook_url::Local;

/// What is asked. Bodies and tokens are as they came.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// Make it, or confirm that it is so.
    Put {
        /// The configuration.
        body: Vec<u8>,
        /// Where clients reach this server, as in `https://edge.example`.
        origin: String,
        /// Where its webhook may lead.
        local: Local,
    },
    /// Show it.
    Show,
    /// End it.
    Delete,
    /// Add streams by name.
    Add(Vec<u8>),
    /// Take one of them away again.
    Remove(String),
    /// A worker wants the wake.
    Claim(Vec<u8>),
    /// A worker says how far it is.
    Ack {
        /// The wake's.
        token: Option<String>,
        /// What was done.
        body: Vec<u8>,
    },
    /// A receiver says how far it is.
    Callback {
        /// The wake's.
        token: Option<String>,
        /// What was done.
        body: Vec<u8>,
    },
    /// A worker gives its wake back.
    Release {
        /// The wake's.
        token: Option<String>,
        /// Which wake.
        body: Vec<u8>,
    },
}

impl Question {
    /// The pattern whose streams are to be sought, if it makes a subscription that has one.
    pub(crate) fn pattern(&self, id: &str) -> Option<Glob> {
        match self {
            Question::Put { body, local, .. } => Settings::of(id, body, *local).ok()?.glob(),
            _ => None,
        }
    }

    /// Whether the token of a wake goes with it.
    pub(crate) fn has_token(&self) -> bool {
        matches!(self, Question::Ack { .. } | Question::Callback { .. } | Question::Release { .. })
    }

    /// Streams that it would make the subscription's.
    pub(crate) fn names(&self, id: &str) -> Vec<String> {
        match self {
            Question::Put { body, local, .. } => {
                Settings::of(id, body, *local).map(|settings| settings.streams).unwrap_or_default()
            }
            Question::Add(body) => {
                let list = settings::object(body).ok().and_then(|mut body| body.remove("streams"));
                list.and_then(|list| settings::paths(&list).ok()).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}
