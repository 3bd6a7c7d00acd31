//! Properties of the protocol core over generated messages: what is written is read back, a second reader agrees, and
//! no cut between segments shows.

use proptest::collection::vec;
use proptest::prelude::*;
use sedge::testing::http1::chunked::{
    ChunkDecoder, ChunkError, LAST_CHUNK, SIZE_LINE_BYTES, payloads, size_line,
};
use sedge::testing::http1::fields::write_field;
use sedge::testing::http1::request::{self, HeadScanner, RequestBody};
use sedge::testing::http1::response::{self, ResponseBody, find_head_end};

proptest! {
    #[test]
    fn what_is_chunked_is_read_back(pieces in pieces(), cuts in vec(1_usize..40, 0..30)) {
        let body = write_chunks(&pieces);
        prop_assert_eq!(decode_cut(&body, &cuts), Ok((pieces.concat(), body.len(), true)));
    }

    #[test]
    fn whole_chunks_hold_what_decoding_gives(pieces in pieces(), end: bool, cut in 0_usize..4000) {
        let mut body = write_chunks(&pieces);
        if !end {
            body.truncate(body.len() - LAST_CHUNK.len());
        }
        let cut = cut.min(body.len());
        for part in [&body[..], &body[..cut]] {
            let mut relay = ChunkDecoder::new();
            let whole = relay.whole(part);
            let (payload, consumed, ended) = decode_cut(part, &[]).expect("well-formed");
            if let Some(whole) = whole {
                prop_assert_eq!(whole.ended, ended);
                prop_assert_eq!(relay.finished(), ended);
                prop_assert_eq!(consumed, part.len());
                prop_assert_eq!(payloads(part).collect::<Vec<_>>().concat(), payload);
            } else {
                prop_assert!(part.is_empty() || part.len() < body.len(), "refused whole chunks");
            }
        }
    }

    #[test]
    fn two_readers_agree_on_damaged_chunks(
        pieces in pieces(),
        damage in vec((any::<prop::sample::Index>(), framing_byte()), 0..4),
        cuts in vec(1_usize..40, 0..30),
    ) {
        let mut body = write_chunks(&pieces);
        for (place, byte) in damage {
            let place = place.index(body.len());
            body[place] = byte;
        }
        agree(&body, &cuts)?;
    }

    #[test]
    fn two_readers_agree_on_chunk_like_bytes(body in vec(framing_byte(), 0..60), cuts in vec(1_usize..9, 0..30)) {
        agree(&body, &cuts)?;
    }

    #[test]
    fn a_written_request_is_read_back(
        method in "[A-Z]{1,12}",
        target in "/[!-\"$-~]{0,80}",
        fields in vec(("x-[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", value()), 0..60),
        length in prop::option::of(0_u64..1 << 63),
        cut in any::<prop::sample::Index>(),
    ) {
        prop_assume!(method != "CONNECT" && method != "TRACE");
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n").into_bytes();
        for (name, value) in &fields {
            write_field(&mut bytes, name, value);
        }
        if let Some(length) = length {
            write_field(&mut bytes, "Content-Length", length.to_string().as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");

        let mut scanner = HeadScanner::default();
        prop_assert_eq!(scanner.scan(&bytes[..cut.index(bytes.len())]), Ok(None));
        prop_assert_eq!(scanner.scan(&bytes), Ok(Some(bytes.len())));
        let head = request::parse(&bytes).map_err(|reject| TestCaseError::fail(reject.to_string()))?;
        prop_assert_eq!((head.method, &*head.target), (&method[..], &target[..]));
        prop_assert_eq!(head.body, length.map_or(RequestBody::None, RequestBody::Length));
        let got: Vec<_> = head.forwarded().map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
        prop_assert_eq!(got, fields);
    }

    #[test]
    fn a_written_response_is_read_back(
        status in 200_u16..600,
        reason in "[ -~]{0,20}",
        fields in vec(("x-[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", value()), 0..60),
        chunked: bool,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
        for (name, value) in &fields {
            write_field(&mut bytes, name, value);
        }
        if chunked {
            write_field(&mut bytes, "Transfer-Encoding", b"chunked");
        }
        bytes.extend_from_slice(b"\r\n");

        let cut = cut.index(bytes.len());
        prop_assert_eq!(find_head_end(&bytes[..cut], 0), Ok(None));
        prop_assert_eq!(find_head_end(&bytes, cut), Ok(Some(bytes.len())));
        let head = response::parse(&bytes, false).map_err(|reject| TestCaseError::fail(reject.to_string()))?;
        let bodiless = status == 204 || status == 304;
        let body = if chunked { ResponseBody::Chunked } else { ResponseBody::Close };
        prop_assert_eq!(head.body, if bodiless { ResponseBody::None } else { body });
        prop_assert_eq!((head.status, head.reason), (status, &reason[..]));
        let got: Vec<_> = head.forwarded().map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
        prop_assert_eq!(got, fields);
    }

    #[test]
    fn any_bytes_are_judged_alike_in_any_pieces(bytes in vec(head_byte(), 0..120)) {
        let text = [b"GET / HTTP/1.1\r\nHost: a\r\n", &bytes[..]].concat();
        for text in [&text[..], &bytes[..]] {
            let mut scanner = HeadScanner::default();
            let bytewise = (1..=text.len()).find_map(|end| scanner.scan(&text[..end]).transpose());
            let at_once = HeadScanner::default().scan(text).transpose();
            let accepted = |found: Option<Result<usize, _>>| match found {
                Some(Ok(end)) => Some(request::parse(&text[..end]).is_ok().then_some(end)),
                Some(Err(_)) => Some(None),
                None => None,
            };
            prop_assert_eq!(accepted(bytewise), accepted(at_once));
        }
    }
}

fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 1..300), 0..12)
}

