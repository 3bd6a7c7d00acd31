//! Response heads as they arrive: the buffer they are read into, the search for the end of the final one, and the bounds on
//! what comes before it. No socket and no clock, so that a fuzzer can feed it any bytes in any pieces.
//!
//! ```text
//! room() ► read ► filled() ► head() ──no──► room() again, or release() while nothing comes
//!                              ├─ an interim head (1xx): dropped, counted, searched on behind it
//!                              └─ the final head ► handed out with its block and what follows it
//! ```
//!
//! No buffer is held while the upstream has sent nothing, or nothing but whole interim heads.

use std::ops::Range;
use std::rc::Rc;

use crate::proto::http1::Reject;
use crate::proto::http1::response::{self, CheckedHead};
use crate::relay::pump::rechunk::TAIL_ROOM;
use crate::runtime::block::{BLOCK_BYTES, Block, Pool};

/// Kept free before an upstream's head: ours is a little longer than its, and both are to leave in one write with the first
/// bytes of the body.
pub const HEAD_SLACK: usize = 1024;

/// Most interim heads (1xx) before a final one.
pub(crate) const INTERIM_HEADS_MAX: u32 = 100;

/// Most bytes of interim heads before a final one.
pub(crate) const INTERIM_BYTES_MAX: usize = 65_536;

/// Bytes in the buffer of a head that does not fit into a block: the longest head, and a block's worth of what follows it.
const LARGE_BYTES: usize = HEAD_SLACK + response::HEAD_BYTES + BLOCK_BYTES;

const SWITCHES: Reject = bad("it switches protocols, which was not asked for");
const INTERIM_TOO_MANY: Reject = bad("it sent more than 100 interim responses (1xx) before the final one");
const INTERIM_TOO_LARGE: Reject =
    bad("it sent more than 65536 bytes of interim responses (1xx) before the final one");

const fn bad(message: &'static str) -> Reject {
    Reject { status: 502, code: "upstream_invalid_response", message }
}

/// Reads heads up to the final one. Not to be used after that.
#[derive(Default)]
pub struct HeadReader {
    block: Option<Block>,
    /// Where the head that is being read begins in the block.
    start: usize,
    /// Where the bytes end that were read.
    end: usize,
    /// How much of what lies between was searched already.
    scanned: usize,
    interim_heads: u32,
    interim_bytes: usize,
}

/// A final head, and what came with it.
pub struct ReadHead {
    /// The block it was read into. At least [`HEAD_SLACK`] bytes before the head and [`TAIL_ROOM`] at the block's end are free.
    pub block: Block,
    /// Where the head begins in it.
    pub start: usize,
    /// The head, checked.
    pub checked: CheckedHead,
    /// The bytes that follow it, right behind.
    pub rest: Range<usize>,
}

impl HeadReader {
    /// Whether a buffer is held.
    pub(crate) fn holds(&self) -> bool {
        self.block.is_some()
    }

    /// Whether bytes of a head are held.
    pub(crate) fn has_begun(&self) -> bool {
        self.start < self.end
    }

    /// Room for more bytes, never empty.
    pub fn room(&mut self, blocks: &Rc<Pool>) -> &mut [u8] {
        let block = self.block.get_or_insert_with(|| {
            (self.start, self.end, self.scanned) = (HEAD_SLACK, HEAD_SLACK, 0);
            blocks.take()
        });
        if self.end == block.len() - TAIL_ROOM {
            let held = self.end - self.start;
            if self.start > HEAD_SLACK {
                block.copy_within(self.start..self.end, HEAD_SLACK);
            } else {
                // `head` refuses a head long before it fills a buffer of this size.
                assert!(block.len() < LARGE_BYTES, "a head of {held} bytes was not refused");
                let mut larger = blocks.take_large(LARGE_BYTES);
                larger[HEAD_SLACK..HEAD_SLACK + held].copy_from_slice(&block[self.start..self.end]);
                *block = larger;
            }
            (self.start, self.end) = (HEAD_SLACK, HEAD_SLACK + held);
        }
        let room = block.len() - TAIL_ROOM;
        &mut block[self.end..room]
    }

    /// So many bytes were read into the room.
    pub fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// Nothing was read: gives the buffer back unless a head has begun in it.
    pub fn release(&mut self) {
        if !self.has_begun() {
            self.block = None;
        }
    }

    /// The final head, if all of it is there. To be called after each [`HeadReader::filled`]. Interim heads are dropped: the
    /// client was told to continue before the upstream was asked, and an early hint would disturb the clients that take it for
    /// the response. `to_head` says that the request was a HEAD.
    pub fn head(&mut self, to_head: bool) -> Result<Option<ReadHead>, Reject> {
        loop {
            let Some(block) = &self.block else { return Ok(None) };
            let bytes = &block[self.start..self.end];
            let Some(end) = response::find_head_end(bytes, self.scanned)? else {
                self.scanned = bytes.len();
                return Ok(None);
            };
            let checked = response::check(&bytes[..end], to_head)?;
            match checked.status {
                101 => return Err(SWITCHES),
                100..=199 => self.drop_interim(end)?,
                _ => {
                    let (start, rest) = (self.start, self.start + end..self.end);
                    let Some(block) = self.block.take() else { return Ok(None) };
                    return Ok(Some(ReadHead { block, start, checked, rest }));
                }
            }
        }
    }

