//! A part of a body that is replaced while all of it is held: the model's name, where its upstream calls it otherwise.

use std::collections::VecDeque;
use std::ops::Range;

use super::body::Upload;
use crate::relay::pump::rechunk;
use crate::runtime::Shard;
use crate::runtime::block::Block;

impl Upload {
    /// Puts `with` in the place of the payload bytes `span`, all of which must still be held, from the body's beginning.
    pub(crate) fn splice(&mut self, span: Range<u64>, with: &[u8], shard: &Shard) {
        let mut offset = 0;
        let mut spliced = VecDeque::with_capacity(self.held.len() + 2);
        let mut pending = Some(with);
        for (block, range) in self.held.drain(..) {
            let (start, end) = (offset, offset + range.len() as u64);
            offset = end;
            if end <= span.start || start >= span.end {
                spliced.push_back((block, range));
                continue;
            }
            let before = range.start..range.start + (span.start.saturating_sub(start)) as usize;
            let after = range.end - (end.saturating_sub(span.end)) as usize..range.end;
            let tail = (!after.is_empty()).then(|| piece(&block[after], shard));
            if !before.is_empty() {
                spliced.push_back((block, before));
            }
            spliced.extend(pending.take().map(|bytes| piece(bytes, shard)));
            spliced.extend(tail);
        }
        self.held = spliced;
    }
}

/// `bytes` in a block of their own, with room for framing.
pub(crate) fn piece(bytes: &[u8], shard: &Shard) -> (Block, Range<usize>) {
    let mut block = shard.blocks.take_large(rechunk::HEAD_ROOM + bytes.len() + rechunk::TAIL_ROOM);
    let range = rechunk::HEAD_ROOM..rechunk::HEAD_ROOM + bytes.len();
    block[range.clone()].copy_from_slice(bytes);
    (block, range)
}
