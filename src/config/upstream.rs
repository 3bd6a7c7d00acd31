//! Upstreams: who is asked, and with which key.

use std::time::Duration;

use super::breaker::Breaking;
use super::concurrency::Concurrency;
use super::document::{Table, Value};
use super::probe::Probe;
use super::quota::Quota;
use super::secret::{Secret, secret};
use super::units::duration;
use super::url::UpstreamUrl;

/// The longest name of an upstream, a route or a key: it is a label in metrics and a field in each line of the log.
pub(crate) const NAME_MAX_BYTES: usize = 64;

/// Idle connections that a core keeps to an upstream, if nothing else is said.
const MAX_IDLE: usize = 64;

/// The most that it can be asked to keep.
const MAX_IDLE_LIMIT: u64 = 65_536;

/// How long an idle connection is kept: shorter than the keep-alive of common servers, the shortest of which (uvicorn, node)
/// close after 5 s, so that few are found closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// A server that speaks OpenAI's protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// What it is called in routes, metrics and logs.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) url: UpstreamUrl,
    /// The key that it is asked with.
    pub(crate) key: Option<Secret>,
    /// Whether the key is only for requests that carry none; else it takes the place of the client's.
    pub(crate) key_if_absent: bool,
    /// Idle connections that each core keeps.
    pub(crate) max_idle: usize,
    /// How long it keeps them.
    pub(crate) pool_idle_timeout: Duration,
    /// How much it may be asked.
    pub(crate) quota: Quota,
    /// When it is left alone.
    pub(crate) breaker: Breaking,
    /// How many requests at a time it takes, if that is limited.
    pub(crate) concurrency: Option<Concurrency>,
    /// How it is asked how it is, if it is.
    pub(crate) probe: Option<Probe>,
}

impl Upstream {
    /// One with a name and a place, and no key.
    pub(crate) fn new(name: String, url: UpstreamUrl) -> Upstream {
        let (max_idle, pool_idle_timeout) = (MAX_IDLE, POOL_IDLE_TIMEOUT);
        let (quota, breaker) = (Quota::default(), Breaking::default());
        Upstream {
            name,
            url,
            key: None,
            key_if_absent: false,
            max_idle,
            pool_idle_timeout,
            quota,
            breaker,
            concurrency: None,
            probe: None,
        }
    }

    /// One for each URL, named after its host.
    pub(crate) fn of_urls(urls: &[UpstreamUrl]) -> Vec<Upstream> {
        let mut upstreams: Vec<Upstream> = Vec::new();
        for url in urls {
            let name = unused_name(&url.host, |name| upstreams.iter().any(|upstream| upstream.name == name));
            upstreams.push(Upstream::new(name, url.clone()));
        }
        upstreams
    }

    /// From its `[[upstream]]`. What cannot be read is reported, and left as if it were not there.
    pub(crate) fn read(table: &Table<'_>) -> (Option<String>, Option<Upstream>) {
        let name = table.get("name", |value| value.name(NAME_MAX_BYTES));
        let url =
            table.require("url", "write the API's base, as in url = \"https://api.openai.com/v1\"", url);
        let key = table.get("key", secret);
        let max_idle = table.get("max_idle", |value| value.integer(0..=MAX_IDLE_LIMIT));
        let pool_idle_timeout = table.get("pool_idle_timeout", duration);
        let quota = Quota::read(table, "[[upstream]] limits.");
        let concurrency = table.table("concurrency", "[[upstream]] concurrency.");
        let concurrency = concurrency.and_then(|table| Concurrency::read(&table));
        let breaker = table.get("breaker", Breaking::read).unwrap_or_default();
        let probe = table.table("probe", "[[upstream]] probe.").and_then(|table| Probe::read(&table));
        if probe.is_some() && breaker == Breaking::Off {
            table.fault("probe", "opens a breaker, and this upstream has none; leave out `breaker = false`");
        }
        table.refuse(
            "timeouts",
            "belong to routes: set [timeouts] for all, or timeouts in a [[route]] that leads here",
        );
        table.refuse("tls", "is said by the url, which begins with https:// then");
        table.refuse("ca", "is the same for all upstreams: set upstream_ca at the top of the file");
        table.finish(|_| None);
        let upstream = url.map(|url| {
            let mut upstream = Upstream::new(name.clone().unwrap_or_else(|| url.host.clone()), url);
            (upstream.key, upstream.quota) = (key, quota);
            (upstream.breaker, upstream.concurrency, upstream.probe) = (breaker, concurrency, probe);
            upstream.max_idle = max_idle.map_or(upstream.max_idle, |max| max as usize);
            upstream.pool_idle_timeout = pool_idle_timeout.unwrap_or(upstream.pool_idle_timeout);
            upstream
        });
        (name, upstream)
    }
}

/// `name`, or with a number after it if it is taken.
pub(crate) fn unused_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let name: String = name.chars().take(NAME_MAX_BYTES - 8).collect();
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    // Some number is free, since only so many names can be taken.
    std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(name)
}

fn url(value: &Value<'_>) -> Result<UpstreamUrl, String> {
    UpstreamUrl::parse(value.plain()?).map_err(|error| error.to_string())
}
