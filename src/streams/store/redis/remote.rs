//! What is asked of streams in Redis.
//!
//! Whatever is asked runs on the link's own thread to its end, though the one who asked may have left meanwhile; a core only waits.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::globs::Globs;
use super::link::{Ears, Link, pause};
use super::long::LongPayloads;
use super::meta::{garbled, number, text};
use super::mirror::{Fetches, fetched};
use super::scripts::{self, Call};
use super::subscriptions::Wakes;
use super::{LinkMetrics, Unavailable};
use crate::streams::model::bounds::Bounds;
use crate::streams::registry::{Found, Streams, guard};
use crate::streams::stream::Stream;
use crate::telemetry::Nonces;
use crate::tell;

/// How often a node says that it is alive, and looks what is over, in milliseconds.
const BEAT_MS: u64 = 1000;

/// A node that was silent for so long is dead: its answers are ended by the others. In milliseconds.
const SILENCE_MS: u64 = 5000;

/// The streams in Redis.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) link: Link,
    /// This process, among the nodes.
    pub(crate) node: Box<str>,
    /// The event that ends an answer whose node has died.
    interrupted: Box<[u8]>,
    pub(crate) ids: Mutex<Nonces>,
    streams: OnceLock<Weak<Streams>>,
    pub(crate) fetches: Fetches,
    pub(crate) long: LongPayloads,
    /// Answers that are being written.
    pub(crate) writers: AtomicUsize,
    pub(crate) written: Notify,
    pub(crate) wakes: Wakes,
    /// The patterns of subscriptions, as they were known last.
    pub(crate) globs: Mutex<Option<Arc<Globs>>>,
}

impl Remote {
    /// Streams at `url`, on a thread of their own; `interrupted` is the event that ends an answer whose node has died.
    ///
    /// # Errors
    /// If the thread cannot be started. That Redis cannot be reached is no error here: it may come.
    pub(crate) fn open(url: &str, interrupted: Vec<u8>, mut ids: Nonces) -> io::Result<Arc<Remote>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let link = Link::new(url, runtime.handle().clone()).map_err(io::Error::other)?;
        let remote = Remote {
            link,
            node: format!("{:016x}", ids.next_u64()).into(),
            interrupted: interrupted.into(),
            ids: Mutex::new(ids),
            streams: OnceLock::new(),
            fetches: Fetches::default(),
            long: LongPayloads::default(),
            writers: AtomicUsize::new(0),
            written: Notify::new(),
            wakes: Wakes::default(),
            globs: Mutex::default(),
        };
        let thread = std::thread::Builder::new().name("sedge-redis".into());
        thread.spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Arc::new(remote))
    }

    /// Begins to serve `streams`. Waits for Redis, but not for long.
    pub(crate) fn start(self: &Arc<Self>, streams: &Arc<Streams>, patience: Duration) {
        let _ = self.streams.set(Arc::downgrade(streams));
        self.keep("the link to Redis", |me| async move { me.link.keep_up(&me, || me.number()).await });
        self.keep("the sweep of Redis", |me| async move { me.beat().await });
        let (me, (up, is_up)) = (Arc::clone(self), std::sync::mpsc::channel());
        self.link.runtime().spawn(async move {
            me.up().await;
            let _ = up.send(());
        });
        let _ = is_up.recv_timeout(patience);
    }

    /// Runs a service for ever, on the link's thread: again, after a moment, when it fails.
    fn keep<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        run: impl Fn(Arc<Self>) -> F + Send + 'static,
    ) {
        let (me, runtime) = (Arc::clone(self), self.link.runtime().clone());
        self.link.runtime().spawn(async move {
            while runtime.spawn(run(Arc::clone(&me))).await.is_err() {
                tell!("sedge: {what} failed by a bug, which the lines above describe; it starts again");
                pause(Duration::from_millis(BEAT_MS)).await;
            }
        });
    }

    /// A number that nobody can guess.
    pub(crate) fn number(&self) -> u64 {
        guard(&self.ids).next_u64()
    }

    /// Where Redis is, without the password.
    pub(crate) fn place(&self) -> &str {
        &self.link.place
    }

    /// Whether Redis can be reached now.
    pub(crate) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// The policy by which Redis may evict streams when its memory is full; none if it refuses to grow instead.
    pub(crate) fn evicts(&self) -> Option<Arc<Box<str>>> {
        self.link.evicts()
    }

    /// That it cannot be reached.
    pub(crate) fn is_away(&self) -> Unavailable {
        Unavailable::refused("it cannot be reached")
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &LinkMetrics {
        &self.link.metrics
    }

    pub(crate) async fn up(&self) {
        loop {
            let up = self.link.is_up.notified();
            if self.is_up() {
                return;
            }
            up.await;
        }
    }

    /// Says that this node is alive, ends what is over, and the answers of nodes that are not alive.
    async fn beat(&self) {
        loop {
            if let Some(streams) = self.streams() {
                let bounds = streams.bounds();
                let sweep = Call::of(&scripts::SWEEP).text(&*self.node).number(SILENCE_MS);
                let sweep = keeps(sweep.bytes(&self.interrupted), &bounds);
                let cut = self.link.call(sweep);
                match cut.await.ok().and_then(|answer| number(answer.get(1)).ok()) {
                    None | Some(0) => {}
                    Some(cut) => {
                        tell!("sedge: {cut} answers of a node that is gone were ended with an error");
                    }
                }
            }
            pause(Duration::from_millis(BEAT_MS)).await;
        }
    }

    /// Waits until the answers that are being written are in Redis, but not for longer than `patience`. Blocks.
    pub(crate) fn close(self: &Arc<Self>, patience: Duration) {
        let (me, (done, is_done)) = (Arc::clone(self), std::sync::mpsc::channel());
        self.link.runtime().spawn(async move {
            loop {
                let written = me.written.notified();
                if me.writers.load(Ordering::Acquire) == 0 {
                    break;
                }
                written.await;
            }
            let _ = done.send(());
        });
        if is_done.recv_timeout(patience).is_err() {
            tell!(
                "sedge: answers that are not in Redis yet are given up; other nodes end them with an error"
            );
        }
    }

    pub(crate) fn streams(&self) -> Option<Arc<Streams>> {
        self.streams.get().and_then(Weak::upgrade)
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let done = self.link.runtime().spawn(work).await;
        done.unwrap_or_else(|_| Err(garbled("its thread has failed")))
    }

    /// What `name` leads to. With `used` it counts as read.
    pub(crate) async fn find(
        self: &Arc<Self>,
        streams: &Arc<Streams>,
        name: &str,
        used: bool,
    ) -> Result<Found, Unavailable> {
        Ok(match self.attach(streams, name, used).await? {
            None => Found::Missing,
            Some(stream) if stream.is_present() => {
                stream.touch(crate::runtime::clock::unix_millis());
                Found::Present(stream)
            }
            Some(stream) => Found::Hidden(stream),
        })
    }

    /// Brings all of them up to now.
    pub(crate) async fn freshen(
        self: &Arc<Self>,
        streams: &Arc<Streams>,
        names: Vec<Box<str>>,
    ) -> Result<(), Unavailable> {
        // All of them are on their way before the first is waited for.
        let asked: Vec<_> = names.iter().map(|name| self.ask(streams, name, false)).collect();
        for asked in asked {
            fetched(asked).await?;
        }
        Ok(())
    }

    /// Ends a stream; says whether it was there.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        streams: &Arc<Streams>,
        stream: &Arc<Stream>,
    ) -> Result<bool, Unavailable> {
        let (me, streams, stream) = (Arc::clone(self), Arc::clone(streams), Arc::clone(stream));
        self.run(async move {
            let delete = Call::of(&scripts::DELETE).text(&*stream.name).number(stream.id);
            let answer = me.link.call(delete).await?;
            me.attach(&streams, &stream.name, false).await?;
            Ok(text(answer.first()) == "ok")
        })
        .await
    }

    /// The answer that its maker calls so.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        streams: &Arc<Streams>,
        name: &str,
    ) -> Result<Option<Arc<Stream>>, Unavailable> {
        let me = Arc::clone(self);
        let key = format!("sedge:a:{name}");
        let found = self.run(async move { me.link.command(redis::cmd("GET").arg(key)).await }).await?;
        match text(Some(&found)) {
            "" => Ok(None),
            name => match self.find(streams, name, true).await? {
                Found::Present(stream) => Ok(Some(stream)),
                _ => Ok(None),
            },
        }
    }
}

