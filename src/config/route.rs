//! Routes: which requests go where.

use std::borrow::Cow;
use std::time::Duration;

use super::alias::{Alias, aliases};
use super::balance::{Balance, Member, balance};
use super::did_you_mean;
use super::document::{Table, Value};
use super::glob::{Glob, is_regex, models};
use super::quota::Quota;
use super::retry::{HedgeAfter, Retry};
use super::timeouts::Timeouts;
use super::units::{duration, size};
use super::upstream::NAME_MAX_BYTES;
use crate::proto::openai::MAX_MODEL_BYTES;

/// The highest weight: so many times a weight cannot overflow their sum.
const WEIGHT_MAX: u64 = 1_000_000;

/// What is said of a route with no model at all.
const NO_MODELS: &str = "is an empty list, so the route takes nothing; leave it out to take every model";

/// The highest number of a priority.
const PRIORITY_MAX: u64 = 1000;

/// The longest pattern of a path.
const PATH_MAX_BYTES: usize = 2048;

/// The longest time to wait for an answer before a stream is begun without it.
const EARLY_HEARTBEAT_MAX_MS: u64 = 3_600_000;

/// The longest text of an answer made here.
const DEGRADED_MAX_BYTES: usize = 16 * 1024;

/// How long an answer is read on for nobody, if nothing else is said.
const READ_ON: Duration = Duration::from_secs(60);

/// Requests that are alike in where they may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// What it is called in metrics and logs.
    pub(crate) name: String,
    /// The models that it takes.
    pub(crate) models: Vec<Glob>,
    /// Models that it takes by another name, in the order in which they are tried.
    pub(crate) aliases: Vec<Alias>,
    /// The paths that it takes; empty takes every one.
    pub(crate) paths: Vec<Glob>,
    /// Where it leads, the lowest numbers of priority first. The weights' sum is never 0.
    pub(crate) upstreams: Vec<Member>,
    /// Who of them is asked.
    pub(crate) balance: Balance,
    /// How long a stream may be waited for before its head and a heartbeat are sent without it.
    pub(crate) early_heartbeat: Option<Duration>,
    /// Its own heartbeat, if it has one.
    pub(crate) heartbeat: Option<Duration>,
    /// Its timeouts: its own, and for the rest those of all.
    pub(crate) timeouts: Timeouts,
    /// Bytes of a request's body.
    pub(crate) max_body: u64,
    /// When a request is sent again.
    pub(crate) retry: Retry,
    /// A stream is not passed on before it says something; until then it can fail over.
    pub(crate) first_content: bool,
    /// When a second upstream is asked beside the first.
    pub(crate) hedge: Option<HedgeAfter>,
    /// How long an upstream is read on after the client has left, so that its usage is known; `None` cancels it at once.
    pub(crate) read_on: Option<Duration>,
    /// Streamed answers become durable streams.
    pub(crate) durable: bool,
    /// Where a request goes when none of the upstreams answers it: another route's name, or else a model's.
    pub(crate) fallback: Option<String>,
    /// The text of the answer when nobody else has one.
    pub(crate) degraded: Option<String>,
    /// How much may be asked of it.
    pub(crate) quota: Quota,
}

/// The upstreams' names.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) names: &'a [String],
    /// None is missing because something else is wrong with it: only then is an unknown name a problem of its own.
    pub(crate) all: bool,
}

/// What a route may refer to.
pub(crate) struct Surroundings<'a> {
    pub(crate) upstreams: Names<'a>,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) max_body: u64,
    pub(crate) stream_memory: u64,
    pub(crate) before: &'a [Route],
}

impl Route {
    /// The one route of those who configure none: every request, to all of so many upstreams alike.
    pub(crate) fn everything(upstreams: usize, timeouts: &Timeouts, max_body: u64) -> Route {
        Route {
            name: "default".to_owned(),
            models: vec![Glob::new("*")],
            aliases: Vec::new(),
            paths: Vec::new(),
            upstreams: (0..upstreams).map(Member::new).collect(),
            balance: Balance::default(),
            early_heartbeat: None,
            heartbeat: None,
            timeouts: timeouts.clone(),
            max_body,
            retry: Retry::failover(),
            first_content: false,
            hedge: None,
            read_on: None,
            durable: false,
            fallback: None,
            degraded: None,
            quota: Quota::default(),
        }
    }

