//! The link to Redis: a connection to ask on, one to listen on, both on a thread of their own and kept up for as long as the
//! process runs.
//!
//! ```text
//!  down ──connect, learn the epoch, subscribe──► up ──broken, silent, or emptied──► down, and again after a pause
//! ```
//!
//! Calls that come together travel together. While it is down a call fails at once: whoever asked decides what that means.
//! Two connections, because Redis cuts one that listens as soon as 32 MiB wait for it (`client-output-buffer-limit`), and
//! long logs are read by many at once.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::scripts::Call;
use crate::runtime::clock::unix_millis;
use crate::tell;

/// How long it may take to connect, in milliseconds.
const CONNECT_MS: u64 = 3000;

/// How long an answer may take, in milliseconds; after that the connection counts as dead.
const ANSWER_MS: u64 = 5000;

/// How often the connection that listens is asked whether it still does, in milliseconds: one that a firewall or a partition has
/// cut says nothing, just as one on which nothing is published.
const LISTENS_MS: u64 = 1000;

/// Pauses between attempts to connect, in milliseconds: each is twice the one before, up to the second, and somewhere between
/// half of that and all of it.
const PAUSE_MS: (u64, u64) = (50, 2000);

/// Refusals are told once in so many milliseconds.
const REFUSAL_MS: u64 = 10_000;

/// The oldest Redis whose scripts and streams are as used here.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Redis could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable {
    /// It is not known whether it was done.
    pub(crate) unknown: bool,
    /// Redis has no memory left for it.
    pub(crate) full: bool,
    /// What went wrong.
    pub(crate) why: Box<str>,
}

impl Unavailable {
    /// Nothing was changed, for this reason.
    pub(crate) fn refused(why: impl Into<Box<str>>) -> Unavailable {
        Unavailable { unknown: false, full: false, why: why.into() }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis: {}", self.why)
    }
}

impl std::error::Error for Unavailable {}

/// An address that Redis cannot be reached at.
#[derive(Debug)]
pub(crate) struct AddressError(redis::RedisError);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "is no address of Redis, such as \"redis://:PASSWORD@HOST:6379/0\" or rediss:// for TLS ({})",
            self.0.category()
        )
    }
}

impl std::error::Error for AddressError {}

/// Checks that `url` is an address of Redis, and says whether it has a password in it.
///
/// # Errors
/// If it is not; what is told does not show it, for a password may be in it.
pub(crate) fn check_address(url: &str) -> Result<bool, AddressError> {
    Ok(client(url)?.get_connection_info().redis_settings().password().is_some())
}

fn client(url: &str) -> Result<Client, AddressError> {
    let info = url.into_connection_info().map_err(AddressError)?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings)).map_err(AddressError)
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct LinkMetrics {
    /// Calls that were answered.
    pub(crate) calls: AtomicU64,
    /// Calls that were not.
    pub(crate) failures: AtomicU64,
    /// Connections that were made.
    pub(crate) connects: AtomicU64,
    /// Wakes that were heard.
    pub(crate) wakes: AtomicU64,
}

/// A connection that is up.
#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    /// What listens, for as long as it is kept.
    listener: MultiplexedConnection,
    /// Told when that has ended.
    deaf: Arc<Notify>,
    /// Which life of the store it leads to, as 16 hexadecimal digits.
    epoch: Arc<str>,
}

/// What listens to a link.
pub(crate) trait Ears: Send + Sync + 'static {
    /// It is up, and leads to this life of the store.
    fn connected(self: &Arc<Self>, epoch: u64);
    /// Something was published.
    fn heard(self: &Arc<Self>, message: &[u8]);
}

