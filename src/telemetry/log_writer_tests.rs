//! The writer against targets that work, move away, fill up, break and block.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_setfl};

use super::*;
use crate::telemetry::access_log::tests::bare_record;
use crate::telemetry::access_log::{AccessLog, LOG_BATCH_BYTES, LOG_BUFFER_BYTES};

/// Only a bug keeps a writer that can write from ending; then a test should fail instead of hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of the test's own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("sedge-log-{}-{test}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

fn start_on_pipe(registry: &Arc<Registry>) -> (LogWriter, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let file = File::from(OwnedFd::from(writer));
    (LogWriter::start_on(LogTarget::Stdout, file, Arc::clone(registry)).unwrap(), reader)
}

fn sink_on_pipe(registry: &Arc<Registry>) -> (Sink, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let file = File::from(OwnedFd::from(writer));
    let registry = Arc::clone(registry);
    (Sink { target: LogTarget::Stdout, file, is_torn: false, is_failing: false, registry }, reader)
}

fn batch(bytes: &[u8]) -> Batch {
    let lines = bytes.iter().filter(|b| **b == b'\n').count() as u64;
    Batch { bytes: bytes.to_vec(), lines, home: sync_channel(1).0 }
}

#[test]
fn lines_of_all_cores_are_appended_and_complete_at_close() {
    let scratch = Scratch::new("append");
    let path = scratch.path("access.log");
    fs::write(&path, "an older line\n").unwrap();
    let registry = Registry::new(2);
    let writer = LogWriter::start(LogTarget::File(path.clone()), Arc::clone(&registry)).unwrap();
    let mut logs: Vec<_> =
        registry.cores().iter().map(|core| AccessLog::new(&writer, Arc::clone(core))).collect();
    for _ in 0..100 {
        logs.iter_mut().for_each(|log| log.record(&bare_record()));
    }
    logs[0].flush();
    drop(logs);
    assert!(writer.close(PATIENCE));
    let text = fs::read_to_string(&path).unwrap();
    let (older, newer) = text.split_once('\n').unwrap();
    assert_eq!(older, "an older line");
    assert_eq!(newer.lines().count(), 200);
    for line in newer.lines() {
        let _: serde_json::Value = serde_json::from_str(line).unwrap();
    }
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let scratch = Scratch::new("reopen");
    let (path, moved) = (scratch.path("access.log"), scratch.path("access.log.1"));
    let registry = Registry::new(1);
    let writer = LogWriter::start(LogTarget::File(path.clone()), Arc::clone(&registry)).unwrap();
    fs::rename(&path, &moved).unwrap();
    writer.reopen();
    let mut log = AccessLog::new(&writer, Arc::clone(&registry.cores()[0]));
    log.record(&bare_record());
    drop(log);
    assert!(writer.close(PATIENCE));
    assert_eq!((lines(&moved), lines(&path)), (0, 1));
}

#[test]
fn a_file_that_cannot_be_reopened_stays_in_use() {
    let scratch = Scratch::new("no-reopen");
    let (dir, moved) = (scratch.path("log"), scratch.path("old"));
    fs::create_dir(&dir).unwrap();
    let registry = Registry::new(1);
    let target = LogTarget::File(dir.join("access.log"));
    let writer = LogWriter::start(target, Arc::clone(&registry)).unwrap();
    fs::rename(&dir, &moved).unwrap();
    writer.reopen();
    AccessLog::new(&writer, Arc::clone(&registry.cores()[0])).record(&bare_record());
    assert!(writer.close(PATIENCE));
    assert_eq!(registry.access_log_write_errors.get(), 1);
    assert_eq!(lines(&moved.join("access.log")), 1);
}

#[test]
fn a_full_disk_costs_its_lines_and_nothing_else() {
    let registry = Registry::new(1);
    let writer = LogWriter::start(LogTarget::File("/dev/full".into()), Arc::clone(&registry)).unwrap();
    let mut log = AccessLog::new(&writer, Arc::clone(&registry.cores()[0]));
    for _ in 0..3 {
        log.record(&bare_record());
        log.record(&bare_record());
        log.flush();
    }
    drop(log);
    assert!(writer.close(PATIENCE));
    assert_eq!((registry.access_log_write_errors.get(), registry.access_log_lines_lost.get()), (3, 6));
}

#[test]
fn a_closed_pipe_costs_its_lines_and_nothing_else() {
    let registry = Registry::new(1);
    let (writer, reader) = start_on_pipe(&registry);
    drop(reader);
    let mut log = AccessLog::new(&writer, Arc::clone(&registry.cores()[0]));
    log.record(&bare_record());
    drop(log);
    assert!(writer.close(PATIENCE));
    assert_eq!((registry.access_log_write_errors.get(), registry.access_log_lines_lost.get()), (1, 1));
}

