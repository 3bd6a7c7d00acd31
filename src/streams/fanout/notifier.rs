//! Waking those who read a stream, wherever they are: at most one wake a core and batch.
//!
//! ```text
//!  an append is visible ──► bell of each core with readers of it ──one wake──► its hub ──► each reader's task, on its own core
//! ```
//!
//! A reader is a seat in its core's hub for as long as it reads, so that nobody is forgotten between looking and waiting: who
//! has a seat is woken for everything that becomes visible after it sat down.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::sync::Notify;

use crate::streams::append::{Append, Appended, Outcome};
use crate::streams::parts::Parts;
use crate::streams::store::journal::{Ticket, Waiters};
use crate::streams::stream::Stream;
use crate::telemetry::CoreMetrics;

/// Where one core is told of streams that have something new.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<Vec<Arc<Stream>>>,
    notify: Notify,
}

/// The bells of all cores.
#[derive(Debug)]
pub(crate) struct Bells(Box<[Bell]>);

impl Bells {
    /// One for each of `cores`.
    pub(crate) fn new(cores: usize) -> Bells {
        Bells((0..cores).map(|_| Bell::default()).collect())
    }

    /// Tells a core that there is something new in `stream`.
    pub(crate) fn ring(&self, core: u16, stream: Arc<Stream>) {
        let bell = &self.0[usize::from(core)];
        bell.rung.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        bell.notify.notify_one();
    }
}

/// The readers of one core, and what it has appended that is not durable yet.
#[derive(Debug)]
pub(crate) struct Hub {
    core: u16,
    bells: Arc<Bells>,
    waiters: Option<Waiters>,
    metrics: Arc<CoreMetrics>,
    seats: RefCell<FxHashMap<u64, Slab<Waker>>>,
    unsettled: RefCell<VecDeque<(Ticket, Arc<Stream>)>>,
    settle: Notify,
    /// Parts of long events that its readers share.
    pub(crate) parts: Parts,
}

impl Hub {
    pub(crate) fn new(
        core: usize,
        bells: Arc<Bells>,
        waiters: Option<Waiters>,
        metrics: Arc<CoreMetrics>,
    ) -> Rc<Hub> {
        Rc::new(Hub {
            core: core as u16,
            bells,
            waiters,
            metrics,
            seats: RefCell::default(),
            unsettled: RefCell::default(),
            settle: Notify::new(),
            parts: Parts::default(),
        })
    }

    /// What it does, for ever.
    pub(crate) async fn run(&self) {
        tokio::join!(self.answer_the_bell(), self.watch_the_disk(), async {
            if let Some(waiters) = &self.waiters {
                waiters.serve().await;
            }
        });
    }

    async fn answer_the_bell(&self) {
        let bell = &self.bells.0[usize::from(self.core)];
        let mut rung = Vec::new();
        loop {
            bell.notify.notified().await;
            std::mem::swap(&mut *bell.rung.lock().unwrap_or_else(PoisonError::into_inner), &mut rung);
            for stream in rung.drain(..) {
                stream.answered(self.core);
                if let Some(seats) = self.seats.borrow().get(&stream.id) {
                    // Wakers of this core: they queue tasks and run nothing.
                    seats.iter().for_each(|(_, waker)| waker.wake_by_ref());
                }
            }
        }
    }

    /// Shows what was appended here to readers once it is durable, whatever becomes of whoever has appended it.
    async fn watch_the_disk(&self) {
        let Some(waiters) = &self.waiters else { return };
        loop {
            let first = self.unsettled.borrow().front().map(|(ticket, _)| *ticket);
            let Some(ticket) = first else {
                self.settle.notified().await;
                continue;
            };
            let mut outcome = waiters.durable(ticket).await;
            if matches!(&outcome, Err(failure) if failure.no_room) {
                // It may take long until there is room: whoever has to do something about it looks around.
                let waiting: Vec<_> =
                    self.unsettled.borrow().iter().map(|(_, stream)| Arc::clone(stream)).collect();
                waiting.iter().for_each(Stream::publish);
                outcome = waiters.stored(ticket).await;
            }
            let is_durable = outcome.is_ok();
            let Some((_, stream)) = self.unsettled.borrow_mut().pop_front() else { continue };
            match is_durable {
                true => stream.settle(),
                // Nothing becomes visible any more: whoever has to do something about it looks around.
                false => stream.publish(),
            }
        }
    }

