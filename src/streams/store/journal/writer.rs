//! The one who writes: takes a batch, writes it, syncs it, says so, and tidies up. Without a thread or a clock, so that a test
//! can walk it step by step; `thread.rs` gives it both.
//!
//! ```text
//!  take batch ──► write ──► (full: sync, new segment) ──► sync if always ──► bury its dead ──► acknowledge ──► compact
//!                   │ no room: keep the batch, refuse more, write it again at the same place
//!                   │ any other error: stop for good; what was not acknowledged never will be
//! ```
//!
//! A write without room may have left some bytes behind the last record. They were never acknowledged, the same batch is written
//! over them before anything else is, and a start takes them for what any crash leaves there.
//!
//! A segment is left only after all of it was synced, whatever the setting, and a new one gets records only after its head and
//! its name were and the manifest has its number: so only the last segment can ever be torn.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::compaction::Compaction;
use super::disk::{self, Disk, File};
use super::error::{self, Failure};
use super::index::Segment;
use super::manifest::{self, Manifest};
use super::queue::Batch;
use super::record::{self, Location, Position, SEGMENT_HEAD_BYTES};
use super::shared::Shared;
use super::{Fsync, Settings};

/// What one segment holds.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Bytes of its records.
    pub(crate) size: u64,
    /// Bytes of those that are still wanted.
    pub(crate) live: u64,
    /// Where the others begin.
    pub(crate) dead: HashSet<u32>,
}

impl Account {
    pub(crate) fn bury(&mut self, byte: u32, cost: u64) {
        // Said twice is the same as once.
        if self.dead.insert(byte) {
            self.live = self.live.saturating_sub(cost);
        }
    }
}

/// The writer of a journal.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    pub(crate) shared: Arc<Shared<D>>,
    pub(crate) manifest: Manifest<D::File>,
    pub(crate) fsync: Fsync,
    pub(crate) segment_bytes: u32,
    pub(crate) tail: Arc<Segment<D::File>>,
    written: u32,
    synced: u32,
    /// One for each segment, in the order of the index.
    pub(crate) accounts: VecDeque<Account>,
    batch: Batch,
    /// The number of the batch that was taken last.
    taken: u64,
    /// There was no room for all of that batch, and the rest of it is still to be written.
    full: bool,
    pub(crate) done: u64,
    pub(crate) compaction: Compaction,
}

