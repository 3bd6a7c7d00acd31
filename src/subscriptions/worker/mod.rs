//! The subscriptions at work: one set for all cores, behind one lock, and one task that carries out what it asks for. Where
//! streams are in Redis the set is there, too, and this is a door to it and what sends its webhooks.
//!
//! ```text
//!  request, on any core ──► lock: news of streams, then the request ──► records into the journal ──durable──► its answer
//!                                        │ orders                                                      │
//!                                        ▼                                                             ▼
//!                             the desk's task, on core 0 ──durable──► webhook sent, event appended ──► lock: what came of it
//! ```
//!
//! Nobody is told of what a crash could take back: neither a client nor a receiver hears of a wake, a claim or an
//! acknowledgement before its record is as durable as configured. Under the lock nothing is waited for: a record is handed to
//! the journal, an order is put into the queue. Streams are locked from within it, never the other way round.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `mod.rs` | the lock, and what goes in and out of it |
//! | `task.rs` | orders carried out, leases that end |
//! | `shared.rs` | orders carried out where subscriptions are in Redis; `streams/store/redis/subscriptions.rs` has the rest |
//! | `seek.rs` | the streams of a new subscription's pattern, looked for a part at a time |
//! | `webhook.rs` | one webhook sent |
//! | `metrics.rs` | what is counted |

pub(crate) mod metrics;
pub(crate) mod seek;
pub(crate) mod shared;
pub(crate) mod task;
#[cfg(test)]
mod tests;
pub(crate) mod webhook;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore};

use self::metrics::Webhooks;
use self::seek::Sought;
pub(crate) use self::task::run;
use super::{
    Action, Announcement, BadRecord, Candidates, Delivery, Extents, Keys, Question, Refusal, Reply,
    SECRET_BYTES, Scene, Secret, Subscriptions, UnixMillis,
};
use crate::runtime::clock::{Millis, unix_millis};
use crate::streams::store::journal::{AppendError, Ticket};
use crate::streams::store::redis::Unavailable;
use crate::streams::{Holding, Hub, Notes, Stream, Streams, Tiding};
use crate::telemetry::Nonces;

/// Webhooks and events of wakes that are under way at a time; the others wait for their turn.
const DELIVERIES_MAX: usize = 256;

/// The note that holds the server's secret.
const SECRET_NOTE: &str = "secret";

/// The notes that hold subscriptions begin with it; their id follows.
const NOTE_PREFIX: &str = "subscription/";

/// The subscriptions of this process.
pub(crate) struct Desk {
    /// What they are about.
    pub(crate) streams: Arc<Streams>,
    keys: Arc<Keys>,
    inner: Mutex<Inner>,
    bell: Notify,
    /// Webhooks and events that may be under way at once; each gives its own back when it is dropped, however it ends.
    slots: Arc<Semaphore>,
    webhooks: Webhooks,
    /// Unix time when the monotonic clock was 0: from then on time does not jump, and over a restart it goes on.
    epoch: UnixMillis,
}

struct Inner {
    subscriptions: Subscriptions,
    /// Their bytes.
    holding: Holding,
    notes: Notes,
    orders: VecDeque<Order>,
    /// The last record that was handed to the journal: whatever is told rests on it, a look at a cursor as well.
    latest: Option<Ticket>,
    /// What could not be asked for, because the record before it could not be kept.
    lost: Vec<Task>,
    /// How many who subscribe are looking for their streams.
    seekers: usize,
    /// Streams that were made while anyone is looking.
    made: Vec<Arc<Stream>>,
}

/// Something to be done once a record is durable.
struct Order {
    after: Option<Ticket>,
    task: Task,
    /// Its bytes.
    holding: Holding,
}

enum Task {
    Deliver(Delivery),
    Announce(Announcement),
}

/// An answer, and what has to be durable before it is given.
pub(crate) struct Asked<R> {
    /// The answer.
    pub(crate) answer: R,
    /// Why it does not hold: what it rests on could not be kept.
    pub(crate) stored: Result<Option<Ticket>, AppendError>,
}

/// Why what was asked of a subscription is not answered.
#[derive(Debug)]
pub(crate) enum NotKept {
    /// The journal cannot keep it.
    Store(AppendError),
    /// Redis cannot be asked.
    Unavailable(Unavailable),
}

