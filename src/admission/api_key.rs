//! Who holds a client's key: the name it goes by, the models it may ask, its limits.

use std::fmt;
use std::sync::Arc;

use super::meter::{Limited, Scope};
use super::meters::Meters;
use crate::config::{ClientKey, Glob};

/// The holder of a key.
pub(crate) struct Holder {
    /// What it is called.
    pub(crate) name: String,
    /// The same as a number.
    pub(crate) number: u64,
    /// The key itself, as a number that is not 0 and that no other key has, by all likelihood.
    pub(crate) authority: u64,
    /// Its limits, if it has any.
    pub(crate) limited: Option<Arc<Limited>>,
    models: Vec<Glob>,
}

impl Holder {
    /// As it was configured, with what it has used so far.
    pub(crate) fn new(key: &ClientKey, number: u64, meters: &Meters) -> Arc<Holder> {
        // What it is refused is counted, be it for a model alone.
        let counts = !key.quota.is_unlimited() || !key.models.is_empty();
        let limited = || Limited::new(Scope::Key, &key.name, &key.quota, meters.of(Scope::Key, &key.name));
        let (first, _) = key.sha256.split_first_chunk().expect("a hash has 32 bytes");
        let authority = u64::from_le_bytes(*first) | 1;
        Arc::new(Holder {
            number,
            name: key.name.clone(),
            authority,
            limited: counts.then(limited),
            models: key.models.clone(),
        })
    }

    /// Whether it may not ask every model.
    pub(crate) fn is_restricted(&self) -> bool {
        !self.models.is_empty()
    }

    /// Whether it may ask `model`.
    pub(crate) fn may_ask(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|glob| glob.matches(model))
    }

    /// Whether it matters how many tokens a request of its asks for.
    pub(crate) fn limits_tokens(&self) -> bool {
        self.limited.as_ref().is_some_and(|limited| limited.quota.limits_tokens())
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Holder({})", self.name)
    }
}
