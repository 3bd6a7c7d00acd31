//! Waiting until an append is as durable as configured.
//!
//! The writer finishes batch after batch and knows nothing of tasks: it wakes each core at most once a batch, and only cores on
//! which somebody waits. There, [`Waiters::serve`] (one task a core) wakes the tasks whose batch is done.
//!
//! Nobody is forgotten: whoever waits says so (`waiting`) and then looks at `reached` once more; the writer stores `reached` and
//! then looks at `waiting`. Both in one total order, so at least one of them sees the other.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::sync::Notify;

use super::error::Failure;
use super::record::Location;

/// An append that was taken: where its record is, and which batch it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Where the record will be readable once it is durable.
    pub location: Location,
    pub(crate) batch: u64,
}

/// How far the writer has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    reached: AtomicU64,
    failure: OnceLock<Failure>,
    /// Whether the disk has no room now; `no_room` says more.
    is_full: AtomicBool,
    no_room: Mutex<Option<Failure>>,
    doors: Mutex<Vec<Arc<Door>>>,
}

/// Where one core is woken.
#[derive(Debug, Default)]
struct Door {
    waiting: AtomicBool,
    notify: Notify,
}

impl Progress {
    pub(crate) fn reached(&self, batch: u64) {
        self.reached.store(batch, SeqCst);
        self.wake();
    }

    /// The first failure counts.
    pub(crate) fn stop(&self, failure: Failure) {
        let _ = self.failure.set(failure);
        self.wake();
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// There is no room for the batch after the one that was reached; it is kept.
    pub(crate) fn lack(&self, failure: Failure) {
        *self.no_room.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        self.is_full.store(true, SeqCst);
        self.wake();
    }

    /// There is room again.
    pub(crate) fn resume(&self) {
        self.is_full.store(false, SeqCst);
        *self.no_room.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Why there is no room now, unless the disk has failed.
    pub(crate) fn no_room(&self) -> Option<Failure> {
        if !self.is_full.load(SeqCst) || self.failure().is_some() {
            return None;
        }
        self.no_room.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a batch is stored, or why it is not now; `None` while neither is known.
    pub(crate) fn outcome(&self, batch: u64) -> Option<Result<(), Failure>> {
        self.end(batch).or_else(|| self.no_room().map(Err))
    }

    /// Whether a batch is stored, or why it never will be; `None` while neither is known.
    fn end(&self, batch: u64) -> Option<Result<(), Failure>> {
        if batch <= self.reached.load(SeqCst) {
            return Some(Ok(()));
        }
        self.failure().map(|failure| Err(failure.clone()))
    }

    fn outcome_for(&self, aim: Aim) -> Option<Result<(), Failure>> {
        if aim.patient { self.end(aim.batch) } else { self.outcome(aim.batch) }
    }

    fn wake(&self) {
        for door in self.doors.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if door.waiting.swap(false, SeqCst) {
                door.notify.notify_one();
            }
        }
    }
}

/// The tasks of one core that wait for the disk.
#[derive(Debug)]
pub struct Waiters {
    progress: Arc<Progress>,
    door: Arc<Door>,
    tasks: RefCell<Slab<Waiting>>,
}

/// The batch that a task waits for.
#[derive(Clone, Copy, Debug)]
struct Aim {
    batch: u64,
    /// It waits until there is room as well.
    patient: bool,
}

/// A task that waits for a batch.
#[derive(Debug)]
struct Waiting {
    aim: Aim,
    /// `None` once it was woken: until it has run it keeps its place here, and must not be taken for one that was forgotten.
    waker: Option<Waker>,
}

impl Waiters {
    /// For one core; [`Waiters::serve`] has to run there.
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        let door = Arc::new(Door::default());
        progress.doors.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&door));
        Self { progress, door, tasks: RefCell::default() }
    }

    /// Until the append is as durable as configured.
    ///
    /// # Errors
    /// If the disk has failed: the append may or may not be there after a restart. If it has no room: the append is kept and
    /// stored once there is room, unless the process ends before that.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), Failure> {
        self.wait(Aim { batch: ticket.batch, patient: false }).await
    }

    /// The same, but waits until there is room.
    ///
    /// # Errors
    /// If the disk has failed.
    pub(crate) async fn stored(&self, ticket: Ticket) -> Result<(), Failure> {
        self.wait(Aim { batch: ticket.batch, patient: true }).await
    }

    async fn wait(&self, aim: Aim) -> Result<(), Failure> {
        let mut seat = Seat { waiters: self, key: None };
        poll_fn(|context| seat.poll(aim, context)).await
    }

    /// Wakes whoever can go on, for ever.
    pub async fn serve(&self) {
        loop {
            self.door.notify.notified().await;
            if self.wake_ready() {
                self.door.notify.notify_one();
            }
        }
    }

    /// Wakes whoever can go on. Whether somebody may have to be woken again, though nobody will say so.
    pub(crate) fn wake_ready(&self) -> bool {
        let mut left = false;
        for (_, task) in self.tasks.borrow_mut().iter_mut().filter(|(_, task)| task.waker.is_some()) {
            match self.progress.outcome_for(task.aim) {
                // A waker of this core: it queues the task and runs nothing.
                Some(_) => task.waker.take().into_iter().for_each(Waker::wake),
                None => left = true,
            }
        }
        if left {
            self.door.waiting.store(true, SeqCst);
        }
        // What was reached meanwhile rang at a door where nobody seemed to wait.
        left && self
            .tasks
            .borrow()
            .iter()
            .any(|(_, task)| task.waker.is_some() && self.progress.outcome_for(task.aim).is_some())
    }
}

/// One who waits; leaves without a trace.
struct Seat<'a> {
    waiters: &'a Waiters,
    key: Option<usize>,
}

impl Seat<'_> {
    fn poll(&mut self, aim: Aim, context: &Context<'_>) -> Poll<Result<(), Failure>> {
        if let Some(outcome) = self.waiters.progress.outcome_for(aim) {
            return Poll::Ready(outcome);
        }
        {
            let mut tasks = self.waiters.tasks.borrow_mut();
            match self.key {
                Some(key) => tasks[key].waker = Some(context.waker().clone()),
                None => {
                    self.key = Some(tasks.insert(Waiting { aim, waker: Some(context.waker().clone()) }));
                }
            }
        }
        self.waiters.door.waiting.store(true, SeqCst);
        self.waiters.progress.outcome_for(aim).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.waiters.tasks.borrow_mut().remove(key);
        }
    }
}
