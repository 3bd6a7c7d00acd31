//! The journal: records of bytes on disk, in the order in which they were taken, for whoever owns their meaning.
//!
//! ```text
//!  cores ──append──► queue ──batch──► writer's thread ──► 0000000007.segment       one write, one fdatasync a batch
//!    ▲                                    │ done up to batch n
//!    └──── at most one wake a core ◄──────┘
//! ```
//!
//! What it promises, and the simulation holds it to:
//!
//! - a record whose [`Ticket`] came back well is as durable as [`Fsync`] says; after a crash it is given out again, once, with
//!   the same position and the same bytes, in the order of positions;
//! - what is given out or read has a good checksum, or an error is given instead;
//! - what was retired by a durable record never comes back after that record is gone too;
//! - while there is no room for a write nothing more is acknowledged; what was taken is written at its place once there is;
//! - after any other write, a sync or a removal has failed, nothing more is acknowledged until a restart;
//! - space of retired records comes back (`compaction.rs` has the rule), and readers never wait for that.
//!
//! What its owner does in turn:
//!
//! - tells nobody of a record, neither its sender nor a reader, before its ticket came back well;
//! - says in each record what it needs to be understood when earlier ones are gone: an append its offset, a trim the state of
//!   the producers that the trimmed appends held;
//! - gives up what a deletion or a trim kills with the record that says so ([`Journal::append_retiring`]), in one step, and a
//!   deletion itself once it is durable ([`Journal::retire`]);
//! - at a start takes a record of an unknown stream for one of a deleted stream, and gives up what it finds to be dead;
//! - reads on a core with [`Wait::Not`], and what is cold on a thread that may block.
//!
//! Segment files of its own instead of an embedded store, because the load is one shape: many small appends, each read a
//! few times at most, dying in the order in which they came. A log-structured tree would write every byte again while it
//! merges, a B-tree a page for each record; and neither tells the position of a record, which is all that a reader needs.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `disk.rs` | the file operations; the directory and its lock |
//! | `record.rs` | bytes of a segment, positions |
//! | `manifest.rs` | which segments there are, so that a missing one is noticed |
//! | `queue.rs`, `ticket.rs` | what waits for the disk, who waits for it |
//! | `writer.rs`, `thread.rs` | writing and syncing; the thread |
//! | `index.rs` | where each record is, reading one |
//! | `compaction.rs` | giving space back |
//! | `scan.rs`, `replay.rs` | reading segments through, at a start |

#![forbid(unsafe_code)]

pub(crate) mod compaction;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod index;
pub(crate) mod manifest;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod scan;
pub(crate) mod shared;
#[cfg(test)]
mod simulation;
pub(crate) mod stats;
#[cfg(test)]
mod tests;
pub(crate) mod thread;
pub(crate) mod ticket;
pub(crate) mod writer;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

pub(crate) use self::disk::{Directory, Disk};
pub(crate) use self::error::{AppendError, Failure, OpenError, ReadError};
use self::index::Index;
pub use self::index::Wait;
pub(crate) use self::manifest::check;
use self::queue::Queue;
pub use self::record::Location;
pub(crate) use self::record::{Position, RECORD_BYTES_MAX};
pub(crate) use self::replay::Recovery;
use self::shared::Shared;
pub(crate) use self::stats::Stats;
pub(crate) use self::thread::Keeper;
use self::ticket::Progress;
pub(crate) use self::ticket::Ticket;
pub use self::ticket::Waiters;
pub(crate) use self::writer::Writer;
use crate::telemetry::Nonces;

/// When a record counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Once it is synced: it survives the loss of power.
    Always,
    /// Once it is written: it survives the process; the loss of power takes at most what was written for so long.
    Interval(Duration),
    /// Once it is written; the kernel syncs when it likes, and the journal only when it leaves a segment.
    Never,
}

/// The least bytes of a segment: each costs an open file.
pub const SEGMENT_BYTES_MIN: u32 = 1 << 20;

/// How a journal writes.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// When a record counts as durable.
    pub fsync: Fsync,
    /// A segment is left before it would outgrow this, in bytes; a longer record has a segment of its own.
    pub segment_bytes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { fsync: Fsync::Always, segment_bytes: 64 << 20 }
    }
}

/// A journal that is open. Clones are the same journal.
#[derive(Debug)]
pub struct Journal<D: Disk = Directory> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for Journal<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// What opening gives.
#[derive(Debug)]
pub struct Opened<D: Disk = Directory> {
    /// For everyone.
    pub journal: Journal<D>,
    /// For one thread.
    pub writer: Writer<D>,
    /// What this journal is known by; no other has the same.
    pub(crate) number: u64,
    /// What was found.
    pub recovery: Recovery,
}

impl Journal {
    /// Opens the journal in a directory, which is made if it is missing and locked. Each record is given to `owner` with its
    /// location, in the order of positions; what it says of a record that it cannot use ends the opening.
    ///
    /// # Errors
    /// If the directory is in use, cannot be read or written, or holds anything that is not whole: see [`OpenError`].
    pub fn open(
        path: &Path,
        settings: &Settings,
        owner: impl FnMut(Location, &[u8]) -> Result<(), String>,
    ) -> Result<Opened, OpenError> {
        let disk = Directory::lock(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::Locked(path.to_owned()),
            _ => OpenError::Io { doing: "open the directory", path: path.to_owned(), error },
        })?;
        let mut ids = Nonces::from_os().map_err(|error| OpenError::Io {
            doing: "get random bytes for",
            path: path.to_owned(),
            error,
        })?;
        Self::open_on(disk, settings, ids.next_u64(), owner)
    }
}

