//! Which segments there are and where each record lies now: what readers need, on any thread.
//!
//! The lock is held for look-ups and for the few stores of a change, never during a file operation. A reader takes its segment
//! along, so a segment that is removed meanwhile stays readable for it: removal waits for nobody and nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use super::disk::{self, File};
use super::error::ReadError;
use super::record::{Head, Location, Position, RECORD_HEAD_BYTES};

/// One file of records.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub(super) number: u32,
    pub(super) file: F,
}

/// All that is readable.
#[derive(Debug)]
pub(super) struct Index<F>(RwLock<Places<F>>);

#[derive(Debug)]
struct Places<F> {
    /// Their numbers follow one another.
    segments: VecDeque<Arc<Segment<F>>>,
    /// Where records lie whose own segment is gone.
    moved: HashMap<Position, Position>,
}

impl<F: File> Index<F> {
    pub(super) fn new(segments: VecDeque<Arc<Segment<F>>>, moved: HashMap<Position, Position>) -> Self {
        Self(RwLock::new(Places { segments, moved }))
    }

    /// The body of a record, its checksum found right.
    pub(super) fn read(&self, location: Location) -> Result<Vec<u8>, ReadError> {
        let (segment, place) = self.find(location.position).ok_or(ReadError::Gone)?;
        let mut record = vec![0; location.cost() as usize];
        let read =
            disk::read_up_to(&segment.file, &mut record, u64::from(place.byte())).map_err(ReadError::Io)?;
        let damaged = ReadError::Damaged { segment: place.segment(), byte: place.byte() };
        if read < record.len() {
            return Err(damaged);
        }
        let head = Head::read(&record).filter(|head| head.location == location);
        if !head.is_some_and(|head| head.fits(&record[RECORD_HEAD_BYTES..])) {
            return Err(damaged);
        }
        record.drain(..RECORD_HEAD_BYTES);
        Ok(record)
    }

    /// Where the record lies now.
    pub(super) fn place(&self, position: Position) -> Option<Position> {
        self.find(position).map(|(_, place)| place)
    }

    fn find(&self, position: Position) -> Option<(Arc<Segment<F>>, Position)> {
        let places = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let first = places.segments.front()?.number;
        let place = if position.segment() >= first { position } else { *places.moved.get(&position)? };
        let segment = places.segments.get((place.segment() - first) as usize)?;
        Some((Arc::clone(segment), place))
    }

    pub(super) fn oldest(&self) -> Option<Arc<Segment<F>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).segments.front().cloned()
    }

    pub(super) fn push(&self, segment: Arc<Segment<F>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).segments.push_back(segment);
    }

    /// Leaves the oldest segment behind: its live records are elsewhere now.
    pub(super) fn advance(&self, moved: impl Iterator<Item = (Position, Position)>) {
        let mut places = self.0.write().unwrap_or_else(PoisonError::into_inner);
        places.moved.extend(moved);
        places.segments.pop_front();
    }

    /// A record that was moved is dead.
    pub(super) fn forget(&self, position: Position) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).moved.remove(&position);
    }
}
