//! 16 KiB blocks from a per-core free list.
//!
//! A block is held only while bytes are in flight; a stream that waits for its next token holds none. Blocks are zeroed
//! once, when they are made, and never again: a reader sees only what it has itself just read.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut, Range};
use std::rc::Rc;

/// Bytes in a block.
pub const BLOCK_BYTES: usize = 16 * 1024;

/// Free blocks that a core keeps for reuse (4 MiB); beyond it they go back to the allocator.
pub(crate) const FREE_BLOCKS_MAX: usize = 256;

/// Bytes in a block for a large body on its way in: eight times fewer system calls for it.
pub(crate) const BULK_BYTES: usize = 128 * 1024;

/// Free bulk blocks that a core keeps (2 MiB).
pub(crate) const FREE_BULK_MAX: usize = 16;

/// A range of a block's bytes in half the room: every connection keeps some.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// From `start` to `end`, which lie within a block.
    pub(crate) fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= u32::MAX as usize, "{start}..{end} is no range of a block");
        Span { start: start as u32, end: end as u32 }
    }

    /// Its first byte.
    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    /// The byte behind its last.
    pub(crate) fn end(self) -> usize {
        self.end as usize
    }

    /// How many bytes it has.
    pub(crate) fn len(self) -> usize {
        self.end() - self.start()
    }

    /// Whether it has none.
    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// As a range.
    pub(crate) fn range(self) -> Range<usize> {
        self.start()..self.end()
    }
}

/// A core's blocks, and the count of everything that it holds for its streams.
pub struct Pool {
    free: RefCell<Vec<Box<[u8]>>>,
    free_bulk: RefCell<Vec<Box<[u8]>>>,
    /// Whether free blocks are kept.
    reserve: bool,
    held_bytes: Cell<usize>,
    blocks: Cell<usize>,
    allocated: Cell<u64>,
}

impl Pool {
    /// Takes a block.
    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    pub fn take(self: &Rc<Self>) -> Block {
        match self.free.borrow_mut().pop() {
            Some(bytes) => self.adopt(bytes),
            None => self.take_large(BLOCK_BYTES),
        }
    }

    /// Takes a bulk block.
    pub(crate) fn take_bulk(self: &Rc<Self>) -> Block {
        match self.free_bulk.borrow_mut().pop() {
            Some(bytes) => self.adopt(bytes),
            None => self.take_large(BULK_BYTES),
        }
    }

    /// Takes a buffer of `bytes` that is not of the usual size: a long head, a body that must be looked through.
    pub(crate) fn take_large(self: &Rc<Self>, bytes: usize) -> Block {
        self.allocated.set(self.allocated.get() + 1);
        self.adopt(vec![0; bytes.max(BLOCK_BYTES)].into_boxed_slice())
    }

    /// A pool that keeps nothing for reuse, and only counts.
    pub(crate) fn without_reserve() -> Pool {
        Pool { reserve: false, ..Pool::default() }
    }

    /// Takes a buffer of `bytes` exactly, for what waits long and is short.
    pub(crate) fn take_exact(self: &Rc<Self>, bytes: usize) -> Block {
        self.adopt(vec![0; bytes].into_boxed_slice())
    }

    /// Bytes that are held now, in blocks of all sizes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes.get()
    }

    /// Blocks that are held now.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.get()
    }

    /// Blocks that had to be allocated since the last call.
    pub(crate) fn take_allocated(&self) -> u64 {
        self.allocated.take()
    }

    fn adopt(self: &Rc<Self>, bytes: Box<[u8]>) -> Block {
        self.held_bytes.set(self.held_bytes.get() + bytes.len());
        self.blocks.set(self.blocks.get() + 1);
        Block { bytes, pool: Rc::clone(self) }
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            free: RefCell::default(),
            free_bulk: RefCell::default(),
            reserve: true,
            held_bytes: Cell::new(0),
            blocks: Cell::new(0),
            allocated: Cell::new(0),
        }
    }
}

/// Bytes on loan; dropping it gives them back.
pub struct Block {
    bytes: Box<[u8]>,
    pool: Rc<Pool>,
}

impl Block {
    /// Whether it is on loan from `pool`.
    pub(crate) fn is_of(&self, pool: &Rc<Pool>) -> bool {
        Rc::ptr_eq(&self.pool, pool)
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.held_bytes.set(self.pool.held_bytes.get() - bytes.len());
        self.pool.blocks.set(self.pool.blocks.get() - 1);
        let (free, max) = match bytes.len() {
            BLOCK_BYTES => (&self.pool.free, FREE_BLOCKS_MAX),
            BULK_BYTES => (&self.pool.free_bulk, FREE_BULK_MAX),
            _ => return,
        };
        if !self.pool.reserve {
            return;
        }
        let mut free = free.borrow_mut();
        if free.len() < max {
            free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_goes_back_and_comes_again() {
        let pool = Rc::new(Pool::default());
        let first = pool.take();
        let place = first.as_ptr();
        assert_eq!((pool.held_bytes(), pool.blocks()), (BLOCK_BYTES, 1));
        drop(first);
        assert_eq!((pool.held_bytes(), pool.blocks()), (0, 0));
        assert_eq!(pool.take().as_ptr(), place);
    }

    #[test]
    fn large_ones_are_counted_and_not_kept() {
        let pool = Rc::new(Pool::default());
        let large = pool.take_large(3 * BLOCK_BYTES);
        assert_eq!(pool.held_bytes(), 3 * BLOCK_BYTES);
        drop(large);
        assert_eq!(pool.held_bytes(), 0);
        assert_eq!(pool.take().len(), BLOCK_BYTES);
    }

    #[test]
    fn without_a_reserve_nothing_is_kept() {
        let pool = Rc::new(Pool::without_reserve());
        let held = [pool.take_exact(256), pool.take_exact(BLOCK_BYTES)];
        assert_eq!((pool.held_bytes(), pool.blocks()), (256 + BLOCK_BYTES, 2));
        drop(held);
        assert_eq!((pool.held_bytes(), pool.blocks(), pool.free.borrow().len()), (0, 0, 0));
    }

    #[test]
    fn the_free_list_is_bounded() {
        let pool = Rc::new(Pool::default());
        let all: Vec<Block> = (0..FREE_BLOCKS_MAX + 10).map(|_| pool.take()).collect();
        drop(all);
        assert_eq!(pool.free.borrow().len(), FREE_BLOCKS_MAX);
    }
}
