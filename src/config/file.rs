//! The configuration file as a whole: its tables, and what may stand outside of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{address, address_or_off};
use super::cors::Cors;
use super::document::{Document, Table, Value};
use super::error::{Origin, Problem};
use super::files::{check_parent, check_readable};
use super::hosts::host;
use super::keys::{self, ClientKey};
use super::limits::Limits;
use super::network::{Network, network};
use super::route::{Names, Route, Surroundings};
use super::secret::{Secret, secret};
use super::streams::Streams;
use super::timeouts::Timeouts;
use super::units::duration;
use super::upstream::{Upstream, unused_name};
use super::{AccessLog, Env, ServerTls, did_you_mean};

/// The most workers that can be asked for: more than any machine has cores.
pub(crate) const WORKERS_MAX: u64 = 4096;

/// What stands outside of all tables. Beneath a table's name it would belong to that table, which is easily overlooked.
const TOP_KEYS: &[&str] = &[
    "listen",
    "admin",
    "admin_token",
    "trusted_proxies",
    "open",
    "hosts",
    "relay_all",
    "workers",
    "upstream_ca",
    "playground",
    "access_log",
    "heartbeat",
    "drain_timeout",
    "drain_delay",
    "data_dir",
    "tls",
];

/// What a file says. `None` is what it does not speak of.
#[derive(Default)]
pub(crate) struct FileSettings {
    pub(crate) listen: Option<(SocketAddr, Origin)>,
    pub(crate) admin: Option<(Option<SocketAddr>, Origin)>,
    pub(crate) admin_token: Option<Secret>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) cors: Option<Cors>,
    pub(crate) open: bool,
    pub(crate) hosts: Vec<String>,
    pub(crate) relay_all: bool,
    pub(crate) workers: Option<usize>,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) upstream_ca: Vec<PathBuf>,
    pub(crate) playground: Option<bool>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) drain_delay: Option<Duration>,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) streams: Streams,
    pub(crate) data_dir: Option<PathBuf>,
    /// Each with where its URL stands.
    pub(crate) upstreams: Vec<(Upstream, Origin)>,
    pub(crate) routes: Vec<Route>,
    pub(crate) keys: Vec<ClientKey>,
    /// How many upstreams and routes were passed over, because the command line or the environment names others.
    pub(crate) replaced: (usize, usize),
}

/// Reads the text of the file at `path`. With `upstreams_replaced`, its upstreams and routes are passed over.
pub(crate) fn read(
    path: &Path,
    text: &str,
    upstreams_replaced: bool,
    env: Env<'_>,
) -> (FileSettings, Vec<Problem>) {
    let name = path.display().to_string();
    let document = Document::new(&name, path.parent().unwrap_or(Path::new("")), text, env);
    let settings = match document.parse() {
        Some(table) => read_root(&document, &document.root(&table), upstreams_replaced),
        None => FileSettings::default(),
    };
    (settings, document.into_problems())
}

fn read_root(document: &Document<'_>, root: &Table<'_>, upstreams_replaced: bool) -> FileSettings {
    let mut settings = FileSettings {
        listen: root.get("listen", |value| Ok((address(value)?, value.origin()))),
        admin: root.get("admin", |value| Ok((address_or_off(value)?, value.origin()))),
        admin_token: root.get("admin_token", secret),
        trusted_proxies: root.get("trusted_proxies", |value| Ok(value.each(network))).unwrap_or_default(),
        hosts: root.get("hosts", |value| Ok(value.each(host))).unwrap_or_default(),
        open: root.get("open", Value::boolean).unwrap_or_default(),
        relay_all: root.get("relay_all", Value::boolean).unwrap_or_default(),
        workers: root.get("workers", |value| Ok(value.integer(0..=WORKERS_MAX)? as usize)),
        upstream_ca: root.get("upstream_ca", |value| Ok(value.each(readable))).unwrap_or_default(),
        playground: root.get("playground", Value::boolean),
        access_log: root.get("access_log", access_log),
        heartbeat: root.get("heartbeat", duration),
        drain_timeout: root.get("drain_timeout", duration),
        drain_delay: root.get("drain_delay", duration),
        data_dir: root.get("data_dir", Value::path),
        ..FileSettings::default()
    };
    if let Some(table) = root.table("tls", "[tls] ") {
        settings.tls = read_tls(&table);
    }
    settings.cors = root.table("cors", "[cors] ").map(|table| Cors::read(&table));
    if let Some(table) = root.table("timeouts", "[timeouts] ") {
        settings.timeouts = settings.timeouts.read(&table);
        table.finish(outside);
    }
    if let Some(table) = root.table("limits", "[limits] ") {
        settings.limits = settings.limits.read(&table);
        table.finish(outside);
    }
    if let Some(table) = root.table("streams", "[streams] ") {
        settings.streams = settings.streams.read(&table);
        table.finish(outside);
    }
    settings.keys = keys::read(&root.tables("key"), |problem| document.report(problem));
    let (upstreams, routes) = (root.tables("upstream"), root.tables("route"));
    if upstreams_replaced {
        settings.replaced = (upstreams.len(), routes.len());
    } else {
        read_upstreams(&upstreams, &routes, &mut settings);
    }
    root.finish(|key| match key {
        "upstreams" | "routes" | "keys" => Some(format!("write [[{}]]", &key[..key.len() - 1])),
        "models" | "aliases" | "paths" => Some("it belongs in a [[route]]".to_owned()),
        _ => None,
    });
    settings
}

