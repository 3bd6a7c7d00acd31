//! The doors of subscriptions, below `/v1/stream/__ds`.
//!
//! Whoever subscribes needs a key where keys are asked for; whoever was woken has the wake's token instead, and the public keys
//! are for anyone.

pub(crate) mod path;

use std::net::IpAddr;
use std::rc::Rc;

use self::path::Control;
use super::streams::write::unavailable;
use crate::downstream::connection::Client;
use crate::downstream::outbox::write_all;
use crate::edge::request_body::{self, Failure};
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::exchange::After;
use crate::relay::pump::Framing;
use crate::relay::request::Request;
use crate::relay::request_record::Ledger;
use crate::relay::response_head::{self, Local};
use crate::streams::store::journal::AppendError;
use crate::subscriptions::worker::NotKept;
use crate::subscriptions::{BODY_BYTES_MAX, Code, Question, Refusal, Reply};
use crate::telemetry::Outcome;

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
pub(crate) async fn answer(
    client: &Client,
    core: &Rc<Core>,
    request: &Request,
    peer: IpAddr,
    mut ledger: Ledger,
    admitted: Result<(), ApiError>,
) -> After {
    let given = match admitted {
        Ok(()) => given(client, core, request, &mut ledger).await,
        Err(error) => Err((error.into(), false)),
    };
    let (given, read) = match given {
        Ok(given) => (given, true),
        Err((Failure::Error(error), read)) => (refusal(&error), read),
        Err((failure, read)) => {
            return request_body::refuse(client, core, request, peer, ledger, failure, read).await;
        }
    };
    let keep = read && response_head::keeps(request, Framing::Length, core) && !client.is_to_leave();
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
    if request.encoded {
        let message = "The body is compressed. Send it without Content-Encoding.";
        return Err((ApiError::new(415, "unsupported_content_encoding", message).into(), false));
    }
    let body = request_body::receive(client, core, request, BODY_BYTES_MAX as u64, ledger).await;
    let body = body.map_err(|failure| (failure, false))?;
    let desk = &core.shared.desk;
    let tls = client.stream().is_tls();
    let Some((id, question)) = question(core, request, tls, control, body.to_vec()) else {
        let keys = desk.keys().await.map_err(|error| (unavailable(&error).into(), true))?;
        return Ok(Given {
            status: 200,
            content_type: "application/jwk-set+json",
            body: keys.signer.jwks(),
            fields: vec![("Cache-Control", "public, max-age=300"), NOSNIFF],
            error: None,
        });
    };
    let now = core.shard.clock.micros() / 1000;
    let key = request.holder().map(|holder| &*holder.name);
    let answer = desk.answer(&core.hub, now, &id, question, key).await.map_err(|error| {
        let error = match error {
            NotKept::Store(error) => storage(&error),
            NotKept::Unavailable(error) => unavailable(&error),
        };
        (error.into(), true)
    })?;
    Ok(match answer {
        Ok(Reply { status, body }) => {
            Given { status, content_type: JSON, body, fields: vec![FRESH, NOSNIFF], error: None }
        }
        Err(refusal) => refused(&refusal),
    })
}

/// What is asked, and of which subscription; none, if it is the keys.
fn question(
    core: &Core,
    request: &Request,
    tls: bool,
    control: Control,
    body: Vec<u8>,
) -> Option<(String, Question)> {
    let token = || request.credentials().0.and_then(bearer).map(str::to_owned);
    Some(match control {
        Control::Keys => return None,
        Control::Subscription(id) => {
            let question = match &*request.method {
                "PUT" => {
                    let settings = core.shared.settings.load();
                    let origin = request.origin(tls);
                    let origin = origin.unwrap_or_else(|| format!("http://{}", settings.config.listen));
                    Question::Put { body, origin, local: settings.local_webhooks() }
                }
                "DELETE" => Question::Delete,
                _ => Question::Show,
            };
            (id, question)
        }
        Control::Streams(id) => (id, Question::Add(body)),
        Control::Stream(id, path) => (id, Question::Remove(path)),
        Control::Callback(id) => (id, Question::Callback { token: token(), body }),
        Control::Claim(id) => (id, Question::Claim(body)),
        Control::Ack(id) => (id, Question::Ack { token: token(), body }),
        Control::Release(id) => (id, Question::Release { token: token(), body }),
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
    fields.extend_from_slice(response_head::error_fields(error));
    Given { status: error.status, content_type: JSON, body: error.body(), fields, error: error.code }
}

fn storage(error: &AppendError) -> ApiError {
    let (code, message) = match error {
        AppendError::NoRoom => ("storage_full", format!("It was not stored: {error}.")),
        AppendError::Stopped(failure) if failure.no_room => (
            "storage_full",
            "It is not known to be stored: the disk is full. sedge stores it once there is room, unless it is stopped before."
                .to_owned(),
        ),
        AppendError::Stopped(_) => (
            "storage_failed",
            "It is not known to be stored: the disk has failed. The log says how.".to_owned(),
        ),
        error => ("storage_busy", format!("It was not stored: {error}.")),
    };
    ApiError::new(503, code, message)
}
