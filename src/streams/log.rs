//! What a stream holds: its records, oldest first, each with its place in the stream, and where its bytes are.
//!
//! ```text
//!        start                                    tail
//!  trimmed │ record │ record │ record │ record │ record │
//!            stored   stored   here+stored ....             cold ones on disk alone, the newest in memory as well
//! ```
//!
//! No clock, no lock, no disk: the stream that owns it brings these. A record is one append and never changes; its bytes are
//! shared with whoever reads them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::owners::Weight;
use super::store::journal::Location;

/// What a record costs beside its bytes, in bytes of memory: itself and what its allocations add.
const RECORD_OVERHEAD_BYTES: u64 = 192;

/// Cost of a record to whoever reads a page of them, beside its bytes: records of one byte make a page no longer than others.
const RECORD_PAGE_BYTES: u64 = 128;

/// One append.
#[derive(Debug)]
pub(crate) struct Record {
    /// Where it begins in the stream.
    pub(crate) start: u64,
    /// Where it ends.
    pub(crate) end: u64,
    /// Its place in the order of all appends to all streams.
    pub(crate) order: u64,
    /// When it was taken, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The publisher's name for it.
    pub(crate) event: Option<Arc<str>>,
    /// Where each message ends, from `start`; empty if it is not made of messages.
    pub(crate) ends: Box<[u32]>,
    /// Its bytes, if they are in memory.
    pub(crate) bytes: Option<Bytes>,
    /// Where it is stored, if it is.
    pub(crate) stored: Option<Stored>,
}

/// Where a record is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The journal's record.
    pub(crate) location: Location,
    /// Where the payload begins in it.
    pub(crate) skip: u32,
    /// It holds more than the payload, and outlives it.
    pub(crate) shared: bool,
}

/// A part of a record.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Where it begins in the stream.
    pub(crate) start: u64,
    /// Where it ends.
    pub(crate) end: u64,
    /// The record's place among all.
    pub(crate) order: u64,
    /// The publisher's name for the record.
    pub(crate) event: Option<Arc<str>>,
    /// Where its messages end, from `start`.
    pub(crate) ends: Box<[u32]>,
    /// Beginning of the record.
    pub(crate) record_start: u64,
    /// End of the message that `end` lies in or ends with; of a record without messages, its end.
    pub(crate) message_end: u64,
    /// End of the record, which may lie beyond this part.
    pub(crate) record_end: u64,
    /// Its bytes.
    pub(crate) source: Source,
}

/// Where bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// In memory.
    Here(Bytes),
    /// On disk: the journal's record, and where in it they begin.
    Stored(Location, u32),
    /// In Redis: the stream whose log holds the record, where that ends, and where in it they begin.
    Remote(Arc<str>, u64, u32),
}

/// The records of one stream.
#[derive(Debug)]
pub(crate) struct Log {
    records: VecDeque<Record>,
    /// The first position that is still there.
    pub(crate) start: u64,
    /// The position after the last.
    pub(crate) tail: u64,
    /// The last record that was trimmed, in the order of all appends; 0 is none.
    pub(crate) lost: u64,
    /// Records before this one have no bytes in memory.
    cold: usize,
    /// Bytes of payloads in memory.
    payload: u64,
    /// What else the records take, in bytes.
    beside: u64,
    /// The stream in Redis whose log this is a mirror of, if it is one.
    remote: Option<Arc<str>>,
}

impl Log {
    /// Begins at `position`.
    pub(crate) fn new(position: u64) -> Log {
        let (start, tail) = (position, position);
        Log { records: VecDeque::new(), start, tail, lost: 0, cold: 0, payload: 0, beside: 0, remote: None }
    }

    /// The mirror of a log in Redis, which begins at `position` and is that of the stream `name`.
    pub(crate) fn mirror(position: u64, name: &str) -> Log {
        Log { remote: Some(name.into()), ..Log::new(position) }
    }

    /// Gives up everything before `position`, and goes on there at the earliest.
    pub(crate) fn skip_to(&mut self, position: u64, lost: u64) {
        self.trim(|_, record| record.start >= position, &mut Vec::new());
        if self.records.is_empty() {
            (self.start, self.tail) = (self.start.max(position), self.tail.max(position));
        }
        self.lost = self.lost.max(lost);
    }

    /// Puts a record at the end.
    pub(crate) fn push(&mut self, record: Record) {
        debug_assert!(record.start == self.tail && record.end > record.start, "records join");
        self.tail = record.end;
        self.beside += overhead(&record.ends, record.event.as_deref());
        match &record.bytes {
            Some(bytes) => self.payload += bytes.len() as u64,
            None if self.cold == self.records.len() => self.cold += 1,
            None => {}
        }
        self.records.push_back(record);
    }

    /// What it holds, wherever that is.
    pub(crate) fn weight(&self) -> Weight {
        Weight { payload: self.tail - self.start, beside: self.beside }
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// The oldest.
    pub(crate) fn oldest(&self) -> Option<&Record> {
        self.records.front()
    }

    /// The newest.
    pub(crate) fn newest(&self) -> Option<&Record> {
        self.records.back()
    }

    /// All of them.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    fn find(&self, position: u64) -> usize {
        self.records.partition_point(|record| record.end <= position)
    }