impl<D: Disk> Writer<D> {
    /// Goes on in `tail`, all of whose `written` bytes are synced.
    pub(crate) fn new(
        shared: Arc<Shared<D>>,
        manifest: Manifest<D::File>,
        settings: &Settings,
        tail: Arc<Segment<D::File>>,
        written: u32,
        accounts: VecDeque<Account>,
    ) -> Self {
        let writer = Self {
            shared,
            manifest,
            fsync: settings.fsync,
            segment_bytes: settings.segment_bytes,
            tail,
            written,
            synced: written,
            accounts,
            batch: Batch::default(),
            taken: 0,
            full: false,
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
    pub(crate) fn turn(&mut self) -> Result<bool, Failure> {
        self.batch_and_tidy().inspect_err(|failure| self.shared.progress.stop(failure.clone()))
    }

    fn batch_and_tidy(&mut self) -> Result<bool, Failure> {
        let closing = self.commit()?;
        // An end is not held up: the next start goes on.
        let more = !closing && self.tidy_as_room_allows()?;
        self.publish();
        Ok(more)
    }

    /// Takes a step of tidying up. Without room that is only what makes some: segments that can go at once.
    pub(crate) fn tidy_as_room_allows(&mut self) -> Result<bool, Failure> {
        if !self.full {
            return self.tidy();
        }
        while self.can_remove() {
            self.tidy()?;
        }
        Ok(false)
    }

    fn can_remove(&self) -> bool {
        self.accounts.len() > 1
            && match &self.compaction {
                Compaction::Idle => self.accounts[0].live == 0,
                Compaction::Waiting { batch, .. } => *batch <= self.done,
                Compaction::Copying { .. } | Compaction::Barred => false,
            }
    }

    /// Whether there was no room for what was taken last: it is to be tried again after a while.
    pub(crate) const fn is_full(&self) -> bool {
        self.full
    }

    /// Writes what waits and acknowledges it, unless there is no room; whether nothing more is to come.
    pub(crate) fn commit(&mut self) -> Result<bool, Failure> {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.full {
            self.taken = queue.take(&mut self.batch);
        }
        let closing = queue.closing;
        drop(queue);
        match self.write() {
            Err(failure) if failure.no_room => {
                self.full = true;
                self.shared.progress.lack(failure);
                return Ok(closing);
            }
            result => result?,
        }
        if self.fsync == Fsync::Always {
            self.sync()?;
        }
        for location in std::mem::take(&mut self.batch.dead) {
            self.bury(location);
        }
        self.shared.stats.records.add(self.batch.records);
        self.shared.stats.batches.add(u64::from(!self.batch.bytes.is_empty()));
        self.batch.clear();
        self.done = self.taken;
        // Who is answered now sees it counted.
        self.publish();
        self.shared.progress.reached(self.taken);
        if std::mem::take(&mut self.full) {
            self.shared.progress.resume();
        }
        Ok(closing)
    }

    /// Makes all that was written durable.
    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        if self.synced < self.written {
            let name = record::segment_name(self.tail.number);
            let result = self.shared.stats.timed(|| self.tail.file.sync());
            result.map_err(|error| self.failure("sync", &name, &error))?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Whether something written is not yet synced.
    pub(crate) const fn is_behind(&self) -> bool {
        self.synced < self.written
    }

    /// Writes what is not written of the batch; after a failure for want of room it can be called again.
    fn write(&mut self) -> Result<(), Failure> {
        while let Some(&roll) = self.batch.rolls.first() {
            self.write_part(self.batch.written..roll)?;
            self.roll()?;
            self.batch.rolls.remove(0);
        }
        self.write_part(self.batch.written..self.batch.bytes.len())
    }

    /// Writes records that fit into the tail.
    fn write_part(&mut self, part: Range<usize>) -> Result<(), Failure> {
        if part.is_empty() {
            return Ok(());
        }
        let end = part.end;
        let bytes = &mut self.batch.bytes[part];
        record::seal(bytes, self.synced);
        let result = disk::write_all(&self.tail.file, bytes, u64::from(self.written));
        let length = bytes.len() as u64;
        result.map_err(|error| {
            let path = self.shared.disk.path(&record::segment_name(self.tail.number));
            Failure::of_write("write", path, &error)
        })?;
        self.batch.written = end;
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
        let disk = &self.shared.disk;
        let file = begin(disk, number, self.manifest.journal(), self.written)
            .map_err(|(doing, path, error)| Failure::of_write(doing, path, &error))?;
        let tail =
            settle(disk, number, file).map_err(|(doing, path, error)| Failure::new(doing, path, &error))?;
        let noted = self.manifest.note_last(number);
        noted.map_err(|error| self.failure("write", manifest::NAME, &error))?;
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
    pub(crate) fn account(&mut self, place: Position) -> &mut Account {
        let behind = (self.tail.number - place.segment()) as usize;
        let last = self.accounts.len() - 1;
        &mut self.accounts[last - behind]
    }

    pub(crate) fn failure(&self, doing: &'static str, name: &str, error: &io::Error) -> Failure {
        Failure::new(doing, self.shared.disk.path(name), error)
    }

    /// Bytes of all records, and of those that are wanted.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.accounts.iter().fold((0, 0), |(size, live), account| (size + account.size, live + account.live))
    }

    fn publish(&self) {
        let (size, live) = self.totals();
        self.shared.stats.held(self.accounts.len() as u64, size, live);
    }
}

/// What was tried, with which file, and why it failed.
type Failed = (&'static str, PathBuf, io::Error);

/// Makes a segment that may get records: its head and its name are durable. The one before it has `before` bytes.
pub(crate) fn create<D: Disk>(
    disk: &D,
    number: u32,
    journal: u64,
    before: u32,
) -> Result<Segment<D::File>, Failed> {
    settle(disk, number, begin(disk, number, journal, before)?)
}

/// Writes the head of a new segment. Without room for it there is no such file, so that it can be tried again.
fn begin<D: Disk>(disk: &D, number: u32, journal: u64, before: u32) -> Result<D::File, Failed> {
    let name = record::segment_name(number);
    let file = disk.create(&name).map_err(|error| ("create", disk.path(&name), error))?;
    match disk::write_all(&file, &record::segment_head(number, journal, before), 0) {
        Ok(()) => Ok(file),
        Err(error) => {
            if error::is_no_room(&error) {
                disk.remove(&name).map_err(|error| ("remove", disk.path(&name), error))?;
            }
            Err(("write", disk.path(&name), error))
        }
    }
}

/// Makes a segment's head and its name durable.
fn settle<D: Disk>(disk: &D, number: u32, file: D::File) -> Result<Segment<D::File>, Failed> {
    let name = record::segment_name(number);
    let fail = |doing| {
        let path = disk.path(&name);
        move |error| (doing, path, error)
    };
    file.sync().map_err(fail("sync"))?;
    disk.sync().map_err(fail("sync the directory of"))?;
    Ok(Segment { number, file })
}
