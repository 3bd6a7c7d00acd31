//! A whole response in any pieces: interim heads, head, body, trailers, and what it is to a client. No bytes may make it
//! panic, and how they were cut may not show.
//!
//! The first bytes choose the cuts: how many sizes there are, the sizes (16 bits each), and whether it answers a HEAD.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../http1/upstream_client.rs"]
mod upstream_client;

use upstream_client::{check_reframed, read};

/// A block's worth of copies of what a fuzzer found: interim heads beyond 16 KiB are out of its own reach.
const REPEAT_BYTES_MAX: usize = 200_000;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let count = usize::from(choice & 7) + 1;
    let Some((sizes, rest)) = rest.split_at_checked(2 * count) else { return };
    let sizes: Vec<usize> =
        sizes.chunks(2).map(|pair| usize::from(u16::from_le_bytes([pair[0], pair[1]])).max(1)).collect();
    let Some((&times, bytes)) = rest.split_first() else { return };
    let to_head = choice & 8 == 8;
    // The part before the first empty line, many times over, and then all of it.
    let first = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    let times = usize::from(times) * 8;
    let mut wire = Vec::new();
    while first > 0 && wire.len() < (first * times).min(REPEAT_BYTES_MAX) {
        wire.extend_from_slice(&bytes[..first]);
    }
    wire.extend_from_slice(bytes);

    let whole = read(std::iter::once(&wire[..]), to_head);
    check_reframed(&whole);
    let mut rest = &wire[..];
    let mut sizes = sizes.iter().cycle();
    let pieces = std::iter::from_fn(|| {
        let size = (*sizes.next()?).min(rest.len());
        let (now, later) = rest.split_at(size);
        rest = later;
        (!now.is_empty()).then_some(now)
    });
    let cut = read(pieces, to_head);
    check_reframed(&cut);
    assert_eq!(cut.verdict(), whole.verdict());
});
