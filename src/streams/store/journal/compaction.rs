//! Giving space back. Segments go away oldest first, and only then:
//!
//! - one without a live record goes at once;
//! - when the dead weigh as much as the living, and at least a [`FLOOR_PARTS`]th of a segment, the oldest segment's living are
//!   copied to the tail and it goes, again and again until the rule no longer holds. A tail that is all there is left is left
//!   for a new one first. So a journal takes at most twice what is live, or that and the floor, whether anything more comes or
//!   not; and each live byte is copied at most once for each byte that dies.
//!
//! Why oldest first: what says that a stream was deleted is dead as soon as it is written, for everything that it killed lies
//! before it, and is gone when its segment's turn comes. No tombstone is ever kept, and none can be missed. Two rules make that
//! so. A record that dies in the batch that is being filled is not copied, for its copy would lie behind its tombstone. And a
//! segment is removed only after everything written so far was synced: the copies of its living, and the tombstones of its dead.
//!
//! ```text
//!  Idle ──rule holds──► Copying ──last record copied──► Waiting ──batch of the copies is written──► removed, Idle
//!                          │ a record is damaged: Barred, for good; the segment stays, the next start says where
//! ```
//!
//! A crash on the way leaves copies whose originals are still there: the next start counts them as dead, or removes the segment if
//! the manifest was changed already.

use std::sync::{Arc, PoisonError};

use super::disk::Disk;
use super::error::Failure;
use super::manifest;
use super::queue::QUEUE_BYTES_MAX;
use super::record::{self, Position, SEGMENT_HEAD_BYTES};
use super::scan::{Found, Scan};
use super::writer::Writer;

/// The dead weigh at least this part of a segment before anything is copied: a removal costs a new file and a few syncs.
const FLOOR_PARTS: u64 = 4;

/// How much is copied between two batches, in bytes: an append never waits for more.
const STEP_BYTES: usize = 256 << 10;

/// How far the oldest segment's removal has come.
#[derive(Debug)]
pub(crate) enum Compaction {
    Idle,
    Copying {
        at: u64,
        copies: Vec<Copy>,
    },
    Waiting {
        /// The batch that holds the last copies.
        batch: u64,
        copies: Vec<Copy>,
    },
    Barred,
}

/// A record that lies in two places.
#[derive(Debug)]
pub(crate) struct Copy {
    position: Position,
    old: Position,
    new: Position,
    cost: u64,
}

impl<D: Disk> Writer<D> {
    /// One step; whether the next one can follow at once.
    pub(crate) fn tidy(&mut self) -> Result<bool, Failure> {
        if self.accounts.len() < 2 {
            return Ok(self.is_due() && self.leave_tail());
        }
        match std::mem::replace(&mut self.compaction, Compaction::Idle) {
            Compaction::Idle if self.accounts[0].live == 0 => self.remove(Vec::new()),
            Compaction::Idle if self.is_due() => self.copy(SEGMENT_HEAD_BYTES as u64, Vec::new()),
            Compaction::Idle => Ok(false),
            Compaction::Copying { at, copies } => self.copy(at, copies),
            Compaction::Waiting { batch, copies } if batch <= self.done => self.remove(copies),
            state => {
                self.compaction = state;
                Ok(false)
            }
        }
    }

    fn is_due(&self) -> bool {
        let (size, live) = self.totals();
        size - live >= live.max(u64::from(self.segment_bytes) / FLOOR_PARTS)
    }

    /// Lets the next batch begin a segment, so that the tail, which is the oldest as well, can go; whether it has to be asked
    /// for. If what waits has left it already, that is written soon.
    fn leave_tail(&self) -> bool {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).leave(self.tail.number)
    }

    /// Copies what lives in the oldest segment from `at` on, as much as one step may.
    fn copy(&mut self, at: u64, mut copies: Vec<Copy>) -> Result<bool, Failure> {
        let shared = Arc::clone(&self.shared);
        if shared.queue.lock().unwrap_or_else(PoisonError::into_inner).waiting() > QUEUE_BYTES_MAX / 2 {
            // Those who append come first; there is a batch to write, so the next step comes soon.
            self.compaction = Compaction::Copying { at, copies };
            return Ok(false);
        }
        let oldest = shared.index.oldest().expect("there are two segments");
        let account = &self.accounts[0];
        let mut scan = Scan::new(&oldest.file, oldest.number, at, SEGMENT_HEAD_BYTES as u64 + account.size);
        let (mut living, mut bytes) = (Vec::new(), 0);
        let finished = loop {
            if bytes >= STEP_BYTES {
                break false;
            }
            match scan.next() {
                Ok(Found::Record { head, place, body }) => {
                    bytes += body.len();
                    if !account.dead.contains(&place.byte()) {
                        living.push((head.location, place, body.to_vec()));
                    }
                }
                Ok(Found::End) => break true,
                Ok(Found::Broken) => return Ok(self.bar(scan.at())),
                Err(error) => return Err(self.failure("read", &record::segment_name(oldest.number), &error)),
            }
        };
        let at = scan.at();
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let dying = queue.dying();
        for (location, old, body) in living {
            if !dying.contains(&location.position) {
                let new = queue.copy(location.position, &body);
                copies.push(Copy { position: location.position, old, new, cost: location.cost() });
            }
        }
        let batch = queue.number();
        drop(queue);
        shared.stats.copied_bytes.add(bytes as u64);
        self.compaction =
            if finished { Compaction::Waiting { batch, copies } } else { Compaction::Copying { at, copies } };
        Ok(true)
    }

    /// Takes the oldest segment away; its living are in `copies`, which are written.
    fn remove(&mut self, copies: Vec<Copy>) -> Result<bool, Failure> {
        self.sync()?;
        let shared = Arc::clone(&self.shared);
        let oldest = shared.index.oldest().expect("there are two segments");
        let account = self.accounts.pop_front().expect("there are two segments");
        let (dead, living): (Vec<_>, Vec<_>) =
            copies.into_iter().partition(|copy| account.dead.contains(&copy.old.byte()));
        for copy in dead {
            self.account(copy.new).bury(copy.new.byte(), copy.cost);
        }
        shared.index.advance(living.iter().map(|copy| (copy.position, copy.new)));
        let name = record::segment_name(oldest.number);
        let noted = self.manifest.note_first(oldest.number + 1);
        noted.map_err(|error| self.failure("write", manifest::NAME, &error))?;
        shared.disk.remove(&name).map_err(|error| self.failure("remove", &name, &error))?;
        shared.disk.sync().map_err(|error| self.failure("sync the directory of", &name, &error))?;
        shared.stats.removed_segments.inc();
        Ok(true)
    }

    /// Leaves everything where it is.
    fn bar(&mut self, byte: u64) -> bool {
        let number = self.shared.index.oldest().map_or(0, |oldest| oldest.number);
        self.shared.stats.damaged(number, byte);
        self.compaction = Compaction::Barred;
        false
    }
}
