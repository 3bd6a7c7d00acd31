//! One stream: its log, what may still be appended to it, and who watches it.
//!
//! ```text
//!        start                    visible            tail
//!  trimmed │ durable, read by all    │ taken, waiting   │
//!          │                         │ for the disk     │
//!
//!  open ──close──► closed            present ──delete──► deleted, or hidden while forks read it
//! ```
//!
//! Two ends, because nobody may learn of what a crash could take back: an append is judged against all that was taken, a
//! reader is shown what is durable. In memory alone the two are one.
//!
//! Everything that changes is behind one lock, held for the time of a few hundred instructions and never while the disk, a
//! socket or another stream of the same depth is waited for. A fork locks its source only after it has let go of itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::change_feed::{Heard, News};
use super::fanout::notifier::Bells;
use super::log::Log;
use super::model::bounds::{Bounds, STREAM_OVERHEAD_BYTES};
use super::model::kind::Kind;
use super::model::lifetime::Lifetime;
use super::model::offset::Offset;
use super::model::producer::Producers;
use super::owners::{Owner, Owners};
use super::store::journal::{Journal, Location, Ticket};
use super::store::redis::Remote;
use crate::runtime::clock::unix_millis;

/// What all streams share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) bells: Arc<Bells>,
    pub(crate) journal: Option<Journal>,
    pub(crate) remote: Option<Arc<Remote>>,
    pub(crate) bounds: ArcSwap<Bounds>,
    pub(crate) news: News,
    pub(crate) owners: Owners,
    /// Bytes of memory that all streams take.
    pub(crate) held: AtomicU64,
    /// Bytes of memory that were made for readers and are held by any.
    pub(crate) rendered: Arc<AtomicU64>,
    /// The next place in the order of all appends.
    pub(crate) order: AtomicU64,
}

impl Common {
    pub(crate) fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Ordering::AcqRel)
    }
}

/// Where a fork goes on from another stream.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) source: Arc<Stream>,
    pub(crate) position: u64,
    pub(crate) depth: u32,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its number: no other stream of this store has had it.
    pub(crate) id: u64,
    /// Its name.
    pub(crate) name: Box<str>,
    /// What it holds.
    pub(crate) kind: Kind,
    /// Which life of the log it belongs to.
    pub(crate) epoch: u64,
    /// How long it lives.
    pub(crate) lifetime: Lifetime,
    /// Whose it is, if not everyone's: the name of a key.
    pub(crate) owner: Option<Arc<Owner>>,
    /// It is a kept response: nobody but sedge appends to it.
    pub(crate) generated: bool,
    pub(crate) base: Option<Base>,
    pub(crate) common: Arc<Common>,
    pub(crate) heard: Heard,
    pub(crate) state: Mutex<State>,
}

/// Whether a stream is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Present,
    /// Deleted, but read by forks.
    Hidden,
    Deleted,
}

/// A core on which somebody watches.
#[derive(Debug)]
pub(crate) struct Watch {
    core: u16,
    readers: u32,
    rung: bool,
}

/// Something that was taken and is not known to be durable.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) ticket: Ticket,
    pub(crate) end: u64,
    pub(crate) order: u64,
    pub(crate) closes: bool,
}

/// What of a stream changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) log: Log,
    pub(crate) visible: u64,
    pub(crate) pending: VecDeque<Pending>,
    /// No more can be appended.
    pub(crate) closed: bool,
    /// Readers may know that.
    pub(crate) closed_visible: bool,
    /// The producer's append that closed it.
    pub(crate) closer: Option<(Box<str>, u64, u64)>,
    pub(crate) producers: Producers,
    pub(crate) seq: Option<Box<str>>,
    pub(crate) presence: Presence,
    /// Streams that go on from this one.
    pub(crate) forks: usize,
    /// When it was last read or written, in milliseconds since 1970.
    pub(crate) used: u64,
    /// Where records of the journal are that are needed as long as it lives.
    pub(crate) anchors: Vec<Location>,
    /// Where the journal says how it was trimmed last.
    pub(crate) trimmed: Option<Location>,
    /// Something became visible since those who watch were woken.
    pub(crate) unseen: bool,
    pub(crate) watches: Vec<Watch>,
    /// What it is called by whoever has made it, if it is an answer.
    pub(crate) answer: Option<Box<str>>,
    /// Nothing more comes, and it is not whole.
    pub(crate) failed: bool,
    /// Of a kept response: a client has closed it, which stops its upstream.
    pub(crate) stopped: bool,
    /// Of a mirror: up to which place in the order of all appends it has all that is of this stream.
    pub(crate) mirrored: u64,
    /// Of a mirror: it was heard that there is more, while nobody watched.
    pub(crate) behind: bool,
    pub(crate) frames: [Option<Frame>; super::fanout::view::VIEWS],
}

