//! What waits for the disk: the next batch, filled by every core and taken whole by the writer.
//!
//! Positions are given out here, in the order of the queue, so an appender knows its record's position at once. That is sound
//! because a batch that was taken is written before any other, at its own positions, or the journal stops: no position is ever
//! given twice.

use std::collections::HashSet;

use super::error::AppendError;
use super::record::{self, Location, Position, RECORD_BYTES_MAX, RECORD_HEAD_BYTES, SEGMENT_HEAD_BYTES};

/// Once so much waits for the disk, appends are refused, in bytes.
pub(crate) const QUEUE_BYTES_MAX: usize = 64 << 20;

/// A batch's buffer that has grown beyond this is given back once it is written, in bytes.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// Records that are written and synced together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Whole records, one after another.
    pub(crate) bytes: Vec<u8>,
    /// How many of `bytes` are written.
    pub(crate) written: usize,
    /// Where in `bytes`, behind those, a new segment begins.
    pub(crate) rolls: Vec<usize>,
    /// What is dead once this batch is written.
    pub(crate) dead: Vec<Location>,
    /// How many records there are.
    pub(crate) records: u64,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.dead.is_empty() && self.rolls.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_KEPT_BYTES);
        self.written = 0;
        self.rolls.clear();
        self.dead.clear();
        self.records = 0;
    }
}

/// The batch that is being filled.
#[derive(Debug)]
pub(crate) struct Queue {
    batch: Batch,
    /// Its number; they count up from 1.
    number: u64,
    next: Position,
    /// A segment is left before it would outgrow this, in bytes.
    segment_bytes: u32,
    /// Nothing more is to come.
    pub(crate) closing: bool,
}

impl Queue {
    pub(crate) fn new(next: Position, segment_bytes: u32) -> Self {
        Self { batch: Batch::default(), number: 1, next, segment_bytes, closing: false }
    }

    /// Takes a record and what it kills; its location and the number of its batch.
    pub(crate) fn append(&mut self, body: &[u8], dead: &[Location]) -> Result<(Location, u64), AppendError> {
        if body.len() > RECORD_BYTES_MAX {
            return Err(AppendError::TooLong);
        }
        if self.batch.bytes.len() >= QUEUE_BYTES_MAX {
            return Err(AppendError::Busy);
        }
        self.batch.dead.extend_from_slice(dead);
        let position = self.room(body.len());
        record::push(&mut self.batch.bytes, position, body);
        Ok((Location { position, length: body.len() as u32 }, self.number))
    }

    /// Takes the copy of a record that keeps its position; where the copy will lie.
    pub(crate) fn copy(&mut self, position: Position, body: &[u8]) -> Position {
        let place = self.room(body.len());
        record::push(&mut self.batch.bytes, position, body);
        place
    }

    /// What is dead without a record that says so.
    pub(crate) fn retire(&mut self, dead: &[Location]) {
        self.batch.dead.extend_from_slice(dead);
    }

    /// What the batch that is being filled kills: copies of these would outlive the record that killed them.
    pub(crate) fn dying(&self) -> HashSet<Position> {
        self.batch.dead.iter().map(|location| location.position).collect()
    }

    /// The number of the batch that is being filled.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// How much waits, in bytes.
    pub(crate) fn waiting(&self) -> usize {
        self.batch.bytes.len()
    }

    /// Gives the batch to the writer, an empty one for it, and says its number.
    pub(crate) fn take(&mut self, empty: &mut Batch) -> u64 {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut self.batch, empty);
        self.number += 1;
        self.number - 1
    }

    /// Begins a segment with the next record, unless `segment` is not the last any more, or is empty; whether it was done.
    pub(crate) fn leave(&mut self, segment: u32) -> bool {
        let is_needed = self.next.segment() == segment && self.next.byte() > SEGMENT_HEAD_BYTES as u32;
        if is_needed {
            self.batch.rolls.push(self.batch.bytes.len());
            let number = segment.checked_add(1).expect("2^32 segments take longer than any disk lasts");
            self.next = Position::new(number, SEGMENT_HEAD_BYTES as u32);
        }
        is_needed
    }

    /// Gives out the place of the next record.
    fn room(&mut self, length: usize) -> Position {
        let cost = (RECORD_HEAD_BYTES + length) as u32;
        let (segment, byte) = (self.next.segment(), self.next.byte());
        // A record that is longer than a segment has one of its own.
        if byte.saturating_add(cost) > self.segment_bytes {
            self.leave(segment);
        }
        let place = self.next;
        self.next = Position::new(place.segment(), place.byte() + cost);
        self.batch.records += 1;
        place
    }
}