    /// Whether it takes a request; and if so, the name that the model must be given.
    pub(crate) fn take(&self, model: Option<&str>, path: &str) -> Option<Option<Cow<'_, str>>> {
        if !self.paths.is_empty() && !self.paths.iter().any(|glob| glob.matches(path)) {
            return None;
        }
        let Some(model) = model else {
            return self.takes_any_model().then_some(None);
        };
        match self.aliases.iter().find_map(|alias| alias.resolve(model)) {
            Some(name) => Some(Some(name)),
            None => self.models.iter().any(|glob| glob.matches(model)).then_some(None),
        }
    }

    /// Whether a request has somewhere to go when one of its upstreams cannot be asked.
    pub(crate) fn has_elsewhere(&self) -> bool {
        self.fallback.is_some()
            || self.degraded.is_some()
            || self.upstreams.iter().filter(|member| member.weight > 0).count() > 1
    }

    /// Whether there is no request that it does not take.
    pub(crate) fn takes_everything(&self) -> bool {
        self.takes_any_model() && (self.paths.is_empty() || self.paths.iter().any(Glob::is_any))
    }

    fn takes_any_model(&self) -> bool {
        self.models.iter().any(Glob::is_any)
    }

    /// From its `[[route]]`; what cannot be read is reported.
    pub(crate) fn read(table: &Table<'_>, around: &Surroundings<'_>) -> Route {
        let number = around.before.len() + 1;
        let mut route = Route::everything(around.upstreams.names.len(), around.timeouts, around.max_body);
        route.name = format!("route-{number}");
        table.set("name", |value| value.name(NAME_MAX_BYTES), &mut route.name);
        if around.before.iter().any(|other| other.name == route.name) {
            table.fault(
                "name",
                format!("another route is called {:?}, too; each needs its own name", route.name),
            );
        }
        table.set("models", |value| models(value, NO_MODELS), &mut route.models);
        table.set("aliases", aliases, &mut route.aliases);
        table.set("paths", paths, &mut route.paths);
        table.set("upstreams", |value| targets(value, around.upstreams), &mut route.upstreams);
        table.set("balance", balance, &mut route.balance);
        let early = |value: &Value<'_>| {
            value.integer(1..=EARLY_HEARTBEAT_MAX_MS).map(Duration::from_millis).map(Some)
        };
        table.set("early_heartbeat_ms", early, &mut route.early_heartbeat);
        table.set("heartbeat", |value| duration(value).map(Some), &mut route.heartbeat);
        table.set("max_body", size(1), &mut route.max_body);
        if route.max_body > around.max_body {
            table.fault(
                "max_body",
                format!("is more than [limits] max_body, {} bytes, lets in", around.max_body),
            );
        }
        if let Some(timeouts) = table.table("timeouts", "[[route]] timeouts.") {
            route.timeouts = route.timeouts.read_route(&timeouts);
            timeouts.finish(|_| None);
        }
        table.set("fallback", |value| value.name(MAX_MODEL_BYTES).map(Some), &mut route.fallback);
        table.set("degraded", |value| text(value).map(Some), &mut route.degraded);
        if let Some(retry) = table.table("retry", "[[route]] retry.") {
            route.retry = Retry::read(&retry, around.stream_memory);
        } else if route.fallback.is_some() || route.degraded.is_some() {
            route.retry = Retry::failover_on_statuses();
        }
        route.quota = Quota::read(table, "[[route]] limits.");
        table.set("on_disconnect", on_disconnect, &mut route.read_on);
        table.set("durable", Value::boolean, &mut route.durable);
        table.set("commit", commit, &mut route.first_content);
        if let Some(hedge) = table.table("hedge", "[[route]] hedge.") {
            route.hedge = HedgeAfter::read(&hedge);
            // The first with content wins, not the first with a head.
            route.first_content = true;
        }
        // What has begun to answer has acted upon the request; to fail over from there is to repeat it.
        route.retry.repeat |= route.first_content;
        table.finish(|key| {
            (key == "model").then(|| "write models = [\"...\"], of which there may be several".to_owned())
        });
        match table.is_sound() {
            true => route.check_reached(table, around.before),
            // Which requests it was meant to take is not known, so nothing follows from it for the others.
            false => route.models.clear(),
        }
        route
    }

    /// Reports a fallback that leads nowhere.
    pub(crate) fn check_fallback(&self, table: &Table<'_>, routes: &[Route]) {
        let Some(fallback) = &self.fallback else { return };
        let others = || routes.iter().filter(|route| route.name != self.name);
        if others().any(|route| route.name == *fallback || route.models.is_empty()) || self.models.is_empty()
        {
            return;
        }
        let takes = |route: &&Route| {
            route.aliases.iter().any(|alias| alias.resolve(fallback).is_some())
                || route.models.iter().any(|glob| glob.matches(fallback))
        };
        // The first that takes the model on every path is the last that it can come to.
        let certain = routes.iter().position(|route| takes(&route) && route.paths.is_empty());
        let within = &routes[..certain.map_or(routes.len(), |last| last + 1)];
        let mut takers = within.iter().filter(takes).peekable();
        let what = match takers.peek().is_some() {
            _ if self.name == *fallback => {
                "is this very route; name another, or a model that another takes".to_owned()
            }
            true if takers.any(|route| route.name != self.name) => return,
            taken => {
                let near = did_you_mean(fallback, routes.iter().map(|route| route.name.as_str()));
                match taken {
                    true => format!(
                        "is a model that this very route takes, so a request would come back to where it has failed; name another route{near}"
                    ),
                    false => format!(
                        "there is no other route that is called {fallback:?} or takes a model of that name{near}"
                    ),
                }
            }
        };
        table.fault("fallback", what);
    }

    /// Reports what no request ever comes to, since the routes before take it.
    fn check_reached(&self, table: &Table<'_>, before: &[Route]) {
        if let Some(other) = before.iter().find(|other| other.takes_everything()) {
            let what = format!(
                "is never used: the route {:?} before it takes every request; put it after this one",
                other.name
            );
            table.fault("models", what);
            return;
        }
        let takes =
            |other: &&Route, model: &str| other.paths.is_empty() && other.take(Some(model), "").is_some();
        for Alias { from, .. } in &self.aliases {
            if let Some(other) = before.iter().find(|other| takes(other, from)) {
                table.fault(
                    "aliases",
                    format!("{from:?} is never used: the route {:?} before it takes that model", other.name),
                );
            }
        }
    }
}