    /// Whether a reader may stand at `position`, which lies between `start` and `tail`: anywhere in bytes, between messages
    /// in messages.
    pub(crate) fn is_boundary(&self, position: u64) -> bool {
        match self.records.get(self.find(position)) {
            Some(record) if record.start < position && !record.ends.is_empty() => {
                record.ends.binary_search(&((position - record.start) as u32)).is_ok()
            }
            _ => true,
        }
    }

    /// Where the `count`th message after `position` ends, or the last before `until`; and how many of them are missing then.
    pub(crate) fn after_messages(&self, position: u64, count: u64, until: u64) -> (u64, u64) {
        let (mut at, mut left) = (position, count);
        for record in self.records.range(self.find(position)..) {
            if left == 0 || record.start >= until {
                break;
            }
            let within = |place: u64| {
                let ends = |&end: &u32| record.start + u64::from(end) <= place;
                record.ends.partition_point(ends) as u64
            };
            let (before, there) = (within(position), within(until));
            let taken = left.min(there.saturating_sub(before));
            if taken > 0 {
                at = record.start + u64::from(record.ends[(before + taken - 1) as usize]);
                left -= taken;
            }
        }
        (at, left)
    }

    /// Where the record ends that `position` lies in, or ends with.
    pub(crate) fn end_of_record(&self, position: u64) -> u64 {
        let at = self.records.partition_point(|record| record.end < position);
        self.records.get(at).map_or(self.tail, |record| record.end)
    }

    /// What lies between `from` and `until`, whole records until `max` bytes are reached, one at least.
    pub(crate) fn pieces(&self, from: u64, until: u64, max: u64, out: &mut Vec<Piece>) {
        let cost = |piece: &Piece| piece.end - piece.start + RECORD_PAGE_BYTES;
        let mut size: u64 = out.iter().map(cost).sum();
        for record in self.records.range(self.find(from)..) {
            if record.start >= until || (size >= max && !out.is_empty()) {
                return;
            }
            let (start, end) = (record.start.max(from), record.end.min(until));
            let piece = record.piece(start, end, self.remote.as_ref());
            size += cost(&piece);
            out.push(piece);
        }
    }

    /// Where the first record begins that comes after `order` in the order of all appends; `None` if it was trimmed, and that is
    /// not among what is known to be gone, which reaches up to `told`.
    pub(crate) fn after_order(&self, order: u64, told: u64) -> Option<u64> {
        if order.max(told) < self.lost {
            return None;
        }
        let at = self.records.partition_point(|record| record.order <= order);
        Some(self.records.get(at).map_or(self.tail, |record| record.start))
    }

    /// Gives up records until the oldest that is left satisfies `keep`; where they were stored goes to `dead`.
    pub(crate) fn trim(&mut self, keep: impl Fn(&Log, &Record) -> bool, dead: &mut Vec<Location>) -> bool {
        let before = self.start;
        while let Some(record) = self.records.front()
            && !keep(self, record)
        {
            let Some(record) = self.records.pop_front() else { break };
            self.payload -= record.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
            self.beside -= overhead(&record.ends, record.event.as_deref());
            (self.start, self.lost) = (record.end, record.order);
            self.cold = self.cold.saturating_sub(1);
            dead.extend(record.stored.filter(|stored| !stored.shared).map(|stored| stored.location));
        }
        self.start != before
    }

    /// Gives up the bytes in memory of the oldest records that end at `until` at the latest and are stored, while more than
    /// `max` bytes of payloads are held.
    pub(crate) fn chill(&mut self, max: u64, until: u64) {
        while self.payload > max
            && let Some(record) = self.records.get_mut(self.cold)
            && record.end <= until
            && (record.stored.is_some() || self.remote.is_some())
        {
            self.payload -= record.bytes.take().map_or(0, |bytes| bytes.len() as u64);
            self.cold += 1;
        }
    }

    /// What it takes of memory, in bytes.
    pub(crate) fn held(&self) -> u64 {
        self.payload + self.beside
    }
}

/// What a record with these takes of memory beside its bytes, in bytes. Of messages of one byte each it is thrice as much as they
/// are, and stays when they are let go of.
pub(crate) fn overhead(ends: &[u32], event: Option<&str>) -> u64 {
    RECORD_OVERHEAD_BYTES + size_of_val(ends) as u64 + event.map_or(0, str::len) as u64
}

