//! Sources brought together: the command line before the environment, that before the file, that before the defaults.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::parse_address;
use super::error::{ConfigErrors, Origin, Problem};
use super::file::{self, FileSettings};
use super::files::{check_readable, read_text};
use super::{AccessLog, Config, Env, Route, Secret, Upstream, UpstreamUrl};
use crate::cli::ServeArgs;

/// The file that is read if no other is named and it is there.
const DEFAULT_FILE: &str = "sedge.toml";

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9091);

/// Where a key for OpenAI leads if nothing else is said.
const DEFAULT_UPSTREAM: &str = "https://api.openai.com/v1";

const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What is to be served, whole and checked. To be called again when it is to be reloaded.
pub fn load(args: &ServeArgs, env: Env<'_>) -> Result<Config, ConfigErrors> {
    load_in(Path::new(""), args, env).map(|(config, _)| config)
}

/// Likewise, but there must be a file; what it amounts to, on one line.
pub(crate) fn check(args: &ServeArgs, env: Env<'_>) -> Result<(Config, String), ConfigErrors> {
    check_in(Path::new(""), args, env)
}

pub(crate) fn check_in(
    directory: &Path,
    args: &ServeArgs,
    env: Env<'_>,
) -> Result<(Config, String), ConfigErrors> {
    match load_in(directory, args, env)? {
        (config, Some(file)) => {
            let summary = summary(&config, &file);
            Ok((config, summary))
        }
        (_, None) => {
            let what = "there is no such file here; name another one with --config FILE";
            Err(ConfigErrors::new(vec![Origin::file(DEFAULT_FILE).problem(what)]))
        }
    }
}

