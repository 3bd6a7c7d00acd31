//! A streaming encoder: pieces of bytes in, pieces of a content coding out. No socket, no clock, no task.
//!
//! It keeps three promises. What was taken in up to a [`End::Flush`] can be decoded from what was given out up to then,
//! so an event may be flushed and shows at once. Between calls an encoder owns at most [`ENCODER_BYTES_MAX`], however
//! long its stream. And one call gives out no more than a little over what was taken in since the flush before, so that a
//! caller who feeds pieces of a bounded size has a bounded answer to write.
//!
//! Windows are therefore small and levels low: a reader who catches up is one of many, and the text of events repeats
//! itself within a few KiB. Measured with 4 MiB of chat completion events in pieces of 16 KiB (`tests/encoding.rs` counts
//! again, and fails beyond the bound):
//!
//! | coding | owned at most | events, kept back | events, each piece flushed |
//! | --- | --- | --- | --- |
//! | zstd, level 3, window 64 KiB | 730 KB | 44 to 1 | 43 to 1 |
//! | br, quality 3, window 64 KiB | 875 KB | 37 to 1 | 34 to 1 |
//! | gzip, level 4, window 32 KiB | 380 KB | 50 to 1 | 46 to 1 |
//!
//! An encoder never fails on bytes; it can only run out of memory, and for that the process's allocator answers. So a
//! coder that stands still is a fault of ours, and is asserted.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct};
use flate2::{Compress, Compression, FlushCompress};
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use crate::proto::http1::coding::Coding;

/// What an encoder owns at most, in bytes: its window, its tables and what it has not given out yet.
pub const ENCODER_BYTES_MAX: usize = 1 << 20;

/// Room that is made at the end of the output for one step, in bytes.
const STEP_BYTES: usize = 16 << 10;

/// What one call may give out beyond the bytes taken in since the flush before: headers and trailers, and a few bytes
/// for each block of bytes that cannot be made smaller (the most is Brotli's and DEFLATE's, under 1 in 1,000).
pub const OVERHEAD_BYTES: usize = 1 << 10;

/// A window of 64 KiB (`zstd` has its block as large, and keeps three of them).
const ZSTD_WINDOW_LOG: u32 = 16;
const ZSTD_LEVEL: i32 = 3;
/// Of four bytes each, in both of its tables: the level's own are made for windows of 2 MiB.
const ZSTD_HASH_LOG: u32 = 15;
const BROTLI_WINDOW_LOG: u32 = 16;
/// 4 owns twice as much, and 5 with a window as small as this one 34 MB.
const BROTLI_QUALITY: u32 = 3;
const GZIP_LEVEL: u32 = 4;
/// The largest there is: 32 KiB.
const GZIP_WINDOW_LOG: u8 = 15;

/// What follows a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Another piece, soon: bytes may be kept back for it.
    More,
    /// Maybe nothing for long: all bytes so far must be readable by the other side.
    Flush,
    /// Nothing.
    Finish,
}

/// Encodes one answer's body. Large (see [`ENCODER_BYTES_MAX`]): to be had only while a body is being written.
pub struct Encoder {
    coder: Coder,
    finished: bool,
}

