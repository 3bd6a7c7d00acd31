//! A configuration, made ready to be used: targets to dial, labels to count by, certificates to show. Made whole or not at
//! all, and swapped in one step on a reload; a request keeps the settings it began with.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::config::{Config, Route, Upstream};
use crate::net::tls;
use crate::observe::{LabelId, Registry};
use crate::upstream::target::Target;

/// What a configuration amounts to.
pub struct Settings {
    /// As it was configured.
    pub config: Config,
    /// The upstreams, by their index in the configuration.
    pub targets: Vec<Arc<Target>>,
    /// The routes' labels in metrics, likewise.
    pub route_labels: Vec<LabelId>,
    /// What TLS clients are shown, if they are.
    pub server_tls: Option<Arc<ServerConfig>>,
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
    /// Reads certificates and makes targets.
    pub fn new(config: Config, registry: &Registry) -> Result<Settings, SettingsError> {
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
            Target::new(upstream, label, client_tls.clone()).map(Arc::new).map_err(|error| fault(&error))
        };
        let targets = config.upstreams.iter().map(target).collect::<Result<_, _>>()?;
        let route_labels = config.routes.iter().map(|route| registry.labels.intern(&route.name)).collect();
        Ok(Settings { config, targets, route_labels, server_tls })
    }

    /// A route, its label and where it leads.
    pub fn route(&self, index: usize) -> (&Route, LabelId) {
        (&self.config.routes[index], self.route_labels[index])
    }
}
