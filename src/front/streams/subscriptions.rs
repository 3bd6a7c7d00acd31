//! The doors of subscriptions, below `/v1/stream/__ds`.
//!
//! Whoever subscribes needs a key where keys are asked for; whoever was woken has the wake's token instead, and the public keys
//! are for anyone.

use std::net::IpAddr;
use std::rc::Rc;

use super::control::Control;
use crate::front::body::{self, Failure};
use crate::observe::Outcome;
use crate::openai::ApiError;
use crate::relay::answer::{self, Local};
use crate::relay::client::{Client, write_all};
use crate::relay::core::Core;
use crate::relay::desk::Asked;
use crate::relay::download::Framing;
use crate::relay::exchange::After;
use crate::relay::ledger::Ledger;
use crate::relay::request::Request;
use crate::shard::clock::Micros;
use crate::stream::journal::AppendError;
use crate::stream::subscription::{BODY_BYTES_MAX, Code, Refusal, Reply};

const JSON: &str = "application/json";

/// Not to be stored: the next answer may differ.
const FRESH: (&str, &str) = ("Cache-Control", "no-store");

/// What browsers need to know of every answer (PROTOCOL.md, 12.7).
const NOSNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");

/// An answer.
struct Given {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    fields: Vec<(&'static str, &'static str)>,
    error: Option<&'static str>,
}

/// Answers a request for a reserved path.
pub(super) async fn answer(
    client: &Client,
    core: &Rc<Core>,
    request: &Request,
    peer: IpAddr,
    began: Micros,
) -> After {
    let mut ledger = Ledger::new(began);
    let (given, read) = match given(client, core, request, &mut ledger).await {
        Ok(given) => (given, true),
        Err((Failure::Error(error), read)) => (refusal(&error), read),
        Err((failure, read)) => {
            return body::refuse(client, core, request, peer, ledger, failure, read).await;
        }
    };
    let keep = read && answer::keeps(request, Framing::Length, core) && !client.is_to_leave();
    let Given { status, content_type, body, fields, error } = &given;
    let bytes = Local { status: *status, content_type, body, fields }.write(request, keep, core);
    let written = write_all(client, &core.shard, &bytes).await;
    (ledger.status, ledger.error, ledger.bytes_out) = (*status, *error, body.len() as u64);
    let outcome = match (&written, error) {
        (Err(_), _) => Outcome::ClientGone,
        (Ok(_), Some(_)) => Outcome::Refused,
        (Ok(_), None) => Outcome::Local,
    };
    ledger.close(outcome, request, peer, core);
    client.deadlines.reset();
    After::written(&written, keep)
}

/// The answer, or why there is none, and whether the request's body was read.
async fn given(
    client: &Client,
    core: &Rc<Core>,
    request: &Request,
    ledger: &mut Ledger,
) -> Result<Given, (Failure, bool)> {
    let Some(control) = Control::parse(request.path()) else {
        return Err((ApiError::no_route(&request.method, request.path()).into(), false));
    };
    if !control.takes(&request.method) {
        let message = format!("This path knows {} alone.", control.methods());
        let mut given = refusal(&ApiError::new(405, "method_not_allowed", message));
        given.fields.push(("Allow", control.methods()));
        return Ok(given);
    }
    if core.shared.streams.remote().is_some() {
        let message = "Subscriptions are not there while streams are in Redis: follow the streams instead.";
        return Ok(refusal(&ApiError::new(501, "not_supported", message)));
    }
    if request.encoded {
        let message = "The body is compressed. Send it without Content-Encoding.";
        return Err((ApiError::new(415, "unsupported_content_encoding", message).into(), false));
    }
    let body = body::receive(client, core, request, BODY_BYTES_MAX as u64, ledger).await;
    let body = body.map_err(|failure| (failure, false))?;
    if control == Control::Keys {
        return Ok(Given {
            status: 200,
            content_type: "application/jwk-set+json",
            body: core.shared.desk.signer.jwks(),
            fields: vec![("Cache-Control", "public, max-age=300"), NOSNIFF],
            error: None,
        });
    }
    let tls = client.stream().is_tls();
    let Asked { answer, stored } = ask(core, request, tls, &control, &body);
    // Whatever is said, a refusal as well, rests on what was kept before.
    let stored = stored.map_err(|error| (storage(&error).into(), true))?;
    let durable = core.hub.durable(stored).await;
    durable.map_err(|failure| (storage(&AppendError::Stopped(failure)).into(), true))?;
    Ok(match answer {
        Ok(Reply { status, body }) => {
            Given { status, content_type: JSON, body, fields: vec![FRESH, NOSNIFF], error: None }
        }
        Err(refusal) => refused(&refusal),
    })
}

fn ask(
    core: &Core,
    request: &Request,
    tls: bool,
    control: &Control,
    body: &[u8],
) -> Asked<Result<Reply, Refusal>> {
    let settings = core.shared.settings.load();
    let token = request.credentials().0.and_then(bearer);
    let now = core.shard.clock.micros() / 1000;
    core.shared.desk.ask(now, |subscriptions, scene| match control {
        Control::Keys => Err(Refusal::not_found()),
        Control::Subscription(id) => match &*request.method {
            "PUT" => {
                let origin = request.origin(tls);
                let origin = origin.unwrap_or_else(|| format!("http://{}", settings.config.listen));
                subscriptions.put(id, body, &origin, settings.local_webhooks(), scene)
            }
            "DELETE" => Ok(subscriptions.delete(id)),
            _ => subscriptions.get(id, scene),
        },
        Control::Streams(id) => subscriptions.add_streams(id, body, scene),
        Control::Stream(id, path) => subscriptions.remove_stream(id, path, scene),
        Control::Callback(id) => subscriptions.callback(id, token, body, scene),
        Control::Claim(id) => subscriptions.claim(id, body, scene),
        Control::Ack(id) => subscriptions.ack(id, token, body, scene),
        Control::Release(id) => subscriptions.release(id, token, body, scene),
    })
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750, 2.1).
fn bearer(authorization: &[u8]) -> Option<&str> {
    let (scheme, token) = std::str::from_utf8(authorization).ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_matches(' '))
}

fn refused(refusal: &Refusal) -> Given {
    let mut fields = vec![FRESH, NOSNIFF];
    if matches!(refusal.code, Code::TokenInvalid | Code::TokenExpired) {
        fields.push(("WWW-Authenticate", "Bearer"));
    }
    let (status, body) = (refusal.code.status(), refusal.body());
    Given { status, content_type: JSON, body, fields, error: Some(refusal.code.as_str()) }
}

fn refusal(error: &ApiError) -> Given {
    let mut fields = vec![FRESH, NOSNIFF];
    fields.extend_from_slice(answer::error_fields(error));
    Given { status: error.status, content_type: JSON, body: error.body(), fields, error: error.code }
}

fn storage(error: &AppendError) -> ApiError {
    let (code, message) = match error {
        AppendError::Stopped(_) => (
            "storage_failed",
            "It is not known to be stored: the disk has failed. The log says how.".to_owned(),
        ),
        error => ("storage_busy", format!("It was not stored: {error}.")),
    };
    ApiError::new(503, code, message)
}
