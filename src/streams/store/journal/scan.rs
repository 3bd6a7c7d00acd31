//! Reading a segment from its first record to its last.

use std::io;

use super::disk::{self, File};
use super::record::{Head, Position, RECORD_HEAD_BYTES, SEGMENT_HEAD_BYTES};

/// How much is read at once, in bytes; a longer record takes as much as it needs.
const WINDOW_BYTES: usize = 1 << 20;

/// What a scan meets next.
pub(crate) enum Found<'a> {
    /// A whole record, and where it lies.
    Record { head: Head, place: Position, body: &'a [u8] },
    /// The end of the file, right behind a record.
    End,
    /// Something else; what follows cannot be read one by one.
    Broken,
}

/// A walk over the records of one segment.
pub(crate) struct Scan<'a, F> {
    file: &'a F,
    number: u32,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a, F: File> Scan<'a, F> {
    /// From the record at `at`, or the first, up to byte `end`.
    pub(crate) fn new(file: &'a F, number: u32, at: u64, end: u64) -> Self {
        let at = at.max(SEGMENT_HEAD_BYTES as u64);
        Self { file, number, at, end, window: Vec::new(), window_at: at }
    }

    /// Where the next record is expected.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn next(&mut self) -> io::Result<Found<'_>> {
        if self.at >= self.end {
            return Ok(Found::End);
        }
        let Ok(byte) = u32::try_from(self.at) else { return Ok(Found::Broken) };
        let place = Position::new(self.number, byte);
        let Some(head) = self.bytes(self.at, RECORD_HEAD_BYTES)?.and_then(Head::read) else {
            return Ok(Found::Broken);
        };
        // A record of this segment lies where it says; one of an earlier segment is a copy; a later one cannot be.
        let position = head.location.position;
        if position != place && position.segment() >= self.number {
            return Ok(Found::Broken);
        }
        let cost = head.location.cost();
        let body_at = self.at + RECORD_HEAD_BYTES as u64;
        if self.at + cost > self.end {
            return Ok(Found::Broken);
        }
        let whole = self.bytes(body_at, head.location.length as usize)?.is_some_and(|body| head.fits(body));
        if !whole {
            return Ok(Found::Broken);
        }
        self.at += cost;
        let from = (body_at - self.window_at) as usize;
        Ok(Found::Record { head, place, body: &self.window[from..from + head.location.length as usize] })
    }

    /// Whether a record behind `broken` was written after what is there had been synced. Then no crash can have broken it.
    pub(crate) fn synced_beyond(&mut self, broken: u64) -> io::Result<bool> {
        let mut at = broken + 1;
        while at + RECORD_HEAD_BYTES as u64 <= self.end {
            let length = (self.end - at).min(WINDOW_BYTES as u64) as usize;
            let number = self.number;
            let Some(bytes) = self.bytes(at, length)? else { return Ok(false) };
            for (ahead, head) in bytes.windows(RECORD_HEAD_BYTES).enumerate() {
                let byte = at + ahead as u64;
                let Ok(place) = u32::try_from(byte).map(|byte| Position::new(number, byte)) else {
                    return Ok(false);
                };
                // What other bytes seldom contain: this very place, or a segment before this. The checksum is looked at only
                // then.
                let may_be_one = place.starts(head) || place.may_hold_a_copy(head);
                let synced = || Head::read(head).map_or(0, |head| u64::from(head.synced));
                if may_be_one && (broken + 1..=byte).contains(&synced()) {
                    return Ok(true);
                }
            }
            at += (length - RECORD_HEAD_BYTES + 1) as u64;
        }
        Ok(false)
    }

    /// These bytes of the file; `None` if it ends before.
    fn bytes(&mut self, at: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let held = at >= self.window_at && at + length as u64 <= self.window_at + self.window.len() as u64;
        if !held {
            let wanted = length.max(WINDOW_BYTES).min(self.end.saturating_sub(at) as usize);
            if wanted < length {
                return Ok(None);
            }
            self.window.resize(wanted, 0);
            let read = disk::read_up_to(self.file, &mut self.window, at)?;
            self.window.truncate(read);
            self.window_at = at;
            if read < length {
                return Ok(None);
            }
        }
        let from = (at - self.window_at) as usize;
        Ok(Some(&self.window[from..from + length]))
    }
}
