//! What a subscription is doing.

use serde::{Deserialize, Serialize};

use super::UnixMillis;
use super::links::Tails;

/// One wake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wake {
    /// No other wake has it.
    pub(crate) id: String,
    /// Greater than that of every wake before it.
    pub(crate) generation: u64,
}

/// See the drawing in the room's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// There is no work.
    #[default]
    Idle,
    /// Pull-wake: whoever comes first may claim it.
    Offered {
        wake: Wake,
        /// The event is in the wake stream.
        announced: bool,
    },
    /// Webhook: the request is under way, and the lease runs.
    Delivering {
        wake: Wake,
        until: UnixMillis,
        /// The receiver has called back meanwhile: it has the wake, whatever becomes of the request.
        called_back: bool,
        /// What is done when it answers that it is.
        #[serde(skip)]
        tails: Tails,
    },
    /// A worker has it, until its lease ends.
    Held { wake: Wake, holder: String, until: UnixMillis },
    /// It could not be told to anyone: it is again then. Without a wake, its lease has ended meanwhile, and there will be a new
    /// one.
    Waiting { wake: Option<Wake>, until: UnixMillis },
}

impl Phase {
    /// When something happens by itself.
    pub(crate) fn due(&self) -> Option<UnixMillis> {
        match self {
            Phase::Idle | Phase::Offered { .. } => None,
            Phase::Delivering { until, .. } | Phase::Held { until, .. } | Phase::Waiting { until, .. } => {
                Some(*until)
            }
        }
    }

    /// The current wake, if any.
    pub(crate) fn wake(&self) -> Option<&Wake> {
        match self {
            Phase::Idle => None,
            Phase::Offered { wake, .. } | Phase::Delivering { wake, .. } | Phase::Held { wake, .. } => {
                Some(wake)
            }
            Phase::Waiting { wake, .. } => wake.as_ref(),
        }
    }
}
