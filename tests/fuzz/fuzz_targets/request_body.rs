//! A connection's bytes, pipelined requests with bodies, give the same messages however they are cut.
//!
//! The first byte is the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge::testing::http1::body::BodyDecoder;
use sedge::testing::http1::request::{self, HeadScanner};

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let whole = read([bytes]);
    assert_eq!(read(bytes.chunks(usize::from(size).max(1))), whole);
});

#[derive(Debug, Default, PartialEq)]
struct Connection {
    bodies: Vec<Vec<u8>>,
    refused: bool,
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Connection {
    let mut connection = Connection::default();
    let mut received = Vec::new();
    let mut scanner = HeadScanner::default();
    let mut reading: Option<(Vec<u8>, BodyDecoder)> = None;
    for piece in pieces {
        received.extend_from_slice(piece);
        loop {
            if let Some((body, decoder)) = &mut reading {
                let Ok(decoded) = decoder.decode_in_place(&mut received) else {
                    connection.refused = true;
                    return connection;
                };
                assert!(decoded.payload <= decoded.consumed && decoded.consumed <= received.len());
                body.extend_from_slice(&received[..decoded.payload]);
                received.drain(..decoded.consumed);
                if !decoded.ended {
                    assert!(received.is_empty());
                    break;
                }
                connection.bodies.extend(reading.take().map(|(body, _)| body));
            } else {
                match scanner.scan(&received).map(|end| end.map(|end| (end, request::parse(&received[..end])))) {
                    Ok(None) => break,
                    Ok(Some((end, Ok(head)))) => {
                        reading = Some((Vec::new(), head.body.into()));
                        scanner = HeadScanner::default();
                        received.drain(..end);
                    }
                    _ => {
                        connection.refused = true;
                        return connection;
                    }
                }
            }
        }
    }
    connection
}
