//! Streams as this node knows them: fetched when they are asked for, and as often as somebody who follows one is to learn of
//! more.
//!
//! A mirror only ever grows at its end and shrinks at its beginning, whatever order answers arrive in. One that turns out to be
//! of a stream that is gone, or of a log that Redis has lost, ends, and another takes its place.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::Unavailable;
use super::meta::{self, Meta, Snapshot, Told};
use super::remote::Remote;
use super::scripts::{self, Call};
use crate::streams::change_feed::Heard;
use crate::streams::log::Log;
use crate::streams::model::lifetime::Lifetime;
use crate::streams::registry::{Streams, guard};
use crate::streams::stream::{Base, Presence, State, Stream};

/// How long a stream that nobody asks for is remembered, in milliseconds.
const REMEMBERED_MS: u64 = 60_000;

/// What is to be fetched after what is being fetched, by name. Whoever asks shares the answer with all who ask before the
/// next question is put: one that is under way already may know less than it has to.
pub(crate) type Fetches = Mutex<HashMap<Box<str>, Fetch>>;

pub(crate) type Fetched = Result<Option<Arc<Stream>>, Unavailable>;

/// The next fetch of a stream.
#[derive(Debug, Default)]
pub(crate) struct Fetch {
    wanted: bool,
    used: bool,
    waiting: Vec<oneshot::Sender<Fetched>>,
}

/// The fetches of one stream, as long as they are served. Whatever ends that, whoever comes next is served again.
struct Serving<'a> {
    fetches: &'a Fetches,
    name: &'a str,
    is_over: bool,
}

impl Serving<'_> {
    /// What is wanted next; nothing is the end, in the same step as it was seen.
    fn next(&mut self) -> Option<Fetch> {
        let mut fetches = guard(self.fetches);
        match fetches.get_mut(self.name) {
            Some(next) if next.wanted => Some(std::mem::take(next)),
            _ => {
                fetches.remove(self.name);
                self.is_over = true;
                None
            }
        }
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            guard(self.fetches).remove(self.name);
        }
    }
}

impl Remote {
    /// The stream of that name as it is now, hidden ones as well. With `used` it counts as read.
    pub(crate) async fn attach(self: &Arc<Self>, streams: &Arc<Streams>, name: &str, used: bool) -> Fetched {
        fetched(self.ask(streams, name, used)).await
    }

    /// The same, on its way.
    pub(crate) fn ask(
        self: &Arc<Self>,
        streams: &Arc<Streams>,
        name: &str,
        used: bool,
    ) -> oneshot::Receiver<Fetched> {
        let (done, is_done) = oneshot::channel();
        self.ask_for(streams, name, used, Some(done));
        is_done
    }

    /// Fetches what is new of a stream; nobody waits for it.
    pub(crate) fn fetch(self: &Arc<Self>, streams: &Arc<Streams>, name: &str) {
        self.ask_for(streams, name, false, None);
    }

    fn ask_for(
        self: &Arc<Self>,
        streams: &Arc<Streams>,
        name: &str,
        used: bool,
        waiting: Option<oneshot::Sender<Fetched>>,
    ) {
        let mut fetches = guard(&self.fetches);
        let is_new = !fetches.contains_key(name);
        let next = fetches.entry(name.into()).or_default();
        next.wanted = true;
        next.used |= used;
        next.waiting.extend(waiting);
        if is_new {
            let (me, streams, name) = (Arc::clone(self), Arc::clone(streams), Box::<str>::from(name));
            self.link.runtime().spawn(async move { me.serve(&streams, &name).await });
        }
    }

    /// Fetches a stream for as long as somebody wants it.
    async fn serve(self: &Arc<Self>, streams: &Arc<Streams>, name: &str) {
        let mut serving = Serving { fetches: &self.fetches, name, is_over: false };
        while let Some(fetch) = serving.next() {
            // What cannot be fetched now for those who follow is fetched when the link is up again.
            let fetched = self.look(streams, name, fetch.used).await;
            for waiting in fetch.waiting {
                let _ = waiting.send(fetched.clone());
            }
        }
    }

    /// Looks what there is of a stream that is not known here.
    async fn look(self: &Arc<Self>, streams: &Arc<Streams>, name: &str, mut used: bool) -> Fetched {
        loop {
            let known = streams.read().get(name).cloned();
            let bounds = streams.bounds();
            if streams.common.held() > bounds.memory * 2 {
                return Err(Unavailable::refused(
                    "this node has no memory left for streams: raise `memory` in [streams]",
                ));
            }
            let read = Call::of(&scripts::READ).text(name);
            let read = match &known {
                None => read.number(0).text(None).number(0).number(0).number(0),
                Some(known) => known.tell_how_far(read),
            };
            let read = read.flag(used).number(bounds.keep_ms).epoch(self.number());
            let stream = match (meta::told(self.link.call(read).await?)?, known) {
                (Told::More(snapshot), Some(known)) => (known, snapshot),
                (Told::More(snapshot), None) => (self.mirror(streams, name, &snapshot.meta).await?, snapshot),
                (missing, known) => {
                    known.iter().for_each(|known| streams.forget(known));
                    match missing {
                        Told::Missing => return Ok(None),
                        _ => continue,
                    }
                }
            };
            let (stream, snapshot) = stream;
            used = false;
            let more = snapshot.more;
            stream.take_up(snapshot);
            if !more {
                return Ok(Some(stream));
            }
        }
    }

