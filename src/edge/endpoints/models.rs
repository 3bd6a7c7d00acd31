//! `GET /v1/models` over several upstreams: the union of what they offer, and the aliases of the routes; of that, what the
//! client's key may ask. `GET /v1/models/{id}` is one of it.
//!
//! All are asked at once ([`model_lists`](super::model_lists)). An upstream that does not answer has its last list stand for it, or
//! is left out, and the response's head says so; only when there is no list at all is that an error.

use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;

use serde_json::{Value, json};

use super::model_lists::{LIMIT_MS, Lists, gather};
use crate::admission::meter::Taken;
use crate::admission::rate::Nanos;
use crate::downstream::connection::Client;
use crate::downstream::outbox::write_all;
use crate::proto::http1::request::RequestBody;
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::exchange::After;
use crate::relay::pump::Framing;
use crate::relay::request::{Request, model_name};
use crate::relay::request_record::{Ledger, outcome_of};
use crate::relay::response_head::{self, Local};
use crate::relay::settings::Settings;
use crate::runtime::clock::Micros;
use crate::telemetry::Outcome;
use crate::upstream::client::Stop;

/// Where models are listed.
const LIST: &str = "/v1/models";

/// Whether `request` asks for the list and it is not just an upstream's.
pub(crate) fn is_union(request: &Request, core: &Core) -> bool {
    let settings = core.shared.settings.load();
    let several = settings.targets.len() > 1
        || settings.config.routes.iter().any(|route| !route.aliases.is_empty())
        || request.holder().is_some_and(|holder| holder.is_restricted());
    several
        && &*request.method == "GET"
        && (request.path().trim_end_matches('/') == LIST
            || matches!(model_name::in_path(request.path()), Ok(Some(_))))
        && request.body == RequestBody::None
}

/// Answers with the union.
pub(crate) async fn answer(
    client: &Client,
    core: &Rc<Core>,
    request: &mut Request,
    peer: IpAddr,
    began: Micros,
) -> After {
    let settings = core.settings();
    let mut ledger = Ledger::new(began);
    let _seat = match enter(request, began * 1000) {
        Ok(seat) => seat,
        Err(error) => {
            let keep = response_head::keeps(request, Framing::Length, core);
            (ledger.status, ledger.error) = (error.status, error.code);
            let bytes = response_head::error(&error, request, keep, core);
            let written = write_all(client, &core.shard, &bytes).await;
            client.deadlines.reset();
            let outcome = if written.is_ok() { Outcome::Refused } else { Outcome::ClientGone };
            ledger.close(outcome, request, peer, core);
            return After::written(&written, keep);
        }
    };
    ledger.attempts = settings.targets.len() as u32;
    client.deadlines.total(core.shard.clock.millis() + LIMIT_MS + 1000);
    client.arm();
    let one = model_name::in_path(request.path()).ok().flatten().map(|(id, _)| id);
    let lists = match &one {
        None if request.path() == LIST => gather(client, core, request, &settings, &mut ledger).await,
        _ => {
            // The upstreams are asked for their lists, whatever they make of a slash or a model behind it.
            let (path, bytes) = (std::mem::replace(&mut request.target, LIST.into()), request.path_bytes);
            request.path_bytes = LIST.len();
            let lists = gather(client, core, request, &settings, &mut ledger).await;
            (request.target, request.path_bytes) = (path, bytes);
            lists
        }
    };
    let request = &*request;
    let keep = response_head::keeps(request, Framing::Length, core);
    let (bytes, outcome) = match lists {
        Err(stop) => {
            let outcome = match stop {
                Stop::Timeout(timeout) => outcome_of(timeout),
                _ => Outcome::ClientGone,
            };
            client.deadlines.reset();
            ledger.close(outcome, request, peer, core);
            return After::Abort;
        }
        Ok(Lists { lists, .. }) if lists.iter().all(Option::is_none) => {
            let error = ApiError::upstream_connect_failed("list of models", "no upstream gave one");
            (ledger.status, ledger.error) = (error.status, error.code);
            (response_head::error(&error, request, keep, core), Outcome::UpstreamError)
        }
        Ok(Lists { lists, missing, stale }) => {
            match pick(union(lists, request, &settings), one.as_deref(), request) {
                Err(error) => {
                    (ledger.status, ledger.error) = (error.status, error.code);
                    (response_head::error(&error, request, keep, core), Outcome::Refused)
                }
                Ok(body) => {
                    let body = body.to_string();
                    (ledger.status, ledger.bytes_out) = (200, body.len() as u64);
                    let told = [("Sedge-Models-Missing", missing), ("Sedge-Models-Stale", stale)];
                    let told: Vec<_> =
                        told.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
                    let local = Local {
                        status: 200,
                        content_type: "application/json",
                        body: body.as_bytes(),
                        fields: &told,
                    };
                    (local.write(request, keep, core), Outcome::Finished)
                }
            }
        }
    };
    let written = write_all(client, &core.shard, &bytes).await;
    client.deadlines.reset();
    ledger.close(if written.is_ok() { outcome } else { Outcome::ClientGone }, request, peer, core);
    After::written(&written, keep)
}

/// Takes the request from what its key may use: no tokens, and until the guard is dropped a seat.
fn enter(request: &mut Request, now: Nanos) -> Result<Option<Taken>, ApiError> {
    let Some(limited) = request.holder().and_then(|holder| holder.limited.clone()) else {
        return Ok(None);
    };
    limited.take(0, now).map(Some).map_err(|exhausted| request.account_mut().refuse(&exhausted, &[], now))
}

/// All of `models`, or the one that is asked for.
fn pick(models: Vec<Value>, one: Option<&str>, request: &Request) -> Result<Value, ApiError> {
    let Some(id) = one else { return Ok(json!({"object": "list", "data": models})) };
    match (models.into_iter().find(|model| model["id"] == id), request.holder()) {
        (Some(model), _) => Ok(model),
        (None, Some(holder)) if !holder.may_ask(id) => {
            Err(ApiError::model_not_allowed(&holder.name, Some(id)))
        }
        (None, _) => Err(ApiError::model_not_found(id)),
    }
}

/// The models that may be asked for: first those that the upstreams have listed, by their index, then the aliases.
fn union(lists: Vec<Option<Value>>, request: &Request, settings: &Settings) -> Vec<Value> {
    let lists: Vec<Vec<Value>> = lists
        .into_iter()
        .map(|list| match list.map(|mut list| list["data"].take()) {
            Some(Value::Array(models)) => models,
            _ => Vec::new(),
        })
        .collect();
    let mut aliases = Vec::new();
    for route in &settings.config.routes {
        for alias in &route.aliases {
            if !alias.is_pattern() {
                aliases.push(alias.from.clone());
                continue;
            }
            let members = route.upstreams.iter().filter(|member| member.weight > 0);
            let offered = members.filter_map(|member| lists.get(member.index)).flatten();
            aliases.extend(offered.filter_map(|model| alias.offers(model["id"].as_str()?)));
        }
    }
    let aliases =
        aliases.into_iter().map(|id| json!({"id": id, "object": "model", "created": 0, "owned_by": "sedge"}));
    let may_ask = |model: &str| request.holder().is_none_or(|holder| holder.may_ask(model));
    let mut seen = HashSet::new();
    let all = lists.into_iter().flatten().chain(aliases);
    all.filter(|model| model["id"].as_str().is_some_and(|id| may_ask(id) && seen.insert(id.to_owned())))
        .collect()
}
