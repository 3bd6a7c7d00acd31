//! The edge as a process: cores are started, signals are obeyed ([`signals`]), and in the end everything that was begun is finished.
//!
//! | signal | what happens |
//! | --- | --- |
//! | SIGTERM, SIGINT | `/readyz` says 503; after `drain_delay` nothing new is accepted, streams finish within `drain_timeout`; a second one ends at once |
//! | SIGHUP | the configuration is read again and takes its place whole, or nothing changes and the reason is said |
//! | SIGUSR2 | the program is started again, with these sockets; when it serves, this process drains ([`successor`]) |

pub(crate) mod notify;
pub(crate) mod preflight;
pub(crate) mod signals;
pub(crate) mod successor;
pub(crate) mod watchdog;

use std::fmt;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use self::preflight::check;
pub(crate) use self::signals::EarlySignals;
use self::signals::End;
use self::successor::Estate;
use crate::admission::meters::Meters;
use crate::config::{AccessLog as LogSetting, Config};
use crate::edge::{self, Door};
use crate::proto::openai::ApiError;
use crate::relay::context::{Core, Shared};
use crate::relay::settings::Settings;
use crate::routing::health::Healths;
use crate::runtime::clock::{Clock, unix_millis};
use crate::runtime::executor;
use crate::runtime::net::inherit::Inherited;
use crate::runtime::net::listener::Bound;
use crate::runtime::net::{cpu, process};
use crate::streams::store::journal::{self, Directory, Keeper};
use crate::streams::store::redis::Remote;
use crate::streams::{self, Notes, Streams};
use crate::subscriptions::worker::Desk;
use crate::telemetry::{AccessLog, CoreMetrics, Ids, LogTarget, LogWriter, Nonces, Registry, panics};
use crate::tell;

/// How long the log's writer may take to write its last lines.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// What is said of a port that is taken, or a certificate that does not fit.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum ServeError {
    /// An address could not be listened on.
    Listen(SocketAddr, io::Error),
    /// A certificate or key could not be used.
    Settings(String),
    /// The machine refused something every process needs.
    System(&'static str, io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Listen(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "{address} is taken by another process; stop it, or choose another address with --listen or --admin"
                )
            }
            ServeError::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            ServeError::Settings(what) => f.write_str(what),
            ServeError::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// Serves until a signal ends it, on `inherited` sockets where they are those that are asked for. `reload` reads the
