//! A core's idle connections, last in first out, so that the warmest is used and the rest may grow old and go. Where a name has
//! several addresses, requests go round them, each over the warmest connection to the address whose turn it is.
//!
//! A socket that has something to say while nobody has asked it, an end, a reset or bytes, is thrown away. A sweep sees that by
//! readiness, without a system call. The one that is about to be used is looked at by one: an end that arrived together with the
//! request is not in the readiness yet, and a request that is sent behind it is lost, which a POST cannot make good.
//!
//! An upstream closes what is idle for too long, and a request may cross its close. So a connection is kept for less time than
//! the upstream keeps it: what its `Keep-Alive` said, what it was seen to do ([`Life`]), or what was configured, whichever is
//! shortest.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Waker};

use rustc_hash::FxHashMap;

use super::addresses::Addresses;
use super::target::Target;
use crate::runtime::clock::Millis;
use crate::runtime::net::stream::Stream;

/// How much less time a connection is kept than its upstream said that it keeps it: the request must still reach it.
const KEEP_ALIVE_MARGIN_MS: Millis = 1000;

/// How much less time it is kept than its upstream was seen to keep one.
const LIFE_MARGIN_MS: Millis = 500;

/// An upstream that closes earlier has not closed for idleness, but restarted, or counted its requests.
const LIFE_MIN_MS: Millis = 1000;

/// How long it is remembered how early an upstream has closed.
const LIFE_KNOWN_MS: Millis = 600_000;

/// How long an upstream is remembered at all that nothing is idle to.
const UNUSED_MS: Millis = 600_000;

/// The idle connections of a core.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<FxHashMap<String, List>>,
    discarded: Cell<u64>,
}

/// Those to one upstream.
#[derive(Default)]
struct List {
    idle: Vec<Idle>,
    /// The addresses of its name, if there are several.
    addresses: Option<Rc<Addresses>>,
    life: Life,
    used: Millis,
}

struct Idle {
    stream: Stream,
    /// Where it leads to, if its name leads to several addresses.
    address: Option<SocketAddr>,
    since: Millis,
    /// When it was last seen to be open.
    seen: Millis,
    until: Millis,
}

/// A connection that was idle.
pub(crate) struct Pooled {
    /// The connection.
    pub(crate) stream: Stream,
    /// How long it was idle.
    pub(crate) idle_for: Millis,
}

/// The shortest time after which an upstream has closed an idle connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Life {
    shortest: Option<Millis>,
    known_until: Millis,
}

impl Life {
    /// A connection was closed that had been idle for `idle_for` at least.
    fn closed(&mut self, idle_for: Millis, now: Millis) {
        if idle_for >= LIFE_MIN_MS {
            let known = self.shortest.filter(|_| now < self.known_until).unwrap_or(Millis::MAX);
            (self.shortest, self.known_until) = (Some(known.min(idle_for)), now + LIFE_KNOWN_MS);
        }
    }

    /// How long one may be kept; nothing if that is not known.
    fn keep(&self, now: Millis) -> Option<Millis> {
        self.shortest.filter(|_| now < self.known_until).map(|life| life.saturating_sub(LIFE_MARGIN_MS))
    }
}

