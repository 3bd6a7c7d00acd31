//! A data directory that has lost a segment of the journal is refused at the start: the file is named, and nothing is served.
//!
//! A gap between segments was refused, but a first or a last segment that was lost (removed by hand, left out of a restored backup,
//! eaten by a broken disk) was taken for a shorter journal: streams were gone, or had lost acknowledged appends, and nobody was told.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::Edge;
use support::edge::{binary, command, scratch};
use support::streams::{TEXT, create, directory, next, path, remove, request};

/// Streams with one append each. A segment has 64 MiB, an append at most half of that: each begins another segment.
const STREAMS: [&str; 4] = ["first", "second", "third", "fourth"];

/// The longest append less the few bytes that would have two of them fit into one segment.
const APPEND_BYTES: usize = 32 << 20;

const SETTINGS: &str = "[streams]\nmax_append = \"32MiB\"\n";

#[track_caller]
fn start(directory: &str) -> Edge {
    Edge::configured_with(SETTINGS, &["--data-dir", directory])
}

#[track_caller]
fn stop(mut edge: Edge) {
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().success());
}

/// Each stream is there and has its append.
#[track_caller]
fn assert_whole(edge: &Edge, ends: &[String]) {
    for (name, end) in STREAMS.iter().zip(ends) {
        let (head, _) = edge.ask(&request("HEAD", &path(name), &["Connection: close"], ""));
        assert_eq!((head.status(), &next(&head)), (200, end), "{name}: {head:?}");
    }
}

/// The segments, in order.
fn segments(directory: &str) -> Vec<PathBuf> {
    let names =
        std::fs::read_dir(directory).expect("the directory").map(|entry| entry.expect("a file").path());
    let mut segments: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).collect();
    segments.sort();
    segments
}

/// A start, which ends by itself: the code, and all that was said. An edge that serves after all is killed after a while.
fn refusal(directory: &str) -> (Option<i32>, String) {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "20"]).arg(binary());
    let output = command
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--open", "--data-dir", directory])
        .stdin(Stdio::null())
        .output()
        .expect("run sedge");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The same from `sedge check`.
fn checked(directory: &str) -> (Option<i32>, String) {
    let config = scratch("check.toml");
    std::fs::write(&config, format!("data_dir = \"{directory}\"\n")).expect("write");
    let output = command().args(["check", "--config"]).arg(&config).output().expect("run sedge");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), said.concat())
}

#[track_caller]
fn assert_refused(directory: &str, missing: &Path) {
    for (code, said) in [refusal(directory), checked(directory)] {
        assert_eq!(code, Some(1), "without {}: {said}", missing.display());
        let named = format!("{}: this segment of the journal is missing", missing.display());
        assert!(said.contains(&named), "without {}: {said}", missing.display());
        assert!(said.contains("restore the file from a backup, or move the directory away"), "{said}");
    }
}

#[test]
fn a_start_names_the_segment_that_is_missing() {
    let directory = directory("segments");
    let edge = start(&directory);
    let body = vec![b'x'; APPEND_BYTES];
    let ends: Vec<String> = STREAMS
        .iter()
        .map(|name| {
            create(&edge, name, TEXT);
            let (head, said) = edge.ask(&request("POST", &path(name), &["Content-Type: text/plain"], &body));
            assert!(matches!(head.status(), 200 | 204), "{head:?} {}", said.text());
            next(&head)
        })
        .collect();
    assert_eq!(checked(&directory).0, Some(0), "of a directory in use");
    stop(edge);

    let segments = segments(&directory);
    assert!(segments.len() >= 3, "{segments:?}");
    let lost = scratch("lost.segment");
    for missing in &segments {
        std::fs::rename(missing, &lost).expect("take it away");
        assert_refused(&directory, missing);
        std::fs::rename(&lost, missing).expect("put it back");
    }

    // All of them at once are not an empty directory.
    let away = scratch("away");
    std::fs::create_dir(&away).expect("a directory");
    let away_name = |segment: &Path| away.join(segment.file_name().expect("a name"));
    segments.iter().for_each(|segment| std::fs::rename(segment, away_name(segment)).expect("take it away"));
    assert_refused(&directory, &segments[0]);
    segments.iter().for_each(|segment| std::fs::rename(away_name(segment), segment).expect("put it back"));

    // With nothing missing it starts, without the manifest too: an older sedge made none.
    assert_eq!(checked(&directory).0, Some(0));
    std::fs::remove_file(Path::new(&directory).join("manifest")).expect("there is a manifest");
    assert_eq!(checked(&directory).0, Some(0));
    let edge = start(&directory);
    assert_whole(&edge, &ends);
    stop(edge);
    let last = segments.last().expect("a segment");
    std::fs::rename(last, &lost).expect("take it away");
    assert_refused(&directory, last);
    std::fs::rename(&lost, last).expect("put it back");
    remove(&directory);
}
