//! The chunk decoder against a second reader, whole and in pieces; whole chunks are what decoding them gives.
//!
//! The first byte is the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge::testing::http1::chunked::{ChunkDecoder, ChunkError, payloads};

#[path = "../../http1/naive_chunks.rs"]
mod naive;

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let ours = decode(bytes, usize::MAX);
    assert_eq!(decode(bytes, usize::from(size).max(1)), ours);

    match (&ours, naive::read(bytes)) {
        (Ok((payload, consumed, true)), naive::Reading::Ended(theirs, end)) => {
            assert_eq!((payload, *consumed), (&theirs, end));
        }
        (Ok((_, _, false)), naive::Reading::Incomplete) => {}
        // The second reader judges whole lines only, so it may wait where the decoder already knows.
        (Err(_), naive::Reading::Malformed | naive::Reading::Incomplete) => {}
        // It knows no bounds either.
        (Err(ChunkError::ExtensionTooLarge | ChunkError::TrailerTooLarge), _) => {}
        (ours, theirs) => panic!("{ours:?} but {theirs:?}"),
    }

    let mut relay = ChunkDecoder::new();
    if let Some(whole) = relay.whole(bytes) {
        let payload = payloads(bytes).collect::<Vec<_>>().concat();
        assert_eq!(ours, Ok((payload, bytes.len(), whole.ended)));
    }
});

fn decode(bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize, bool), ChunkError> {
    let mut decoder = ChunkDecoder::new();
    let (mut payload, mut at) = (Vec::new(), 0);
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        let decoded = decoder.decode_in_place(&mut piece)?;
        payload.extend_from_slice(&piece[..decoded.payload]);
        at += decoded.consumed;
        if decoded.ended {
            break;
        }
    }
    Ok((payload, at, decoder.finished()))
}
