//! `GET /v1/models` over several upstreams: the union of what they offer, and the aliases of the routes; of that, what the
//! client's key may ask. `GET /v1/models/{id}` is one of it.
//!
//! All are asked at once, under one limit. An upstream that does not answer is left out, as its models could not be used
//! anyway; only when none answers is that an error.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use serde_json::{Value, json};

use super::answer::{self, Local};
use super::ask::{Asking, Stop, connect_alone, guarded};
use super::client::Client;
use super::core::Core;
use super::download::Framing;
use super::exchange::After;
use super::framing::TAIL_ROOM;
use super::ledger::{Ledger, outcome_of};
use super::named;
use super::request::Request;
use super::sending::Left;
use super::settings::Settings;
use super::writing::write_all;
use crate::guard::meter::Taken;
use crate::guard::rate::Nanos;
use crate::http::body::BodyDecoder;
use crate::http::request::RequestBody;
use crate::observe::Outcome;
use crate::openai::ApiError;
use crate::shard::clock::{Micros, Millis};
use crate::upstream::dial::Tried;
use crate::upstream::target::Target;

/// Where models are listed.
const LIST: &str = "/v1/models";

/// How long the upstreams have, all together.
const LIMIT_MS: Millis = 10_000;

/// The longest list that one upstream may give.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One upstream's list on its way.
type Fetching = Pin<Box<dyn Future<Output = Option<Value>>>>;

/// Whether `request` asks for the list and it is not just an upstream's.
pub fn is_union(request: &Request, core: &Core) -> bool {
    let settings = core.shared.settings.load();
    let several = settings.targets.len() > 1
        || settings.config.routes.iter().any(|route| !route.aliases.is_empty())
        || request.holder().is_some_and(|holder| holder.is_restricted());
    several
        && &*request.method == "GET"
        && (request.path().trim_end_matches('/') == LIST
            || matches!(named::in_path(request.path()), Ok(Some(_))))
        && request.body == RequestBody::None
}

/// Answers with the union.
pub async fn answer(
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
            let keep = answer::keeps(request, Framing::Length, core);
            (ledger.status, ledger.error) = (error.status, error.code);
            let bytes = answer::error(&error, request, keep, core);
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
    let one = named::in_path(request.path()).ok().flatten().map(|(id, _)| id);
    let lists = match &one {
        None if request.path() == LIST => gather(client, core, request, &settings).await,
        _ => {
            // The upstreams are asked for their lists, whatever they make of a slash or a model behind it.
            let (path, bytes) = (std::mem::replace(&mut request.target, LIST.into()), request.path_bytes);
            request.path_bytes = LIST.len();
            let lists = gather(client, core, request, &settings).await;
            (request.target, request.path_bytes) = (path, bytes);
            lists
        }
    };
    let request = &*request;
    let keep = answer::keeps(request, Framing::Length, core);
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
        Ok(lists) if lists.iter().all(Option::is_none) => {
            let error = ApiError::upstream_connect_failed("list of models", "no upstream gave one");
            (ledger.status, ledger.error) = (error.status, error.code);
            (answer::error(&error, request, keep, core), Outcome::UpstreamError)
        }
        Ok(lists) => match pick(union(lists, request, &settings), one.as_deref(), request) {
            Err(error) => {
                (ledger.status, ledger.error) = (error.status, error.code);
                (answer::error(&error, request, keep, core), Outcome::Refused)
            }
            Ok(body) => {
                let body = body.to_string();
                (ledger.status, ledger.bytes_out) = (200, body.len() as u64);
                let local = Local {
                    status: 200,
                    content_type: "application/json",
                    body: body.as_bytes(),
                    fields: &[],
                };
                (local.write(request, keep, core), Outcome::Finished)
            }
        },
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

/// Each upstream's list, in the order of the configuration, unless the client leaves meanwhile.
async fn gather(
    client: &Client,
    core: &Rc<Core>,
    request: &Request,
    settings: &Settings,
) -> Result<Vec<Option<Value>>, Stop> {
    let mut lists: Vec<Option<Value>> = vec![None; settings.targets.len()];
    let mut pending: Vec<(usize, Fetching)> = Vec::new();
    for (index, target) in settings.targets.iter().enumerate() {
        let head = request.write(target, &RequestBody::None, Left { total: Some(LIMIT_MS), answer: None });
        pending.push((index, Box::pin(fetch(Rc::clone(core), Arc::clone(target), head))));
    }
    let mut limit = Box::pin(core.shard.pause(LIMIT_MS));
    let done = guarded(client, |cx| {
        pending.retain_mut(|(index, list)| match list.as_mut().poll(cx) {
            Poll::Ready(list) => {
                lists[*index] = list;
                false
            }
            Poll::Pending => true,
        });
        if pending.is_empty() { Poll::Ready(()) } else { limit.as_mut().poll(cx) }
    });
    done.await?;
    Ok(lists)
}

/// One upstream's list.
async fn fetch(core: Rc<Core>, target: Arc<Target>, head: Vec<u8>) -> Option<Value> {
    let connected = connect_alone(&core, &target, &Tried::default()).await.ok()?;
    let mut asking = Asking::new(connected.stream, &head, 0);
    let answered = poll_fn(|cx| asking.poll_alone(cx, &core, false)).await.ok()?;
    let head = answered.head();
    let (status, reusable) = (head.status, head.keep_alive);
    let mut decoder = BodyDecoder::from(head.body);
    drop(head);
    let mut block = answered.block;
    let mut list = Vec::new();
    let mut read = answered.rest;
    // More than the answer: whatever it is, the next request's answer would come behind it.
    let mut surplus = decoder.finished() && !read.is_empty();
    while status == 200 && !decoder.finished() {
        let decoded = decoder.decode_in_place(&mut block[read.clone()]).ok()?;
        list.extend_from_slice(&block[read.start..read.start + decoded.payload]);
        surplus = decoded.ended && decoded.consumed < read.len();
        if decoded.ended || list.len() > LIST_BYTES_MAX {
            break;
        }
        let room = block.len() - TAIL_ROOM;
        match poll_fn(|cx| asking.stream.poll_read(cx, &mut block[..room])).await {
            Ok(0) | Err(_) => break,
            Ok(more) => read = 0..more,
        }
    }
    if decoder.finished() && reusable && !surplus {
        core.pool.put(&target, asking.stream, core.shard.clock.millis(), None);
    }
    serde_json::from_slice(&list).ok().filter(|list: &Value| list["data"].is_array())
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