enum Coder {
    Zstd(CCtx<'static>),
    Brotli(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    Gzip(Compress),
}

/// What one step did.
struct Step {
    consumed: usize,
    produced: usize,
    /// Nothing is left to be given out of what was asked for.
    done: bool,
}

impl Encoder {
    /// A new encoder; `None` for [`Coding::Identity`], which needs none.
    pub fn new(coding: Coding) -> Option<Self> {
        let coder = match coding {
            Coding::Identity => return None,
            Coding::Zstd => Coder::Zstd(zstd()),
            Coding::Brotli => Coder::Brotli(brotli()),
            Coding::Gzip => Coder::Gzip(Compress::new_gzip(Compression::new(GZIP_LEVEL), GZIP_WINDOW_LOG)),
        };
        Some(Self { coder, finished: false })
    }

    /// Takes in `piece` (which may be empty) and appends to `out` what can be given out.
    ///
    /// # Panics
    ///
    /// When anything follows [`End::Finish`].
    pub fn encode(&mut self, mut piece: &[u8], end: End, out: &mut Vec<u8>) {
        assert!(!self.finished, "a finished encoder was used");
        self.finished = end == End::Finish;
        if piece.is_empty() && end == End::More {
            return;
        }
        loop {
            let start = out.len();
            out.resize(start + STEP_BYTES, 0);
            let step = self.coder.step(piece, end, &mut out[start..]);
            out.truncate(start + step.produced);
            piece = &piece[step.consumed..];
            if step.done && piece.is_empty() {
                return;
            }
            assert!(step.consumed + step.produced > 0, "an encoder stands still");
        }
    }
}

impl Coder {
    fn step(&mut self, piece: &[u8], end: End, out: &mut [u8]) -> Step {
        match self {
            Self::Zstd(context) => {
                let directive = match end {
                    End::More => ZSTD_EndDirective::ZSTD_e_continue,
                    End::Flush => ZSTD_EndDirective::ZSTD_e_flush,
                    End::Finish => ZSTD_EndDirective::ZSTD_e_end,
                };
                let (mut input, mut output) = (InBuffer::around(piece), OutBuffer::around(out));
                let left = context.compress_stream2(&mut output, &mut input, directive).expect(MEMORY);
                // While more is to come, it is enough that all was taken in: what is kept back comes with the next.
                Step { consumed: input.pos(), produced: output.pos(), done: end == End::More || left == 0 }
            }
            Self::Brotli(state) => {
                let operation = match end {
                    End::More => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
                    End::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
                    End::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
                };
                let (mut available, mut consumed, mut room, mut produced) = (piece.len(), 0, out.len(), 0);
                let works = state.compress_stream(
                    operation,
                    &mut available,
                    piece,
                    &mut consumed,
                    &mut room,
                    out,
                    &mut produced,
                    &mut None,
                    &mut |_, _, _, _| (),
                );
                assert!(works, "{MEMORY}");
                let done = if end == End::Finish { state.is_finished() } else { !state.has_more_output() };
                Step { consumed, produced, done }
            }
            Self::Gzip(deflate) => {
                let flush = match end {
                    End::More => FlushCompress::None,
                    End::Flush => FlushCompress::Sync,
                    End::Finish => FlushCompress::Finish,
                };
                let (consumed, produced) = (deflate.total_in(), deflate.total_out());
                let status = deflate.compress(piece, out, flush).expect(MEMORY);
                let consumed = count(deflate.total_in() - consumed);
                let produced = count(deflate.total_out() - produced);
                // zlib's rule: a flush is over when room was left.
                let done = if end == End::Finish {
                    status == flate2::Status::StreamEnd
                } else {
                    produced < out.len()
                };
                Step { consumed, produced, done }
            }
        }
    }
}

/// Why an encoder may refuse valid input at all.
const MEMORY: &str = "memory for an encoder";

/// Of one step, so no more than its slices hold.
fn count(bytes: u64) -> usize {
    usize::try_from(bytes).expect("no more than a slice holds")
}

fn zstd() -> CCtx<'static> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(ZSTD_LEVEL),
        CParameter::WindowLog(ZSTD_WINDOW_LOG),
        CParameter::HashLog(ZSTD_HASH_LOG),
        CParameter::ChainLog(ZSTD_HASH_LOG),
    ] {
        context.set_parameter(parameter).expect("within zstd's bounds");
    }
    context
}

fn brotli() -> Box<BrotliEncoderStateStruct<StandardAlloc>> {
    let mut state = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
    state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, BROTLI_QUALITY);
    state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, BROTLI_WINDOW_LOG);
    state
}
