//! The one thread that writes the access log: to stdout, stderr or a file, one write a batch. Whatever the other end does,
//! the cores go on: a slow reader fills [`QUEUED_BATCHES`] and then lines are dropped, a broken one (a closed pipe, a full
//! disk) costs its batches, which are counted, and one message on stderr until it works again.

#[cfg(test)]
#[path = "log_writer_tests.rs"]
mod tests;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::registry::Registry;

/// Batches that wait for the writer; with the batches' size this bounds what a stuck log costs.
pub(crate) const QUEUED_BATCHES: usize = 64;

/// A buffer that grew beyond this is freed instead of being sent back to its core.
const RECYCLED_BYTES: usize = 256 * 1024;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogTarget {
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogTarget::Stdout => f.write_str("stdout"),
            LogTarget::Stderr => f.write_str("stderr"),
            LogTarget::File(path) => path.display().fmt(f),
        }
    }
}

/// The handle of the writer's thread.
#[derive(Debug)]
pub(crate) struct LogWriter {
    to_writer: SyncSender<Message>,
    wishes: Arc<Wishes>,
    finished: Receiver<()>,
    thread: JoinHandle<()>,
}

/// Lines of one core.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lines: u64,
    pub(crate) home: SyncSender<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) enum Message {
    Batch(Batch),
    /// Look at the wishes.
    Wake,
}

/// What is wanted of the thread. Flags beside the queue, as a queue that is full must not delay them for ever: whoever
/// finds it full knows that the thread is going to look at the flags anyway.
#[derive(Debug, Default)]
struct Wishes {
    reopen: AtomicBool,
    close: AtomicBool,
}

impl LogWriter {
    /// Opens the target and starts the thread.
    pub(crate) fn start(target: LogTarget, registry: Arc<Registry>) -> io::Result<LogWriter> {
        let file = open(&target)?;
        LogWriter::start_on(target, file, registry)
    }

    fn start_on(target: LogTarget, file: File, registry: Arc<Registry>) -> io::Result<LogWriter> {
        let (to_writer, queue) = sync_channel(QUEUED_BATCHES);
        let (end, finished) = sync_channel(0);
        let wishes = Arc::new(Wishes::default());
        let sink = Sink { target, file, is_torn: false, is_failing: false, registry };
        let thread = thread::Builder::new().name("access-log".into()).spawn({
            let wishes = Arc::clone(&wishes);
            move || {
                // Dropped when the thread ends, however it ends; that is what `close` waits for.
                let _end: SyncSender<()> = end;
                run(sink, &queue, &wishes);
            }
        })?;
        Ok(LogWriter { to_writer, wishes, finished, thread })
    }

    /// Opens the file anew under its name, after it was moved away: what SIGHUP asks for. Does not wait.
    pub(crate) fn reopen(&self) {
        self.wishes.reopen.store(true, SeqCst);
        self.wake();
    }

    /// Writes what has been handed over and ends the thread; the cores' logs should be flushed or dropped before. A target
    /// that blocks is left behind after `patience`, and then the answer is false.
    pub(crate) fn close(self, patience: Duration) -> bool {
        self.wishes.close.store(true, SeqCst);
        self.wake();
        match self.finished.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => false,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => self.thread.join().is_ok(),
        }
    }

    pub(crate) fn sender(&self) -> SyncSender<Message> {
        self.to_writer.clone()
    }

    fn wake(&self) {
        // Full: the thread is busy and looks at the wishes by itself. Disconnected: it has ended.
        let _ = self.to_writer.try_send(Message::Wake);
    }
}

fn run(mut sink: Sink, queue: &Receiver<Message>, wishes: &Wishes) {
    loop {
        if wishes.reopen.swap(false, SeqCst) {
            sink.reopen();
        }
        let message = match queue.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) if wishes.close.load(SeqCst) => return,
            Err(TryRecvError::Empty) => match queue.recv() {
                Ok(message) => message,
                Err(_) => return,
            },
        };
        if let Message::Batch(mut batch) = message {
            sink.write(&batch);
            if batch.bytes.capacity() <= RECYCLED_BYTES {
                batch.bytes.clear();
                // A core that is gone, or has enough, does not want it back.
                let _ = batch.home.try_send(batch.bytes);
            }
        }
    }
}

/// The target and the state of writing to it.
struct Sink {
    target: LogTarget,
    file: File,
    /// A line was written in part only; the next must not continue it.
    is_torn: bool,
    is_failing: bool,
    registry: Arc<Registry>,
}

impl Sink {
    fn write(&mut self, batch: &Batch) {
        let (written, result) = match self.end_torn_line() {
            Ok(()) => write_all(&self.file, &batch.bytes),
            Err(error) => (0, Err(error)),
        };
        if written > 0 {
            self.is_torn = batch.bytes[written - 1] != b'\n';
        }
        match result {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                let whole = batch.bytes[..written].iter().filter(|b| **b == b'\n').count() as u64;
                self.registry.access_log_lines_lost.add(batch.lines.saturating_sub(whole));
                self.failed("cannot be written", &error);
            }
        }
    }

    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.is_torn {
            write_all(&self.file, b"\n").1?;
            self.is_torn = false;
        }
        Ok(())
    }

    fn reopen(&mut self) {
        match open(&self.target) {
            Ok(file) => (self.file, self.is_torn, self.is_failing) = (file, false, false),
            // The old file is better than none.
            Err(error) => self.failed("cannot be reopened", &error),
        }
    }

    /// Counts the failure, and tells of the first of a row.
    fn failed(&mut self, what: &str, error: &io::Error) {
        self.registry.access_log_write_errors.inc();
        if !self.is_failing {
            self.is_failing = true;
            // `eprintln!` would panic if stderr is gone too.
            let _ = writeln!(io::stderr(), "sedge: the access log ({}) {what}: {error}", self.target);
        }
    }
}

/// A descriptor of our own for the target: std's `Stdout` would buffer lines and hold a lock.
fn open(target: &LogTarget) -> io::Result<File> {
    match target {
        LogTarget::Stdout => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        LogTarget::Stderr => Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
        LogTarget::File(path) => {
            // Addresses of people are in it: not for everyone to read.
            OpenOptions::new().append(true).create(true).mode(0o640).open(path)
        }
    }
}

/// Writes all of `bytes`, in one write if the target takes them, and says how many went out in any case. A terminal or a
/// pipe that somebody else made non-blocking is waited for, as if it blocked.
fn write_all(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // An error here shows itself again at the write.
                let _ = poll(&mut [PollFd::new(&file, PollFlags::OUT)], None);
            }
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}