/// configuration again.
pub(crate) fn serve(
    config: Config,
    inherited: Inherited,
    signals: EarlySignals,
    reload: impl Fn() -> Result<Config, String>,
) -> Result<(), ServeError> {
    panics::watch();
    let limits = [process::raise_descriptor_limit, process::forbid_huge_pages];
    if let Err(error) = limits.iter().try_for_each(|set| set()) {
        tell!("sedge: the limits of this process could not be set ({error}); it goes on with those it has");
    }
    let cores = cpu::allowed();
    let workers = if config.workers == 0 { cores.len() } else { config.workers };
    let Inherited { public, admin, ready: predecessor } = inherited;
    let bound =
        listen(config.listen, public, workers).map_err(|error| ServeError::Listen(config.listen, error))?;
    let admin = match config.admin {
        Some(address) => {
            let bound = admin_listener(address, admin, config.admin_by_default);
            Some(bound.map_err(|error| ServeError::Listen(address, error))?)
        }
        None => None,
    };
    let (listen, admin_at) = (bound[0][0].address(), admin.as_ref().map(Bound::address));
    let estate = Estate::new(bound.iter().flatten(), admin.as_ref())
        .map_err(|error| ServeError::System("cannot prepare to be taken over from", error))?;

    let registry = Registry::new(workers);
    let log = match log_target(&config.access_log) {
        Some(target) => LogWriter::start(target, Arc::clone(&registry)).map(Some),
        None => Ok(None),
    };
    let log = log.map_err(|error| ServeError::System("cannot open the access log", error))?;
    let first_line = first_line(&config, listen, workers);
    let (meters, healths) = (Meters::default(), Healths::default());
    let settings = Settings::new(config, &registry, &meters, &healths);
    let settings = settings.map_err(|error| ServeError::Settings(error.to_string()))?;
    let (desk, keeper) = open_streams(&settings.config, workers)?;
    let shared = Shared::new(settings, Arc::clone(&registry), meters, healths, desk);

    let mut threads = Vec::with_capacity(workers + 1);
    let mut ready = Vec::with_capacity(workers);
    for (index, bound) in bound.into_iter().enumerate() {
        let metrics = Arc::clone(&registry.cores()[index]);
        let lines = log.as_ref().map(|log| AccessLog::new(log, Arc::clone(&metrics)));
        let pin = (workers <= cores.len()).then(|| cores[index]);
        let (started, listening) = oneshot::channel();
        ready.push(listening);
        threads.push(start(index, pin, &shared, metrics, lines, bound, Door::Public, Some(started))?);
    }
    if let Some(bound) = admin {
        // Not one of the cores: it is not pinned, and what it does is not counted.
        let metrics = Arc::new(CoreMetrics::default());
        start(workers, None, &shared, metrics, None, vec![bound], Door::Admin, None)?;
    }

    let (runtime, mut signals) =
        signals.obey().map_err(|error| ServeError::System("cannot watch for signals", error))?;
    watchdog::start(&registry).map_err(|error| ServeError::System("cannot start a thread", error))?;
    runtime.block_on(async {
        for listening in ready {
            let _ = listening.await;
        }
        registry.set_ready(true);
        tell!("{first_line}");
        if let Some(address) = admin_at {
            tell!("sedge admin on http://{address} (/metrics, /readyz, /livez)");
        }
        if let Some(mut predecessor) = predecessor {
            // Where it has ended meanwhile, nobody needs to know.
            let _ = predecessor.write_all(&[1]);
        }
        notify::tell(notify::READY);
        match (&shared.settings.load().config.data_dir, shared.streams.remote()) {
            (_, Some(remote)) => tell!("sedge keeps durable streams in Redis at {}", remote.place()),
            (Some(path), None) => tell!("sedge keeps durable streams in {}", path.display()),
            (None, None) => tell!(
                "sedge keeps durable streams in memory: they are gone when it ends (--data-dir keeps them)"
            ),
        }
        let end = signals.until_end(&shared, log.as_ref(), &estate, &reload).await;
        let (delay, patience) = {
            let config = &shared.settings.load().config;
            (config.drain_delay, config.drain_timeout)
        };
        if let End::Stopped = end {
            notify::tell(notify::STOPPING);
            shared.announce_drain();
            if !delay.is_zero() {
                tell!("sedge: going to drain; new connections are served for {} s more", delay.as_secs_f64());
            }
            if !signals.delay(delay).await {
                tell!("sedge: stopping at once");
                return;
            }
        }
        // A socket that is held here and read by nobody would swallow connections.
        drop(estate);
        match end {
            End::Stopped => shared.drain(patience),
            End::Succeeded(pid) => {
                notify::tell(&notify::main_process(pid));
                tell!("sedge: process {pid} has taken over");
                shared.succeeded(patience);
            }
        }
        tell!("sedge: draining; requests in flight have {} s", patience.as_secs());
        signals.until_drained(threads, patience).await;
    });
    if let Some(keeper) = keeper {
        keeper.close();
    }
    if let Some(remote) = shared.streams.remote() {
        remote.close(REDIS_PATIENCE);
    }
    if let Some(log) = log {
        log.close(LOG_PATIENCE);
    }
    tell!("sedge: stopped");
    Ok(())
}

/// Without random numbers from the kernel nothing is served.
const NO_RANDOM_NUMBERS: fn(io::Error) -> ServeError =
    |error| ServeError::System("no random numbers from the system", error);

/// How long a start waits for Redis before it serves without it, and an end for what has to get there.
const REDIS_PATIENCE: Duration = Duration::from_secs(3);

/// The durable streams and their subscriptions, for so many workers and the admin's core.
fn open_streams(config: &Config, workers: usize) -> Result<(Desk, Option<Keeper<Directory>>), ServeError> {
    let random = || Nonces::from_os().map_err(NO_RANDOM_NUMBERS);
    let ids = random()?;
    let desk = |streams, notes, noted: &[_]| {
        let now = Clock::default().micros() / 1000;
        let desk = Desk::new(Arc::new(streams), notes, noted, random()?, now);
        desk.map_err(|error| ServeError::Settings(error.to_string()))
    };
    let bounds = config.streams.bounds.clone();
    if let Some(url) = &config.streams.redis {
        let cut = ApiError::generation_interrupted().event();
        let remote = Remote::open(url.expose(), cut, random()?)
            .map_err(|error| ServeError::System("cannot prepare for Redis", error))?;
        let desk =
            desk(Streams::shared(Arc::clone(&remote), workers + 1, bounds, ids), Notes::default(), &[])?;
        remote.start(&desk.streams, REDIS_PATIENCE);
        return Ok((desk, None));
    }
    let Some(path) = &config.data_dir else {
        return Ok((desk(Streams::new(workers + 1, bounds, ids), Notes::default(), &[])?, None));
    };
    let settings = journal::Settings { fsync: config.streams.fsync, ..journal::Settings::default() };
    let opened = streams::open(
        path,
        &settings,
        workers + 1,
        bounds,
        ids,
        unix_millis(),
        &ApiError::generation_interrupted().event(),
    )
    .map_err(|error| ServeError::Settings(error.to_string()))?;
    if let Some(cut) = &opened.recovery.cut {
        let (file, bytes) = (cut.path.display(), cut.lost);
        tell!(
            "sedge: {file}: {bytes} bytes at its end were half written and never acknowledged; they were cut off"
        );
    }
    Ok((desk(opened.streams, opened.notes, &opened.noted)?, Some(opened.keeper)))
}