    /// Appends to `stream`, and sees to it that readers learn of it. `now` is in milliseconds since 1970.
    pub(crate) fn append(&self, stream: &Arc<Stream>, append: &Append<'_>, now: u64) -> Outcome {
        let outcome = stream.append(append, now);
        // What was there already is waited for by whoever has appended it.
        if matches!(outcome.result, Ok(Appended { duplicate: None, .. })) {
            self.appended(outcome.ticket, stream);
        }
        self.count(&outcome, append);
        outcome
    }

    pub(crate) fn count(&self, outcome: &Outcome, append: &Append<'_>) {
        match &outcome.result {
            Ok(appended) if appended.duplicate.is_none() => {
                self.metrics.stream_appends.inc();
                self.metrics.stream_appended_bytes.add(append.bytes.len() as u64);
            }
            Ok(_) => {}
            Err(refused) => self.metrics.append_refused(refused.reason()),
        }
    }

    /// So many bytes are on their way to Redis, as one append.
    pub(crate) fn appended_elsewhere(&self, bytes: usize) {
        self.metrics.stream_appends.inc();
        self.metrics.stream_appended_bytes.add(bytes as u64);
    }

    /// Something was written about `stream` here.
    pub(crate) fn appended(&self, ticket: Option<Ticket>, stream: &Arc<Stream>) {
        if let Some(ticket) = ticket {
            self.unsettled.borrow_mut().push_back((ticket, Arc::clone(stream)));
            self.settle.notify_one();
        }
    }

    /// Until an append is as durable as configured; `None` is at once.
    ///
    /// # Errors
    /// If the disk has failed, or has no room.
    pub(crate) async fn durable(
        &self,
        ticket: Option<Ticket>,
    ) -> Result<(), crate::streams::store::journal::Failure> {
        match (ticket, &self.waiters) {
            (Some(ticket), Some(waiters)) => waiters.durable(ticket).await,
            _ => Ok(()),
        }
    }

    /// The same, but waits until the disk has room.
    ///
    /// # Errors
    /// If the disk has failed.
    pub(crate) async fn stored(
        &self,
        ticket: Option<Ticket>,
    ) -> Result<(), crate::streams::store::journal::Failure> {
        match (ticket, &self.waiters) {
            (Some(ticket), Some(waiters)) => waiters.stored(ticket).await,
            _ => Ok(()),
        }
    }

    /// A seat for a reader of `stream`, until it is dropped.
    pub(crate) fn sit(self: &Rc<Self>, stream: &Arc<Stream>) -> Seat {
        self.metrics.stream_readers.add(1);
        self.seat(stream, true)
    }

    /// A seat for one who reads nothing and is told all the same: whoever writes it, and stops when it is deleted.
    pub(crate) fn watch(self: &Rc<Self>, stream: &Arc<Stream>) -> Seat {
        self.seat(stream, false)
    }

    fn seat(self: &Rc<Self>, stream: &Arc<Stream>, reads: bool) -> Seat {
        let is_behind = stream.watch(self.core);
        if let Some(remote) = stream.common.remote.as_ref().filter(|_| is_behind) {
            remote.fetch_for(stream);
        }
        let key = self.seats.borrow_mut().entry(stream.id).or_default().insert(Waker::noop().clone());
        Seat { hub: Rc::clone(self), stream: Arc::clone(stream), key: key as u32, reads }
    }
}

/// A reader that is told when there is something new.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: Rc<Hub>,
    stream: Arc<Stream>,
    /// Among the readers of its stream on its core, in four bytes: it is a part of every reader's task.
    key: u32,
    reads: bool,
}

impl Seat {
    /// The stream.
    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Who is to be woken. To be said before looking whether there is something.
    pub(crate) fn listen(&self, cx: &Context<'_>) {
        if let Some(seats) = self.hub.seats.borrow_mut().get_mut(&self.stream.id) {
            seats[self.key as usize].clone_from(cx.waker());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stream.unwatch(self.hub.core);
        self.hub.metrics.stream_readers.sub(self.reads.into());
        let mut all = self.hub.seats.borrow_mut();
        if let Some(seats) = all.get_mut(&self.stream.id) {
            seats.remove(self.key as usize);
            if seats.is_empty() {
                all.remove(&self.stream.id);
                self.hub.parts.forget(self.stream.id);
            }
        }
    }
}