impl Remote {
    /// Fetches what is new of a stream that somebody watches.
    pub(crate) fn fetch_for(self: &Arc<Self>, stream: &Stream) {
        if let Some(streams) = self.streams() {
            self.fetch(&streams, &stream.name);
        }
    }
}

impl Ears for Remote {
    fn connected(self: &Arc<Self>, epoch: u64) {
        let Some(streams) = self.streams() else { return };
        self.wakes.ring();
        let mirrors: Vec<_> = streams.read().values().cloned().collect();
        let is_other = streams.epoch.swap(epoch, Ordering::AcqRel) != epoch;
        if is_other {
            streams.common.order.store(1, Ordering::Release);
        }
        for mirror in mirrors {
            if is_other {
                streams.forget(&mirror);
            } else if mirror.readers() > 0 {
                self.fetch(&streams, &mirror.name);
            } else {
                // Whoever begins to watch may have asked before something that nobody here has heard of.
                mirror.lock().behind = true;
            }
        }
    }

    fn heard(self: &Arc<Self>, message: &[u8]) {
        self.link.metrics.wakes.fetch_add(1, Ordering::Relaxed);
        let (Some(streams), Ok(message)) = (self.streams(), std::str::from_utf8(message)) else { return };
        let mut words = message.splitn(3, ' ');
        let (Some(tail), Some(closed), Some(name)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        if tail == "!" {
            return self.wakes.ring();
        }
        let Some(stream) = streams.read().get(name).cloned() else {
            // What is on its way may be older than what was heard: the two come over different connections.
            if guard(&self.fetches).contains_key(name) {
                self.fetch(&streams, name);
            }
            return;
        };
        let is_known = {
            let mut state = stream.lock();
            let is_known = tail.parse().is_ok_and(|tail: u64| state.visible >= tail)
                && state.closed_visible == (closed == "1");
            // Who asks for it next fetches it then, and so does who begins to watch after having asked.
            state.behind |= !is_known && state.watches.is_empty();
            is_known || state.watches.is_empty()
        };
        if !is_known {
            self.fetch(&streams, name);
        }
    }
}

/// What is kept of a stream, as scripts are told.
pub(crate) fn keeps(call: Call, bounds: &Bounds) -> Call {
    call.number(bounds.keep_bytes).number(bounds.keep_records as u64).number(bounds.keep_ms)
}
