//! Compressed answers: what was flushed can be read at once, by decoders that others wrote; an encoder's memory has an end.

#[path = "support/decode.rs"]
mod decode;

use std::alloc::System;
use std::sync::{Mutex, PoisonError};

use cap::Cap;
use decode::{Reader, whole};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sedge::testing::http1::coding::Coding;
use sedge::testing::streams::encode::{ENCODER_BYTES_MAX, Encoder, End, OVERHEAD_BYTES};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One test counts every byte that this process allocates, so no other may run beside it.
static ALONE: Mutex<()> = Mutex::new(());

const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

#[test]
fn an_encoder_stays_within_its_bound_however_long_its_stream() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (of, body) in [("events", events(4 << 20)), ("noise", noise(4 << 20)), ("zeros", vec![0; 4 << 20])] {
        for coding in CODINGS {
            for end in [End::More, End::Flush] {
                let mut out = Vec::with_capacity(body.len() + (1 << 20));
                let before = ALLOCATOR.allocated();
                let mut most = 0;
                let mut encoder = Encoder::new(coding).expect("a coding");
                for piece in body.chunks(16 << 10) {
                    encoder.encode(piece, end, &mut out);
                    most = most.max(ALLOCATOR.allocated() - before);
                }
                encoder.encode(b"", End::Finish, &mut out);
                if of == "events" {
                    assert!(
                        out.len() * 30 < body.len(),
                        "{coding:?} made {} bytes of events, {end:?}",
                        out.len()
                    );
                }
                assert!(most <= ENCODER_BYTES_MAX, "{coding:?} owned {most} bytes for {of}, {end:?}");
                drop(encoder);
                assert!(ALLOCATOR.allocated() <= before, "{coding:?} left memory behind");
            }
        }
    }
}

#[test]
fn nothing_at_all_is_a_body_too() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(Encoder::new(Coding::Identity).is_none(), "identity needs no encoder");
    for coding in CODINGS {
        for ends in [&[End::Finish][..], &[End::Flush, End::Flush, End::Finish], &[End::More, End::Finish]] {
            let mut encoder = Encoder::new(coding).expect("a coding");
            let mut out = Vec::new();
            for &end in ends {
                encoder.encode(b"", end, &mut out);
            }
            assert_eq!(whole(coding, &out), b"", "{coding:?} {ends:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_was_flushed_is_readable_at_once(
        coding in select(&CODINGS[..]),
        pieces in vec((select(&[0_usize, 1, 2][..]), 0..40_000_usize, any::<u16>(), any::<bool>()), 0..12),
    ) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = [events(120_000), noise(120_000), vec![b'-'; 120_000]];
        let mut encoder = Encoder::new(coding).expect("a coding");
        let mut reader = Reader::of(coding);
        let (mut body, mut out, mut read, mut kept_back) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (source, len, from, flush) in pieces {
            let piece = &sources[source][usize::from(from)..][..len];
            body.extend_from_slice(piece);
            kept_back += len;
            let before = out.len();
            encoder.encode(piece, if flush { End::Flush } else { End::More }, &mut out);
            prop_assert!(out.len() - before <= kept_back + OVERHEAD_BYTES, "{} for {kept_back}", out.len() - before);
            reader.feed(&out[before..], &mut read);
            prop_assert!(body.starts_with(&read), "other bytes");
            if flush {
                prop_assert_eq!(read.len(), body.len(), "flushed, yet not all can be read");
                kept_back = 0;
            }
        }
        let before = out.len();
        encoder.encode(b"", End::Finish, &mut out);
        prop_assert!(out.len() - before <= kept_back + OVERHEAD_BYTES, "{} for {kept_back}", out.len() - before);
        reader.feed(&out[before..], &mut read);
        prop_assert!(read == body, "other bytes");
        prop_assert!(whole(coding, &out) == body, "other bytes, read as a whole");
    }
}

/// What a catch-up read of a recorded completion looks like.
fn events(len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["reed", " stream", " water", " grows", " along", " root", " slowly", " bank"];
    let mut out = Vec::new();
    for (n, byte) in noise(len / 200 + 1).into_iter().enumerate() {
        let word = WORDS[usize::from(byte) % WORDS.len()];
        let event = format!(
            "id: 0123456789abcdef-{n:020}\ndata: {{\"id\":\"chatcmpl-7QyqpwdfhqwajicIEznoc6Q47XAyW\",\
             \"object\":\"chat.completion.chunk\",\"created\":1677664795,\"model\":\"model\",\"choices\":[{{\"delta\":\
             {{\"content\":\"{word}\"}},\"index\":0,\"finish_reason\":null}}]}}\n\n"
        );
        out.extend_from_slice(event.as_bytes());
    }
    out.truncate(len);
    out
}

/// Bytes that nothing makes smaller, the same each time (SplitMix64).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    words.flatten().take(len).collect()
}
