//! What a user may set, checked before anything starts.
//!
//! A setting comes from the command line, else from the environment, else from the configuration file, else it has its
//! default. [`load()`] brings these together into a [`Config`]: plain data, whole and checked, with nothing left to look up.
//! The same call serves a reload; one that finds problems leaves no trace.
//!
//! - Every problem is reported, not only the first, each with the file, the line, the key and what to do about it.
//! - A secret never stands in the file itself, and is never part of an error, a `Debug` or a log line.
//! - The process environment is never read here: it is handed in, so that tests need not change it.
//!
//! | file | what it owns |
//! | --- | --- |
//! | [`load`](load()) | the order of precedence, and the checks that need all sources |
//! | `document` | TOML walked with positions: what a key is, what a table may hold |
//! | `file` and one file a table | what each table of the file means |
//! | `units`, `url`, `glob`, `secret`, `address`, `network`, `files` | the values |

pub(crate) mod address;
pub(crate) mod alias;
pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod concurrency;
pub(crate) mod cors;
pub(crate) mod document;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod files;
pub(crate) mod glob;
pub(crate) mod hosts;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod load;
#[cfg(test)]
mod load_tests;
pub(crate) mod nearest;
pub(crate) mod network;
pub(crate) mod probe;
#[cfg(test)]
mod problem_tests;
pub(crate) mod quota;
pub(crate) mod reload;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod secret;
pub(crate) mod streams;
#[cfg(test)]
mod tests;
pub(crate) mod timeouts;
pub(crate) mod units;
pub(crate) mod upstream;
pub(crate) mod url;

use std::borrow::Cow;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::address::{parse_address, parse_address_or_off};
pub(crate) use self::balance::{Balance, Member};
pub use self::breaker::Breaker;
pub(crate) use self::breaker::Breaking;
pub(crate) use self::concurrency::Concurrency;
pub(crate) use self::cors::Cors;
pub(crate) use self::file::WORKERS_MAX;
pub(crate) use self::glob::Glob;
pub(crate) use self::keys::ClientKey;
pub use self::limits::Limits;
pub(crate) use self::load::check;
pub use self::load::load;
pub(crate) use self::nearest::did_you_mean;
pub(crate) use self::network::Network;
pub(crate) use self::probe::Probe;
pub(crate) use self::quota::Quota;
pub(crate) use self::reload::{describe_unreloadable, keep_unreloadable};
pub(crate) use self::retry::{HedgeAfter, Retry};
pub(crate) use self::route::Route;
pub(crate) use self::secret::Secret;
pub(crate) use self::streams::{Compress, Streams};
pub use self::timeouts::Timeouts;
pub(crate) use self::units::parse_duration;
pub(crate) use self::upstream::Upstream;
pub(crate) use self::url::{NotAUrl, UpstreamUrl};