#[expect(clippy::too_many_arguments, reason = "what a core is given once, at its start")]
fn start(
    index: usize,
    pin: Option<usize>,
    shared: &Arc<Shared>,
    metrics: Arc<CoreMetrics>,
    lines: Option<AccessLog>,
    bound: Vec<Bound>,
    door: Door,
    started: Option<oneshot::Sender<()>>,
) -> Result<JoinHandle<()>, ServeError> {
    let shared = Arc::clone(shared);
    let ids = Ids::from_os().map_err(NO_RANDOM_NUMBERS)?;
    let nonces = Nonces::from_os().map_err(NO_RANDOM_NUMBERS)?;
    let thread = executor::spawn(index, pin, move |shard| async move {
        let core = Core::new(shard, shared, metrics, lines, ids, nonces);
        if let Some(started) = started {
            let _ = started.send(());
        }
        let registry = Arc::clone(&core.shared.registry);
        match edge::serve(core, bound, door).await {
            Ok(()) => registry.turns.ended(index),
            Err(error) => tell!("sedge: core {index} cannot accept connections: {error}"),
        }
    });
    thread.map_err(|error| ServeError::System("cannot start a thread", error))
}

/// One listening socket or more for each core: the inherited ones, if they are at this address.
fn listen(address: SocketAddr, inherited: Vec<Bound>, workers: usize) -> io::Result<Vec<Vec<Bound>>> {
    let inherited: Vec<Bound> = inherited.into_iter().filter(|bound| is_asked_for(bound, address)).collect();
    match inherited.is_empty() {
        true => Ok(Bound::many(address, workers)?.into_iter().map(|bound| vec![bound]).collect()),
        false => Bound::spread(inherited, workers),
    }
}

/// Ports after the default one that are tried for the admin listener, if they are taken one after the other.
const ADMIN_PORTS_TRIED: u16 = 10;

/// The operators' socket: the inherited one, if it is at this address, else a new one. Where nobody has configured the address, the next
/// free port will do.
fn admin_listener(address: SocketAddr, inherited: Option<Bound>, by_default: bool) -> io::Result<Bound> {
    let last = address.port().saturating_add(if by_default { ADMIN_PORTS_TRIED } else { 0 });
    let is_ours = |bound: &Bound| {
        let has = bound.address();
        is_asked_for(bound, address)
            || has.ip() == address.ip() && (address.port()..=last).contains(&has.port())
    };
    if let Some(inherited) = inherited.filter(is_ours) {
        return Ok(inherited);
    }
    let mut bound = Bound::new_alone(address);
    for port in address.port()..last {
        if !bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            return bound;
        }
        let next = SocketAddr::new(address.ip(), port + 1);
        bound = Bound::new_alone(next);
        if bound.is_ok() {
            tell!(
                "sedge: {address} is taken, so the admin listener is on {next}; set `admin` (--admin) to choose one"
            );
        }
    }
    bound
}

/// Whether an inherited socket is where it is asked to listen; port 0 is any port.
fn is_asked_for(bound: &Bound, address: SocketAddr) -> bool {
    let has = bound.address();
    has.ip() == address.ip() && (address.port() == 0 || address.port() == has.port())
}

#[expect(clippy::disallowed_methods, reason = "the main thread's own runtime, once, at the end")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

fn first_line(config: &Config, listen: SocketAddr, workers: usize) -> String {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let upstream = match (config.simulator, &config.upstreams[..]) {
        (true, _) => "its own simulator (no upstream configured)".to_owned(),
        (false, [only]) => only.url.to_string(),
        (false, several) => format!("{} upstreams", several.len()),
    };
    let plural = if workers == 1 { "" } else { "s" };
    format!(
        "sedge {} listening on {scheme}://{listen} -> {upstream} ({workers} worker{plural})",
        env!("CARGO_PKG_VERSION")
    )
}

fn log_target(setting: &LogSetting) -> Option<LogTarget> {
    match setting {
        LogSetting::Off => None,
        LogSetting::Stdout => Some(LogTarget::Stdout),
        LogSetting::Stderr => Some(LogTarget::Stderr),
        LogSetting::File(path) => Some(LogTarget::File(path.clone())),
    }
}
