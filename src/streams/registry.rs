//! All streams: by name, from their creation to their end.
//!
//! What may never happen: two streams of one name; a stream that takes the name, the positions or the readers of one that was
//! deleted; a source that vanishes while a fork reads it. Names are behind one lock, taken for reading by each request and for
//! writing when a stream is made or ends; it is always taken before a stream's own.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use arc_swap::ArcSwap;

use super::change_feed::News;
use super::fanout::notifier::{Bells, Hub};
use super::log::Log;
use super::model::bounds::Bounds;
use super::store::journal::{AppendError, Journal, Ticket};
use super::store::journal_entry::Entry;
use super::store::redis::Remote;
use super::stream::{Common, Presence, State, Stream};
use crate::telemetry::{CoreMetrics, Nonces};

/// What a name leads to.
#[derive(Debug)]
pub(crate) enum Found {
    /// A stream.
    Present(Arc<Stream>),
    /// One that was deleted and is kept for its forks.
    Hidden(Arc<Stream>),
    /// Nothing.
    Missing,
}

/// All streams of this process.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) names: RwLock<HashMap<Box<str>, Arc<Stream>>>,
    pub(crate) common: Arc<Common>,
    pub(crate) ids: Mutex<Nonces>,
    /// When to look at which stream again: it may be over, or have become too long.
    due: Mutex<BinaryHeap<Reverse<Due>>>,
    /// Words that a stream was deleted, to be given up once they are durable.
    graves: Mutex<Vec<Ticket>>,
    pub(crate) next: AtomicU64,
    /// Answers, by what those who made them call them.
    pub(crate) answers: RwLock<HashMap<Box<str>, Arc<Stream>>>,
    /// Which life of all of them together: places in the order of all appends belong to it.
    pub(crate) epoch: AtomicU64,
}

#[derive(Debug)]
struct Due {
    at: u64,
    id: u64,
    stream: Weak<Stream>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.id) == (other.at, other.id)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.id).cmp(&(other.at, other.id))
    }
}

pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    /// None yet, in memory, for so many cores.
    pub(crate) fn new(cores: usize, bounds: Bounds, mut ids: Nonces) -> Streams {
        let epoch = ids.next_u64();
        Streams::on(None, None, epoch, cores, bounds, ids)
    }

    /// None yet that are known here, in Redis, for so many cores.
    pub(crate) fn shared(remote: Arc<Remote>, cores: usize, bounds: Bounds, ids: Nonces) -> Streams {
        Streams::on(None, Some(remote), 0, cores, bounds, ids)
    }

    pub(crate) fn on(
        journal: Option<Journal>,
        remote: Option<Arc<Remote>>,
        epoch: u64,
        cores: usize,
        bounds: Bounds,
        ids: Nonces,
    ) -> Streams {
        Streams {
            names: RwLock::default(),
            common: Arc::new(Common {
                bells: Arc::new(Bells::new(cores)),
                journal,
                remote,
                bounds: ArcSwap::from_pointee(bounds),
                news: News::default(),
                owners: Default::default(),
                held: AtomicU64::new(0),
                rendered: Arc::default(),
                order: AtomicU64::new(1),
            }),
            ids: Mutex::new(ids),
            due: Mutex::default(),
            graves: Mutex::default(),
            next: AtomicU64::new(1),
            answers: RwLock::default(),
            epoch: AtomicU64::new(epoch),
        }
    }

    /// The hub of a core, made once on it, which counts in that core's `metrics`.
    pub(crate) fn hub(&self, core: usize, metrics: Arc<CoreMetrics>) -> Rc<Hub> {
        let waiters = self.common.journal.as_ref().map(Journal::waiters);
        Hub::new(core, Arc::clone(&self.common.bells), waiters, metrics)
    }

    /// What is kept on disk, if anything.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.common.journal.as_ref()
    }

    /// What has happened to them, for those who listen.
    pub(crate) fn news(&self) -> &News {
        &self.common.news
    }

    /// The bounds in force.
    pub(crate) fn bounds(&self) -> Arc<Bounds> {
        self.common.bounds.load_full()
    }

    /// Other bounds from now on.
    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        self.common.bounds.store(Arc::new(bounds));
    }

    /// Which life of the streams this is, and the place of the last append among all of them.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.epoch.load(Ordering::Acquire), self.common.order.load(Ordering::Acquire) - 1)
    }

    /// How many there are, and the bytes of memory they take.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let long = self.common.remote.as_ref().map_or(0, |remote| remote.long_bytes());
        (self.read().len(), self.common.held() + self.rendered() + long)
    }

    pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Box<str>, Arc<Stream>>> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `name` leads to at `now`, in milliseconds since 1970.
    pub(crate) fn find(&self, name: &str, now: u64) -> Found {
        let Some(stream) = self.read().get(name).cloned() else { return Found::Missing };
        if !stream.is_present() {
            return Found::Hidden(stream);
        }
        if !stream.is_over(now) {
            return Found::Present(stream);
        }
        // Whatever becomes of the word that it is over: after a restart it is over again.
        let _ = self.delete(&stream);
        let presence = stream.lock().presence;
        match presence {
            Presence::Hidden => Found::Hidden(stream),
            _ => Found::Missing,
        }
    }

    /// An answer is called `name` by whoever has made it.
    pub(crate) fn name_answer(&self, stream: &Arc<Stream>, name: &str) {
        if name.len() > super::model::bounds::NAME_BYTES_MAX {
            return;
        }
        let mut state = stream.lock();
        if state.presence != Presence::Present || state.answer.is_some() {
            return;
        }
        if let Some(journal) = &self.common.journal {
            let (body, _) = Entry::Answer { stream: stream.id, name: name.into() }.write(&[]);
            // Not noted, it is still there by its own name.
            let Ok(ticket) = journal.append(&body) else { return };
            state.anchors.push(ticket.location);
        }
        state.answer = Some(name.into());
        drop(state);
        self.answers.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), Arc::clone(stream));
    }

    /// The answer of that name.
    pub(crate) fn answer(&self, name: &str, now: u64) -> Option<Arc<Stream>> {
        let stream = self.answers.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()?;
        match self.find(&stream.name, now) {
            Found::Present(found) if found.id == stream.id => Some(found),
            _ => None,
        }
    }

    /// The names that match, of streams that are there.
    pub(crate) fn names(&self, matches: impl Fn(&str) -> bool) -> Vec<Arc<Stream>> {
        self.read().values().filter(|stream| matches(&stream.name) && stream.is_present()).cloned().collect()
    }

    /// Ends a stream: nobody finds it any more. It is kept while forks read it. `None` if it had ended already; else what has to
    /// be durable before anyone is told.
    ///
    /// # Errors
    /// If the word of it cannot be stored.
    pub(crate) fn delete(&self, stream: &Arc<Stream>) -> Result<Option<Option<Ticket>>, AppendError> {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = stream.lock();
        if state.presence != Presence::Present {
            return Ok(None);
        }
        let ticket = match &self.common.journal {
            None => None,
            Some(journal) => {
                let (body, _) = Entry::Delete { stream: stream.id }.write(&[]);
                let dead = if state.forks == 0 { state.locations() } else { Vec::new() };
                let ticket = journal.append_retiring(&body, &dead)?;
                match state.forks {
                    0 => guard(&self.graves).push(ticket),
                    _ => state.anchors.push(ticket.location),
                }
                Some(ticket)
            }
        };
        state.presence = if state.forks > 0 { Presence::Hidden } else { Presence::Deleted };
        let is_over = state.forks == 0;
        state.unseen = true;
        drop(state);
        if is_over {
            self.bury(stream, &mut names);
        }
        drop(names);
        stream.publish();
        Ok(Some(ticket))
    }

    /// Forgets a stream that nobody reads, and the sources that only it has kept.
    fn bury(&self, stream: &Arc<Stream>, names: &mut HashMap<Box<str>, Arc<Stream>>) {
        let mut last = Arc::clone(stream);
        loop {
            names.remove(&last.name);
            if let Some(name) = last.lock().answer.take() {
                let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
                if answers.get(&name).is_some_and(|stream| stream.id == last.id) {
                    answers.remove(&name);
                }
            }
            self.common.disown(&last);
            self.common.held.fetch_sub(last.cost() + last.lock().clear(), Ordering::Relaxed);
            let Some(base) = &last.base else { return };
            let source = Arc::clone(&base.source);
            let mut state = source.lock();
            state.forks -= 1;
            if state.forks > 0 || state.presence != Presence::Hidden {
                return;
            }
            state.presence = Presence::Deleted;
            if let Some(journal) = &self.common.journal {
                // The word that it was deleted is among them; another one takes its place until all of them are gone.
                let (body, _) = Entry::Delete { stream: source.id }.write(&[]);
                if let Ok(ticket) = journal.append_retiring(&body, &state.locations()) {
                    guard(&self.graves).push(ticket);
                }
            }
            drop(state);
            last = source;
        }
    }

    /// Says when to look at a stream again. What could not be given up yet has to wait for a moment.
    pub(crate) fn look_again(&self, stream: &Arc<Stream>, now: u64) {
        let at = {
            let state = stream.lock();
            let keep = self.common.bounds.load().keep_ms;
            let aged = state.log.oldest().filter(|_| keep > 0).map(|record| record.at + keep);
            // Of an empty one it is not known when it will have something that grows old.
            let aged = aged.or((keep > 0).then_some(state.used + keep));
            stream.lifetime.end(state.used).into_iter().chain(aged).min()
        };
        if let Some(at) = at {
            let at = at.max(now);
            let mut due = guard(&self.due);
            // Before it grows those that are gone are given up: they may have been meant to live for years.
            if due.len() == due.capacity() {
                due.retain(|Reverse(due)| due.stream.strong_count() > 0);
                let more = if due.len() <= due.capacity() / 2 { 1 } else { due.len() + 1 };
                due.reserve(more);
            }
            due.push(Reverse(Due { at, id: stream.id, stream: Arc::downgrade(stream) }));
        }
    }

    /// Ends what is over and gives up what is too old, as of `now`. To be called about once a second, by one.
    pub(crate) fn sweep(&self, now: u64) {
        if let Some(remote) = &self.common.remote {
            return remote.forget_unused(self, now);
        }
        loop {
            let stream = {
                let mut due = guard(&self.due);
                match due.peek() {
                    Some(Reverse(first)) if first.at < now => {
                        due.pop().and_then(|due| due.0.stream.upgrade())
                    }
                    _ => break,
                }
            };
            let Some(stream) = stream.filter(|stream| stream.is_present()) else { continue };
            if stream.is_over(now) {
                let _ = self.delete(&stream);
                continue;
            }
            let mut state = stream.lock();
            let (before, weight) = (state.log.held(), state.log.weight());
            stream.trim(&mut state, now);
            self.common.weigh(stream.owner.as_deref(), weight, state.log.weight());
            self.common.held.fetch_sub(before - state.log.held(), Ordering::Relaxed);
            drop(state);
            self.look_again(&stream, now);
        }
        if let Some(journal) = &self.common.journal {
            self.chill();
            let mut graves = guard(&self.graves);
            let done: Vec<_> = graves
                .extract_if(.., |ticket| matches!(journal.outcome(*ticket), Some(Ok(()))))
                .map(|ticket| ticket.location)
                .collect();
            journal.retire(&done);
        }
    }

    /// Lets go of payloads that can be read again, while memory is short.
    pub(crate) fn chill(&self) {
        if self.common.held() > self.common.bounds.load().memory {
            let streams: Vec<_> = self.read().values().cloned().collect();
            streams.iter().for_each(|stream| stream.lock().chill(&self.common));
        }
    }
}

