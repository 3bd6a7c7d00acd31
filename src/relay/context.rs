//! What the tasks of one core share, and what the cores share with each other.
//!
//! The cores have two things in common: the settings, which are swapped whole, and the word that the process is going down.
//! Each looks at both when it has something to do anyway, on its tick or at the start of a request; nobody is woken. Only a
//! connection that another core has accepted wakes the one that gets it.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpStream};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak as Trace};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use rustc_hash::{FxHashMap, FxHashSet};
use slab::Slab;
use tokio::sync::Notify;

use super::attempt::hedge::Recent;
use super::attempt::retry_budget::Budget;
use super::request::memory_share::{Share, Shares};
use super::settings::Settings;
use crate::admission::connection_slots::{Seat, Seats};
use crate::admission::meters::Meters;
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::proto::http1::date::imf_fixdate;
use crate::routing::health::Healths;
use crate::runtime::Shard;
use crate::runtime::clock::{Millis, unix_millis};
use crate::runtime::executor::RESOLVER_THREADS_MAX;
use crate::runtime::inbox::Inbox;
use crate::runtime::wheel::{Timed, Timer};
use crate::streams::{Hub, Streams};
use crate::subscriptions::worker::Desk;
use crate::telemetry::{AccessLog, CoreMetrics, Ids, LabelId, Nonces, Registry};
use crate::upstream::dial::{Dialer, Tried};
use crate::upstream::pool::Pool;
use crate::upstream::resolver::Resolver;

/// How often a core writes its log lines out and looks whether the process is going down.
const HOUSEKEEPING_MS: Millis = 100;

/// How often it looks through its idle upstream connections.
const SWEEP_MS: Millis = 1000;

/// Name look-ups of a core at a time, for upstreams and for webhooks. Both together have a thread each: users choose where
/// webhooks lead to, and a name that is never answered must not keep an upstream's waiting.
const LOOKUPS_MAX: usize = RESOLVER_THREADS_MAX - WEBHOOK_LOOKUPS_MAX;
const WEBHOOK_LOOKUPS_MAX: usize = 2;

const DATE_BYTES: usize = 29;

/// A connection that one core has accepted for another.
pub(crate) struct Arrival {
    /// Of no runtime.
    pub(crate) socket: TcpStream,
    /// Whom it comes from.
    pub(crate) peer: SocketAddr,
    /// Its place, at the core that is to serve it.
    pub(crate) seat: Seat,
}

/// What all cores share.
pub(crate) struct Shared {
    /// The settings in force.
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    /// Where everything is counted.
    pub(crate) registry: Arc<Registry>,
    /// Client connections that may be open, over all cores.
    pub(crate) seats: Arc<Seats>,
    /// Connections for each core that another one has accepted.
    pub(crate) inboxes: Box<[Inbox<Arrival>]>,
    /// What was used of all limits; goes on over reloads.
    pub(crate) meters: Meters,
    /// What is known of the upstreams; goes on over reloads.
    pub(crate) healths: Healths,
    /// Every durable stream.
    pub(crate) streams: Arc<Streams>,
    /// Who is woken by them.
    pub(crate) desk: Arc<Desk>,
    /// When the process stops waiting for what is in flight, in milliseconds of [`unix_millis`]; 0 while it serves.
    drain_until: AtomicU64,
    /// The process has been told to stop, and serves on for a while.
    leaving: AtomicBool,
    /// Another process has taken over.
    succeeded: AtomicBool,
}

impl Shared {
    /// For settings that are in force from the start.
    pub(crate) fn new(
        settings: Settings,
        registry: Arc<Registry>,
        meters: Meters,
        healths: Healths,
        desk: Desk,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            settings: Arc::new(ArcSwap::from_pointee(settings)),
            seats: Seats::new(registry.cores().len()),
            inboxes: registry.cores().iter().map(|_| Inbox::default()).collect(),
            registry,
            meters,
            healths,
            streams: Arc::clone(&desk.streams),
            desk: Arc::new(desk),
            drain_until: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            succeeded: AtomicBool::new(false),
        })
    }

    /// It is going to drain: load balancers are told, clients are served as before.
    pub(crate) fn announce_drain(&self) {
        self.registry.set_ready(false);
        self.leaving.store(true, Ordering::Release);
    }

    /// Whether load balancers should send no more clients.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire) || self.is_draining()
    }

    /// No new connections and requests from now on; what is in flight has `grace` to finish.
    pub(crate) fn drain(&self, grace: Duration) {
        self.registry.set_ready(false);
        self.drain_until.store(unix_millis() + grace.as_millis() as u64, Ordering::Release);
    }

    /// Another process accepts from here on; this one finishes what it has.
    pub(crate) fn succeeded(&self, grace: Duration) {
        self.succeeded.store(true, Ordering::Release);
        self.drain(grace);
    }

    /// Whether another process accepts where this one did.
    pub(crate) fn is_succeeded(&self) -> bool {
        self.succeeded.load(Ordering::Acquire)
    }

    /// Whether the process is going down.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain_until.load(Ordering::Acquire) != 0
    }
}

