//! The client of upstreams without its sockets: bytes in any pieces go through the state machines that read heads, interim
//! responses, bodies and trailers, look into the payload, and frame it anew for a client. Used by the property tests and by a
//! fuzz target.

use std::rc::Rc;

use sedge::testing::http1::body::BodyDecoder;
use sedge::testing::http1::chunked::{self, ChunkDecoder};
use sedge::testing::openai::{FirstContent, Sideband};
use sedge::testing::relay::rechunk::{self, HEAD_ROOM, TAIL_ROOM};
use sedge::testing::runtime::block::Pool;
use sedge::testing::sse::Scanner;
use sedge::testing::upstream::{HEAD_SLACK, HeadReader};

/// What a response came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    /// 0 as long as there is no final head.
    pub(crate) status: u16,
    /// Names and values of the final head.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
    /// The body is complete.
    pub(crate) ended: bool,
    /// Bytes that follow a complete body.
    pub(crate) surplus: usize,
    /// The first error; nothing was read after it.
    pub(crate) error: Option<&'static str>,
    pub(crate) events: u64,
    pub(crate) terminal: bool,
    /// The payload as a client gets it, in chunks. How it is cut into them depends on the pieces.
    pub(crate) reframed: Vec<u8>,
}

impl Response {
    /// All of it that may not depend on the pieces it came in. What a broken body had brought before it broke does.
    pub(crate) fn verdict(&self) -> Response {
        let mut same = self.clone();
        same.reframed = Vec::new();
        if self.error.is_some() {
            same.payload = Vec::new();
            (same.events, same.terminal) = (0, false);
        }
        same
    }
}

/// Reads a response that comes in `pieces`, each followed by a pause.
pub(crate) fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, to_head: bool) -> Response {
    let mut reading = Reading { to_head, ..Reading::default() };
    for piece in pieces {
        reading.piece(piece);
    }
    reading.response
}

#[derive(Default)]
struct Reading {
    blocks: Rc<Pool>,
    reader: HeadReader,
    to_head: bool,
    body: Option<BodyDecoder>,
    scanner: Scanner,
    sideband: Sideband,
    first: FirstContent,
    response: Response,
}

impl Reading {
    fn piece(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && self.response.error.is_none() {
            if self.response.ended {
                self.response.surplus += piece.len();
                return;
            }
            piece = match self.body {
                None => self.head(piece),
                Some(_) => self.segment(piece),
            };
        }
        self.reader.release();
    }

    /// Takes as much as a read would have taken.
    fn head<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let room = self.reader.room(&self.blocks);
        assert!(!room.is_empty(), "no room for a head that was not refused");
        let (now, later) = piece.split_at(piece.len().min(room.len()));
        room[..now.len()].copy_from_slice(now);
        self.reader.filled(now.len());
        match self.reader.head(self.to_head) {
            Err(reject) => self.response.error = Some(reject.message),
            Ok(None) => {}
            Ok(Some(mut read)) => {
                assert!(read.start >= HEAD_SLACK && read.rest.end <= read.block.len() - TAIL_ROOM);
                let head = read.checked.over(&read.block[read.start..read.rest.start]);
                self.response.status = head.status;
                let field = |field: &sedge::testing::http1::fields::Field<'_>| {
                    (field.name.to_owned(), field.value.to_vec())
                };
                self.response.fields = head.fields.iter().map(field).collect();
                let decoder = BodyDecoder::from(head.body);
                drop(head);
                self.response.ended = decoder.finished();
                self.body = Some(decoder);
                match (self.response.ended, read.rest.is_empty()) {
                    (true, _) => self.response.surplus += read.rest.len(),
                    (false, true) => {}
                    (false, false) => self.frame(&mut read.block, read.rest),
                }
            }
        }
        later
    }

    fn segment<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let mut block = self.blocks.take();
        let room = block.len() - TAIL_ROOM - HEAD_ROOM;
        let (now, later) = piece.split_at(piece.len().min(room));
        block[HEAD_ROOM..HEAD_ROOM + now.len()].copy_from_slice(now);
        self.frame(&mut block, HEAD_ROOM..HEAD_ROOM + now.len());
        later
    }

    fn frame(&mut self, block: &mut [u8], read: std::ops::Range<usize>) {
        let Some(decoder) = &mut self.body else { return };
        if let Some(whole) = decoder.whole(&block[read.clone()]) {
            self.response.ended = whole.ended;
            self.response.reframed.extend_from_slice(&block[read.clone()]);
            let payloads: Vec<Vec<u8>> = chunked::payloads(&block[read]).map(<[u8]>::to_vec).collect();
            payloads.iter().for_each(|payload| self.look(payload));
            return;
        }
        let end = read.end;
        match rechunk::decode(decoder, block, read) {
            Err(error) => self.response.error = Some(error.message()),
            Ok(segment) => {
                self.response.ended = segment.ended;
                self.response.surplus += end - segment.consumed;
                self.look(&block[segment.payload.clone()]);
                let out = rechunk::chunk(block, segment.payload, segment.ended);
                self.response.reframed.extend_from_slice(&block[out]);
            }
        }
    }

    fn look(&mut self, payload: &[u8]) {
        self.response.payload.extend_from_slice(payload);
        self.response.events += u64::from(self.scanner.feed(payload));
        self.response.terminal = self.scanner.terminal();
        self.sideband.feed(payload);
        self.first.feed(payload);
    }
}

/// Checks that what a client gets is the payload in well-formed chunks, and says that it is whole only if it is.
pub(crate) fn check_reframed(response: &Response) {
    if response.status == 0 {
        return;
    }
    let mut reframed = response.reframed.clone();
    let decoded = ChunkDecoder::new().decode_in_place(&mut reframed).expect("what was written is read back");
    assert_eq!(reframed[..decoded.payload], response.payload);
    // A response without a body is not framed at all.
    assert_eq!(decoded.ended, response.ended && !response.reframed.is_empty());
}