fn read_tls(table: &Table<'_>) -> Option<ServerTls> {
    let cert = table.require("cert", "name the PEM file of the certificate and its chain", readable);
    let key = table.require("key", "name the PEM file of the certificate's private key", readable);
    table.finish(outside);
    Some(ServerTls { cert: cert?, key: key? })
}

fn read_upstreams(upstreams: &[Table<'_>], routes: &[Table<'_>], settings: &mut FileSettings) {
    // The names of all, even of those that cannot be used: a route to one of them is not wrong, too.
    let mut names: Vec<String> = Vec::new();
    let mut names_are_known = true;
    for table in upstreams {
        let (given, upstream) = Upstream::read(table);
        names_are_known &= given.is_some() || table.is_sound();
        let taken = |name: &str| names.iter().any(|other| other == name);
        if let Some(name) = given.as_deref().filter(|name| taken(name)) {
            table.fault("name", format!("another upstream is called {name:?}, too; each needs its own name"));
        }
        let wanted = given
            .clone()
            .or_else(|| upstream.as_ref().map(|upstream| upstream.name.clone()))
            .unwrap_or_default();
        let name = if given.is_some() { wanted } else { unused_name(&wanted, taken) };
        names.push(name.clone());
        if let Some(upstream) = upstream {
            settings.upstreams.push((Upstream { name, ..upstream }, table.origin("url")));
        }
    }
    for table in routes {
        let around = Surroundings {
            upstreams: Names { names: &names, all: names_are_known && !upstreams.is_empty() },
            timeouts: &settings.timeouts,
            max_body: settings.limits.max_body,
            stream_memory: settings.limits.stream_memory,
            before: &settings.routes,
        };
        let route = Route::read(table, &around);
        settings.routes.push(route);
    }
    for (table, route) in routes.iter().zip(&settings.routes) {
        route.check_fallback(table, &settings.routes);
    }
    if let (Some(route), []) = (routes.first(), upstreams) {
        route.fault("upstreams", "there is no [[upstream]] in this file that a route could lead to");
    }
}

/// Where a key belongs that stands outside of all tables.
pub(crate) fn outside(key: &str) -> Option<String> {
    let known = TOP_KEYS.contains(&key);
    known.then(|| "it belongs at the top of the file, above the first line in brackets".to_owned())
}

fn readable(value: &Value<'_>) -> Result<PathBuf, String> {
    let path = value.path()?;
    check_readable(&path).map(|()| path)
}

fn access_log(value: &Value<'_>) -> Result<AccessLog, String> {
    match value.string()? {
        "off" => Ok(AccessLog::Off),
        "stdout" => Ok(AccessLog::Stdout),
        "stderr" => Ok(AccessLog::Stderr),
        path if path.contains('/') => {
            let path = value.path()?;
            check_parent(&path).map(|()| AccessLog::File(path))
        }
        word => {
            let near = did_you_mean(word, ["off", "stdout", "stderr"]);
            Err(format!(
                "{word:?} is neither \"off\", \"stdout\", \"stderr\" nor a path with a slash in it{near}"
            ))
        }
    }
}