/// Bytes of which chunk framing is made, and some that must not be there.
fn framing_byte() -> impl Strategy<Value = u8> {
    prop::sample::select(&b"\r\n\r\n\r\n000123aF;;=\"\\ \tx:\0\x7f\x80"[..])
}

fn head_byte() -> impl Strategy<Value = u8> {
    prop::sample::select(&b"\r\n\r\n\r\n\r\n:: aB-_\t\0\x80"[..])
}

/// A value without whitespace at its ends, which would be trimmed.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![32_u8..127, 128_u8..=255, Just(b'\t')];
    vec(byte, 0..60).prop_map(|bytes| bytes.trim_ascii().to_vec())
}

fn write_chunks(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut room = [0; SIZE_LINE_BYTES];
    for piece in pieces {
        let start = size_line(piece.len(), &mut room);
        out.extend_from_slice(&room[start..]);
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(LAST_CHUNK);
    out
}

/// Payload, bytes consumed and whether the body ended, read in pieces of the sizes `cuts`, then the rest.
fn decode_cut(body: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize, bool), ChunkError> {
    let mut decoder = ChunkDecoder::new();
    let (mut payload, mut at) = (Vec::new(), 0_usize);
    for size in cuts.iter().copied().chain([usize::MAX]) {
        let mut piece = body[at..body.len().min(at.saturating_add(size))].to_vec();
        let decoded = decoder.decode_in_place(&mut piece)?;
        payload.extend_from_slice(&piece[..decoded.payload]);
        at += decoded.consumed;
        if decoded.ended {
            return Ok((payload, at, true));
        }
        assert_eq!(decoded.consumed, piece.len(), "stopped within a body");
    }
    Ok((payload, at, false))
}

fn agree(body: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    let ours = decode_cut(body, cuts);
    prop_assert_eq!(&ours, &decode_cut(body, &[]), "a cut shows");
    match (ours, naive::read(body)) {
        (Ok((payload, consumed, true)), naive::Reading::Ended(theirs, end)) => {
            prop_assert_eq!((payload, consumed), (theirs, end));
        }
        (Ok((_, _, false)), naive::Reading::Incomplete) | (Err(_), naive::Reading::Malformed) => {}
        // The second reader judges whole lines only, so it may wait where the decoder already knows.
        (Err(_), naive::Reading::Incomplete) => {}
        (ours, theirs) => prop_assert!(false, "{:?} but {:?}", ours, theirs),
    }
    Ok(())
}

#[path = "http1/naive_chunks.rs"]
mod naive;
