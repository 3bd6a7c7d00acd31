//! The streams as subscriptions see them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::UnixMillis;
use super::source::{Extent, Source};
use crate::streams::registry::{Found, Streams};
use crate::streams::stream::Stream;

/// The streams at a time. Whichever is asked for is listened to from then on: it is asked for because a subscription has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extents<'a> {
    /// The streams.
    pub(crate) streams: &'a Streams,
    /// Now.
    pub(crate) now: UnixMillis,
}

impl Source for Extents<'_> {
    fn extent(&self, path: &str, key: Option<&str>) -> Option<Extent> {
        match self.streams.find(path, self.now) {
            Found::Present(stream) => extent(&stream, key),
            Found::Hidden(_) | Found::Missing => None,
        }
    }

    fn matching(
        &self,
        wants: &dyn Fn(&str) -> bool,
        key: Option<&str>,
        visit: &mut dyn FnMut(&str, Extent) -> ControlFlow<()>,
    ) {
        visit_each(self.streams.names(wants).iter(), key, visit);
    }
}

/// The same where the streams that a pattern matches have been sought before, a part at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidates<'a> {
    /// The streams.
    pub(crate) extents: Extents<'a>,
    /// Those that may match.
    pub(crate) found: &'a [Arc<Stream>],
    /// Those that were made meanwhile.
    pub(crate) made: &'a [Arc<Stream>],
}

impl Source for Candidates<'_> {
    fn extent(&self, path: &str, key: Option<&str>) -> Option<Extent> {
        self.extents.extent(path, key)
    }

    fn matching(
        &self,
        wants: &dyn Fn(&str) -> bool,
        key: Option<&str>,
        visit: &mut dyn FnMut(&str, Extent) -> ControlFlow<()>,
    ) {
        let candidates = self.found.iter().chain(self.made);
        visit_each(candidates.filter(|stream| wants(&stream.name) && stream.is_present()), key, visit);
    }
}

fn visit_each<'a>(
    streams: impl Iterator<Item = &'a Arc<Stream>>,
    key: Option<&str>,
    visit: &mut dyn FnMut(&str, Extent) -> ControlFlow<()>,
) {
    for stream in streams {
        if let Some(extent) = extent(stream, key)
            && visit(&stream.name, extent).is_break()
        {
            return;
        }
    }
}

/// A subscription sees what its key may use.
fn extent(stream: &Arc<Stream>, key: Option<&str>) -> Option<Extent> {
    if !stream.is_open_to(key) {
        return None;
    }
    stream.listen(true);
    let tail = stream.status().tail;
    let start = stream.lock().log.start;
    Some(Extent { life: stream.id, start: stream.offset(start), tail: stream.offset(tail) })
}
