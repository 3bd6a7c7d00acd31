//! Which key may use a stream: the one that has made it, and every key where the configuration shares it.

use super::stream::Stream;

impl Stream {
    /// Whether the key called `key` may read it, append to it, close it, delete it, fork it and be woken by it. One that no key
    /// has made is open to all; a kept response and its forks are never shared.
    pub(crate) fn is_open_to(&self, key: Option<&str>) -> bool {
        let Some(owner) = self.owner_name() else { return true };
        key == Some(owner) || self.is_shared()
    }

    /// Whether other keys are not even told that it is there: a kept response, or a fork of one.
    pub(crate) fn is_hidden(&self) -> bool {
        self.generated || self.base.as_ref().is_some_and(|base| base.source.is_hidden())
    }

    /// Whether the configuration opens it to every key.
    fn is_shared(&self) -> bool {
        !self.is_hidden() && self.common.bounds.load().shares(&self.name)
    }
}