/// The configuration, and the name of its file if it has one. `directory` is where the default file is looked for.
pub(crate) fn load_in(
    directory: &Path,
    args: &ServeArgs,
    env: Env<'_>,
) -> Result<(Config, Option<String>), ConfigErrors> {
    let mut problems = Vec::new();
    let env = Variables { env };
    let (named, named_by) = named_upstreams(args, &env, &mut problems);
    let path = file_path(directory, args, &env);
    let file = path.as_ref().map(|(path, _)| path.display().to_string());
    let settings = read_file(path, named_by.is_some(), &env, &mut problems);
    check_named_files(args, &mut problems);
    let is_file_sound = problems.is_empty();

    let (listen, listen_at) = listen(args, &env, &settings, &mut problems);
    let admin_by_default = args.admin.is_none() && settings.admin.is_none();
    let (admin, admin_at) = match (args.admin, settings.admin) {
        (Some(admin), _) => (admin, Origin::of("--admin")),
        (None, Some(placed)) => placed,
        (None, None) => (Some(DEFAULT_ADMIN), Origin::of("admin")),
    };
    if let Some(address) = admin.filter(|&address| overlap(address, listen) && !admin_by_default) {
        let what =
            format!("{address} is where clients are served ({listen}); choose another port, or \"off\"");
        problems.push(admin_at.problem(what));
    }

    if let Some(address) = admin.filter(|address| !address.ip().is_loopback())
        && is_file_sound
        && settings.admin_token.is_none()
    {
        problems.push(admin_at.problem(format!(
            "{address} can be reached from other machines, and its metrics tell what runs here; \
             set admin_token = \"env:NAME\" or \"file:PATH\" in the configuration file, or listen on 127.0.0.1"
        )));
    }

    let mut notices = Vec::new();
    if let (Some(by), (upstreams @ 1.., routes)) = (&named_by, settings.replaced) {
        let (upstreams, routes) = (count(upstreams, "upstream"), count(routes, "route"));
        notices.push(format!("{} takes the place of the file's {upstreams} and {routes}", by.key));
    }
    let open = args.open || settings.open;
    // Where keys were meant but could not be read, it is not their absence that is to be told.
    if is_file_sound && settings.keys.is_empty() && !listen.ip().is_loopback() {
        let who = format!("{listen} can be reached from other machines, and no client keys are configured");
        match open {
            true => notices.push(format!("{who}: anyone who reaches it may use it, since it is set to be open")),
            false => problems.push(listen_at.problem(format!(
                "{who}; add a [[key]] for each client to the configuration file, or say open = true (--open) to let anyone in"
            ))),
        }
    }

    let placed = choose_upstreams(named, named_by, settings.upstreams, api_key(&env, &mut problems));
    for (upstream, origin) in &placed {
        if upstream.url.leads_to(listen) && listen.port() != 0 {
            let what = format!(
                "{} is where sedge itself listens, so requests would go round in circles",
                upstream.url
            );
            problems.push(origin.problem(what));
        }
    }
    let data_dir = args.data_dir.clone().or(settings.data_dir);
    if data_dir.is_some() && settings.streams.redis.is_some() {
        let named_by = if args.data_dir.is_some() { "--data-dir" } else { "data_dir" };
        let what =
            "and `redis` in [streams] exclude each other: durable streams are on this disk or in Redis"
                .to_owned();
        problems.push(Origin::of(named_by).problem(what));
    }
    if !problems.is_empty() {
        return Err(ConfigErrors::new(problems));
    }

    let upstreams: Vec<Upstream> = placed.into_iter().map(|(upstream, _)| upstream).collect();
    let mut routes = settings.routes;
    if routes.is_empty() && !upstreams.is_empty() {
        routes.push(Route::everything(upstreams.len(), &settings.timeouts, settings.limits.max_body));
    }
    let mut streams = settings.streams;
    streams.bounds.quotas = super::keys::quotas(&settings.keys);
    let mut config = Config {
        listen,
        admin,
        admin_by_default,
        admin_token: settings.admin_token,
        open,
        hosts: settings.hosts,
        relay_all: args.relay_all || settings.relay_all,
        workers: args.workers.or(settings.workers).unwrap_or_default(),
        tls: args.tls.clone().or(settings.tls),
        upstream_ca: if args.upstream_ca.is_empty() {
            settings.upstream_ca
        } else {
            args.upstream_ca.clone()
        },
        playground: settings.playground.unwrap_or(true),
        access_log: settings.access_log.unwrap_or(AccessLog::Stdout),
        simulator: upstreams.is_empty(),
        upstreams,
        routes,
        keys: settings.keys,
        trusted_proxies: settings.trusted_proxies,
        cors: settings.cors,
        timeouts: settings.timeouts,
        limits: settings.limits,
        streams,
        data_dir,
        heartbeat: settings.heartbeat.unwrap_or(DEFAULT_HEARTBEAT),
        drain_timeout: settings.drain_timeout.unwrap_or(DEFAULT_DRAIN_TIMEOUT),
        drain_delay: settings.drain_delay.unwrap_or_default(),
        notices,
    };
    config.timeouts.for_heartbeat(config.heartbeat);
    for route in &mut config.routes {
        route.timeouts.for_heartbeat(route.heartbeat.unwrap_or(config.heartbeat));
    }
    Ok((config, file))
}

/// Whether two listeners could not be bound at the same time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: SocketAddr, some: SocketAddr| {
        // `[::]` is all of IPv4 as well.
        all.ip().is_unspecified() && (all.is_ipv6() || some.is_ipv4())
    };
    let same = one.ip() == other.ip() || covers(one, other) || covers(other, one);
    same && one.port() == other.port() && one.port() != 0
}

/// The environment, where what is empty is not set.
struct Variables<'a> {
    env: Env<'a>,
}

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<OsString> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// What `read` makes of a variable, if it is set.
    fn read<T>(
        &self,
        name: &str,
        problems: &mut Vec<Problem>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.get(name)?;
        let read = value.to_str().ok_or_else(|| "is not text in UTF-8".to_owned()).and_then(read);
        read.map_err(|what| problems.push(Origin::of(name).problem(what))).ok()
    }
}

/// The upstreams that the command line or else the environment names, and which of them it was.
fn named_upstreams(
    args: &ServeArgs,
    env: &Variables<'_>,
    problems: &mut Vec<Problem>,
) -> (Vec<Upstream>, Option<Origin>) {
    if !args.upstreams.is_empty() {
        return (Upstream::of_urls(&args.upstreams), Some(Origin::of("--upstream")));
    }
    let name = "OPENAI_BASE_URL";
    let set = env.get(name).map(|_| Origin::of(name));
    let url = env.read(name, problems, |text| UpstreamUrl::parse(text).map_err(|error| error.to_string()));
    (Upstream::of_urls(url.as_slice()), set)
}

