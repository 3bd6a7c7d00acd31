//! The one who writes: takes a batch, writes it, syncs it, says so, and tidies up. Without a thread or a clock, so that a test
//! can walk it step by step; `thread.rs` gives it both.
//!
//! ```text
//!  take batch ──► write ──► (full: sync, new segment) ──► sync if always ──► bury its dead ──► acknowledge ──► compact
//!                   │ any error: stop for good; what was not acknowledged never will be
//! ```
//!
//! A segment is left only after all of it was synced, whatever the setting, and a new one gets records only after its head and
//! its name were: so only the last segment can ever be torn.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::compaction::Compaction;
use super::disk::{self, Disk, File};
use super::error::Failure;
use super::index::Segment;
use super::queue::Batch;
use super::record::{self, Location, Position, SEGMENT_HEAD_BYTES};
use super::shared::Shared;
use super::{Fsync, Settings};

/// What one segment holds.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Bytes of its records.
    pub(super) size: u64,
    /// Bytes of those that are still wanted.
    pub(super) live: u64,
    /// Where the others begin.
    pub(super) dead: HashSet<u32>,
}

impl Account {
    pub(super) fn bury(&mut self, byte: u32, cost: u64) {
        // Said twice is the same as once.
        if self.dead.insert(byte) {
            self.live = self.live.saturating_sub(cost);
        }
    }
}

/// The writer of a journal.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    pub(super) shared: Arc<Shared<D>>,
    journal: u64,
    pub(super) fsync: Fsync,
    pub(super) segment_bytes: u32,
    pub(super) tail: Arc<Segment<D::File>>,
    written: u32,
    synced: u32,
    /// One for each segment, in the order of the index.
    pub(super) accounts: VecDeque<Account>,
    batch: Batch,
    pub(super) done: u64,
    pub(super) compaction: Compaction,
}

impl<D: Disk> Writer<D> {
    /// Goes on in `tail`, all of whose `written` bytes are synced.
    pub(super) fn new(
        shared: Arc<Shared<D>>,
        journal: u64,
        settings: &Settings,
        tail: Arc<Segment<D::File>>,
        written: u32,
        accounts: VecDeque<Account>,
    ) -> Self {
        let writer = Self {
            shared,
            journal,
            fsync: settings.fsync,
            segment_bytes: settings.segment_bytes,
            tail,
            written,
            synced: written,
            accounts,
            batch: Batch::default(),
            done: 0,
            compaction: Compaction::Idle,
        };
        writer.publish();
        writer
    }

    /// Writes what waits and acknowledges it, then takes one step of tidying up. Says whether that left more to do.
    ///
    /// # Errors
    /// If the disk has failed; the journal has stopped then.
    pub(super) fn turn(&mut self) -> Result<bool, Failure> {
        self.batch_and_tidy().inspect_err(|failure| self.shared.progress.stop(failure.clone()))
    }

    fn batch_and_tidy(&mut self) -> Result<bool, Failure> {
        let closing = self.commit()?;
        // An end is not held up: the next start goes on.
        let more = !closing && self.tidy()?;
        self.publish();
        Ok(more)
    }

    /// Writes what waits and acknowledges it; whether nothing more is to come.
    pub(super) fn commit(&mut self) -> Result<bool, Failure> {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, closing) = (queue.take(&mut self.batch), queue.closing);
        drop(queue);
        self.write()?;
        if self.fsync == Fsync::Always {
            self.sync()?;
        }
        for location in std::mem::take(&mut self.batch.dead) {
            self.bury(location);
        }
        self.shared.stats.records.add(self.batch.records);
        self.shared.stats.batches.add(u64::from(!self.batch.bytes.is_empty()));
        self.batch.clear();
        self.done = number;
        self.shared.progress.reached(number);
        Ok(closing)
    }

    /// Makes all that was written durable.
    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        if self.synced < self.written {
            let name = record::segment_name(self.tail.number);
            let result = self.shared.stats.timed(|| self.tail.file.sync());
            result.map_err(|error| self.failure("sync", &name, &error))?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Whether something written is not yet synced.
    pub(super) const fn is_behind(&self) -> bool {
        self.synced < self.written
    }

    fn write(&mut self) -> Result<(), Failure> {
        let mut from = 0;
        for roll in std::mem::take(&mut self.batch.rolls) {
            self.write_part(from..roll)?;
            self.roll()?;
            from = roll;
        }
        self.write_part(from..self.batch.bytes.len())
    }

    /// Writes records that fit into the tail.
    fn write_part(&mut self, part: Range<usize>) -> Result<(), Failure> {
        if part.is_empty() {
            return Ok(());
        }
        let bytes = &mut self.batch.bytes[part];
        record::seal(bytes, self.synced);
        let result = disk::write_all(&self.tail.file, bytes, u64::from(self.written));
        let length = bytes.len() as u64;
        result.map_err(|error| self.failure("write", &record::segment_name(self.tail.number), &error))?;
        self.written += length as u32;
        self.shared.stats.written_bytes.add(length);
        let account = self.accounts.back_mut().expect("the tail has an account");
        account.size += length;
        account.live += length;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), Failure> {
        self.sync()?;
        let number = self.tail.number + 1;
        let tail = create(&self.shared.disk, number, self.journal, self.written)
            .map_err(|(doing, path, error)| Failure::new(doing, path, &error))?;
        self.tail = Arc::new(tail);
        self.written = SEGMENT_HEAD_BYTES as u32;
        self.synced = self.written;
        self.accounts.push_back(Account::default());
        self.shared.index.push(Arc::clone(&self.tail));
        Ok(())
    }

    /// Counts a record as dead, wherever it lies.
    fn bury(&mut self, location: Location) {
        let Some(place) = self.shared.index.place(location.position) else { return };
        self.account(place).bury(place.byte(), location.cost());
        if place != location.position {
            self.shared.index.forget(location.position);
        }
    }

    /// The account of the segment that `place` is in, which the index knows.
    pub(super) fn account(&mut self, place: Position) -> &mut Account {
        let behind = (self.tail.number - place.segment()) as usize;
        let last = self.accounts.len() - 1;
        &mut self.accounts[last - behind]
    }

    pub(super) fn failure(&self, doing: &'static str, name: &str, error: &io::Error) -> Failure {
        Failure::new(doing, self.shared.disk.path(name), error)
    }

    /// Bytes of all records, and of those that are wanted.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.accounts.iter().fold((0, 0), |(size, live), account| (size + account.size, live + account.live))
    }

    fn publish(&self) {
        let (size, live) = self.totals();
        self.shared.stats.held(self.accounts.len() as u64, size, live);
    }
}

/// Makes a segment that may get records: its head and its name are durable. The one before it has `before` bytes.
pub(super) fn create<D: Disk>(
    disk: &D,
    number: u32,
    journal: u64,
    before: u32,
) -> Result<Segment<D::File>, (&'static str, PathBuf, io::Error)> {
    let name = record::segment_name(number);
    let fail = |doing| {
        let path = disk.path(&name);
        move |error| (doing, path, error)
    };
    let file = disk.create(&name).map_err(fail("create"))?;
    disk::write_all(&file, &record::segment_head(number, journal, before), 0).map_err(fail("write"))?;
    file.sync().map_err(fail("sync"))?;
    disk.sync().map_err(fail("sync the directory of"))?;
    Ok(Segment { number, file })
}