impl State {
    pub(crate) fn new(start: u64, now: u64) -> State {
        State {
            log: Log::new(start),
            visible: start,
            pending: Default::default(),
            closed: false,
            closed_visible: false,
            closer: None,
            producers: Default::default(),
            seq: None,
            presence: Presence::Present,
            forks: 0,
            used: now,
            anchors: Vec::new(),
            trimmed: None,
            unseen: false,
            answer: None,
            failed: false,
            stopped: false,
            mirrored: 0,
            behind: false,
            watches: Vec::new(),
            frames: [const { None }; super::fanout::view::VIEWS],
        }
    }

    /// Every record of the journal that is about it.
    pub(crate) fn locations(&self) -> Vec<super::store::journal::Location> {
        let stored = self.log.records().filter_map(|record| record.stored);
        let own = stored.filter(|stored| !stored.shared).map(|stored| stored.location);
        own.chain(self.anchors.iter().copied()).chain(self.trimmed).collect()
    }

    /// What it takes of memory, in bytes.
    pub(crate) fn held(&self) -> u64 {
        self.log.held() + self.producers.held()
    }

    /// Lets go of everything; says how many bytes of memory that was.
    pub(crate) fn clear(&mut self) -> u64 {
        let held = self.held();
        self.log.trim(|_, _| false, &mut Vec::new());
        self.producers = Default::default();
        self.frames = [const { None }; super::fanout::view::VIEWS];
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{Creation, Lifetime};

    /// A stream that was meant to live for years and was deleted stood in the queue of what will be over until then: whoever
    /// made and deleted streams with a `Stream-TTL` in a loop made the process grow by 1 KiB each time, within every bound.
    #[test]
    fn what_was_deleted_before_its_time_is_not_waited_for() {
        let streams = Streams::new(1, Bounds::default(), Nonces::from_seed([7; 32]));
        for _ in 0..10_000 {
            let creation = Creation {
                name: "a",
                kind: None,
                lifetime: Lifetime::Idle(100_000_000),
                bytes: Default::default(),
                ends: Default::default(),
                closed: false,
                fork: None,
                owner: None,
                generated: false,
            };
            let made = streams.create(&creation, 1).expect("there is room");
            streams.delete(&made.stream).expect("nothing is stored");
        }
        assert!(guard(&streams.due).len() <= 16, "{}", guard(&streams.due).len());
    }
}
