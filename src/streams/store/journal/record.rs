//! How a segment looks on disk. All numbers are little-endian.
//!
//! ```text
//!  segment   magic[8] version:u32 number:u32 journal:u64 before:u32 crc:u32      32 bytes, crc over the 28 before it
//!  record    position:u64 length:u32 synced:u32 body_crc:u32 head_crc:u32 body   24 bytes and the body
//! ```
//!
//! `before` is the length of the segment before this one, which was whole by then; 0 says nothing.
//! `position` is where the record was first written: the segment's number and the byte in it. A block that landed in the wrong
//! place is no record there, and a record that compaction has moved keeps its position, so those who hold it need not know.
//! `synced` says how much of the segment had been synced when the record was written. It tells a torn tail from damage: a
//! broken record below the `synced` of a later one had been durable, so no crash explains it.

use crc32c::crc32c;

/// What a segment begins with.
pub(crate) const SEGMENT_HEAD_BYTES: usize = 32;

/// What a record costs beside its body.
pub(crate) const RECORD_HEAD_BYTES: usize = 24;

/// The longest body of a record.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 20;

const MAGIC: &[u8; 8] = b"sedgejnl";

/// Changes whenever an older sedge could no longer read what a newer one wrote.
const VERSION: u32 = 1;

/// Where a record was first written; later records have greater positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position(u64);

impl Position {
    pub(crate) const fn new(segment: u32, byte: u32) -> Self {
        Self((segment as u64) << 32 | byte as u64)
    }

    pub(crate) const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) const fn byte(self) -> u32 {
        self.0 as u32
    }

    /// Whether a head that begins so could lie here.
    pub(crate) fn starts(self, head: &[u8]) -> bool {
        head.starts_with(&self.0.to_le_bytes())
    }

    /// Whether a head that begins so could be a copy's that lies here: of an earlier segment. They count from 1.
    pub(crate) fn may_hold_a_copy(self, head: &[u8]) -> bool {
        let segment =
            head.get(4..8).map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        (1..self.segment()).contains(&segment)
    }
}

/// One record, for those who will read it again: 12 bytes of knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Where it was first written.
    pub(crate) position: Position,
    /// Length of its body in bytes.
    pub(crate) length: u32,
}

impl Location {
    /// What it takes of a segment, in bytes.
    pub(crate) const fn cost(self) -> u64 {
        RECORD_HEAD_BYTES as u64 + self.length as u64
    }
}

/// The head of a record, its checksum found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) location: Location,
    pub(crate) synced: u32,
    body_crc: u32,
}

impl Head {
    /// `None` if these bytes are no head.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<RECORD_HEAD_BYTES>()?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let length = number(8);
        // The bound first: the checksum of random bytes is seldom worth its cost.
        if length as usize > RECORD_BYTES_MAX || number(20) != crc32c(&bytes[..20]) {
            return None;
        }
        let position = Position::new(number(4), number(0));
        Some(Self { location: Location { position, length }, synced: number(12), body_crc: number(16) })
    }

    /// Whether a body has that checksum (CRC-32C).
    pub(crate) fn has_sum(&self, sum: u32) -> bool {
        sum == self.body_crc
    }

    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        body.len() == self.location.length as usize && crc32c(body) == self.body_crc
    }
}

/// Appends a record without what is known only when it is written: see [`seal`].
pub(crate) fn push(buffer: &mut Vec<u8>, position: Position, body: &[u8]) {
    buffer.reserve(RECORD_HEAD_BYTES + body.len());
    buffer.extend_from_slice(&position.0.to_le_bytes());
    buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&0_u32.to_le_bytes());
    buffer.extend_from_slice(&crc32c(body).to_le_bytes());
    buffer.extend_from_slice(&0_u32.to_le_bytes());
    buffer.extend_from_slice(body);
}

/// Finishes the heads of whole records that were pushed one after another.
pub(crate) fn seal(mut records: &mut [u8], synced: u32) {
    while let Some((head, rest)) = records.split_first_chunk_mut::<RECORD_HEAD_BYTES>() {
        head[12..16].copy_from_slice(&synced.to_le_bytes());
        let crc = crc32c(&head[..20]);
        head[20..].copy_from_slice(&crc.to_le_bytes());
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        records = &mut rest[length..];
    }
}

/// The first bytes of a segment.
pub(crate) fn segment_head(number: u32, journal: u64, before: u32) -> [u8; SEGMENT_HEAD_BYTES] {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&number.to_le_bytes());
    head[16..24].copy_from_slice(&journal.to_le_bytes());
    head[24..28].copy_from_slice(&before.to_le_bytes());
    let crc = crc32c(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Why a segment's first bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentFault {
    /// Not a segment, or damaged.
    Damaged,
    /// Written by another sedge.
    Version(u32),
    /// A good head, of another number.
    Number(u32),
}

/// What the head of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    /// The journal's own number.
    pub(crate) journal: u64,
    /// Length of the segment before it in bytes, or 0.
    pub(crate) before: u32,
}

/// Reads the head of segment `number`.
pub(crate) fn read_segment_head(
    head: &[u8; SEGMENT_HEAD_BYTES],
    number: u32,
) -> Result<SegmentHead, SegmentFault> {
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..8] != *MAGIC || word(28) != crc32c(&head[..28]) {
        return Err(SegmentFault::Damaged);
    }
    match (word(8), word(12)) {
        (VERSION, found) if found == number => {
            Ok(SegmentHead { journal: u64::from(word(20)) << 32 | u64::from(word(16)), before: word(24) })
        }
        (VERSION, found) => Err(SegmentFault::Number(found)),
        (version, _) => Err(SegmentFault::Version(version)),
    }
}

const SUFFIX: &str = ".segment";

/// The name of a segment's file; names sort as numbers do.
pub(crate) fn segment_name(number: u32) -> String {
    format!("{number:010}{SUFFIX}")
}

/// The number of a segment's file; `None` for a name that is none.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for number in [0, 1, u32::MAX] {
            assert_eq!(segment_number(&segment_name(number)), Some(number));
        }
        for wrong in ["1.segment", "+000000001.segment", "0000000001.segment~", "lock", "9999999999.segment"]
        {
            assert_eq!(segment_number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_head_of_a_segment_says_whose_it_is() {
        let head = segment_head(7, 0x0123_4567_89ab_cdef, 99);
        assert_eq!(
            read_segment_head(&head, 7),
            Ok(SegmentHead { journal: 0x0123_4567_89ab_cdef, before: 99 })
        );
        assert_eq!(read_segment_head(&head, 8), Err(SegmentFault::Number(7)));
        for at in 0..head.len() {
            let mut damaged = head;
            damaged[at] ^= 0x40;
            assert_eq!(read_segment_head(&damaged, 7), Err(SegmentFault::Damaged), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn one_changed_bit_is_always_found(body in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, bit in 0..8_u32) {
            let mut bytes = Vec::new();
            push(&mut bytes, Position::new(3, 32), &body);
            seal(&mut bytes, 17);
            let head = Head::read(&bytes).expect("it was just written");
            prop_assert_eq!(head.location, Location { position: Position::new(3, 32), length: body.len() as u32 });
            prop_assert_eq!(head.synced, 17);
            prop_assert!(head.fits(&bytes[RECORD_HEAD_BYTES..]));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Head::read(&bytes).is_none_or(|head| !head.fits(&bytes[RECORD_HEAD_BYTES..])));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(Head::read(&bytes).is_none());
        }
    }
}
