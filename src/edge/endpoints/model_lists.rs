//! The lists of models that upstreams give: fetched from all of them at once, within the configured time limits, and kept, so that
//! an upstream that is away does not take its models with it.
//!
//! | the upstream | its list |
//! | --- | --- |
//! | answers | this, and it is kept if it is not one client's own |
//! | is ejected (its breaker is open), or failed to give one in the last 10 s | the one that is kept, at once |
//! | does not answer in time, or with no list | the one that is kept; where there is one it is waited for a second only |
//!
//! A list that depends on the client's own key is neither kept nor replaced by one that is.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use serde_json::{Value, json};

use crate::config::Timeouts;
use crate::downstream::connection::Client;
use crate::proto::http1::body::BodyDecoder;
use crate::proto::http1::request::RequestBody;
use crate::relay::context::Core;
use crate::relay::pump::rechunk::TAIL_ROOM;
use crate::relay::request::Request;
use crate::relay::request::outbound_headers::Left;
use crate::relay::request_record::Ledger;
use crate::relay::settings::Settings;
use crate::runtime::catch_panic::caught;
use crate::runtime::clock::Millis;
use crate::upstream::client::{Asking, Stop, connect_alone, guarded};
use crate::upstream::dial::Tried;
use crate::upstream::target::Target;

/// How long the upstreams have at most, all together, whatever the time limits say.
pub(crate) const LIMIT_MS: Millis = 10_000;

/// How long an upstream has whose last list is kept.
const KNOWN_LIMIT_MS: Millis = 1000;

/// The longest list that one upstream may give.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most models that are taken from one list.
const MODELS_MAX: usize = 10_000;

/// One upstream's list on its way.
type Fetching = Pin<Box<dyn Future<Output = Result<Value, &'static str>>>>;

/// The lists that were gathered.
pub(crate) struct Lists {
    /// Each upstream's, in the order of the configuration: `{"data": [...]}`.
    pub(crate) lists: Vec<Option<Value>>,
    /// The names of the upstreams whose models are missing.
    pub(crate) missing: Option<String>,
    /// The names of those whose last list stands for one that did not come.
    pub(crate) stale: Option<String>,
}

/// Each upstream's list, unless the client leaves meanwhile. `request` must be for `/v1/models`.
pub(crate) async fn gather(
    client: &Client,
    core: &Rc<Core>,
    request: &Request,
    settings: &Settings,
    ledger: &mut Ledger,
) -> Result<Lists, Stop> {
    let now = core.shard.clock.millis();
    let mut came: Vec<Option<Result<Value, &'static str>>> = Vec::new();
    // Whether a list is kept of those that are asked.
    let mut pending: Vec<(usize, bool, Fetching)> = Vec::new();
    for (index, target) in settings.targets.iter().enumerate() {
        let is_shared = is_shared(target, request);
        let known = is_shared && target.health.models.last().is_some();
        came.push(None);
        if target.is_ejected(now) {
            came[index] = Some(Err("out"));
        } else if is_shared && target.health.models.failed_lately(now) {
            came[index] = Some(Err("failed lately"));
        } else {
            let left = Left { total: Some(LIMIT_MS), answer: None };
            let head = request.write(target, &RequestBody::None, left);
            let limits = settings.config.timeouts.clone();
            pending.push((index, known, Box::pin(list(Rc::clone(core), Arc::clone(target), head, limits))));
        }
    }
    let mut short = None;
    let mut limit = Box::pin(core.shard.pause(LIMIT_MS));
    let done = guarded(client, |cx| {
        pending.retain_mut(|(index, _, list)| match list.as_mut().poll(cx) {
            Poll::Ready(list) => {
                came[*index] = Some(list);
                false
            }
            Poll::Pending => true,
        });
        if pending.is_empty() {
            return Poll::Ready(());
        }
        if short.is_none() && pending.iter().all(|(_, known, _)| *known) {
            short = Some(Box::pin(core.shard.pause(KNOWN_LIMIT_MS)));
        }
        if let Some(short) = &mut short
            && short.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        limit.as_mut().poll(cx)
    });
    done.await?;
    drop(pending);
    Ok(settle(came, core, request, settings, ledger))
}

/// Keeps what came, and puts what is kept in the place of what did not.
fn settle(
    came: Vec<Option<Result<Value, &'static str>>>,
    core: &Core,
    request: &Request,
    settings: &Settings,
    ledger: &mut Ledger,
) -> Lists {
    let now = core.shard.clock.millis();
    let (mut missing, mut stale, mut lists) = (Vec::new(), Vec::new(), Vec::new());
    for (target, came) in settings.targets.iter().zip(came) {
        let models = &target.health.models;
        let why = match came {
            Some(Ok(list)) => {
                models.count(true);
                if is_shared(target, request) {
                    models.keep(list.to_string());
                }
                lists.push(Some(list));
                continue;
            }
            Some(Err(why)) => why,
            None => "timeout",
        };
        models.count(false);
        if is_shared(target, request) && !matches!(why, "out" | "failed lately") {
            models.failed(now);
        }
        ledger.failed_by(target.label, why, core);
        let last = models.last().filter(|_| is_shared(target, request));
        let last = last.and_then(|last| serde_json::from_str::<Value>(&last).ok());
        match &last {
            Some(_) => stale.push(&target.name),
            None => missing.push(&target.name),
        }
        lists.push(last);
    }
    Lists { lists, missing: names(&missing), stale: names(&stale) }
}

