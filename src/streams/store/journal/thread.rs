//! The writer's thread: sleeps until something waits, then takes turn after turn. What comes while a batch is being synced makes
//! the next batch: the slower the disk, the larger the batches.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Fsync;
use super::disk::Disk;
use super::error::Failure;
use super::shared::Shared;
use super::writer::Writer;

/// How long a write for which there is no room waits until it is tried again.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// The running writer of a journal.
#[derive(Debug)]
pub struct Keeper<D: Disk> {
    shared: Arc<Shared<D>>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Disk> Writer<D> {
    /// Gives the writer a thread of its own.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn spawn(self) -> io::Result<Keeper<D>> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("sedge-journal".into()).spawn(move || run(self))?;
        Ok(Keeper { shared, thread: Some(thread) })
    }
}

impl<D: Disk> Keeper<D> {
    /// Writes and syncs what was taken, takes nothing more, and waits until that is done.
    pub fn close(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.shared.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has already stopped the journal, and said so.
            let _ = thread.join();
        }
    }
}

impl<D: Disk> Drop for Keeper<D> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// However the thread ends, nobody waits for it any longer.
struct Farewell<D: Disk>(Arc<Shared<D>>);

impl<D: Disk> Drop for Farewell<D> {
    fn drop(&mut self) {
        let error = io::Error::other("its thread has ended");
        self.0.progress.stop(Failure::new("write", self.0.disk.path(""), &error));
    }
}

fn run<D: Disk>(mut writer: Writer<D>) {
    let farewell = Farewell(Arc::clone(&writer.shared));
    if let Err(failure) = turns(&mut writer) {
        farewell.0.progress.stop(failure);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the writer's own thread has no shard and no clock but the system's"
)]
fn turns<D: Disk>(writer: &mut Writer<D>) -> Result<(), Failure> {
    let shared = Arc::clone(&writer.shared);
    let interval = writer.interval();
    let mut last_sync = Instant::now();
    // What an end or a crash has left undone is done without waiting for the first append.
    let mut more = true;
    loop {
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_full() {
            // What was written before is synced in time all the same.
            let left = interval.saturating_sub(last_sync.elapsed());
            let pause = if writer.is_behind() { NO_ROOM_PAUSE.min(left) } else { NO_ROOM_PAUSE };
            queue = shared
                .bell
                .wait_timeout_while(queue, pause, |queue| !queue.closing)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        while queue.is_empty() && !queue.closing && !more && !writer.is_full() {
            let left = interval.saturating_sub(last_sync.elapsed());
            match writer.is_behind() && interval < Duration::MAX {
                true if left.is_zero() => break,
                true => {
                    queue = shared.bell.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                false => queue = shared.bell.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let (empty, closing, was_full) = (queue.is_empty(), queue.closing, writer.is_full());
        drop(queue);
        if empty && closing && !was_full {
            return writer.sync();
        }
        if !empty || more || was_full {
            more = writer.turn()?;
        }
        if closing && was_full && writer.is_full() {
            // It was tried once more; nobody was told that it is stored.
            return writer.sync();
        }
        if last_sync.elapsed() >= interval {
            writer.sync()?;
            last_sync = Instant::now();
        }
    }
}

impl<D: Disk> Writer<D> {
    /// How long what was written may stay unsynced.
    const fn interval(&self) -> Duration {
        match self.fsync {
            Fsync::Interval(interval) => interval,
            // Each batch is synced as it is written, or the kernel decides.
            Fsync::Always | Fsync::Never => Duration::MAX,
        }
    }
}
