//! A full disk ends appends for as long as it is full. Somebody makes room, and the same process goes on: a stream holds what was
//! acknowledged, once, and what was taken when the room ended, once.
//!
//! Before, the first write without room ended all appends until somebody restarted the process, hours after there was room again.

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::edge::scratch;
use support::streams::{Events, TEXT, append, create, path, read_all, request};
use support::{Edge, error_code, get};

/// A small file system of its own, and a file that fills it.
struct Disk(PathBuf);

impl Disk {
    /// `None` where a test may not mount one.
    fn mount(bytes: usize) -> Option<Self> {
        let at = scratch("disk");
        std::fs::create_dir_all(&at).expect("make the directory");
        let options = format!("size={bytes},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "sedge-test"]).arg(&at);
        if !mount.output().is_ok_and(|output| output.status.success()) {
            let _ = std::fs::remove_dir(&at);
            eprintln!("no file system may be mounted here: skipped");
            return None;
        }
        Some(Self(at))
    }

    fn data(&self) -> String {
        self.0.join("data").to_str().expect("UTF-8").to_owned()
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Until nothing fits in.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.filler()).expect("make the file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("remove the file");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn block(number: usize) -> String {
    format!("{number}:{};", "x".repeat(30_000))
}

/// As one of a producer's, so that it can be repeated.
fn post(edge: &Edge, number: usize) -> (u16, String) {
    let seq = format!("Producer-Seq: {number}");
    let fields = ["Content-Type: text/plain", "Producer-Id: p", "Producer-Epoch: 0", &seq];
    let (head, body) = edge.ask(&request("POST", &path("a"), &fields, block(number)));
    let status = head.status();
    (status, if status >= 400 { error_code(&body.bytes()) } else { String::new() })
}

fn refuses(edge: &Edge, request: &[u8]) {
    let (head, body) = edge.ask(request);
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (503, "storage_full"), "{}", body.text());
    assert!(
        body.text().contains("the disk is full; appends are refused until there is room"),
        "{}",
        body.text()
    );
}

fn readiness(edge: &Edge) -> (u16, String) {
    let (head, body) = edge.ask(&get("/readyz", &[]));
    (head.status(), body.text())
}

#[test]
fn appends_go_on_without_a_restart_once_there_is_room() {
    let Some(disk) = Disk::mount(4 << 20) else { return };
    let edge = Edge::start(&["--data-dir", &disk.data()]);
    create(&edge, "a", TEXT);
    create(&edge, "b", TEXT);
    let mut events = Events::source(&edge, &path("a"), None);
    let (mut next, mut seen) = (0, 0);
    for round in 0..3 {
        for _ in 0..5 {
            assert!(matches!(post(&edge, next), (200 | 204, _)), "{next}");
            next += 1;
        }
        disk.fill();
        let first = (next..).find(|&number| post(&edge, number).0 >= 400).expect("it is full");
        // Taken before it was known, and acknowledged to nobody; its repetition is not either.
        assert_eq!(post(&edge, first), (503, "storage_full".into()));
        refuses(&edge, &request("POST", &path("b"), &["Content-Type: text/plain"], "refused"));
        refuses(&edge, &request("PUT", &path("c"), &["Content-Type: text/plain"], ""));
        refuses(&edge, &request("POST", &path("b"), &["Stream-Closed: true"], ""));
        refuses(&edge, &request("DELETE", &path("b"), &[], ""));
        let (status, text) = readiness(&edge);
        assert!(status == 503 && text.contains("is full: appends are refused until there is room"), "{text}");
        assert_eq!(edge.metric("sedge_journal_full", &[]), 1.0);
        edge.stderr().wait_for_nth("nothing more is stored until there is room", round);
        // Readers have what was acknowledged.
        let acknowledged: String = (0..first).map(block).collect();
        assert!(read_all(&edge, "a", "-1").0 == acknowledged.as_bytes());

        disk.make_room();
        support::wait_until("room", || readiness(&edge).0 == 200);
        edge.stderr().wait_for_nth("there is room on the disk again", round);
        assert_eq!(edge.metric("sedge_journal_full", &[]) + edge.metric("sedge_journal_failed", &[]), 0.0);
        // It is there by now: who repeats it learns so, and readers who wait get it though nothing else is appended.
        for number in seen..=first {
            assert!(events.data().data == block(number), "{number}");
        }
        seen = first + 1;
        assert_eq!(post(&edge, first).0, 204, "there already");
        next = first + 1;
    }
    append(&edge, "b", "accepted");
    let all: String = (0..next).map(block).collect();
    assert!(read_all(&edge, "a", "-1").0 == all.as_bytes());
    drop(edge);

    let edge = Edge::start(&["--data-dir", &disk.data()]);
    assert!(read_all(&edge, "a", "-1").0 == all.as_bytes(), "each of them once");
    assert_eq!(read_all(&edge, "b", "-1").0, b"accepted");
    assert!(matches!(post(&edge, next), (200, _)));
}