impl<D: Disk> Journal<D> {
    /// Opens the journal on a disk; one that is empty becomes journal `number`.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub(crate) fn open_on(
        disk: D,
        settings: &Settings,
        number: u64,
        owner: impl FnMut(Location, &[u8]) -> Result<(), String>,
    ) -> Result<Opened<D>, OpenError> {
        let whole = replay::replay(&disk, || number, owner)?;
        let tail = Arc::clone(whole.segments.back().expect("there is always a segment"));
        let next = Position::new(tail.number, whole.written);
        let shared = Arc::new(Shared {
            disk,
            index: Index::new(whole.segments, whole.moved),
            queue: Mutex::new(Queue::new(next, settings.segment_bytes)),
            bell: Condvar::new(),
            progress: Arc::new(Progress::default()),
            stats: Arc::default(),
        });
        let number = whole.manifest.journal();
        let writer =
            Writer::new(Arc::clone(&shared), whole.manifest, settings, tail, whole.written, whole.accounts);
        Ok(Opened { journal: Self { shared }, writer, number, recovery: whole.recovery })
    }

    /// Takes a record. Once it is durable it is readable at the ticket's location, and only then may anyone be told of it.
    ///
    /// # Errors
    /// If it is too long, too much waits, or the disk has no room or has failed; nothing was taken then.
    pub fn append(&self, body: &[u8]) -> Result<Ticket, AppendError> {
        self.append_retiring(body, &[])
    }

    /// Takes a record that makes others worthless: a deletion, say. They are given up once it is as durable as configured.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_retiring(&self, body: &[u8], dead: &[Location]) -> Result<Ticket, AppendError> {
        if let Some(failure) = self.failure() {
            return Err(AppendError::Stopped(failure.clone()));
        }
        if self.no_room().is_some() {
            return Err(AppendError::NoRoom);
        }
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.is_empty();
        let (location, batch) = queue.append(body, dead)?;
        drop(queue);
        if was_empty {
            self.shared.bell.notify_one();
        }
        Ok(Ticket { location, batch })
    }

    /// Gives up records, for instance a tombstone right after it was written, or what a start found to be dead. The owner must
    /// not need them to understand those that stay: each may or may not be given out after a restart.
    pub fn retire(&self, dead: &[Location]) {
        if dead.is_empty() {
            return;
        }
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).retire(dead);
        self.shared.bell.notify_one();
    }

    /// Reads a record that was acknowledged. It may block for the disk.
    ///
    /// # Errors
    /// If it was retired, is damaged, or the disk refuses.
    pub fn read(&self, location: Location) -> Result<Vec<u8>, ReadError> {
        let mut body = Vec::new();
        self.read_each(&[location], Wait::ForTheDisk, &mut Vec::new(), |bytes| {
            body.extend_from_slice(bytes);
        })?;
        Ok(body)
    }

    /// Reads records that were acknowledged, in this order, and gives the body of each to `each`. Those that lie close together
    /// are read at once. `buffer` is room to read into, which grows to what one read brings.
    ///
    /// # Errors
    /// If one was retired, is damaged, or cannot be read. `each` has got some of those before it then: whoever goes on begins
    /// behind them.
    pub fn read_each(
        &self,
        mut locations: &[Location],
        wait: Wait,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        while !locations.is_empty() {
            match self.shared.index.read_some(locations, wait, buffer, &mut each) {
                Ok(count) => locations = &locations[count..],
                Err(error) => {
                    if let ReadError::Damaged { segment, byte } = error {
                        self.shared.stats.damaged(segment, u64::from(byte));
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Reads a part of the body of a record that was acknowledged into `buffer`, and holds no more of it. With `checks` its checksum is
    /// looked at first, which reads all of it.
    ///
    /// # Errors
    /// As [`Journal::read_each`].
    pub(crate) fn read_part(
        &self,
        location: Location,
        part: std::ops::Range<usize>,
        checks: bool,
        wait: Wait,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let result = self.shared.index.read_part(location, part, checks, wait, buffer);
        if let Err(ReadError::Damaged { segment, byte }) = &result {
            self.shared.stats.damaged(*segment, u64::from(*byte));
        }
        result
    }

    /// The tasks of one core that will wait for this journal.
    pub fn waiters(&self) -> Waiters {
        Waiters::new(Arc::clone(&self.shared.progress))
    }

    /// What became of an append: `None` while that is not known. What there is no room for is kept and may be stored later.
    pub fn outcome(&self, ticket: Ticket) -> Option<Result<(), Failure>> {
        self.shared.progress.outcome(ticket.batch)
    }

    /// Why nothing more is stored until a restart, if that is so.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.shared.progress.failure()
    }

    /// Why nothing more is stored until there is room, if that is so.
    pub(crate) fn no_room(&self) -> Option<Failure> {
        self.shared.progress.no_room()
    }

    /// Its numbers.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }
}