/// Why subscriptions cannot go on where they were.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum DeskError {
    /// The system has no random bytes.
    NoSecret,
    /// A record cannot be taken up.
    Record(String, BadRecord),
    /// The new secret cannot be kept.
    Store(AppendError),
}

impl std::fmt::Display for DeskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeskError::NoSecret => {
                f.write_str("the system gives no random bytes for the key that signs webhooks")
            }
            DeskError::Record(name, bad) => {
                write!(f, "the note {name} in the data directory cannot be used: {bad}")
            }
            DeskError::Store(error) => write!(f, "the key that signs webhooks cannot be kept: {error}"),
        }
    }
}

impl std::error::Error for DeskError {}

impl Desk {
    /// Goes on with what was noted, as of `now` on the monotonic clock.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(crate) fn new(
        streams: Arc<Streams>,
        mut notes: Notes,
        noted: &[(Box<str>, Vec<u8>)],
        ids: Nonces,
        now: Millis,
    ) -> Result<Desk, DeskError> {
        let kept = noted.iter().find(|(name, _)| &**name == SECRET_NOTE);
        let kept = kept.and_then(|(_, bytes)| <[u8; SECRET_BYTES]>::try_from(&bytes[..]).ok());
        let secret = match kept {
            Some(bytes) => Secret::from_bytes(bytes),
            None => {
                let secret = Secret::random().map_err(|_| DeskError::NoSecret)?;
                notes.write(SECRET_NOTE, secret.as_bytes(), true).map_err(DeskError::Store)?;
                secret
            }
        };
        let mut subscriptions = Subscriptions::new(&secret, ids);
        for (name, record) in noted.iter().filter(|(name, _)| name.starts_with(NOTE_PREFIX)) {
            let restored = subscriptions.restore(record);
            restored.map_err(|bad| DeskError::Record(name.clone().into(), bad))?;
        }
        let inner = Inner {
            subscriptions,
            holding: streams.hold(0),
            notes,
            orders: VecDeque::new(),
            latest: None,
            lost: Vec::new(),
            seekers: 0,
            made: Vec::new(),
        };
        let desk = Desk {
            streams,
            keys: Arc::new(Keys::new(&secret)),
            inner: Mutex::new(inner),
            bell: Notify::new(),
            slots: Arc::new(Semaphore::new(DELIVERIES_MAX)),
            webhooks: Webhooks::default(),
            epoch: unix_millis().saturating_sub(now),
        };
        desk.ask(now, |subscriptions, scene| subscriptions.start(scene));
        Ok(desk)
    }

    /// Answers what is asked of a subscription with the key called `key`, at `now` on the monotonic clock, once what the answer rests on is kept: a
    /// refusal rests on what was kept before, too.
    ///
    /// # Errors
    /// If it is not kept.
    pub(crate) async fn answer(
        &self,
        hub: &Hub,
        now: Millis,
        id: &str,
        question: Question,
        key: Option<&str>,
    ) -> Result<Result<Reply, Refusal>, NotKept> {
        if let Some(remote) = self.streams.remote() {
            let answer = remote.answer_for(id.to_owned(), question, key.map(Into::into));
            return answer.await.map_err(NotKept::Unavailable);
        }
        let found = match question.pattern(id) {
            Some(glob) => self.seek(id, &glob).await,
            None => None,
        };
        let Asked { answer, stored } = self.ask_about(now, found, |subscriptions, scene| {
            subscriptions.answer(id, &question, Scene { key, ..scene })
        });
        let durable = hub.durable(stored.map_err(NotKept::Store)?).await;
        durable.map_err(|failure| NotKept::Store(AppendError::Stopped(failure)))?;
        Ok(answer)
    }

    /// The keys of all nodes.
    ///
    /// # Errors
    /// If they are in Redis, and that cannot be asked.
    pub(crate) async fn keys(&self) -> Result<Arc<Keys>, Unavailable> {
        match self.streams.remote() {
            Some(remote) => remote.keys().await,
            None => Ok(Arc::clone(&self.keys)),
        }
    }

    /// How many subscriptions there are, and how often a stream was left out of one.
    fn totals(&self) -> (u64, u64) {
        if let Some(remote) = self.streams.remote() {
            let [subscriptions, unlinked] = remote.subscriptions();
            return (subscriptions, unlinked);
        }
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.subscriptions.len() as u64, inner.subscriptions.unlinked())
    }

    /// Bytes of memory that they take here.
    fn held(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).subscriptions.held()
    }

    /// The time on the wall, by the monotonic clock.
    fn unix(&self, now: Millis) -> UnixMillis {
        self.epoch + now
    }

    /// Asks the subscriptions, when all news of streams are told, at `now` on the monotonic clock; wakes the worker if that has
    /// made work for it. Not for the worker itself: it would wake itself for what it has no room for, for ever.
    pub(crate) fn ask<R>(
        &self,
        now: Millis,
        ask: impl FnOnce(&mut Subscriptions, Scene<'_>) -> R,
    ) -> Asked<R> {
        self.ask_about(now, None, ask)
    }

    /// The same by somebody who has looked for the streams that it may be about.
    fn ask_about<R>(
        &self,
        now: Millis,
        found: Option<Sought<'_>>,
        ask: impl FnOnce(&mut Subscriptions, Scene<'_>) -> R,
    ) -> Asked<R> {
        let (asked, has_work) = self.judge(now, found, ask);
        if has_work {
            self.bell.notify_one();
        }
        asked
    }

    /// The same without waking the worker. Says whether there is something new that it can do now.
    fn judge<R>(
        &self,
        now: Millis,
        found: Option<Sought<'_>>,
        ask: impl FnOnce(&mut Subscriptions, Scene<'_>) -> R,
    ) -> (Asked<R>, bool) {
        let now = self.unix(now);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let subscriptions = &mut inner.subscriptions;
        let before = subscriptions.next_due();
        let extents = Extents { streams: &self.streams, now };
        let scene =
            Scene { now, source: &extents, key: None, memory: subscriptions.held() + self.streams.room() };
        let news = self.streams.news();
        // Whoever subscribes looks at the streams that there are: those that are made from here on are told.
        news.listen(true);
        for tiding in news.take() {
            match tiding {
                Tiding::Created(stream) => {
                    subscriptions.created(&stream.name, scene);
                    if inner.seekers > 0 {
                        inner.made.push(stream);
                    }
                }
                Tiding::Changed(stream) => stream.listen(subscriptions.changed(&stream.name, scene)),
            }
        }
        let answer = match &found {
            None => ask(subscriptions, scene),
            Some(found) => {
                let source = Candidates { extents, found: &found.streams, made: &inner.made };
                ask(subscriptions, Scene { source: &source, ..scene })
            }
        };
        news.listen(!subscriptions.is_empty() || inner.seekers > 0);
        let actions = subscriptions.take_actions();
        inner.holding.set(subscriptions.held());
        let stored = inner.obey(actions, &self.streams);
        let due = inner.subscriptions.next_due();
        // One without a free slot waits for that, and looks for orders then.
        let has_work = !inner.orders.is_empty() && self.slots.available_permits() > 0
            || !inner.lost.is_empty()
            || due.is_some_and(|due| before.is_none_or(|before| due < before));
        (Asked { answer, stored }, has_work)
    }
}

impl Inner {
    /// Keeps what is to be kept, and puts the rest into the queue behind it.
    fn obey(&mut self, actions: Vec<Action>, streams: &Streams) -> Result<Option<Ticket>, AppendError> {
        let mut last = Ok(self.latest);
        for action in actions {
            let (id, result) = match action {
                Action::Store { id, record, whole } => {
                    let result = self.notes.write(&format!("{NOTE_PREFIX}{id}"), &record, whole);
                    (id, result)
                }
                Action::Forget { id } => {
                    let result = self.notes.erase(&format!("{NOTE_PREFIX}{id}"));
                    (id, result)
                }
                Action::Deliver(delivery) => {
                    let holding = streams.hold(delivery.body.len() as u64);
                    self.put(Task::Deliver(delivery), holding, &last);
                    continue;
                }
                Action::Announce(announcement) => {
                    let holding = streams.hold(announcement.event.len() as u64);
                    self.put(Task::Announce(announcement), holding, &last);
                    continue;
                }
            };
            match result {
                Ok(Some(ticket)) => {
                    self.latest = Some(ticket);
                    if last.is_ok() {
                        last = Ok(Some(ticket));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    self.subscriptions.not_stored(&id);
                    last = Err(error);
                }
            }
        }
        last
    }

    fn put(&mut self, task: Task, holding: Holding, last: &Result<Option<Ticket>, AppendError>) {
        match last {
            Ok(after) => self.orders.push_back(Order { after: *after, task, holding }),
            Err(_) => self.lost.push(task),
        }
    }
}