/// The link.
pub(crate) struct Link {
    client: Client,
    /// Where it leads, to be shown.
    pub(crate) place: Box<str>,
    runtime: Handle,
    live: ArcSwapOption<Live>,
    broken: Notify,
    /// When a refusal was told, in milliseconds since 1970.
    refusal_told: AtomicU64,
    pub(crate) is_up: Notify,
    /// Why it is down.
    why: Mutex<Box<str>>,
    /// The `maxmemory-policy` of Redis, unless it is `noeviction`.
    policy: ArcSwapOption<Box<str>>,
    pub(crate) metrics: LinkMetrics,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Link {
    /// A link that is down, whose calls run on `runtime`.
    pub(crate) fn new(url: &str, runtime: Handle) -> Result<Link, AddressError> {
        let client = client(url)?;
        let info = client.get_connection_info();
        let place = format!("{}/{}", info.addr(), info.redis_settings().db());
        Ok(Link {
            client,
            place: place.into(),
            runtime,
            live: ArcSwapOption::empty(),
            broken: Notify::new(),
            refusal_told: AtomicU64::new(0),
            is_up: Notify::new(),
            why: Mutex::new("not connected yet".into()),
            policy: ArcSwapOption::empty(),
            metrics: LinkMetrics::default(),
        })
    }

    /// Where calls run.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Whether it is up.
    pub(crate) fn is_up(&self) -> bool {
        self.live.load().is_some()
    }

    fn down(&self) -> Unavailable {
        Unavailable::refused(self.why.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Runs a script. On the link's runtime alone.
    pub(crate) async fn call(&self, call: Call) -> Result<Vec<Value>, Unavailable> {
        let Some(live) = self.live.load_full() else {
            self.metrics.failures.fetch_add(1, Ordering::Relaxed);
            return Err(self.down());
        };
        let call = call.prepare(&live.epoch);
        let answer = call.invoke_async::<Value>(&mut live.connection.clone()).await;
        let answer = match self.checked(&live, answer)? {
            Value::Array(answer) => answer,
            _ => Vec::new(),
        };
        if matches!(&answer[..], [Value::BulkString(word)] if word == b"epoch") {
            self.break_off(&live, "it has lost all that it held");
            return Err(self.down());
        }
        Ok(answer)
    }

    /// Runs one command. On the link's runtime alone.
    pub(crate) async fn command(&self, command: &redis::Cmd) -> Result<Value, Unavailable> {
        let live = self.live.load_full().ok_or_else(|| self.down())?;
        let answer = command.query_async(&mut live.connection.clone()).await;
        self.checked(&live, answer)
    }

    fn checked(&self, live: &Arc<Live>, answer: redis::RedisResult<Value>) -> Result<Value, Unavailable> {
        let error = match answer {
            Ok(answer) => {
                self.metrics.calls.fetch_add(1, Ordering::Relaxed);
                return Ok(answer);
            }
            Err(error) => error,
        };
        self.metrics.failures.fetch_add(1, Ordering::Relaxed);
        let is_refusal = error.code().is_some() && !error.is_io_error();
        let why: Box<str> = error.to_string().into();
        if is_refusal {
            self.tell_refusal(&why);
        }
        // A replica and one that is loading refuse everything: another connection may lead elsewhere.
        if !is_refusal || matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN"))
        {
            self.break_off(live, &why);
        }
        Err(Unavailable { unknown: !is_refusal, full: error.code() == Some("OOM"), why })
    }

    /// Tells of a refusal in the log, but not of each.
    pub(crate) fn tell_refusal(&self, why: &str) {
        let (now, last) = (unix_millis(), self.refusal_told.load(Ordering::Relaxed));
        if last + REFUSAL_MS < now {
            self.refusal_told.store(now, Ordering::Relaxed);
            tell!("sedge: Redis at {} refuses: {why}", self.place);
        }
    }

    fn break_off(&self, live: &Arc<Live>, why: &str) {
        let is_this = self.live.load().as_ref().is_some_and(|now| Arc::ptr_eq(&now.epoch, &live.epoch));
        if is_this {
            *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why.into();
            self.live.store(None);
            self.broken.notify_one();
        }
    }

    /// Keeps it up, for ever.
    pub(crate) async fn keep_up(&self, ears: &Arc<impl Ears>, number: impl Fn() -> u64) {
        let mut pause_ms = PAUSE_MS.0;
        let mut told = false;
        loop {
            match self.connect(ears, number()).await {
                Ok(live) => {
                    let epoch = u64::from_str_radix(&live.epoch, 16).unwrap_or_default();
                    if told {
                        tell!("sedge: Redis at {} is there again", self.place);
                    }
                    pause_ms = PAUSE_MS.0;
                    self.metrics.connects.fetch_add(1, Ordering::Relaxed);
                    let live = Arc::new(live);
                    self.live.store(Some(Arc::clone(&live)));
                    ears.connected(epoch);
                    self.is_up.notify_waiters();
                    tokio::select! {
                        () = self.broken.notified() => {}
                        () = live.deaf.notified() => {
                            self.break_off(&live, "the connection that listens has ended");
                            self.broken.notified().await;
                        }
                        () = live.is_silent() => {
                            self.break_off(&live, "the connection that listens does not answer");
                            self.broken.notified().await;
                        }
                    }
                    let why = self.down().why;
                    tell!(
                        "sedge: Redis at {} is gone: {why}; nothing is appended until it is back",
                        self.place
                    );
                    told = true;
                }
                Err(error) => {
                    let why: Box<str> = error.into();
                    if !std::mem::replace(&mut told, true) {
                        tell!("sedge: Redis at {} cannot be reached: {why}; trying again", self.place);
                    }
                    *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
                }
            }
            pause(Duration::from_millis(pause_ms / 2 + number() % (pause_ms / 2))).await;
            pause_ms = (pause_ms * 2).min(PAUSE_MS.1);
        }
    }

    async fn connect(&self, ears: &Arc<impl Ears>, candidate: u64) -> Result<Live, String> {
        let timeouts = || {
            AsyncConnectionConfig::new()
                .set_connection_timeout(Some(Duration::from_millis(CONNECT_MS)))
                .set_response_timeout(Some(Duration::from_millis(ANSWER_MS)))
        };
        let connect = async |config| self.client.get_multiplexed_async_connection_with_config(&config).await;
        let failed = |error: redis::RedisError| error.to_string();
        let mut connection = connect(timeouts()).await.map_err(failed)?;
        let about: String =
            redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(failed)?;
        check_version(&about)?;
        let memory: String =
            redis::cmd("INFO").arg("memory").query_async(&mut connection).await.map_err(failed)?;
        self.note_policy(&memory);
        let get = async |connection: &mut MultiplexedConnection| {
            redis::cmd("GET").arg("sedge:epoch").query_async::<Option<String>>(connection).await
        };
        let mut epoch = get(&mut connection).await.map_err(failed)?;
        // Not tried where there is one: what is there can be read when nothing more can be written.
        if epoch.is_none() {
            let mut set = redis::cmd("SET");
            set.arg(&["sedge:epoch", &format!("{candidate:016x}"), "NX"]);
            set.exec_async(&mut connection).await.map_err(failed)?;
            epoch = get(&mut connection).await.map_err(failed)?;
        }
        let epoch = epoch.unwrap_or_default();
        if epoch.len() != 16 || u64::from_str_radix(&epoch, 16).is_err() {
            return Err("the key sedge:epoch holds something that is not ours".into());
        }
        let (mine, deaf) = (Arc::clone(ears), Arc::new(Notify::new()));
        let ended = Arc::clone(&deaf);
        let config = timeouts().set_push_sender(move |push: PushInfo| {
            match (push.kind, &push.data[..]) {
                (PushKind::Message, [_, Value::BulkString(message)]) => mine.heard(message),
                (PushKind::Disconnection, _) => ended.notify_one(),
                _ => {}
            }
            Ok::<(), ()>(())
        });
        let mut listener = connect(config).await.map_err(failed)?;
        listener.subscribe(format!("sedge:{epoch}:wake")).await.map_err(failed)?;
        Ok(Live { connection, listener, deaf, epoch: epoch.into() })
    }

    /// The policy by which Redis may evict streams when its memory is full; none if it refuses to grow instead.
    pub(crate) fn evicts(&self) -> Option<Arc<Box<str>>> {
        self.policy.load_full().filter(|policy| evicts_streams(policy))
    }

    /// Warns of any policy but `noeviction`, by what Redis says of its memory, whenever it is another one.
    fn note_policy(&self, about: &str) {
        let policy = about.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(str::trim);
        let policy = policy.filter(|policy| *policy != "noeviction");
        if policy == self.policy.load().as_ref().map(|known| &***known) {
            return;
        }
        self.policy.store(policy.map(|policy| Arc::new(policy.into())));
        let Some(policy) = policy else { return };
        let what = if evicts_streams(policy) {
            "it deletes streams when its memory is full"
        } else {
            "streams have no time to live there, so it deletes none of them, but the next policy may"
        };
        let place = &self.place;
        tell!("sedge: Redis at {place} has maxmemory-policy {policy}: {what}; set it to noeviction");
    }
}

/// Whether a policy lets Redis delete keys that have no time to live, as those of streams.
fn evicts_streams(policy: &str) -> bool {
    policy.starts_with("allkeys")
}

impl Live {
    /// Until the connection that listens answers no more.
    async fn is_silent(&self) {
        let mut listener = self.listener.clone();
        loop {
            pause(Duration::from_millis(LISTENS_MS)).await;
            if redis::cmd("PING").exec_async(&mut listener).await.is_err() {
                return;
            }
        }
    }
}

/// Whether it is new enough, by what it says of itself.
fn check_version(about: &str) -> Result<(), String> {
    let version = about.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("0.0").trim();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let (major, minor) = VERSION_MIN;
    if found < VERSION_MIN {
        return Err(format!("it is version {version}, and has to be {major}.{minor} or newer"));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a thread and a runtime of its own, far from the data path")]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