    async fn mirror(
        self: &Arc<Self>,
        streams: &Arc<Streams>,
        name: &str,
        meta: &Meta,
    ) -> Result<Arc<Stream>, Unavailable> {
        let base = match &meta.base {
            None => None,
            Some((source, position, depth)) => {
                let source = Box::pin(self.attach(streams, source, false)).await?;
                let source = source.ok_or_else(|| meta::garbled("the source of a fork is missing"))?;
                Some(Base { source, position: *position, depth: *depth })
            }
        };
        let mut names = streams.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = names.get(name).filter(|there| there.id == meta.id && there.epoch == meta.epoch)
        {
            return Ok(Arc::clone(there));
        }
        let from = base.as_ref().map_or(0, |base| base.position).max(meta.start);
        let mut state = State::new(from, crate::runtime::clock::unix_millis());
        state.log = Log::mirror(from, name);
        state.log.lost = meta.lost;
        let stream = Arc::new(Stream {
            id: meta.id,
            name: name.into(),
            kind: meta.kind.clone(),
            epoch: meta.epoch,
            lifetime: meta.lifetime.clone(),
            owner: meta.owner.as_deref().map(|owner| streams.common.owners.of(owner)),
            generated: meta.generated,
            base,
            common: Arc::clone(&streams.common),
            heard: Heard::default(),
            state: Mutex::new(state),
        });
        streams.common.held.fetch_add(stream.cost(), Ordering::Relaxed);
        names.insert(name.into(), Arc::clone(&stream));
        Ok(stream)
    }

    /// Lets go of what nobody has asked for in a while. Two mirrors of one stream would be one too many: only one that nobody
    /// else holds is let go of, and names are locked so that nobody can take hold of it.
    pub(crate) fn forget_unused(self: &Arc<Self>, streams: &Streams, now: u64) {
        streams.chill();
        self.long.forget_unused(now);
        self.keep_in_use(streams, now);
        let mut names = streams.names.write().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, stream| {
            if Arc::strong_count(stream) > 1 {
                return true;
            }
            let mut state = stream.lock();
            if !state.watches.is_empty() || state.used + REMEMBERED_MS > now {
                return true;
            }
            streams.common.held.fetch_sub(stream.cost() + state.clear(), Ordering::Relaxed);
            false
        });
    }
}

impl Remote {
    /// Tells Redis that streams are in use which are followed or written here, before the time passes that it keeps them unused.
    fn keep_in_use(self: &Arc<Self>, streams: &Streams, now: u64) {
        let is_due = |stream: &&Arc<Stream>| {
            let Lifetime::Idle(seconds) = stream.lifetime else { return false };
            let mut state = stream.lock();
            let is_due = !state.watches.is_empty() && state.used.saturating_add(seconds * 250) <= now;
            if is_due {
                state.used = now;
            }
            is_due
        };
        let due: Vec<Arc<Stream>> = streams.read().values().filter(is_due).cloned().collect();
        if let Some(streams) = self.streams().filter(|_| !due.is_empty()) {
            due.iter().for_each(|stream| self.ask_for(&streams, &stream.name, true, None));
        }
    }
}

/// What came of what was asked for.
pub(crate) async fn fetched(asked: oneshot::Receiver<Fetched>) -> Fetched {
    asked.await.unwrap_or_else(|_| Err(meta::garbled("its thread has failed")))
}

impl Streams {
    /// Ends a mirror: whoever reads it is told that the stream is gone, or comes back and finds another.
    pub(crate) fn forget(&self, stream: &Arc<Stream>) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if !names.get(&stream.name).is_some_and(|there| Arc::ptr_eq(there, stream)) {
            return;
        }
        names.remove(&stream.name);
        {
            let mut state = stream.lock();
            state.presence = Presence::Deleted;
            self.common.held.fetch_sub(stream.cost() + state.clear(), Ordering::Relaxed);
        }
        drop(names);
        stream.publish();
    }
}

impl Stream {
    /// Says which stream this is, and how far it is known.
    fn tell_how_far(&self, call: Call) -> Call {
        let state = self.lock();
        let (order, at) = state.log.newest().map_or((0, 0), |last| (last.order, last.at));
        call.number(self.id).epoch(self.epoch).number(state.log.tail).number(order).number(at)
    }

    /// Takes up what Redis has told, whatever of it is known already.
    pub(crate) fn take_up(self: &Arc<Self>, snapshot: Snapshot) {
        let meta = snapshot.meta;
        let has_changed = {
            let mut state = self.lock();
            if state.presence == Presence::Deleted {
                return;
            }
            let (before, held) = (state.seen(), state.log.held());
            if meta.start > state.log.start {
                state.log.skip_to(meta.start, meta.lost);
            }
            for record in snapshot.records {
                if record.start >= state.log.tail {
                    // What is missing between was given up meanwhile.
                    let start = record.start;
                    if start > state.log.tail {
                        state.log.skip_to(start, 0);
                    }
                    state.log.push(record);
                }
            }
            state.visible = state.log.tail;
            if !snapshot.more && state.log.tail == meta.tail {
                (state.closed, state.closed_visible) = (meta.closed, meta.closed);
                state.mirrored = state.mirrored.max(snapshot.order);
            }
            state.forks = meta.forks;
            state.stopped = meta.stopped;
            if meta.hidden {
                state.presence = Presence::Hidden;
            }
            state.account(held, &self.common);
            before != state.seen()
        };
        self.common.order.fetch_max(snapshot.order + 1, Ordering::AcqRel);
        if has_changed {
            self.publish();
        }
    }
}

impl State {
    /// What readers see of it.
    fn seen(&self) -> (u64, bool, Presence) {
        (self.visible, self.closed_visible, self.presence)
    }

    /// Takes what it holds now into the books, after it held so many bytes.
    pub(crate) fn account(&mut self, before: u64, common: &crate::streams::stream::Common) {
        let after = self.log.held();
        if after >= before {
            common.held.fetch_add(after - before, Ordering::Relaxed);
        } else {
            common.held.fetch_sub(before - after, Ordering::Relaxed);
        }
        self.chill(common);
    }
}
