//! An answer on its way into Redis, which must neither wait for Redis nor be cut by it.
//!
//! ```text
//!  pump ──events──► queue ──all there is, as one append──► Redis       taken once, though it may have to be sent twice
//!                     └ too long: no more is taken, and it ends with an error
//! ```
//!
//! Whoever writes is the only one, and numbers its appends: one of which it is not known whether it was taken is sent again,
//! and counts once.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::append::Kept;
use super::link::pause;
use super::remote::Remote;
use super::scripts::{self, Call};
use crate::streams::append::Refused;
use crate::streams::registry::guard;
use crate::streams::stream::Stream;

/// The most of an answer that waits for Redis, in bytes.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// How long to wait before something is sent again, in milliseconds.
const AGAIN_MS: u64 = 250;

/// What it is called as a producer. No header can hold a line break, so nobody else is called so.
const PRODUCER: &str = "\nsedge";

/// The writer of an answer.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: BytesMut,
    name: Option<Box<str>>,
    close: bool,
    overflown: bool,
    /// Nothing more is taken: the stream is gone or closed.
    stopped: bool,
}

impl Writer {
    /// Writes `stream` from now on; `cut` is how it ends if it cannot be kept whole.
    pub(crate) fn new(remote: &Arc<Remote>, stream: &Arc<Stream>, cut: Vec<u8>) -> Writer {
        let queue = Arc::new(Queue::default());
        let (remote, stream, theirs) = (Arc::clone(remote), Arc::clone(stream), Arc::clone(&queue));
        remote.writers.fetch_add(1, Ordering::AcqRel);
        let runtime = remote.link.runtime().clone();
        let writing = Writing { remote, queue: theirs };
        runtime.spawn(async move { write(&writing.remote, &stream, &writing.queue, cut.into()).await });
        Writer { queue }
    }

    /// Takes whole events, and with `close` the end. Says whether anything is still taken.
    pub(crate) fn append(&self, events: &[u8], close: bool) -> bool {
        let mut waiting = guard(&self.queue.waiting);
        if waiting.stopped || waiting.overflown {
            waiting.close |= close;
        } else if waiting.bytes.len() + events.len() > WAITING_BYTES_MAX {
            waiting.overflown = true;
        } else {
            waiting.bytes.extend_from_slice(events);
            waiting.close |= close;
        }
        let is_taken = !waiting.stopped && !waiting.overflown;
        drop(waiting);
        self.queue.bell.notify_one();
        is_taken
    }

    /// The answer is called `name` by whoever has made it.
    pub(crate) fn name(&self, name: &str) {
        guard(&self.queue.waiting).name = Some(name.into());
        self.queue.bell.notify_one();
    }
}

/// One of the answers that are being written, until it is dropped, which a panic does as well.
struct Writing {
    remote: Arc<Remote>,
    queue: Arc<Queue>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        guard(&self.queue.waiting).stopped = true;
        if self.remote.writers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.remote.written.notify_waiters();
        }
    }
}

/// Writes what comes, to the end.
async fn write(remote: &Arc<Remote>, stream: &Arc<Stream>, queue: &Queue, cut: Bytes) {
    let mut seq = 0;
    loop {
        let (bytes, name, close) = {
            let mut waiting = guard(&queue.waiting);
            let (mut bytes, name) = (waiting.bytes.split(), waiting.name.take());
            if waiting.overflown {
                bytes.extend_from_slice(&cut);
            }
            (bytes.freeze(), name, waiting.close || waiting.overflown)
        };
        if let Some(name) = name {
            name_it(remote, stream, &name).await;
        }
        if bytes.is_empty() && !close {
            queue.bell.notified().await;
            continue;
        }
        match put(remote, stream, &part(stream, bytes, Some(seq), close)).await {
            Ok(()) if close => return,
            Ok(()) => seq += 1,
            // Somebody has deleted it, or ended it because this node was taken for dead.
            Err(Refused::Gone | Refused::Closed(_)) => return,
            // Redis has lost a part of it.
            Err(_) => {
                let _ = put(remote, stream, &part(stream, cut, None, true)).await;
                return;
            }
        }
    }
}

fn part(stream: &Stream, bytes: Bytes, seq: Option<u64>, close: bool) -> Kept {
    Kept {
        bytes,
        ends: Box::default(),
        content_type: Some(stream.kind.as_str().into()),
        event: None,
        claim: seq.map(|seq| (PRODUCER.into(), 0, seq)),
        seq: None,
        close,
        own: true,
    }
}

/// Appends, however long it takes.
async fn put(remote: &Arc<Remote>, stream: &Arc<Stream>, append: &Kept) -> Result<(), Refused> {
    loop {
        match remote.put(stream, append).await {
            Err(Refused::Unavailable(_)) => pause(Duration::from_millis(AGAIN_MS)).await,
            other => return other.map(drop),
        }
    }
}

/// Not named, it is still there by its own name.
async fn name_it(remote: &Remote, stream: &Stream, name: &str) {
    let call = Call::of(&scripts::NAME).text(&*stream.name).number(stream.id).text(name);
    let _ = remote.link.call(call).await;
}