/// What the tasks of one core share.
pub(crate) struct Core {
    /// Blocks, wheel, clock.
    pub(crate) shard: Rc<Shard>,
    /// What it shares with the other cores.
    pub(crate) shared: Arc<Shared>,
    /// The settings as it saw them last: to see that they are still in force takes one load, to ask for them a dozen of them.
    settings: RefCell<Cache<Arc<ArcSwap<Settings>>, Arc<Settings>>>,
    /// Its idle upstream connections.
    pub(crate) pool: Pool,
    /// Its memory of looked-up names.
    pub(crate) resolver: Rc<Resolver>,
    /// The same of names that webhooks lead to.
    pub(crate) webhook_resolver: Rc<Resolver>,
    /// Its readers of durable streams.
    pub(crate) hub: Rc<Hub>,
    /// How many encoders its answers have in use: each is large.
    pub(crate) encoders: Cell<u32>,
    /// Its counters.
    pub(crate) metrics: Arc<CoreMetrics>,
    /// Identifiers that clients may compute: request ids, trace ids, jitter.
    pub(crate) ids: RefCell<Ids>,
    /// Numbers that nobody can guess.
    pub(crate) nonces: RefCell<Nonces>,
    /// Its lines of the access log.
    pub(crate) log: RefCell<Option<AccessLog>>,
    /// What its clients hold in bodies.
    shares: Rc<Shares>,
    /// The retries that are left to each route; as many as there are labels at most.
    budgets: RefCell<FxHashMap<LabelId, Budget>>,
    /// How long the last responses of the routes that hedge took to begin, streams and others apart; likewise.
    recent: RefCell<FxHashMap<(LabelId, bool), Recent>>,
    /// Told when the process begins to go down, and when the last client has left after that.
    pub(crate) draining: Notify,
    date: Cell<[u8; DATE_BYTES]>,
    clients: RefCell<Slab<Weak<Client>>>,
    timer: Timer,
    swept: Cell<Millis>,
    /// The settings whose keys it has looked at last.
    keys_of: RefCell<Trace<Settings>>,
    told: Cell<bool>,
}

impl Core {
    /// A core's own, from the moment it runs.
    pub(crate) fn new(
        shard: Rc<Shard>,
        shared: Arc<Shared>,
        metrics: Arc<CoreMetrics>,
        log: Option<AccessLog>,
        ids: Ids,
        nonces: Nonces,
    ) -> Rc<Core> {
        let core = Rc::new_cyclic(|weak: &Weak<Core>| Core {
            timer: shard.wheel.timer(weak.clone()),
            hub: shared.streams.hub(shard.index, Arc::clone(&metrics)),
            encoders: Cell::new(0),
            settings: RefCell::new(Cache::new(Arc::clone(&shared.settings))),
            shard,
            shared,
            pool: Pool::default(),
            resolver: Resolver::new(LOOKUPS_MAX),
            webhook_resolver: Resolver::new(WEBHOOK_LOOKUPS_MAX),
            metrics,
            ids: RefCell::new(ids),
            nonces: RefCell::new(nonces),
            log: RefCell::new(log),
            shares: Rc::default(),
            budgets: RefCell::default(),
            recent: RefCell::default(),
            draining: Notify::new(),
            date: Cell::new(imf_fixdate(unix_millis() / 1000)),
            clients: RefCell::default(),
            swept: Cell::new(0),
            keys_of: RefCell::default(),
            told: Cell::new(false),
        });
        core.fire(core.shard.clock.millis());
        core
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(self.settings.borrow_mut().load())
    }

    /// What a dial needs of it.
    pub(crate) fn dialer<'a>(&'a self, tried: &'a Tried) -> Dialer<'a> {
        Dialer { resolver: &self.resolver, time: &self.shard, tried }
    }

    /// Whether it holds no more than its share of what may be held for all requests and streams.
    pub(crate) fn has_room(&self, settings: &Settings) -> bool {
        let cores = self.shared.registry.cores().len() as u64;
        // Readers on any core may hold what was rendered for them, so each core answers for a part of it.
        let rendered = self.shared.streams.rendered() / cores;
        self.shard.blocks.held_bytes() as u64 + rendered <= settings.config.limits.stream_memory / cores
    }

    /// A count of what a body of `client` holds, against what is left of this core's part of the memory for all of them.
    pub(crate) fn share(&self, client: u64, settings: &Settings) -> Share {
        let most = settings.config.limits.stream_memory / self.shared.registry.cores().len() as u64;
        Share::new(&self.shares, &self.shard.blocks, most as usize, client)
    }

