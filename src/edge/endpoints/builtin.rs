//! Answers of our own: health, metrics, the pages.

use std::borrow::Cow;

use crate::admission;
use crate::edge::Door;
use crate::pages::{self, Page};
use crate::relay::context::Core;
use crate::relay::request::Request;
use crate::telemetry::render;

/// An answer of our own.
pub(crate) struct Found {
    /// Its status.
    pub(crate) status: u16,
    /// Its type.
    pub(crate) content_type: &'static str,
    /// Its body.
    pub(crate) body: Cow<'static, [u8]>,
    /// Further fields.
    pub(crate) fields: &'static [(&'static str, &'static str)],
    /// It is an error, with this code.
    pub(crate) error: Option<&'static str>,
    /// It is neither logged nor counted: probes come every second and tell nothing.
    pub(crate) quiet: bool,
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Not to be stored: the next answer may differ.
const FRESH: &[(&str, &str)] = &[("Cache-Control", "no-store")];

/// Whether a path tells of the process's health.
pub(crate) fn is_health(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/healthz")
}

/// The answer of our own to `request`, if there is one.
pub(crate) fn find(request: &Request, core: &Core, door: Door) -> Option<Found> {
    let found = match (request.path(), door) {
        ("/livez", _) => stuck(core).unwrap_or_else(|| text(200, "alive\n")),
        ("/readyz" | "/healthz", _) => ready(core),
        ("/metrics", Door::Admin) => metrics(request, core),
        ("/", Door::Public) if has_playground(core) => page(pages::playground()),
        ("/streams", Door::Public) if has_playground(core) => page(pages::streams()),
        _ => return None,
    };
    match &*request.method {
        "GET" | "HEAD" => Some(found),
        _ => Some(Found {
            fields: &[("Allow", "GET, HEAD")],
            error: Some("method_not_allowed"),
            ..text(405, "only GET and HEAD\n")
        }),
    }
}

/// Whoever wants every path relayed means these too.
fn has_playground(core: &Core) -> bool {
    let settings = core.settings();
    settings.config.playground && !settings.config.relay_all
}

/// One core cannot be heard any more; any other says so, and the admin's in any case.
fn stuck(core: &Core) -> Option<Found> {
    let complaint = core.shared.registry.turns.complaint()?;
    Some(Found { body: format!("{complaint}\n").into_bytes().into(), ..text(503, "") })
}

fn ready(core: &Core) -> Found {
    if core.shared.is_leaving() {
        return text(503, "draining\n");
    }
    if let Some(stuck) = stuck(core) {
        return stuck;
    }
    if core.shared.streams.journal().is_some_and(|journal| journal.failure().is_some()) {
        return text(
            503,
            "the disk of the durable streams has failed: nothing is accepted for them; the log says how\n",
        );
    }
    if core.shared.streams.journal().is_some_and(|journal| journal.no_room().is_some()) {
        return text(
            503,
            "the disk of the durable streams is full: appends are refused until there is room; the log says where\n",
        );
    }
    if !core.shared.registry.is_ready() {
        return text(503, "starting\n");
    }
    // Every node has the same Redis: if all of them were not ready, nobody would serve what needs no Redis.
    if core.shared.streams.remote().is_some_and(|remote| !remote.is_up()) {
        return text(200, "ready, but for durable streams: Redis cannot be reached\n");
    }
    if let Some(policy) = core.shared.streams.remote().and_then(|remote| remote.evicts()) {
        let body = format!("ready, but Redis may delete durable streams: its maxmemory-policy is {policy}\n");
        return Found { body: body.into_bytes().into(), ..text(200, "") };
    }
    match core.shared.settings.load().config.simulator {
        true => text(200, "ready, answering from the built-in simulator\n"),
        false => text(200, "ready\n"),
    }
}

/// The answer to a browser's question what a page may ask for; all that it says stands in its fields.
pub(crate) fn preflight() -> Found {
    Found { fields: &[], quiet: false, ..text(204, "") }
}

fn metrics(request: &Request, core: &Core) -> Found {
    if let Some(token) = &core.shared.settings.load().config.admin_token
        && !admission::opens(token, request.credentials().0)
    {
        return Found {
            fields: &[("WWW-Authenticate", "Bearer"), ("Cache-Control", "no-store")],
            error: Some("invalid_admin_token"),
            ..text(
                401,
                "the metrics need `Authorization: Bearer TOKEN`, the admin_token of the configuration\n",
            )
        };
    }
    let mut out = String::new();
    render(&core.shared.registry, &mut out);
    let (settings, now) = (core.shared.settings.load(), core.shard.clock.micros());
    crate::routing::metrics::render(&settings.targets, now / 1000, &mut out);
    core.shared.streams.render(&core.shared.registry, &mut out);
    core.shared.desk.render(&mut out);
    admission::meters::render(settings.limited(), now * 1000, &mut out);
    Found {
        status: 200,
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        body: out.into_bytes().into(),
        fields: FRESH,
        error: None,
        quiet: true,
    }
}

fn page(page: &'static Page) -> Found {
    Found {
        status: 200,
        content_type: pages::CONTENT_TYPE,
        body: page.bytes().into(),
        fields: page.fields(),
        error: None,
        quiet: false,
    }
}

fn text(status: u16, body: &'static str) -> Found {
    Found {
        status,
        content_type: TEXT,
        body: body.as_bytes().into(),
        fields: FRESH,
        error: None,
        quiet: true,
    }
}
