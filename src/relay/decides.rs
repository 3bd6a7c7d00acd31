//! What of a request can only be decided by what its body says.

use super::request::Request;
use crate::config::Config;

/// What in a body decides about its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decides {
    /// Nothing: it is passed on as it comes.
    Nothing,
    /// Its model, and what stands before it.
    Model,
    /// What may stand anywhere in it.
    All,
}

impl Decides {
    /// What it is for `request`: routes depend on the model, and limits on how much is asked for.
    pub fn of(request: &Request, config: &Config) -> Decides {
        let holder = request.holder();
        if config.limits_max_tokens() || holder.is_some_and(|holder| holder.max_tokens().is_some()) {
            Decides::All
        } else if config.needs_peek() || holder.is_some_and(|holder| holder.is_restricted()) {
            Decides::Model
        } else {
            Decides::Nothing
        }
    }
}