/// The environment: a variable's value by its name. A variable that is set to nothing counts as not set.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Everything that was set, resolved and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients are served.
    pub(crate) listen: SocketAddr,
    /// Where metrics and health are served, if at all.
    pub(crate) admin: Option<SocketAddr>,
    /// Nobody has said where: another port will do.
    pub(crate) admin_by_default: bool,
    /// What opens the metrics there, if not everyone may see them.
    pub(crate) admin_token: Option<Secret>,
    /// Anyone who can connect may use it, although it listens beyond loopback.
    pub(crate) open: bool,
    /// Names that this server is reached by; where there are no keys, no others are served beside loopback's.
    pub(crate) hosts: Vec<String>,
    /// Relay every path, not only those below `/v1/`.
    pub(crate) relay_all: bool,
    /// Worker threads; 0 stands for one per core.
    pub(crate) workers: usize,
    /// What TLS is served with, if it is.
    pub(crate) tls: Option<ServerTls>,
    /// Certificate authorities that upstreams may use, beside the system's.
    pub(crate) upstream_ca: Vec<PathBuf>,
    /// Whether `GET /` shows the playground.
    pub(crate) playground: bool,
    /// Where a line for each request goes.
    pub(crate) access_log: AccessLog,
    /// The upstreams. Empty only if `simulator`.
    pub(crate) upstreams: Vec<Upstream>,
    /// The routes, in the order in which they are tried. Empty only if `simulator`.
    pub(crate) routes: Vec<Route>,
    /// Who may come in. Empty: everyone.
    pub(crate) keys: Vec<ClientKey>,
    /// Proxies before this one, whose word for a client's address is believed.
    pub(crate) trusted_proxies: Vec<Network>,
    /// Which pages of other origins may read the answers, if any.
    pub(crate) cors: Option<Cors>,
    /// Timeouts, where a route has no others.
    pub(crate) timeouts: Timeouts,
    /// Limits on what is held and accepted.
    pub(crate) limits: Limits,
    /// Durable streams.
    pub(crate) streams: Streams,
    /// Where they are kept; `None` is in memory.
    pub(crate) data_dir: Option<PathBuf>,
    /// How long a stream may be silent towards the client before a heartbeat is sent; 0 turns them off.
    pub(crate) heartbeat: Duration,
    /// How long new connections are still served once the process was told to stop; load balancers notice meanwhile.
    pub(crate) drain_delay: Duration,
    /// How long requests in flight may take to finish once the process was told to stop.
    pub(crate) drain_timeout: Duration,
    /// Nothing is configured: the built-in simulator answers.
    pub(crate) simulator: bool,
    /// What a user should be told at the start although it is no error, a sentence each.
    pub(crate) notices: Vec<String>,
}

/// The files that TLS is served with, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerTls {
    /// The certificate, and those that lead up to its authority.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccessLog {
    /// Nowhere.
    Off,
    /// To the standard output.
    Stdout,
    /// To the standard error.
    Stderr,
    /// To the end of a file.
    File(PathBuf),
}

impl Config {
    /// The first route that takes a request, by its index, and the model's other name if the route gives it one. A request
    /// that names no model is taken only by routes that take any.
    pub(crate) fn route(&self, model: Option<&str>, path: &str) -> Option<(usize, Option<Cow<'_, str>>)> {
        self.routes.iter().enumerate().find_map(|(index, route)| Some((index, route.take(model, path)?)))
    }

    /// Whether the path of a relayed request decides what it may do: where it goes, whose right it needs, which limit it meets.
    pub(crate) fn decides_by_path(&self) -> bool {
        let is_limited = |route: &Route| !route.paths.is_empty() || !route.quota.is_unlimited();
        !self.keys.is_empty() || self.routes.iter().any(is_limited) || self.limits_tokens()
    }

    /// Whether the model of a request decides where it goes.
    pub(crate) fn decides_by_model(&self) -> bool {
        match &self.routes[..] {
            [] => false,
            // A fallback may be to another model.
            [only] => !only.takes_everything() || !only.aliases.is_empty() || only.fallback.is_some(),
            _ => true,
        }
    }

    /// Whether it matters that a request asks for a stream: for an early heartbeat, or for the form of a fixed answer.
    pub(crate) fn decides_by_stream(&self) -> bool {
        self.routes.iter().any(|route| route.early_heartbeat.is_some() || route.degraded.is_some())
    }

    /// Whether a route or an upstream limits or counts the tokens that a request asks for.
    pub(crate) fn limits_tokens(&self) -> bool {
        let routes = self.routes.iter().map(|route| &route.quota);
        routes.chain(self.upstreams.iter().map(|upstream| &upstream.quota)).any(Quota::limits_tokens)
    }

    /// Makes the simulator that listens at `address` the only upstream.
    pub(crate) fn lead_to_simulator(&mut self, address: SocketAddr) {
        let url = UpstreamUrl::of_address(address);
        self.upstreams = vec![Upstream::new("simulator".to_owned(), url)];
        self.routes = vec![Route::everything(1, &self.timeouts, self.limits.max_body)];
    }
}