#[test]
fn a_reader_that_stops_costs_a_bounded_memory_and_counted_lines() {
    let registry = Registry::new(1);
    let core = &registry.cores()[0];
    let (writer, reader) = start_on_pipe(&registry);
    let mut log = AccessLog::new(&writer, Arc::clone(core));
    let mut recorded = 0u64;
    while core.access_log_dropped.get() < 1000 {
        log.record(&bare_record());
        recorded += 1;
        assert!(recorded < 1_000_000, "nothing bounds the lines held back");
    }
    let held = LOG_BUFFER_BYTES + (QUEUED_BATCHES + 1) * 2 * LOG_BATCH_BYTES;
    let mut line = Vec::new();
    let reading = thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let (mut lines, mut bytes) = (0, 0);
        while reader.read_until(b'\n', &mut line).unwrap() > 0 {
            lines += 1;
            bytes += line.len();
            line.clear();
        }
        (lines, bytes)
    });
    drop(log);
    assert!(writer.close(PATIENCE));
    let (lines, bytes) = reading.join().unwrap();
    assert_eq!(lines + core.access_log_dropped.get(), recorded);
    assert!(bytes <= held, "{bytes} bytes were held");
    assert_eq!(registry.access_log_write_errors.get(), 0);
}

#[test]
fn closing_does_not_wait_for_a_reader_that_stopped() {
    let registry = Registry::new(1);
    let core = &registry.cores()[0];
    let (writer, reader) = start_on_pipe(&registry);
    let mut log = AccessLog::new(&writer, Arc::clone(core));
    while core.access_log_dropped.get() == 0 {
        log.record(&bare_record());
    }
    assert!(!writer.close(Duration::ZERO));
    drop(reader);
}

#[test]
fn lines_after_the_close_are_counted_as_dropped() {
    let scratch = Scratch::new("late");
    let registry = Registry::new(1);
    let core = &registry.cores()[0];
    let target = LogTarget::File(scratch.path("access.log"));
    let writer = LogWriter::start(target, Arc::clone(&registry)).unwrap();
    let mut log = AccessLog::new(&writer, Arc::clone(core));
    assert!(writer.close(PATIENCE));
    log.record(&bare_record());
    log.flush();
    log.record(&bare_record());
    drop(log);
    assert_eq!(core.access_log_dropped.get(), 2);
}

#[test]
fn a_line_after_a_torn_one_begins_on_its_own() {
    let registry = Registry::new(1);
    let (mut sink, mut reader) = sink_on_pipe(&registry);
    // More than a pipe holds, and gone before it is read: the write ends in the middle.
    let long = [&b"whole\n"[..], &vec![b'x'; 4 * 1024 * 1024], b"\n"].concat();
    let writing = thread::spawn(move || {
        sink.write(&batch(&long));
        sink
    });
    reader.read_exact(&mut [0; 7]).unwrap();
    drop(reader);
    let mut sink = writing.join().unwrap();
    assert!(sink.is_torn && sink.is_failing);
    assert_eq!(registry.access_log_lines_lost.get(), 1);

    let (mut reader, writer) = pipe().unwrap();
    sink.file = File::from(OwnedFd::from(writer));
    sink.write(&batch(b"next\n"));
    assert!(!sink.is_torn && !sink.is_failing);
    drop(sink);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\nnext\n");
}

#[test]
fn a_pipe_that_was_made_non_blocking_loses_nothing() {
    let registry = Registry::new(1);
    let (mut sink, mut reader) = sink_on_pipe(&registry);
    fcntl_setfl(&sink.file, OFlags::NONBLOCK).unwrap();
    let long = vec![b'\n'; 1024 * 1024];
    let expected = long.len();
    let writing = thread::spawn(move || sink.write(&batch(&long)));
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    writing.join().unwrap();
    assert_eq!(read.len(), expected);
    assert_eq!(registry.access_log_write_errors.get(), 0);
}

#[test]
fn buffers_come_back_to_their_core() {
    let scratch = Scratch::new("recycle");
    let registry = Registry::new(1);
    let writer = LogWriter::start(LogTarget::File(scratch.path("log")), Arc::clone(&registry)).unwrap();
    let (home, returned) = sync_channel(1);
    let bytes = Vec::with_capacity(4096);
    let (address, sender) = (bytes.as_ptr(), writer.sender());
    sender.send(Message::Batch(Batch { bytes, lines: 0, home })).unwrap();
    let back: Vec<u8> = returned.recv().unwrap();
    assert_eq!((back.as_ptr(), back.len()), (address, 0));
    assert!(writer.close(PATIENCE));
}
