//! One per core: runtime, buffer pool, timer wheel, clock.
//!
//! A core shares nothing with another while bytes flow. What is here is `Rc` and `Cell`, never `Arc` and `Mutex`, and a
//! task that was spawned on a core stays there. A stream that waits owns no buffer ([`block`]) and no timer of its own
//! ([`wheel`]).

pub mod block;
pub mod clock;
pub mod runtime;
pub mod wheel;

use std::rc::Rc;

/// What every task of a core reaches for.
pub struct Shard {
    /// Which core of ours it is, from 0.
    pub index: usize,
    /// 16 KiB blocks.
    pub blocks: Rc<block::Pool>,
    /// Deadlines and heartbeats.
    pub wheel: wheel::Wheel,
    /// Time.
    pub clock: clock::Clock,
}
