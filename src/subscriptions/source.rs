//! What subscriptions ask of the streams.

use std::ops::ControlFlow;

use crate::streams::model::offset::Offset;

/// How far a stream reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Which stream it is: no other one of this name has the same number, whenever it lived.
    pub(crate) life: u64,
    /// Where its own content begins: a fork's where it left its source.
    pub(crate) start: Offset,
    /// Where what everyone can read ends.
    pub(crate) tail: Offset,
}

/// The streams.
pub(crate) trait Source {
    /// The stream at a path, if there is one that the key called `key` may use.
    fn extent(&self, path: &str, key: Option<&str>) -> Option<Extent>;

    /// Every such stream whose path is wanted, in any order, until a visit says that it was enough.
    fn matching(
        &self,
        wants: &dyn Fn(&str) -> bool,
        key: Option<&str>,
        visit: &mut dyn FnMut(&str, Extent) -> ControlFlow<()>,
    );
}
