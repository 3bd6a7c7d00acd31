//! The streams as subscriptions see them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::UnixMillis;
use super::glob::Glob;
use super::source::{Extent, Source};
use crate::stream::stream::Stream;
use crate::stream::streams::{Found, Streams};

/// The streams at a time. Whichever is asked for is listened to from then on: it is asked for because a subscription has it.
#[derive(Clone, Copy, Debug)]
pub struct Extents<'a> {
    /// The streams.
    pub streams: &'a Streams,
    /// Now.
    pub now: UnixMillis,
}

impl Source for Extents<'_> {
    fn extent(&self, path: &str) -> Option<Extent> {
        match self.streams.find(path, self.now) {
            Found::Present(stream) => extent(&stream),
            Found::Hidden | Found::Missing => None,
        }
    }

    fn matching(&self, glob: &Glob, visit: &mut dyn FnMut(&str, Extent) -> ControlFlow<()>) {
        for stream in self.streams.names(|name| glob.matches(name)) {
            if let Some(extent) = extent(&stream)
                && visit(&stream.name, extent).is_break()
            {
                return;
            }
        }
    }
}

/// One that belongs to somebody is seen by nobody here: whose subscription it is, is not known.
fn extent(stream: &Arc<Stream>) -> Option<Extent> {
    if stream.owner.is_some() {
        return None;
    }
    stream.listen(true);
    let tail = stream.status().tail;
    let start = stream.lock().log.start;
    Some(Extent { life: stream.id, start: stream.offset(start), tail: stream.offset(tail) })
}