    /// Whether it holds no more than its share of what may be held for heads that are not there yet.
    pub(crate) fn has_head_room(&self, settings: &Settings) -> bool {
        let share = settings.config.limits.head_memory / self.shared.registry.cores().len() as u64;
        self.shard.heads.held_bytes() as u64 <= share
    }

    /// What is left to `route` to be sent again.
    pub(crate) fn budget<T>(&self, route: LabelId, use_it: impl FnOnce(&mut Budget, Millis) -> T) -> T {
        let now = self.shard.clock.millis();
        use_it(self.budgets.borrow_mut().entry(route).or_insert_with(|| Budget::new(now)), now)
    }

    /// How long the last responses of `route` took to begin, those to requests for a stream or to others.
    pub(crate) fn recent<T>(
        &self,
        route: LabelId,
        streamed: bool,
        use_it: impl FnOnce(&mut Recent) -> T,
    ) -> T {
        use_it(self.recent.borrow_mut().entry((route, streamed)).or_default())
    }

    /// Any number, for jitter and load balancing. Clients can compute it: names and tokens come from `nonces`.
    pub(crate) fn chance(&self) -> u64 {
        self.ids.borrow_mut().next_u64()
    }

    /// The value of `Date`, at most a second old.
    pub(crate) fn date(&self) -> [u8; DATE_BYTES] {
        self.date.get()
    }

    /// Takes a client's connection into the books, until the guard is dropped.
    pub(crate) fn enter(self: &Rc<Self>, client: &Rc<Client>) -> Present {
        self.metrics.connections_open.add(1);
        let place = self.clients.borrow_mut().insert(Rc::downgrade(client));
        Present { core: Rc::clone(self), place }
    }

    /// Client connections on this core.
    pub(crate) fn clients(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Hands the lines of the log to its writer.
    pub(crate) fn flush_log(&self) {
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.flush();
        }
    }

    /// Tells everyone that the process is going down, once.
    fn begin_drain(&self, until: u64) {
        let left = until.saturating_sub(unix_millis());
        self.shard.ends_at.set(self.shard.clock.millis() + left);
        for (_, client) in self.clients.borrow().iter() {
            if let Some(client) = client.upgrade() {
                client.arm();
                client.wake();
            }
        }
        self.draining.notify_waiters();
        self.draining.notify_one();
    }

    /// Other settings are in force: what is answered to keys that they do not know any more ends.
    fn revoke(&self, settings: &Arc<Settings>) {
        self.keys_of.replace(Arc::downgrade(settings));
        let keys: FxHashSet<u64> = settings.holders.iter().map(|holder| holder.authority).collect();
        for (_, client) in self.clients.borrow().iter() {
            if let Some(client) = client.upgrade()
                && client.deadlines.authority.get() != 0
                && !keys.contains(&client.deadlines.authority.get())
            {
                client.deadlines.expired.set(Some(Timeout::Authority));
                client.wake();
            }
        }
    }

    /// Takes over the pool's and the buffers' own counts.
    fn count(&self) {
        self.metrics.buffers_in_use.set(self.shard.blocks.blocks() as u64);
        self.metrics.partial_head_bytes.set(self.shard.heads.held_bytes() as u64);
        self.metrics.upstream_idle.set(self.pool.len() as u64);
        self.metrics.buffers_allocated.add(self.shard.blocks.take_allocated());
        self.metrics.upstream_discarded_stale.add(self.pool.take_discarded());
    }
}

impl Timed for Core {
    fn fire(&self, now: Millis) {
        // First, so that it goes on whatever happens below.
        self.timer.arm(now + HOUSEKEEPING_MS);
        self.shared.registry.turns.turned(self.shard.index, now);
        self.date.set(imf_fixdate(unix_millis() / 1000));
        self.flush_log();
        // A core without requests does not keep alive what a reload has replaced.
        let settings = self.settings();
        if self.keys_of.borrow().as_ptr() != Arc::as_ptr(&settings) {
            self.revoke(&settings);
        }
        if now >= self.swept.get() + SWEEP_MS {
            self.swept.set(now);
            self.pool.sweep(now);
        }
        self.count();
        let until = self.shared.drain_until.load(Ordering::Acquire);
        if until != 0 && !self.told.replace(true) {
            self.begin_drain(until);
        }
    }
}

/// A client that is in the books.
pub(crate) struct Present {
    core: Rc<Core>,
    place: usize,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.core.clients.borrow_mut().remove(self.place);
        self.core.metrics.connections_open.sub(1);
        if self.core.told.get() && self.core.clients() == 0 {
            self.core.draining.notify_one();
        }
    }
}
