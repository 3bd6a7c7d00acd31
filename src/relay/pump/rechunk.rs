//! A segment that was read is framed for the other side where it lies: decoded in place, then given a chunk's head and tail
//! in the room that every block keeps free around its bytes. So it stays one write, whatever the framing on either side.

use std::ops::Range;

use crate::downstream::outbox::Beat;
use crate::proto::http1::body::BodyDecoder;
use crate::proto::http1::chunked::{self, ChunkError, LAST_CHUNK, SIZE_LINE_BYTES};

/// Bytes kept free before what is read into a block: a chunk's size line.
pub const HEAD_ROOM: usize = SIZE_LINE_BYTES;

/// Bytes kept free behind it: the end of a chunk, and the last chunk.
pub const TAIL_ROOM: usize = 8;

/// How the client is told where the body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// By its length, which went into the head.
    Length,
    /// In chunks, so that a missing last one tells of a cut.
    Chunked,
    /// By closing: HTTP/1.0.
    Close,
}

impl Framing {
    /// How a heartbeat is written between two events of such a body.
    pub(crate) fn beat(self) -> Beat {
        match self {
            Framing::Chunked => Beat::Chunk,
            Framing::Close => Beat::Bare,
            Framing::None | Framing::Length => Beat::Hold,
        }
    }

    /// An event of our own, as such a body carries it; one whose length is told already has no room for it.
    pub(crate) fn event(self, event: &[u8]) -> Vec<u8> {
        match self.beat() {
            // An empty chunk would be the last one.
            _ if event.is_empty() => Vec::new(),
            Beat::Hold => Vec::new(),
            Beat::Chunk => [format!("{:x}\r\n", event.len()).as_bytes(), event, b"\r\n"].concat(),
            Beat::Bare => event.to_vec(),
        }
    }
}

/// What became of a segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    /// The payload, decoded.
    pub payload: Range<usize>,
    /// Where the bytes that belong to this body ended, in the segment as it was read.
    pub consumed: usize,
    /// The body is complete.
    pub ended: bool,
}

/// Decodes `block[read]` in place.
pub fn decode(
    decoder: &mut BodyDecoder,
    block: &mut [u8],
    read: Range<usize>,
) -> Result<Segment, ChunkError> {
    let decoded = decoder.decode_in_place(&mut block[read.clone()])?;
    Ok(Segment {
        payload: read.start..read.start + decoded.payload,
        consumed: read.start + decoded.consumed,
        ended: decoded.ended,
    })
}

/// Makes a chunk of `block[payload]` where it lies, and appends the last chunk when the body has ended. The payload must
/// have [`HEAD_ROOM`] before it and [`TAIL_ROOM`] behind it.
pub fn chunk(block: &mut [u8], payload: Range<usize>, ended: bool) -> Range<usize> {
    let mut out = payload.clone();
    if !payload.is_empty() {
        let mut room = [0; HEAD_ROOM];
        let skip = chunked::size_line(payload.len(), &mut room);
        out.start = payload.start - (HEAD_ROOM - skip);
        block[out.start..payload.start].copy_from_slice(&room[skip..]);
        out.end = put(block, out.end, b"\r\n");
    }
    if ended {
        out.end = put(block, out.end, LAST_CHUNK);
    }
    out
}

/// Whether `chunks`, which are whole, are one with a payload, and the last.
#[cold]
pub(crate) fn is_one_chunk(chunks: &[u8]) -> bool {
    chunked::payloads(chunks).nth(1).is_none()
}

/// The part of `block[read]`, which is whole chunks, that comes before the last of them.
#[cold]
pub(crate) fn without_last_chunk(block: &[u8], read: Range<usize>) -> Range<usize> {
    let chunks = &block[read.clone()];
    let ends = chunked::payloads(chunks).map(|payload| payload.as_ptr_range().end);
    let end = ends.last().map_or(0, |end| end as usize - chunks.as_ptr() as usize + b"\r\n".len());
    read.start..read.start + end
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    block[at..at + bytes.len()].copy_from_slice(bytes);
    at + bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payload: &[u8], ended: bool) -> Vec<u8> {
        let mut block = vec![0; HEAD_ROOM + payload.len() + TAIL_ROOM];
        block[HEAD_ROOM..HEAD_ROOM + payload.len()].copy_from_slice(payload);
        let out = chunk(&mut block, HEAD_ROOM..HEAD_ROOM + payload.len(), ended);
        block[out].to_vec()
    }

    #[test]
    fn a_chunk_around_its_bytes() {
        assert_eq!(framed(b"hello", false), b"5\r\nhello\r\n");
        assert_eq!(framed(b"hello", true), b"5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(framed(b"", true), b"0\r\n\r\n");
        assert_eq!(framed(b"", false), b"");
        assert!(framed(&[b'x'; 16_000], false).starts_with(b"3e80\r\nx"));
    }

    #[test]
    fn the_last_chunk_is_left_out() {
        for (wire, rest) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n"),
            ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "1\r\na\r\n2\r\nbc\r\n"),
        ] {
            let block = ["head", wire].concat();
            let range = without_last_chunk(block.as_bytes(), 4..block.len());
            assert_eq!(&block[range], rest);
        }
        assert!(is_one_chunk(b"1\r\na\r\n0\r\n\r\n") && !is_one_chunk(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"));
    }

    #[test]
    fn nothing_said_is_no_last_chunk() {
        assert_eq!(Framing::Chunked.event(b""), b"");
        assert_eq!(Framing::Chunked.event(b"x"), b"1\r\nx\r\n");
        assert_eq!(Framing::Length.event(b"x"), b"");
    }

    #[test]
    fn a_chunk_in_the_middle_of_a_segment_is_framed_anew() {
        let mut decoder = BodyDecoder::Chunked(Default::default());
        let read = b"7;ext=1\r\ndata: a\r\n5\r\nda";
        let mut block = vec![0; HEAD_ROOM + read.len() + TAIL_ROOM];
        let range = HEAD_ROOM..HEAD_ROOM + read.len();
        block[range.clone()].copy_from_slice(read);
        let segment = decode(&mut decoder, &mut block, range).unwrap();
        assert!(!segment.ended);
        let out = chunk(&mut block, segment.payload, false);
        assert_eq!(&block[out], b"9\r\ndata: ada\r\n");
    }
}