    fn drop_interim(&mut self, bytes: usize) -> Result<(), Reject> {
        self.start += bytes;
        self.scanned = 0;
        self.interim_heads += 1;
        self.interim_bytes += bytes;
        if self.interim_heads > INTERIM_HEADS_MAX {
            return Err(INTERIM_TOO_MANY);
        }
        if self.interim_bytes > INTERIM_BYTES_MAX { Err(INTERIM_TOO_LARGE) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";

    /// The status and what followed the head, when `wire` comes in pieces of these sizes, with a pause after each.
    fn read(wire: &[u8], sizes: &[usize]) -> Result<Option<(u16, Vec<u8>)>, Reject> {
        let (blocks, mut reader) = (Rc::new(Pool::default()), HeadReader::default());
        let (mut sizes, mut rest) = (sizes.iter().cycle(), wire);
        while !rest.is_empty() {
            let mut piece = (*sizes.next().expect("a size")).min(rest.len());
            while piece > 0 {
                let room = reader.room(&blocks);
                let now = piece.min(room.len());
                room[..now].copy_from_slice(&rest[..now]);
                reader.filled(now);
                (rest, piece) = (&rest[now..], piece - now);
                if let Some(read) = reader.head(false)? {
                    assert!(read.start >= HEAD_SLACK && read.rest.end <= read.block.len() - TAIL_ROOM);
                    let follows = [&read.block[read.rest.clone()], rest].concat();
                    return Ok(Some((read.checked.status, follows)));
                }
            }
            reader.release();
        }
        Ok(None)
    }

    /// Interim heads of `bytes` each.
    fn interim(count: usize, bytes: usize) -> String {
        let fields = "HTTP/1.1 103 Early Hints\r\nLink: \r\n\r\n".len();
        format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "a".repeat(bytes - fields)).repeat(count)
    }

    #[test]
    fn interim_heads_beyond_a_block_are_read_in_any_pieces() {
        let wire = format!("{}{FINAL}{{}}", interim(90, 700));
        for sizes in [&[usize::MAX][..], &[1], &[700], &[16_000, 700], &[40_000, 1]] {
            assert_eq!(read(wire.as_bytes(), sizes), Ok(Some((200, b"{}".to_vec()))), "{sizes:?}");
        }
    }

    #[test]
    fn interim_heads_are_bounded_in_number_and_bytes() {
        assert_eq!(read(format!("{}{FINAL}", interim(100, 60)).as_bytes(), &[50]), Ok(Some((200, vec![]))));
        assert_eq!(read(interim(101, 60).as_bytes(), &[50]), Err(INTERIM_TOO_MANY));
        assert_eq!(read(interim(2, 33_000).as_bytes(), &[5000]), Err(INTERIM_TOO_LARGE));
        assert_eq!(read(b"HTTP/1.1 101 Switching\r\n\r\n", &[3]), Err(SWITCHES));
    }

    #[test]
    fn a_head_behind_interim_heads_may_be_as_long_as_any() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(response::HEAD_BYTES - 24));
        assert_eq!(long.len(), response::HEAD_BYTES);
        let wire = format!("{}{long}{{}}", interim(50, 1000));
        assert_eq!(read(wire.as_bytes(), &[1000]), Ok(Some((200, b"{}".to_vec()))));
        let longer = wire.replace("X: ", "XX: ");
        assert!(read(longer.as_bytes(), &[1000]).is_err());
    }

    #[test]
    fn a_reader_that_waits_holds_no_block() {
        let (blocks, mut reader) = (Rc::new(Pool::default()), HeadReader::default());
        for piece in [&interim(3, 60)[..], &interim(1, 60)[..20], &interim(1, 60)[20..]] {
            reader.room(&blocks)[..piece.len()].copy_from_slice(piece.as_bytes());
            reader.filled(piece.len());
            assert!(reader.head(false).unwrap().is_none());
            reader.release();
            assert_eq!(reader.holds(), piece.len() == 20);
            assert_eq!(reader.has_begun(), piece.len() == 20);
        }
        assert_eq!(blocks.blocks(), 0);
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(
            heads in proptest::collection::vec(1usize..9000, 0..12),
            tail in "[ -~]{0,40}",
            sizes in proptest::collection::vec(1usize..20_000, 1..8),
        ) {
            let mut wire: String = heads.iter().map(|bytes| interim(1, 60 + bytes)).collect();
            wire += FINAL;
            wire += &tail;
            prop_assert_eq!(read(wire.as_bytes(), &sizes), read(wire.as_bytes(), &[usize::MAX]));
        }
    }
}