/// From where on an answer is the client's.
fn commit(value: &Value<'_>) -> Result<bool, String> {
    match value.string()? {
        "first_byte" => Ok(false),
        "first_content" => Ok(true),
        other => Err(format!("cannot be {other:?}; there are \"first_byte\" and \"first_content\"")),
    }
}

/// What becomes of an answer whose client has left.
fn on_disconnect(value: &Value<'_>) -> Result<Option<Duration>, String> {
    if value.is_table() {
        let table = value.table("[[route]] on_disconnect.")?;
        let limit = table.require("drain", "say for how long, as in { drain = \"30s\" }", |value| {
            match duration(value)? {
                Duration::ZERO => Err("is no time; \"cancel\" ends the answer at once".to_owned()),
                limit => Ok(limit),
            }
        });
        table.finish(|_| None);
        return Ok(limit);
    }
    match value.string()? {
        "cancel" => Ok(None),
        "drain" => Ok(Some(READ_ON)),
        other => {
            Err(format!("cannot be {other:?}; there are \"cancel\", \"drain\" and {{ drain = \"30s\" }}"))
        }
    }
}

/// A text that people are to read.
fn text(value: &Value<'_>) -> Result<String, String> {
    match value.string()? {
        "" => Err("is empty; write what the answer is to say".to_owned()),
        text if text.len() > DEGRADED_MAX_BYTES => Err(format!("is longer than {DEGRADED_MAX_BYTES} bytes")),
        text => Ok(text.to_owned()),
    }
}

fn paths(value: &Value<'_>) -> Result<Vec<Glob>, String> {
    Ok(value.each(|item| {
        let path = item.name(PATH_MAX_BYTES)?;
        match path.starts_with(['/', '*']) {
            true => Glob::parse(path),
            false if is_regex(&path) => Glob::parse(path),
            false => {
                Err(format!("{path:?} matches no path, since each begins with a slash; write \"/{path}\""))
            }
        }
    }))
}

/// Where a route leads: names, or tables of a name and its weight.
fn targets(value: &Value<'_>, upstreams: Names<'_>) -> Result<Vec<Member>, String> {
    let items = value.items();
    let mut targets: Vec<_> = value.each(|item| target(item, upstreams)).into_iter().flatten().collect();
    if items.is_empty() {
        return Err(
            "is an empty list, so the route leads nowhere; leave it out to lead to every upstream".to_owned()
        );
    }
    for (at, Member { index, .. }) in targets.iter().enumerate() {
        if targets[..at].iter().any(|other| other.index == *index) {
            return Err(format!("names {:?} twice; give it a weight instead", upstreams.names[*index]));
        }
    }
    if targets.len() == items.len() && targets.iter().all(|target| target.weight == 0) {
        return Err("have no weight but 0, so the route leads nowhere".to_owned());
    }
    // Stable: within a priority the order is the user's.
    targets.sort_by_key(|target| target.priority);
    Ok(targets)
}

/// One of them; none if what is wrong with it has been told.
fn target(item: &Value<'_>, upstreams: Names<'_>) -> Result<Option<Member>, String> {
    let Names { names, all } = upstreams;
    let find = |name: &str| match names.iter().position(|upstream| upstream == name) {
        None if all => {
            let near = did_you_mean(name, names.iter().map(String::as_str));
            Err(format!("no upstream is called {name:?}{near}"))
        }
        found => Ok(found),
    };
    if !item.is_table() {
        return Ok(find(item.string()?)?.map(Member::new));
    }
    let table = item.table("[[route]] upstreams.")?;
    let name = table.require("name", "name an upstream, as in { name = \"openai\", weight = 3 }", |value| {
        find(value.string()?)
    });
    let weight = table.get("weight", |value| value.integer(0..=WEIGHT_MAX)).unwrap_or(1);
    let priority = table.get("priority", |value| value.integer(0..=PRIORITY_MAX)).unwrap_or(0);
    table.finish(|_| None);
    Ok(name.flatten().map(|index| Member { index, weight: weight as u32, priority: priority as u32 }))
}
