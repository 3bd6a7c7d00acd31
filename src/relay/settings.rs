//! A configuration, made ready to be used: targets to dial, labels to count by, certificates to show. Made whole or not at
//! all, and swapped in one step on a reload; a request keeps the settings it began with.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, ServerConfig};

use super::request::body_scan::Decides;
use crate::admission::api_key::Holder;
use crate::admission::meter::{Limited, Scope};
use crate::admission::meters::Meters;
use crate::config::{Balance, Config, Route, Upstream};
use crate::routing::affinity;
use crate::routing::health::Healths;
use crate::runtime::net::tls;
use crate::subscriptions::Local;
use crate::telemetry::{LabelId, Registry};
use crate::upstream::target::Target;

/// What a configuration amounts to.
pub struct Settings {
    /// As it was configured.
    pub(crate) config: Config,
    /// The upstreams, by their index in the configuration.
    pub targets: Vec<Arc<Target>>,
    /// The routes' labels in metrics, likewise.
    pub(crate) route_labels: Vec<LabelId>,
    /// Who holds the keys, by their index.
    pub(crate) holders: Vec<Arc<Holder>>,
    /// The routes' limits, by their index; nothing at all where none has any.
    pub(crate) route_limits: Vec<Option<Arc<Limited>>>,
    /// The upstreams' limits, likewise.
    pub(crate) upstream_limits: Vec<Option<Arc<Limited>>>,
    /// What the routes and upstreams decide by a request's body.
    pub(crate) decides: Decides,
    /// Whether it matters who a client is beside its key.
    pub(crate) knows_clients: bool,
    /// What TLS clients are shown, if they are.
    pub(crate) server_tls: Option<Arc<ServerConfig>>,
    /// What is trusted beyond the upstreams that are configured, once somebody has asked.
    outbound_tls: OnceLock<Option<Arc<ClientConfig>>>,
}

/// What was found wrong with a configuration that had passed its own checks: a certificate, mostly.
#[derive(Debug)]
pub struct SettingsError(String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Reads certificates and makes targets, which go on with what `healths` knows of them; what has limits goes on with what it
    /// has used by `meters`.
    pub fn new(
        config: Config,
        registry: &Registry,
        meters: &Meters,
        healths: &Healths,
    ) -> Result<Settings, SettingsError> {
        let fault = |error: &dyn fmt::Display| SettingsError(error.to_string());
        let server_tls = match &config.tls {
            Some(files) => Some(tls::server(&files.cert, &files.key).map_err(|error| fault(&error))?),
            None => None,
        };
        let wants_tls = config.upstreams.iter().any(|upstream| upstream.url.tls);
        let client_tls = match wants_tls {
            true => Some(tls::client(&config.upstream_ca).map_err(|error| fault(&error))?),
            false => None,
        };
        let target = |upstream: &Upstream| {
            let label = registry.labels.intern(&upstream.name);
            let target = Target::new(upstream, label, client_tls.clone(), healths, registry.cores().len());
            target.map(Arc::new).map_err(|error| fault(&error))
        };
        let targets = config.upstreams.iter().map(target).collect::<Result<_, _>>()?;
        let route_labels = config.routes.iter().map(|route| registry.labels.intern(&route.name)).collect();
        let holders = config.keys.iter();
        let holders =
            holders.map(|key| Holder::new(key, affinity::hash(key.name.as_bytes()), meters)).collect();
        let limits = |scope, name: &str, quota| meters.limited(scope, name, quota);
        let route_limits =
            config.routes.iter().map(|route| limits(Scope::Route, &route.name, &route.quota)).collect();
        let upstream_limits = config.upstreams.iter();
        let upstream_limits = upstream_limits
            .map(|upstream| limits(Scope::Upstream, &upstream.name, &upstream.quota))
            .collect();
        let [route_limits, upstream_limits] = [route_limits, upstream_limits].map(or_none);
        let knows_clients = config.routes.iter().any(|route| matches!(route.balance, Balance::Sticky(_)))
            || config.upstreams.iter().any(|upstream| upstream.concurrency.is_some());
        let settings = Settings {
            decides: Decides::by_routes(&config),
            config,
            targets,
            route_labels,
            holders,
            route_limits,
            upstream_limits,
            knows_clients,
            server_tls,
            outbound_tls: client_tls.map_or_else(OnceLock::new, |config| OnceLock::from(Some(config))),
        };
        meters.keep(settings.limited());
        Ok(settings)
    }

    /// What is trusted when webhooks are sent: the same as upstreams'. Reads the system's certificates if nobody has yet.
    pub(crate) fn outbound_tls(&self) -> Option<Arc<ClientConfig>> {
        self.outbound_tls.get_or_init(|| tls::client(&self.config.upstream_ca).ok()).clone()
    }

    /// Whether webhooks may lead to this very machine: where nobody beyond it is served, not by a proxy either.
    pub(crate) fn local_webhooks(&self) -> Local {
        match self.config.listen.ip().is_loopback() && self.config.trusted_proxies.is_empty() {
            true => Local::Allowed,
            false => Local::Refused,
        }
    }

    /// Everything that has limits.
    pub(crate) fn limited(&self) -> impl Iterator<Item = &Arc<Limited>> {
        let keys = self.holders.iter().filter_map(|holder| holder.limited.as_ref());
        keys.chain(self.route_limits.iter().chain(&self.upstream_limits).flatten())
    }

    /// The limits of the route at `index`, if it has any.
    pub(crate) fn route_limit(&self, index: usize) -> Option<&Arc<Limited>> {
        self.route_limits.get(index)?.as_ref()
    }

    /// The limits of the upstream at `index`, likewise.
    pub(crate) fn upstream_limit(&self, index: usize) -> Option<&Arc<Limited>> {
        self.upstream_limits.get(index)?.as_ref()
    }

    /// A route, its label and where it leads.
    pub(crate) fn route(&self, index: usize) -> (&Route, LabelId) {
        (&self.config.routes[index], self.route_labels[index])
    }
}

/// Nothing at all instead of many times nothing.
fn or_none(limits: Vec<Option<Arc<Limited>>>) -> Vec<Option<Arc<Limited>>> {
    if limits.iter().any(Option::is_some) { limits } else { Vec::new() }
}