/// Bytes that were made once for all who read on at the same place.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Where it begins in the stream.
    pub(crate) from: u64,
    /// Where a reader stands after it.
    pub(crate) next: u64,
    /// What else it depends on.
    pub(crate) cursor: u64,
    /// It says that there is no more for now.
    pub(crate) up_to_date: bool,
    /// It says that there never will be.
    pub(crate) closed: bool,
    /// How many appends it tells of.
    pub(crate) appends: u32,
    /// Ready to be sent.
    pub(crate) bytes: Bytes,
}

/// What there is for a reader.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    /// Nothing new.
    Nothing,
    /// What was made for all who stand there.
    Frame(Frame),
    /// Something that was not made ready.
    News,
}

impl Stream {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A position of this stream, as readers hold it.
    pub(crate) fn offset(&self, position: u64) -> Offset {
        Offset { epoch: self.epoch, position }
    }

    /// The frame of `view` that was made for readers at `from`, if it still says how things are.
    pub(crate) fn frame(&self, view: usize, from: u64, cursor: u64) -> Option<Frame> {
        let mut state = self.lock();
        state.settle(&self.common);
        let (visible, closed) = (state.visible, state.closed_visible);
        state.frames[view]
            .as_ref()
            .filter(|frame| {
                frame.from == from
                    && frame.cursor == cursor
                    && frame.next == visible
                    && frame.closed == closed
            })
            .cloned()
    }

    /// What there is for one who has read up to `from` in `view`, and whose cursors are not to be less than `floor`: what
    /// [`Stream::has_news`] and [`Stream::frame`] say, in one look.
    pub(crate) fn look(&self, view: usize, from: u64, floor: u64) -> Look {
        let mut state = self.lock();
        state.settle(&self.common);
        if !state.has_news(from) {
            return Look::Nothing;
        }
        let is_current = |frame: &&Frame| {
            frame.from == from
                && frame.cursor >= floor
                && frame.next == state.visible
                && frame.closed == state.closed_visible
        };
        state.frames[view].as_ref().filter(is_current).map_or(Look::News, |frame| Look::Frame(frame.clone()))
    }

    /// Keeps a frame for the other readers at the same place, as long as there are any.
    pub(crate) fn keep_frame(&self, view: usize, frame: Frame) {
        let mut state = self.lock();
        if !state.watches.is_empty() {
            state.frames[view] = Some(frame);
        }
    }

    /// What it costs beside what is in it, in bytes of memory.
    pub(crate) fn cost(&self) -> u64 {
        // The name stands among all names, too.
        STREAM_OVERHEAD_BYTES + (2 * self.name.len() + self.kind.as_str().len()) as u64
    }

    /// Whether one who has read up to `position` has something to learn.
    pub(crate) fn has_news(&self, position: u64) -> bool {
        let mut state = self.lock();
        state.settle(&self.common);
        state.has_news(position)
    }

    /// Nothing more will come, although it is not whole: readers are cut off instead of kept waiting.
    pub(crate) fn fail(self: &Arc<Self>) {
        {
            let mut state = self.lock();
            (state.failed, state.unseen) = (true, true);
        }
        self.publish();
    }

    /// Whether it will never be whole.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// It was read or written.
    pub(crate) fn touch(&self, now: u64) {
        let mut state = self.lock();
        state.used = state.used.max(now);
    }

    /// Whether it is still there for those who know its name.
    pub(crate) fn is_present(&self) -> bool {
        self.lock().presence == Presence::Present
    }

