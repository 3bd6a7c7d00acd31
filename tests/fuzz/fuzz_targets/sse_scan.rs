//! The event scanner against a reader that holds the whole body, and against itself in pieces; a comment put in at a
//! boundary changes no event.
//!
//! The first byte is the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge::testing::sse::{HEARTBEAT, Scanner};

fuzz_target!(|data: &[u8]| {
    let Some((&size, body)) = data.split_first() else { return };
    let expected = read(body);
    for size in [usize::from(size).max(1), body.len().max(1)] {
        let mut scanner = Scanner::default();
        let mut events = 0;
        for piece in body.chunks(size) {
            events += scanner.feed(piece) as usize;
        }
        assert_eq!(events, expected.len());
        assert_eq!(scanner.done(), expected.iter().any(|lines| *lines == [b"[DONE]"]));
        assert!(scanner.terminal() || !scanner.done());
    }

    let at = usize::from(size).min(body.len());
    let mut scanner = Scanner::default();
    scanner.feed(&body[..at]);
    // Before the first byte only bodies without a byte order mark can take a comment.
    if scanner.at_boundary() && !(at == 0 && body.starts_with(b"\xEF")) {
        assert_eq!(read(&[&body[..at], HEARTBEAT, &body[at..]].concat()), expected);
    }
});

/// The data lines of each event (WHATWG HTML, 9.2.6).
fn read(body: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut rest = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let (mut events, mut data) = (Vec::new(), Vec::new());
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n' || byte == b'\r') {
        let line = &rest[..end];
        let end_bytes = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + end_bytes..];
        if line.is_empty() {
            let event: Vec<Vec<u8>> = std::mem::take(&mut data);
            if !event.is_empty() {
                events.push(event);
            }
            continue;
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        if &line[..colon] == b"data" {
            let value = line.get(colon + 1..).unwrap_or_default();
            data.push(value.strip_prefix(b" ").unwrap_or(value).to_vec());
        }
    }
    events
}
