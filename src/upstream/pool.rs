//! A core's idle connections, last in first out, so that the warmest is used and the rest may grow old and go.
//!
//! A socket that has something to say while nobody has asked it, an end, a reset or bytes, is thrown away. A sweep sees that by
//! readiness, without a system call. The one that is about to be used is looked at by one: an end that arrived together with the
//! request is not in the readiness yet, and a request that is sent behind it is lost, which a POST cannot make good.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

use rustc_hash::FxHashMap;

use super::target::Target;
use crate::net::stream::Stream;
use crate::shard::clock::Millis;

/// The idle connections of a core.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<FxHashMap<String, Vec<Idle>>>,
    discarded: Cell<u64>,
}

struct Idle {
    stream: Stream,
    until: Millis,
}

impl Pool {
    /// The connection that was used last, if one is still good.
    pub fn take(&self, target: &Target, now: Millis) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&target.pool)?;
        while let Some(mut last) = list.pop() {
            // What a TLS session has to say to itself is taken in first; of a plain socket the kernel knows all.
            let may_be_good = !last.stream.is_tls() || seems_silent(&mut last.stream);
            if last.until > now && may_be_good && last.stream.is_silent() {
                return Some(last.stream);
            }
            self.discarded.set(self.discarded.get() + 1);
        }
        None
    }

    /// Keeps a connection whose last answer was complete. `keep_alive` is how long the upstream said that it keeps it.
    pub fn put(&self, target: &Target, mut stream: Stream, now: Millis, keep_alive: Option<Millis>) {
        // Asking also takes the last request's waker out of the socket, which would keep that task's memory.
        if !seems_silent(&mut stream) {
            self.discarded.set(self.discarded.get() + 1);
            return;
        }
        // A second less than it said: the request must still reach it before it closes.
        let keep =
            keep_alive.map_or(target.idle_timeout, |said| said.saturating_sub(1000).min(target.idle_timeout));
        let mut idle = self.idle.borrow_mut();
        let kept = Idle { stream, until: now + keep };
        match idle.get_mut(&target.pool) {
            _ if keep == 0 => {}
            Some(list) if list.len() >= target.max_idle => {}
            Some(list) => list.push(kept),
            None if target.max_idle == 0 => {}
            None => drop(idle.insert(target.pool.clone(), vec![kept])),
        }
    }

    /// Throws away what is too old or has been closed. Called about once a second.
    pub fn sweep(&self, now: Millis) {
        let mut discarded = 0;
        self.idle.borrow_mut().retain(|_, list| {
            let before = list.len();
            list.retain_mut(|idle| idle.until > now && seems_silent(&mut idle.stream));
            discarded += before - list.len();
            !list.is_empty()
        });
        self.discarded.set(self.discarded.get() + discarded as u64);
    }

    /// Connections that are idle now.
    pub fn len(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// Whether none is idle.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes all of them.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Connections thrown away since the last call: too old, closed by the upstream, or with bytes nobody asked for.
    pub fn take_discarded(&self) -> u64 {
        self.discarded.take()
    }
}

fn seems_silent(stream: &mut Stream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if stream.poll_read_ready(&mut cx).is_pending() {
        return true;
    }
    // TLS records that carry no data (session tickets) also make a socket readable; only the session can tell.
    stream.is_tls() && stream.poll_read(&mut cx, &mut [0]).is_pending()
}