impl Pool {
    /// A connection to `target` that is still good: the one that was used last, or the last one to the address whose turn it is.
    ///
    /// # Errors
    /// If there is none: with the address whose turn it is, if its name has several.
    pub(crate) fn take(&self, target: &Target, now: Millis) -> Result<Pooled, Option<SocketAddr>> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&target.pool).ok_or(None)?;
        let turn = match &list.addresses {
            None => None,
            Some(addresses) => {
                list.used = now;
                addresses.next(now)
            }
        };
        while let Some(mut last) = list.pop(turn) {
            let idle_for = now.saturating_sub(last.since);
            // What a TLS session has to say to itself is taken in first; of a plain socket the kernel knows all.
            let may_be_good = !last.stream.is_tls() || seems_silent(&mut last.stream);
            if last.until > now && may_be_good && last.stream.is_silent() {
                return Ok(Pooled { stream: last.stream, idle_for });
            }
            if last.until > now {
                list.life.closed(last.seen - last.since, now);
            }
            self.discarded.set(self.discarded.get() + 1);
        }
        Err(turn)
    }

    /// Keeps a connection whose last answer was complete. `keep_alive` is how long the upstream said that it keeps it.
    pub(crate) fn put(&self, target: &Target, mut stream: Stream, now: Millis, keep_alive: Option<Millis>) {
        // Asking also takes the last request's waker out of the socket, which would keep that task's memory.
        if !seems_silent(&mut stream) {
            self.discarded.set(self.discarded.get() + 1);
            return;
        }
        let said = keep_alive.map_or(Millis::MAX, |said| said.saturating_sub(KEEP_ALIVE_MARGIN_MS));
        let keep = said.min(target.idle_timeout);
        let mut idle = self.idle.borrow_mut();
        match idle.get_mut(&target.pool) {
            Some(list) => list.put(stream, keep, target.max_idle, now),
            None if keep == 0 || target.max_idle == 0 => {}
            None => {
                let list = idle.entry(target.pool.clone()).or_default();
                list.put(stream, keep, target.max_idle, now);
            }
        }
    }

    /// A connection to `target` was made, by a name with these addresses.
    pub(crate) fn learn(&self, target: &Target, addresses: Option<Rc<Addresses>>, now: Millis) {
        let several = addresses.filter(|addresses| addresses.len() > 1);
        let mut idle = self.idle.borrow_mut();
        match (idle.get_mut(&target.pool), several) {
            (Some(list), several) => (list.addresses, list.used) = (several, now),
            (None, None) => {}
            (None, addresses) => {
                idle.insert(target.pool.clone(), List { addresses, used: now, ..List::default() });
            }
        }
    }

    /// A connection that had been idle for so long was closed by `target` just when it was used again.
    pub(crate) fn was_closed(&self, target: &Target, idle_for: Millis, now: Millis) {
        if let Some(list) = self.idle.borrow_mut().get_mut(&target.pool) {
            list.life.closed(idle_for, now);
            list.used = now;
        }
    }

    /// Throws away what is too old or has been closed. Called about once a second.
    pub(crate) fn sweep(&self, now: Millis) {
        let mut discarded = 0;
        self.idle.borrow_mut().retain(|_, list| {
            let before = list.idle.len();
            let List { idle, life, .. } = list;
            idle.retain_mut(|idle| {
                if idle.until <= now {
                    return false;
                }
                let silent = seems_silent(&mut idle.stream);
                match silent {
                    true => idle.seen = now,
                    false => life.closed(idle.seen - idle.since, now),
                }
                silent
            });
            discarded += before - idle.len();
            if !list.idle.is_empty() {
                list.used = now;
            }
            // What is known of an upstream outlives its connections for a while.
            let knows = list.addresses.is_some() || list.life.keep(now).is_some();
            !list.idle.is_empty() || knows && list.used + UNUSED_MS > now
        });
        self.discarded.set(self.discarded.get() + discarded as u64);
    }

    /// Connections that are idle now.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().values().map(|list| list.idle.len()).sum()
    }

    /// Closes all of them.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Connections thrown away since the last call: too old, closed by the upstream, or with bytes nobody asked for.
    pub(crate) fn take_discarded(&self) -> u64 {
        self.discarded.take()
    }
}

impl List {
    /// Puts in a connection to be kept for so long, unless there are `max` already.
    fn put(&mut self, stream: Stream, keep: Millis, max: usize, now: Millis) {
        let keep = self.life.keep(now).map_or(keep, |learnt| learnt.min(keep));
        if keep > 0 && self.idle.len() < max {
            let address = self.addresses.as_ref().and_then(|_| stream.peer());
            self.idle.push(Idle { stream, address, since: now, seen: now, until: now + keep });
        }
    }

    /// Takes out the last connection that was put in, of those to the address whose turn it is.
    fn pop(&mut self, turn: Option<SocketAddr>) -> Option<Idle> {
        if turn.is_none() {
            return self.idle.pop();
        }
        let at = self.idle.iter().rposition(|idle| idle.address == turn)?;
        Some(self.idle.remove(at))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_life_counts_and_is_forgotten_in_time() {
        let mut life = Life::default();
        assert_eq!(life.keep(0), None);
        life.closed(LIFE_MIN_MS - 1, 0);
        assert_eq!(life.keep(0), None, "a restart says nothing of idle connections");
        life.closed(5000, 100);
        life.closed(3000, 200);
        life.closed(4000, 300);
        assert_eq!(life.keep(300), Some(3000 - LIFE_MARGIN_MS));
        assert_eq!(life.keep(300 + LIFE_KNOWN_MS), None);
        life.closed(4000, 300 + LIFE_KNOWN_MS);
        assert_eq!(life.keep(300 + LIFE_KNOWN_MS), Some(4000 - LIFE_MARGIN_MS));
    }
}
