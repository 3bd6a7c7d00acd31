//! What durable streams take of memory is counted and bounded, however it is asked for.

mod support;

use std::net::TcpStream;

use support::streams::{directory, next, path, remove, request};
use support::{Edge, Wire, get};

const MEMORY: &str = "sedge_durable_memory_bytes";

fn put(edge: &Edge, name: &str, fields: &[&str], body: &[u8]) {
    let (head, told) = edge.ask(&request("PUT", &path(name), fields, body));
    assert_eq!(head.status(), 201, "{name}: {}", told.text());
}

/// Where its messages end takes twice as much as an append of the shortest messages, and stays in memory when that is on disk
/// alone. It was not counted, so 200 such appends made the process three times as large as it might be; nor were the names of
/// producers, which outlive what they have appended.
#[test]
fn what_is_known_of_messages_and_producers_is_counted() {
    let directory = directory("counted");
    for kept in [String::new(), format!("data_dir = \"{directory}\"\n")] {
        let edge = Edge::configured_freely(&format!("{kept}[streams]\nkeep_records = 8\n"));
        let json = ["Content-Type: application/json"];
        put(&edge, "messages", &json, format!("[{}0]", "0,".repeat(65_535)).as_bytes());
        let before = edge.metric(MEMORY, &[]);
        assert!(before >= 390_000.0, "{before} bytes for 65,536 messages");
        put(&edge, "producers", &["Content-Type: text/plain"], b"");
        for n in 0..200 {
            let id = format!("Producer-Id: {n:0>250}");
            let fields = ["Content-Type: text/plain", &id, "Producer-Epoch: 0", "Producer-Seq: 0"];
            assert_eq!(edge.ask(&request("POST", &path("producers"), &fields, "x")).0.status(), 200);
        }
        let after = edge.metric(MEMORY, &[]);
        assert!(after - before >= 200.0 * 250.0, "{before}, and {after} with 200 producers");
        for name in ["messages", "producers"] {
            assert_eq!(edge.ask(&request("DELETE", &path(name), &[], "")).0.status(), 204);
        }
        edge.wait_metric(MEMORY, &[], 0.0);
    }
    remove(&directory);
}

/// A connection whose client has little room of its own, so that what it does not read stays with the edge.
fn with_little_room(edge: &Edge) -> Wire {
    let stream = TcpStream::connect(edge.addr()).expect("connect");
    socket2::SockRef::from(&stream).set_recv_buffer_size(16 * 1024).expect("a small buffer");
    Wire::new(stream)
}

/// Readers of a long append who do not read: each had all of it rendered for itself, several times over (74 MiB for 8 MiB in base64),
/// and nobody counted it. Lines of nothing are six times as long when they are told, control characters in a string likewise.
#[test]
fn readers_of_events_that_do_not_read_hold_little_of_a_long_append() {
    const READERS: usize = 8;
    // 64 KiB each, and what they share.
    const READER_BYTES_MAX: f64 = (READERS * 64) as f64 * 1024.0 + 1_048_576.0;
    let directory = directory("events");
    let text: Vec<u8> = (0..8_u32 << 20).map(|n| b'a' + (n % 23) as u8).collect();
    let json = format!("[\"{}\",\"{}\"]", "j".repeat(4 << 20), "k".repeat((4 << 20) - 16)).into_bytes();
    let bodies = [
        ("text", "text/plain", &text[..]),
        ("bytes", "application/octet-stream", &text),
        ("lines", "text/plain", &[b'\n'; 8 << 20]),
        ("json", "application/json", &json),
    ];
    for kept in [String::new(), format!("data_dir = \"{directory}\"\n")] {
        let edge = Edge::configured_freely(&kept);
        for (name, kind, body) in bodies {
            put(&edge, name, &[&format!("Content-Type: {kind}")], body);
        }
        for (name, ..) in bodies {
            let live = format!("{}?offset=-1&live=sse", path(name));
            for target in [path(name), live, format!("/v1/stream?name={name}")] {
                let (held, peak) = (edge.metric(MEMORY, &[]), edge.peak_bytes());
                let mut readers: Vec<_> = (0..READERS).map(|_| with_little_room(&edge)).collect();
                for reader in &mut readers {
                    reader.send(get(&target, &["Accept: text/event-stream"]));
                    assert_eq!(reader.read_head().status(), 200);
                }
                let counted = || edge.metric(MEMORY, &[]) - held;
                support::wait_until("all of them wait for their sockets", || {
                    counted() >= READERS as f64 * 16_384.0
                });
                assert!(counted() <= READER_BYTES_MAX, "{kept:?} {target}: {} bytes are held", counted());
                let grown = edge.peak_bytes().saturating_sub(peak) >> 20;
                assert!(grown <= 16, "{kept:?} {target}: {grown} MiB for {READERS} readers");
                if target == path(name) {
                    // The one that reads gets all of it.
                    let mut all = edge.connect();
                    all.send(get(&target, &["Accept: text/event-stream"]));
                    assert_eq!(all.read_head().status(), 200);
                    assert!(all.read_chunks(8 << 20).len() >= 8 << 20);
                }
                drop(readers);
                edge.wait_metric(MEMORY, &[], held);
            }
        }
    }
    remove(&directory);
}

/// A reader of one long append had all of it copied for itself, and kept it for as long as it did not read: forty connections
/// that ask and do not read took 320 MiB.
#[test]
fn readers_that_do_not_read_hold_little_of_a_long_append() {
    let directory = directory("long");
    for kept in [String::new(), format!("data_dir = \"{directory}\"\n")] {
        let edge = Edge::configured_freely(&kept);
        let body: Vec<u8> = (0..8_u32 << 20).map(|n| b'a' + (n % 23) as u8).collect();
        put(&edge, "long", &["Content-Type: text/plain"], &body);
        let before = edge.peak_bytes();
        let mut readers: Vec<_> = (0..40).map(|_| edge.connect()).collect();
        for reader in &mut readers {
            reader.send(get(&path("long"), &["Connection: close"]));
        }
        for reader in &mut readers {
            let head = reader.read_head();
            assert_eq!((head.status(), head.get("content-length")), (200, Some("8388608")), "{head:?}");
            assert!(next(&head).ends_with("8388608"));
        }
        let grown = edge.peak_bytes().saturating_sub(before) >> 20;
        assert!(grown < 24, "{kept:?}: {grown} MiB for 40 readers that do not read");
        // And whoever reads gets all of it.
        let mut read = readers.swap_remove(20);
        assert!(read.read_exact(body.len()) == body, "other bytes");
    }
    remove(&directory);
}