/// Whether an upstream is asked in a way that does not depend on who the client is.
fn is_shared(target: &Target, request: &Request) -> bool {
    let carries_key = request.credentials() != (None, None);
    match target.authorization() {
        Some((_, yields)) => !yields || !carries_key,
        None => !carries_key,
    }
}

/// Names as the value of a header field, if there are any.
fn names(names: &[&String]) -> Option<String> {
    let plain = |name: &&String| -> String {
        let plain = |c: char| if c.is_ascii_graphic() && c != ',' || c == ' ' { c } else { '?' };
        name.chars().map(plain).collect()
    };
    (!names.is_empty()).then(|| names.iter().map(plain).collect::<Vec<_>>().join(", "))
}

/// One upstream's list, or why there is none, as a word for the log.
async fn list(
    core: Rc<Core>,
    target: Arc<Target>,
    head: Vec<u8>,
    limits: Timeouts,
) -> Result<Value, &'static str> {
    let tried = Tried::default();
    let connect =
        limits.connect.saturating_add(if target.tls.is_some() { limits.tls } else { Default::default() });
    let connect = if limits.connect.is_zero() { Default::default() } else { connect };
    let connecting = caught(connect_alone(&core, &target, &tried));
    let connected = match within(&core, connect, connecting).await {
        Some(Some(connected)) => connected.map_err(|_| "connect")?,
        Some(None) => return Err("panic"),
        None => return Err("connect_timeout"),
    };
    let mut asking = Asking::new(connected.stream, &head, 0);
    let answered = poll_fn(|cx| asking.poll_alone(cx, &core, false));
    let answered = within(&core, limits.first_byte, answered).await.ok_or("silence")?;
    let answered = answered.map_err(|_| "closed")?;
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
        let decoded = decoder.decode_in_place(&mut block[read.clone()]).map_err(|_| "invalid")?;
        list.extend_from_slice(&block[read.start..read.start + decoded.payload]);
        surplus = decoded.ended && decoded.consumed < read.len();
        if decoded.ended {
            break;
        }
        if list.len() > LIST_BYTES_MAX {
            return Err("too long");
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
    if status != 200 {
        return Err("status");
    }
    serde_json::from_slice(&list).ok().and_then(normalized).ok_or("no list")
}

/// What `work` comes to, if it takes no longer than `limit`; zero is no limit.
async fn within<T>(core: &Core, limit: std::time::Duration, work: impl Future<Output = T>) -> Option<T> {
    if limit.is_zero() {
        return Some(work.await);
    }
    let mut work = std::pin::pin!(work);
    let mut pause = std::pin::pin!(core.shard.pause(limit.as_millis() as Millis));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => pause.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// `{"data": [...]}` of any list that servers give: OpenAI's, a bare array, or `{"models": [...]}` of names or of objects that
/// call their id `model` or `name`.
fn normalized(list: Value) -> Option<Value> {
    let models = match list {
        Value::Array(models) => models,
        Value::Object(mut list) => match [list.remove("data"), list.remove("models")] {
            [Some(Value::Array(models)), _] | [_, Some(Value::Array(models))] => models,
            _ => return None,
        },
        _ => return None,
    };
    let models = models.into_iter().take(MODELS_MAX).filter_map(model);
    Some(json!({"data": models.collect::<Vec<_>>()}))
}

fn model(model: Value) -> Option<Value> {
    match model {
        Value::String(id) => Some(json!({"id": id, "object": "model", "created": 0, "owned_by": ""})),
        Value::Object(model) if model.get("id").is_some_and(Value::is_string) => Some(Value::Object(model)),
        Value::Object(model) => {
            let id = ["model", "name"].into_iter().find_map(|key| model.get(key)?.as_str())?;
            Some(json!({"id": id, "object": "model", "created": 0, "owned_by": ""}))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(list: &str) -> Option<Vec<String>> {
        let list = normalized(serde_json::from_str(list).unwrap())?;
        Some(list["data"].as_array()?.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn the_lists_that_servers_give_are_read() {
        for list in [
            r#"{"object":"list","data":[{"id":"a","object":"model"},{"id":"b"}]}"#,
            r#"[{"id":"a"},{"id":"b"}]"#,
            r#"["a","b"]"#,
            r#"{"models":[{"name":"x","model":"a"},{"name":"b"}]}"#,
            r#"{"models":["a","b"]}"#,
            r#"{"models":[{"name":"c"}],"data":[{"id":"a"},{"id":"b"},{"id":7},7,null,{}]}"#,
        ] {
            assert_eq!(ids(list), Some(vec!["a".to_owned(), "b".to_owned()]), "{list}");
        }
        assert_eq!(ids("[]"), Some(vec![]));
        for list in ["{}", "null", "7", r#"{"data":{}}"#, r#"{"error":{"message":"no"}}"#] {
            assert_eq!(ids(list), None, "{list}");
        }
        let many = json!(vec!["x"; MODELS_MAX + 1]);
        assert_eq!(normalized(many).unwrap()["data"].as_array().unwrap().len(), MODELS_MAX);
    }

    #[test]
    fn names_fit_into_a_field() {
        assert_eq!(names(&[]), None);
        let all = ["a".to_owned(), "b,\u{fc} c".to_owned()];
        assert_eq!(names(&all.iter().collect::<Vec<_>>()), Some("a, b?? c".to_owned()));
    }
}