impl Record {
    /// The part of it between two positions that lie in it.
    fn piece(&self, start: u64, end: u64, remote: Option<&Arc<str>>) -> Piece {
        let (skip, last) = (start - self.start, end - self.start);
        let before = |place: u64| self.ends.partition_point(|&at| u64::from(at) <= place);
        let source = match (&self.bytes, &self.stored, remote) {
            (Some(bytes), ..) => Source::Here(bytes.slice(skip as usize..last as usize)),
            (None, Some(stored), _) => Source::Stored(stored.location, stored.skip + skip as u32),
            (None, None, Some(name)) => Source::Remote(Arc::clone(name), self.end, skip as u32),
            (None, None, None) => unreachable!("a record is in memory or stored"),
        };
        Piece {
            start,
            end,
            order: self.order,
            event: self.event.clone(),
            ends: self.ends[before(skip)..before(last)].iter().map(|&at| at - skip as u32).collect(),
            message_end: match self.ends.get(self.ends.partition_point(|&at| u64::from(at) < last)) {
                Some(&at) => self.start + u64::from(at),
                None => self.end,
            },
            record_start: self.start,
            record_end: self.end,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(sizes: &[u8], from: u64) -> (Log, Vec<u8>) {
        let mut log = Log::new(from);
        let mut all = Vec::new();
        for (order, &size) in sizes.iter().enumerate() {
            let bytes: Vec<u8> = (0..=size).map(|byte| byte.wrapping_add(order as u8)).collect();
            all.extend_from_slice(&bytes);
            let start = log.tail;
            log.push(Record {
                start,
                end: start + bytes.len() as u64,
                order: order as u64 * 2,
                at: order as u64,
                event: None,
                ends: [].into(),
                bytes: Some(bytes.into()),
                stored: None,
            });
        }
        (log, all)
    }

    fn bytes(pieces: &[Piece]) -> Vec<u8> {
        let here = pieces.iter().flat_map(|piece| match &piece.source {
            Source::Here(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        });
        here.collect()
    }

    proptest! {
        #[test]
        fn any_range_is_read_as_it_was_written(
            sizes in prop::collection::vec(0..40_u8, 1..20),
            from: u8, until: u8, max in 1..200_u64,
        ) {
            let base = 1000;
            let (log, all) = log(&sizes, base);
            let length = all.len() as u64;
            let (from, until) = (u64::from(from) % (length + 1), u64::from(until) % (length + 1));
            let mut at = from;
            let mut read = Vec::new();
            while at < until {
                let mut pieces = Vec::new();
                log.pieces(base + at, base + until, max, &mut pieces);
                prop_assert!(!pieces.is_empty());
                prop_assert_eq!(pieces[0].start, base + at);
                at = pieces.last().map_or(at, |piece| piece.end) - base;
                read.extend(bytes(&pieces));
            }
            if from <= until {
                prop_assert_eq!(read, &all[from as usize..until as usize]);
            }
        }

        #[test]
        fn trimming_takes_from_the_front_alone(sizes in prop::collection::vec(0..40_u8, 1..20), keep in 0..25_usize) {
            let (mut log, all) = log(&sizes, 0);
            log.trim(|log, _| log.len() <= keep, &mut Vec::new());
            prop_assert_eq!(log.len(), keep.min(sizes.len()));
            prop_assert_eq!(log.tail, all.len() as u64);
            let mut pieces = Vec::new();
            log.pieces(log.start, log.tail, u64::MAX, &mut pieces);
            prop_assert_eq!(bytes(&pieces), &all[log.start as usize..]);
            let payload = all.len() as u64 - log.start;
            prop_assert_eq!(log.held(), payload + log.len() as u64 * RECORD_OVERHEAD_BYTES);
        }
    }

    #[test]
    fn readers_of_messages_stand_between_them() {
        let mut log = Log::new(0);
        for start in [0, 6] {
            log.push(Record {
                start,
                end: start + 6,
                order: start,
                at: 0,
                event: None,
                ends: [2, 6].into(),
                bytes: Some(Bytes::from_static(b"1,234,")),
                stored: None,
            });
        }
        let boundaries: Vec<u64> = (0..=12).filter(|&at| log.is_boundary(at)).collect();
        assert_eq!(boundaries, [0, 2, 6, 8, 12]);
        assert_eq!(log.after_messages(0, 3, 12), (8, 0));
        assert_eq!(log.after_messages(2, 0, 12), (2, 0));
        assert_eq!(log.after_messages(2, 3, 12), (12, 0));
        assert_eq!(log.after_messages(2, 4, 12), (12, 1));
        assert_eq!(log.after_messages(2, 2, 7), (6, 1));
        assert_eq!(log.after_messages(6, u64::MAX, 12), (12, u64::MAX - 2));
        let mut pieces = Vec::new();
        log.pieces(2, 12, u64::MAX, &mut pieces);
        assert_eq!((&*pieces[0].ends, &*pieces[1].ends), (&[4][..], &[2, 6][..]));
        assert_eq!((log.after_order(0, 0), log.after_order(6, 0)), (Some(6), Some(12)));
        log.trim(|_, record| record.start > 0, &mut Vec::new());
        assert_eq!((log.after_order(0, 0), log.after_order(6, 0)), (Some(6), Some(12)));
        log.trim(|_, _| false, &mut Vec::new());
        assert_eq!((log.after_order(0, 0), log.after_order(6, 0)), (None, Some(12)));
        assert_eq!((log.after_order(0, 5), log.after_order(0, 6)), (None, Some(12)));
    }
}