    /// Whether its time has passed. One that is followed or written is in use for as long as that lasts (PROTOCOL.md, 5.1), but
    /// for one that was made to end at a moment.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        let mut state = self.lock();
        if !state.watches.is_empty() {
            state.used = state.used.max(now);
        }
        let is_in_use = matches!(self.lifetime, Lifetime::Idle(_)) && !state.watches.is_empty();
        !is_in_use && self.lifetime.end(state.used).is_some_and(|end| end <= now)
    }

    /// Shows readers what has become durable.
    pub(crate) fn settle(self: &Arc<Self>) {
        let changed = {
            let mut state = self.lock();
            let before = (state.visible, state.closed_visible);
            state.settle(&self.common);
            state.chill(&self.common);
            before != (state.visible, state.closed_visible) || state.unseen
        };
        if changed {
            self.publish();
        }
    }

    /// Wakes whoever watches: one wake a core that has not looked since the last.
    pub(crate) fn publish(self: &Arc<Self>) {
        self.common.news.changed(self);
        let mut state = self.lock();
        state.unseen = false;
        let mut cores: [u16; 16] = [0; 16];
        loop {
            let mut count = 0;
            for watch in state.watches.iter_mut().filter(|watch| !watch.rung).take(cores.len()) {
                watch.rung = true;
                cores[count] = watch.core;
                count += 1;
            }
            if count == 0 {
                return;
            }
            drop(state);
            for &core in &cores[..count] {
                self.common.bells.ring(core, Arc::clone(self));
            }
            state = self.lock();
        }
    }

    /// The readers of a core are about to look.
    pub(crate) fn answered(&self, core: u16) {
        if let Some(watch) = self.lock().watches.iter_mut().find(|watch| watch.core == core) {
            watch.rung = false;
        }
    }

    /// Somebody on a core watches from now on. Says whether there is something that was not fetched, since nobody did.
    pub(crate) fn watch(&self, core: u16) -> bool {
        let mut state = self.lock();
        match state.watches.iter_mut().find(|watch| watch.core == core) {
            Some(watch) => watch.readers += 1,
            None => state.watches.push(Watch { core, readers: 1, rung: false }),
        }
        std::mem::take(&mut state.behind)
    }

    pub(crate) fn unwatch(&self, core: u16) {
        let mut state = self.lock();
        if let Some(place) = state.watches.iter().position(|watch| watch.core == core) {
            state.watches[place].readers -= 1;
            if state.watches[place].readers == 0 {
                state.watches.swap_remove(place);
            }
            if state.watches.is_empty() {
                state.frames = Default::default();
                if matches!(self.lifetime, Lifetime::Idle(_)) {
                    // Its time begins now.
                    state.used = state.used.max(unix_millis());
                }
            }
        }
    }

    /// Those who watch it.
    pub(crate) fn readers(&self) -> u64 {
        self.lock().watches.iter().map(|watch| u64::from(watch.readers)).sum()
    }
}

impl State {
    fn has_news(&self, position: u64) -> bool {
        self.visible > position || self.closed_visible || self.failed || self.presence != Presence::Present
    }

    /// Moves what is visible up to what is durable.
    pub(crate) fn settle(&mut self, common: &Common) {
        let Some(journal) = &common.journal else { return };
        while let Some(pending) = self.pending.front()
            && let Some(Ok(())) = journal.outcome(pending.ticket)
        {
            self.visible = pending.end;
            self.closed_visible |= pending.closes;
            // Whoever looks first moves the end; those who only wait still have to be woken.
            self.unseen = true;
            self.pending.pop_front();
        }
    }

    /// Lets go of payloads that can be read from the disk or Redis: all but the newest, and those too while memory is short.
    pub(crate) fn chill(&mut self, common: &Common) {
        if common.journal.is_none() && common.remote.is_none() {
            return;
        }
        let before = self.log.held();
        let short = common.held.load(Ordering::Relaxed) > common.bounds.load().memory;
        self.log.chill(if short { 0 } else { super::model::bounds::HOT_BYTES }, self.visible);
        common.held.fetch_sub(before - self.log.held(), Ordering::Relaxed);
    }

    /// The last that nobody may be told of before it is durable.
    pub(crate) fn last_ticket(&self) -> Option<Ticket> {
        self.pending.back().map(|pending| pending.ticket)
    }
}
