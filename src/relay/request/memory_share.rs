//! A client's share of the memory for requests' bodies: a client is a key, or without keys an address.
//!
//! Bodies are held while they arrive and while they may have to be sent again, and whoever sends them slowly decides for how long.
//! So no client may hold more in bodies than is still free: one alone gets half of its core's `stream_memory`, two a third each, and
//! one that comes when `n` others hold as much as they may still finds `1/(n + 1)` of it (dynamic thresholds; Choudhury and
//! Hahne, 1998). A body that comes in one piece is not counted: it is gone before anyone could send a second one. To be sent again
//! bodies are kept in a third of the memory at most, so that those that arrive find room beside them.

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::runtime::block::Pool;

/// The bytes that each client holds in bodies, on one core.
#[derive(Default)]
pub(crate) struct Shares(RefCell<FxHashMap<u64, usize>>);

/// The bytes that one body holds, counted until it is dropped.
pub(crate) struct Share {
    shares: Rc<Shares>,
    pool: Rc<Pool>,
    /// The most bytes that the core may hold for all of them.
    most: usize,
    client: u64,
    bytes: usize,
}

impl Shares {
    /// The bytes that a client holds.
    fn of(&self, client: u64) -> usize {
        self.0.borrow().get(&client).copied().unwrap_or_default()
    }

    /// A client holds `now` bytes instead of `before`.
    fn change(&self, client: u64, before: usize, now: usize) {
        let mut shares = self.0.borrow_mut();
        let bytes = shares.entry(client).or_default();
        *bytes = bytes.saturating_add(now).saturating_sub(before);
        if *bytes == 0 {
            shares.remove(&client);
        }
    }
}

impl Share {
    /// A body of `client` that holds nothing yet; `most` is what the core may hold for all clients, out of `pool`.
    pub(crate) fn new(shares: &Rc<Shares>, pool: &Rc<Pool>, most: usize, client: u64) -> Share {
        Share { shares: Rc::clone(shares), pool: Rc::clone(pool), most, client, bytes: 0 }
    }

    /// The body holds so many bytes.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.shares.change(self.client, self.bytes, bytes);
            self.bytes = bytes;
        }
    }

    /// Whether its client holds no more than is still free.
    pub(crate) fn fits(&self) -> bool {
        self.shares.of(self.client) <= self.free()
    }

    /// Whether its client holds so much less that a body may be kept beside those that arrive: one that is kept must not be why
    /// another is refused.
    pub(crate) fn has_spare(&self) -> bool {
        2 * self.shares.of(self.client) <= self.free()
    }

    fn free(&self) -> usize {
        self.most.saturating_sub(self.pool.held_bytes())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 1024;

    #[test]
    fn one_alone_gets_half_and_each_other_what_is_free_then() {
        let (shares, pool) = (Rc::<Shares>::default(), Rc::new(Pool::without_reserve()));
        let mut held = Vec::new();
        let mut fill = |client: u64| {
            let mut count = 0;
            loop {
                let mut share = Share::new(&shares, &pool, 64 * BLOCK, client);
                if !share.fits() {
                    return count;
                }
                share.set(BLOCK);
                held.push((share, pool.take_exact(BLOCK)));
                count += 1;
            }
        };
        // What was found to fit may be one too much.
        assert_eq!((fill(1), fill(2), fill(3)), (33, 16, 8));
        drop(held);
        assert!(shares.0.borrow().is_empty());
    }

    #[test]
    fn bytes_that_come_and_go_are_counted_once() {
        let (shares, pool) = (Rc::<Shares>::default(), Rc::new(Pool::default()));
        let mut one = Share::new(&shares, &pool, 100, 7);
        let mut other = Share::new(&shares, &pool, 100, 7);
        one.set(30);
        other.set(40);
        one.set(10);
        assert_eq!(shares.of(7), 50);
        drop(other);
        assert_eq!(shares.of(7), 10);
    }
}