fn api_key(env: &Variables<'_>, problems: &mut Vec<Problem>) -> Option<Secret> {
    env.read("OPENAI_API_KEY", problems, |text| Secret::new(text).map_err(|error| error.to_string()))
}

/// Those that were named, else the file's, else OpenAI if there is a key for it; each with where it was set. The
/// environment's key is not for the file's upstreams, which say themselves what theirs is.
fn choose_upstreams(
    named: Vec<Upstream>,
    named_by: Option<Origin>,
    in_file: Vec<(Upstream, Origin)>,
    key: Option<Secret>,
) -> Vec<(Upstream, Origin)> {
    let (upstreams, origin) = match named_by {
        Some(origin) => (named, origin),
        None if !in_file.is_empty() || key.is_none() => return in_file,
        None => {
            let url = UpstreamUrl::parse(DEFAULT_UPSTREAM).ok();
            (Upstream::of_urls(url.as_slice()), Origin::of("OPENAI_API_KEY"))
        }
    };
    let add = |upstream| Upstream { key: key.clone(), key_if_absent: true, ..upstream };
    upstreams.into_iter().map(|upstream| (add(upstream), origin.clone())).collect()
}

fn listen(
    args: &ServeArgs,
    env: &Variables<'_>,
    settings: &FileSettings,
    problems: &mut Vec<Problem>,
) -> (SocketAddr, Origin) {
    let name = "SEDGE_LISTEN";
    if let Some(address) = args.listen {
        return (address, Origin::of("--listen"));
    }
    if let Some(address) = env.read(name, problems, parse_address) {
        return (address, Origin::of(name));
    }
    settings.listen.clone().unwrap_or_else(|| (DEFAULT_LISTEN, Origin::of("listen")))
}

/// The file to read, and who named it.
fn file_path(directory: &Path, args: &ServeArgs, env: &Variables<'_>) -> Option<(PathBuf, Origin)> {
    if let Some(path) = &args.config {
        return Some((path.clone(), Origin::of("--config")));
    }
    if let Some(path) = env.get("SEDGE_CONFIG") {
        return Some((path.into(), Origin::of("SEDGE_CONFIG")));
    }
    let path = directory.join(DEFAULT_FILE);
    path.exists().then(|| (path, Origin::of(DEFAULT_FILE)))
}

fn read_file(
    path: Option<(PathBuf, Origin)>,
    upstreams_replaced: bool,
    env: &Variables<'_>,
    problems: &mut Vec<Problem>,
) -> FileSettings {
    let Some((path, origin)) = path else { return FileSettings::default() };
    match read_text(&path) {
        Ok(text) => {
            let (settings, found) = file::read(&path, &text, upstreams_replaced, env.env);
            problems.extend(found);
            settings
        }
        Err(what) => {
            problems.push(origin.problem(what));
            FileSettings::default()
        }
    }
}

fn check_named_files(args: &ServeArgs, problems: &mut Vec<Problem>) {
    let tls = args.tls.iter().flat_map(|tls| [("--tls-cert", &tls.cert), ("--tls-key", &tls.key)]);
    for (option, path) in tls.chain(args.upstream_ca.iter().map(|path| ("--upstream-ca", path))) {
        if let Err(what) = check_readable(path) {
            problems.push(Origin::of(option).problem(what));
        }
    }
}

fn summary(config: &Config, file: &str) -> String {
    let upstreams = match config.simulator {
        true => "no upstream (the simulator answers)".to_owned(),
        false => count(config.upstreams.len(), "upstream"),
    };
    let (routes, keys) = (count(config.routes.len(), "route"), count(config.keys.len(), "client key"));
    let mut summary = format!("{file}: ok: {upstreams}, {routes}, {keys}, to listen on {}", config.listen);
    for notice in &config.notices {
        summary.push_str("\nnote: ");
        summary.push_str(notice);
    }
    summary
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
