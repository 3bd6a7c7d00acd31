//! What is needed to reach an upstream, made once from the configuration.

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::config::{Breaker, Breaking, Concurrency, Probe, Upstream};
use crate::proto::http1::fields::write_field;
use crate::routing::affinity;
use crate::routing::breaker::Permit;
use crate::routing::health::{Health, Healths};
use crate::runtime::clock::{Micros, Millis};
use crate::telemetry::LabelId;

/// The path prefix that a path in an upstream's URL stands for.
const API_PREFIX: &str = "/v1";

/// An upstream, ready to be asked.
pub struct Target {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// Its label in metrics.
    pub(crate) label: LabelId,
    /// Connections are pooled by this: upstreams that agree in address and TLS share their sockets, over a reload too.
    pub(crate) pool: String,
    /// Host name or address to resolve.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
    /// The value of `Host`.
    pub(crate) authority: String,
    /// TLS, with the name that the certificate must bear.
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Idle connections that a core keeps.
    pub(crate) max_idle: usize,
    /// How long it keeps them.
    pub(crate) idle_timeout: Millis,
    /// Which upstream it is, as a number: its name and its address.
    pub(crate) identity: u64,
    /// What is known of it.
    pub(crate) health: Arc<Health>,
    /// When it is left alone, if ever.
    pub(crate) breaker: Option<Breaker>,
    /// It is, though there be nobody else.
    pub(crate) strict: bool,
    /// How many requests at a time it takes, if that is limited.
    pub(crate) concurrency: Option<Concurrency>,
    /// How it is asked how it is, if it is.
    pub(crate) probe: Option<Probe>,
    path: String,
    authorization: Option<String>,
    only_if_absent: bool,
}

impl Target {
    /// From what was configured. The name must have passed the configuration's checks. Its health is that of the upstream of the
    /// same name and address in `healths`.
    pub(crate) fn new(
        upstream: &Upstream,
        label: LabelId,
        tls: Option<Arc<ClientConfig>>,
        healths: &Healths,
        cores: usize,
    ) -> Result<Target, NotAName> {
        let url = &upstream.url;
        let authority = url.authority();
        let tls = match tls.filter(|_| url.tls) {
            Some(config) => {
                let name = ServerName::try_from(url.host.clone()).map_err(|_| NotAName(url.host.clone()))?;
                Some((config, name))
            }
            None => None,
        };
        let identity = format!("{} {}", upstream.name, url);
        let (breaker, strict) = match &upstream.breaker {
            Breaking::Off => (None, false),
            Breaking::Passing => (Some(Breaker::default()), false),
            Breaking::Strict(breaker) => (Some(breaker.clone()), true),
        };
        let session = tls.as_ref().map_or(0, |(config, _)| Arc::as_ptr(config) as usize);
        Ok(Target {
            name: upstream.name.clone(),
            label,
            pool: format!("{authority} {session:x}"),
            host: url.host.clone(),
            port: url.port,
            authority,
            tls,
            max_idle: upstream.max_idle,
            idle_timeout: upstream.pool_idle_timeout.as_millis() as Millis,
            identity: affinity::hash(identity.as_bytes()),
            health: healths.of(&identity, cores),
            breaker,
            strict,
            concurrency: upstream.concurrency.clone(),
            probe: upstream.probe.clone(),
            path: url.path.clone(),
            authorization: upstream.key.as_ref().map(|key| format!("Bearer {}", key.expose())),
            only_if_absent: upstream.key_if_absent,
        })
    }

    /// The request target to ask for: a path in the upstream's URL stands for the leading `/v1`; without one, paths stay
    /// as they are. In two pieces, to be written one after the other.
    pub(crate) fn path<'a>(&'a self, asked: &'a str) -> (&'a str, &'a str) {
        if self.path.is_empty() {
            return ("", asked);
        }
        match asked.strip_prefix(API_PREFIX) {
            Some(rest) if rest.is_empty() || rest.starts_with(['/', '?']) => (&self.path, rest),
            _ => ("", asked),
        }
    }

    /// Whether its breaker is open, so that no request is sent to it.
    pub(crate) fn is_ejected(&self, now: Millis) -> bool {
        self.breaker.is_some() && self.health.left(now) > 0
    }

    /// Whether it is to be asked how it is now: not while its breaker cools down, or so many are asking already.
    pub(crate) fn may_probe(&self, now: Millis) -> Option<Permit> {
        self.health.admit(self.breaker.as_ref()?, now).ok()
    }

    /// It has been asked; `chance` is any number.
    pub(crate) fn probed(&self, permit: Permit, good: bool, now: Micros, chance: u64) {
        self.health.checked(permit, good, self.breaker.as_ref(), now, chance);
    }

    /// The request that asks it.
    pub(crate) fn probe_head(&self) -> Vec<u8> {
        let path = self.probe.as_ref().map_or("/", |probe| &probe.path);
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.authority).into_bytes();
        if let Some((ours, _)) = self.authorization() {
            write_field(&mut head, "Authorization", ours.as_bytes());
        }
        head.extend_from_slice(b"User-Agent: sedge\r\nConnection: close\r\n\r\n");
        head
    }

    /// The upstream's own `Authorization`, and whether it yields to one that the client sent.
    pub(crate) fn authorization(&self) -> Option<(&str, bool)> {
        self.authorization.as_deref().map(|value| (value, self.only_if_absent))
    }
}

/// A host that no certificate can be for.
#[derive(Debug)]
pub(crate) struct NotAName(String);

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is neither a DNS name nor an IP address, so no certificate can be checked against it",
            self.0
        )
    }
}

impl std::error::Error for NotAName {}
