//! Parts of long events that were rendered for one reader of a core and serve the others who come to the same place: an append of many
//! MiB is not rendered for each of them anew.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::fanout::view::View;
use super::render::Begun;
use super::stream::Frame;

/// The most bytes of parts that a core holds for the readers to come.
const PARTS_BYTES_MAX: usize = 1 << 20;

/// What a part depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartKey {
    /// The stream.
    pub(crate) stream: u64,
    /// How its readers see it.
    pub(crate) view: View,
    /// Where it begins.
    pub(crate) from: u64,
    /// The event that has begun there.
    pub(crate) begun: Option<Begun>,
    /// The cursor that readers are told.
    pub(crate) cursor: u64,
}

/// The parts that were rendered last on a core.
#[derive(Debug, Default)]
pub(crate) struct Parts(RefCell<VecDeque<(PartKey, Frame, Option<Begun>)>>);

impl Parts {
    /// The part, and the event that has not ended after it.
    pub(crate) fn get(&self, key: &PartKey) -> Option<(Frame, Option<Begun>)> {
        let parts = self.0.borrow();
        let found = parts.iter().find(|(of, ..)| of == key);
        found.map(|(_, frame, begun)| (frame.clone(), *begun))
    }

    /// Holds a part for the others, and lets go of the oldest.
    pub(crate) fn put(&self, key: PartKey, frame: Frame, begun: Option<Begun>) {
        let mut parts = self.0.borrow_mut();
        let mut held = frame.bytes.len() + parts.iter().map(|(_, frame, _)| frame.bytes.len()).sum::<usize>();
        while held > PARTS_BYTES_MAX
            && let Some((_, oldest, _)) = parts.pop_front()
        {
            held -= oldest.bytes.len();
        }
        parts.push_back((key, frame, begun));
    }

    /// Nobody reads a stream any more.
    pub(crate) fn forget(&self, stream: u64) {
        self.0.borrow_mut().retain(|(key, ..)| key.stream != stream);
    }
}
