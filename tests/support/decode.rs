//! Decoders of the content codings, none of them made by the authors of the encoders but where there is only theirs.

#![allow(unreachable_pub, reason = "each test crate has a part of it")]

use std::io::Read;

use brotlic::decode::{BrotliDecoder, DecoderInfo};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush};
use ruzstd::decoding::StreamingDecoder;
use sedge::testing::http1::coding::Coding;

/// Decodes what came so far, whatever is still to come.
pub enum Reader {
    Zstd(zstd_safe::DCtx<'static>),
    Brotli(BrotliDecoder),
    Gzip { state: Box<InflateState>, head: usize },
}

impl Reader {
    pub fn of(coding: Coding) -> Self {
        match coding {
            Coding::Zstd => Self::Zstd(zstd_safe::DCtx::create()),
            Coding::Brotli => Self::Brotli(BrotliDecoder::new()),
            Coding::Gzip => Self::Gzip { state: InflateState::new_boxed(DataFormat::Raw), head: 0 },
            Coding::Identity => unreachable!("not among those tested"),
        }
    }

    pub fn feed(&mut self, mut bytes: &[u8], read: &mut Vec<u8>) {
        if let Self::Gzip { head, .. } = self {
            // The fixed head of RFC 1952 without optional fields.
            let rest = (10 - *head).min(bytes.len());
            *head += rest;
            bytes = &bytes[rest..];
        }
        let mut room = vec![0; 64 << 10];
        loop {
            let (consumed, produced) = match self {
                Self::Zstd(context) => {
                    let mut input = zstd_safe::InBuffer::around(bytes);
                    let mut output = zstd_safe::OutBuffer::around(&mut room[..]);
                    context.decompress_stream(&mut output, &mut input).expect("a frame");
                    (input.pos(), output.pos())
                }
                Self::Brotli(decoder) => {
                    let step = decoder.decompress(bytes, &mut room).expect("a stream");
                    (step.bytes_read, step.bytes_written)
                }
                Self::Gzip { state, .. } => {
                    let step = inflate(state, bytes, &mut room, MZFlush::None);
                    (step.bytes_consumed, step.bytes_written)
                }
            };
            read.extend_from_slice(&room[..produced]);
            bytes = &bytes[consumed..];
            if consumed + produced == 0 {
                return;
            }
        }
    }
}

/// Decodes a finished body, its end and its checksum included.
pub fn whole(coding: Coding, mut body: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    match coding {
        Coding::Zstd => {
            StreamingDecoder::new(&mut body).expect("a frame").read_to_end(&mut read).expect("a whole frame");
        }
        Coding::Brotli => {
            let mut decoder = BrotliDecoder::new();
            let mut room = vec![0; 1 << 20];
            loop {
                let step = decoder.decompress(body, &mut room).expect("a stream");
                body = &body[step.bytes_read..];
                read.extend_from_slice(&room[..step.bytes_written]);
                match step.info {
                    DecoderInfo::Finished => break,
                    DecoderInfo::NeedsMoreInput => panic!("the stream has no end"),
                    DecoderInfo::NeedsMoreOutput => {}
                }
            }
        }
        Coding::Gzip => {
            flate2::bufread::GzDecoder::new(&mut body).read_to_end(&mut read).expect("a whole member");
        }
        Coding::Identity => unreachable!("not among those tested"),
    }
    assert!(body.is_empty(), "{} bytes behind the end", body.len());
    read
}
