//! One per core: runtime, buffer pool, timer wheel, clock.
//!
//! A core shares nothing with another while bytes flow. What is here is `Rc` and `Cell`, never `Arc` and `Mutex` (but for the
//! [`inbox`], by which it is handed a connection before the first byte), and a task that was spawned on a core stays there. A stream that waits owns no buffer ([`block`]) and no timer of its own
//! ([`wheel`]).

pub(crate) mod block;
pub(crate) mod catch_panic;
pub(crate) mod clock;
pub(crate) mod executor;
pub(crate) mod inbox;
pub(crate) mod net;
pub(crate) mod random;
pub(crate) mod wheel;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

/// What every task of a core reaches for.
pub(crate) struct Shard {
    /// Which core of ours it is, from 0.
    pub(crate) index: usize,
    /// 16 KiB blocks.
    pub(crate) blocks: Rc<block::Pool>,
    /// Heads of requests that have stopped in their middle.
    pub(crate) heads: Rc<block::Pool>,
    /// Deadlines and heartbeats.
    pub(crate) wheel: wheel::Wheel,
    /// Time.
    pub(crate) clock: clock::Clock,
    /// When what is in flight has to be over; 0 while the process serves.
    pub(crate) ends_at: Cell<clock::Millis>,
}

impl Shard {
    /// Waits for `ms`, on the wheel. For what happens rarely: it allocates.
    pub(crate) async fn pause(&self, ms: clock::Millis) {
        let nap = Rc::new(Nap::default());
        let weak: Weak<Nap> = Rc::downgrade(&nap);
        let timer = self.wheel.timer(weak);
        timer.arm(self.clock.millis() + ms);
        std::future::poll_fn(|cx| match nap.over.get() {
            true => Poll::Ready(()),
            false => {
                nap.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await;
    }
}

/// Someone who waits for a time and nothing else.
#[derive(Default)]
struct Nap {
    over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl wheel::Timed for Nap {
    fn fire(&self, _now: clock::Millis) {
        self.over.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
