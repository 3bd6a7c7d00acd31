//! What durable streams take of memory is counted and bounded, however it is asked for.

mod support;

use support::streams::{directory, next, path, remove, request};
use support::{Edge, get};

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

/// Frames are made once for all who wait at a place. They stayed when nobody waited any more, counted by nobody: of lines of
/// nothing six times what was appended, for each stream that somebody had ever followed.
#[test]
fn what_was_made_for_readers_is_counted_and_goes_with_the_last_of_them() {
    let edge = Edge::configured_freely("");
    put(&edge, "lines", &["Content-Type: text/plain"], &[b'\n'; 1 << 20]);
    let before = edge.metric(MEMORY, &[]);
    let mut reader = edge.connect();
    reader.send(get(&path("lines"), &["Accept: text/event-stream"]));
    reader.read_head();
    reader.read_chunks(6 << 20);
    support::wait_until("the frame to be counted", || edge.metric(MEMORY, &[]) > before + f64::from(6 << 20));
    reader.close();
    edge.wait_metric(MEMORY, &[], before);
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
        assert!(grown < 120, "{kept:?}: {grown} MiB for 40 readers that do not read");
        // And whoever reads gets all of it.
        let mut read = readers.swap_remove(20);
        assert!(read.read_exact(body.len()) == body, "other bytes");
    }
    remove(&directory);
}
