//! Whatever an upstream sends, in whatever pieces, is read the same or refused the same, and never panics: responses that are
//! nearly right, cut and damaged anywhere, through the state machines of the client of upstreams.
//!
//! The story: 16 KiB of interim responses (1xx), followed by a pause and one byte more, made the search for a head index beyond
//! its buffer. Whoever runs an upstream, or receives webhooks, could end requests with it.

use proptest::collection::vec;
use proptest::prelude::*;

#[path = "http1/upstream_client.rs"]
mod upstream_client;

use upstream_client::{Response, check_reframed, read};

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";

/// A response, more or less: interim heads, a head, a body in some framing.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let interim = (0_usize..120, 0_usize..900).prop_map(|(count, pad)| {
        let head = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "a".repeat(pad));
        head.repeat(count)
    });
    let head = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 429 \r\nRetry-After: 18446744073709551615\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]);
    let payload = prop::sample::select(vec![
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: [DONE]\n\n",
        "data: {\"usage\":{\"prompt_tokens\":18446744073709551615,\"completion_tokens\":1}}\r\n\r\n",
        ": ping\n\n",
        "x",
    ]);
    let chunk = (payload, 1_usize..400, prop::sample::select(vec!["", ";a=b", ";\"", " "])).prop_map(
        |(payload, times, extension)| {
            let payload = payload.repeat(times);
            format!("{:x}{extension}\r\n{payload}\r\n", payload.len())
        },
    );
    let end = prop::sample::select(vec!["0\r\n\r\n", "0\r\nX-Trailer: 1\r\n\r\n", "0\r\nbroken\r\n\r\n", ""]);
    (interim, head, vec(chunk, 0..12), end, "[ -~]{0,20}").prop_map(|(interim, head, chunks, end, more)| {
        [interim.as_str(), head, &chunks.concat(), end, &more].concat().into_bytes()
    })
}

fn in_pieces(wire: &[u8], sizes: &[usize], to_head: bool) -> Response {
    let mut rest = wire;
    let mut sizes = sizes.iter().cycle();
    let pieces = std::iter::from_fn(|| {
        let (now, later) = rest.split_at((*sizes.next()?).min(rest.len()));
        rest = later;
        (!now.is_empty()).then_some(now)
    });
    let response = read(pieces, to_head);
    check_reframed(&response);
    response
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn how_a_response_is_cut_does_not_show(
        wire in wire(),
        sizes in vec(prop_oneof![1_usize..20, 1_usize..40_000], 1..8),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        to_head: bool,
    ) {
        let mut wire = wire;
        for (place, byte) in damage {
            let place = place.index(wire.len());
            wire[place] = byte;
        }
        let whole = in_pieces(&wire, &[usize::MAX], to_head);
        prop_assert_eq!(in_pieces(&wire, &sizes, to_head).verdict(), whole.verdict());
    }
}

#[test]
fn interim_responses_are_read_in_any_pieces_and_refused_beyond_their_bounds() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    for (hints, error) in [(90, false), (101, true), (10_000, true)] {
        let wire = HINT.repeat(hints) + answer;
        for size in [1, HINT.len(), 1000, 16_384, 20_000, usize::MAX] {
            let response = in_pieces(wire.as_bytes(), &[size], false);
            assert_eq!(
                (response.error.is_some(), response.ended),
                (error, !error),
                "{hints} in pieces of {size}"
            );
        }
    }
    // Few and long: each is a whole head, and all of them more than a buffer.
    let long = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "a".repeat(16_000));
    for (hints, error) in [(4, false), (5, true)] {
        let response = in_pieces((long.repeat(hints) + answer).as_bytes(), &[long.len()], false);
        assert_eq!(response.error.is_some(), error, "{hints} long ones");
    }
}
