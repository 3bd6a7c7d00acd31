//! Which segments there are and where each record lies now: what readers need, on any thread.
//!
//! The lock is held for look-ups and for the few stores of a change, never during a file operation. A reader takes its segment
//! along, so a segment that is removed meanwhile stays readable for it: removal waits for nobody and nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use super::disk::{self, File};
use super::error::ReadError;
use super::record::{Head, Location, Position, RECORD_HEAD_BYTES};

/// How much one read may bring, in bytes; a longer record takes as much as it needs.
const READ_BYTES: u64 = 256 << 10;

/// Records of others between two that are read together, in bytes: reading over so much is cheaper than another system call.
const GAP_BYTES: u64 = 4 << 10;

/// Whether a read may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Only what the kernel holds in memory, for a core: [`ReadError::Cold`] otherwise.
    Not,
    /// As long as the disk takes, for a thread that may block.
    ForTheDisk,
}

/// One file of records.
#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub(crate) number: u32,
    pub(crate) file: F,
}

/// All that is readable.
#[derive(Debug)]
pub(crate) struct Index<F>(RwLock<Places<F>>);

#[derive(Debug)]
struct Places<F> {
    /// Their numbers follow one another.
    segments: VecDeque<Arc<Segment<F>>>,
    /// Where records lie whose own segment is gone.
    moved: HashMap<Position, Position>,
}

impl<F: File> Index<F> {
    pub(crate) fn new(segments: VecDeque<Arc<Segment<F>>>, moved: HashMap<Position, Position>) -> Self {
        Self(RwLock::new(Places { segments, moved }))
    }

    /// Reads the records that come first of `locations` and lie so close together that one read brings them all, and gives each
    /// to `each`, its checksum found right; how many that were.
    pub(crate) fn read_some(
        &self,
        locations: &[Location],
        wait: Wait,
        buffer: &mut Vec<u8>,
        each: &mut impl FnMut(&[u8]),
    ) -> Result<usize, ReadError> {
        let (segment, places) = self.find_together(locations)?;
        let (last, start) = (places.len() - 1, u64::from(places[0]));
        let length = (u64::from(places[last]) + locations[last].cost() - start) as usize;
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let bytes = &mut buffer[..length];
        let read = match wait {
            Wait::ForTheDisk => disk::read_up_to(&segment.file, bytes, start),
            Wait::Not => disk::read_at_once(&segment.file, bytes, start),
        };
        let bytes = &bytes[..read.map_err(ReadError::from)?];
        let body = |byte: u32, location: Location| {
            let record = bytes.get((u64::from(byte) - start) as usize..)?.get(..location.cost() as usize)?;
            let (head, body) = record.split_at(RECORD_HEAD_BYTES);
            Head::read(head).filter(|head| head.location == location && head.fits(body)).map(|_| body)
        };
        for (count, (byte, location)) in places.iter().zip(locations).enumerate() {
            match body(*byte, *location) {
                Some(body) => each(body),
                // Those before it are good; whoever goes on meets it first.
                None if count > 0 => return Ok(count),
                None => return Err(ReadError::Damaged { segment: segment.number, byte: *byte }),
            }
        }
        Ok(places.len())
    }

    /// Reads a part of the body of one record into `buffer`. With `checks` all of it is read once, a window at a time, and its checksum
    /// found right: whoever reads on need not do that again.
    pub(crate) fn read_part(
        &self,
        location: Location,
        part: Range<usize>,
        checks: bool,
        wait: Wait,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let (segment, places) = self.find_together(&[location])?;
        let start = u64::from(places[0]);
        let damaged = || ReadError::Damaged { segment: segment.number, byte: places[0] };
        let read = |buffer: &mut Vec<u8>, from: usize, length: usize| -> Result<(), ReadError> {
            buffer.resize(length, 0);
            let at = start + from as u64;
            let read = match wait {
                Wait::ForTheDisk => disk::read_up_to(&segment.file, buffer, at)?,
                Wait::Not => disk::read_at_once(&segment.file, buffer, at)?,
            };
            if read == length { Ok(()) } else { Err(damaged()) }
        };
        let length = location.length as usize;
        if part.end > length {
            return Err(damaged());
        }
        read(buffer, 0, RECORD_HEAD_BYTES)?;
        let head = Head::read(buffer).filter(|head| head.location == location).ok_or_else(damaged)?;
        if checks {
            let (mut sum, mut at) = (0, 0);
            while at < length {
                let window = (length - at).min(READ_BYTES as usize);
                read(buffer, RECORD_HEAD_BYTES + at, window)?;
                sum = crc32c::crc32c_append(sum, buffer);
                at += window;
            }
            if !head.has_sum(sum) {
                return Err(damaged());
            }
        }
        read(buffer, RECORD_HEAD_BYTES + part.start, part.len())
    }

    /// The segment of the first record, and where in it those lie that one read can bring.
    fn find_together(&self, locations: &[Location]) -> Result<(Arc<Segment<F>>, Vec<u32>), ReadError> {
        let places = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let first = locations.first().and_then(|location| places.place(location.position));
        let first = first.ok_or(ReadError::Gone)?;
        let segment = places.segment(first).ok_or(ReadError::Gone)?;
        let mut together = vec![first.byte()];
        let mut end = u64::from(first.byte()) + locations[0].cost();
        for location in &locations[1..] {
            let Some(place) = places.place(location.position) else { break };
            let byte = u64::from(place.byte());
            let behind = place.segment() == first.segment() && (end..=end + GAP_BYTES).contains(&byte);
            if !behind || byte + location.cost() - u64::from(first.byte()) > READ_BYTES {
                break;
            }
            together.push(place.byte());
            end = byte + location.cost();
        }
        Ok((Arc::clone(segment), together))
    }

    /// Where the record lies now.
    pub(crate) fn place(&self, position: Position) -> Option<Position> {
        let places = self.0.read().unwrap_or_else(PoisonError::into_inner);
        places.place(position).filter(|place| places.segment(*place).is_some())
    }

    pub(crate) fn oldest(&self) -> Option<Arc<Segment<F>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).segments.front().cloned()
    }

    pub(crate) fn push(&self, segment: Arc<Segment<F>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).segments.push_back(segment);
    }

    /// Leaves the oldest segment behind: its live records are elsewhere now.
    pub(crate) fn advance(&self, moved: impl Iterator<Item = (Position, Position)>) {
        let mut places = self.0.write().unwrap_or_else(PoisonError::into_inner);
        places.moved.extend(moved);
        places.segments.pop_front();
    }

    /// A record that was moved is dead.
    pub(crate) fn forget(&self, position: Position) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).moved.remove(&position);
    }
}

impl<F> Places<F> {
    fn place(&self, position: Position) -> Option<Position> {
        let first = self.segments.front()?.number;
        if position.segment() >= first { Some(position) } else { self.moved.get(&position).copied() }
    }

    fn segment(&self, place: Position) -> Option<&Arc<Segment<F>>> {
        let first = self.segments.front()?.number;
        self.segments.get(place.segment().checked_sub(first)? as usize)
    }
}
