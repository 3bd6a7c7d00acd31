//! Subscriptions as JSON: what clients and workers are shown.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::links::{Link, Seen};
use super::phase::{Phase, Wake};
use super::settings::Kind;
use super::subscription::Subscription;
use super::{Reply, UnixMillis};
use crate::proto::http1::date::rfc3339;
use crate::streams::model::offset::Offset;

/// Where subscriptions are, below the server's origin.
pub(crate) const ROOT: &str = "/v1/stream/__ds";

/// All but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The subscription itself.
pub(crate) fn subscription(it: &Subscription, kid: &str) -> Vec<u8> {
    let streams: Vec<Value> = it
        .links
        .iter()
        .map(|(path, link)| {
            json!({ "path": &**path, "link_type": link_type(link), "acked_offset": offset(link.cursor.map(|at| at.acked)) })
        })
        .collect();
    let webhook = it.settings.webhook.as_ref().map(|url| {
        let jwks_url = format!("{}{ROOT}/jwks.json", it.origin);
        json!({ "url": url, "signing": { "alg": "ed25519", "kid": kid, "jwks_url": jwks_url } })
    });
    let failed = it.failures > 0 && matches!(it.phase, Phase::Waiting { .. });
    json!({
        "id": &*it.id,
        "subscription_id": &*it.id,
        "type": match it.settings.kind { Kind::Webhook => "webhook", Kind::PullWake => "pull-wake" },
        "pattern": it.settings.pattern,
        "streams": streams,
        "webhook": webhook,
        "wake_stream": it.settings.wake_stream,
        "lease_ttl_ms": it.settings.lease_ttl_ms,
        "created_at": rfc3339(it.created_at),
        "status": if failed { "failed" } else { "active" },
        "description": it.settings.description,
    })
    .to_string()
    .into_bytes()
}

/// The body of a webhook.
pub(crate) fn wake(it: &Subscription, wake: &Wake, token: &str, seen: &[Seen]) -> Vec<u8> {
    let id = utf8_percent_encode(&it.id, SEGMENT);
    json!({
        "subscription_id": &*it.id,
        "wake_id": wake.id,
        "generation": wake.generation,
        "streams": streams(seen),
        "callback_url": format!("{}{ROOT}/subscriptions/{id}/callback", it.origin),
        "callback_token": token,
    })
    .to_string()
    .into_bytes()
}

/// The answer to a claim.
pub(crate) fn claim(wake: &Wake, token: &str, seen: &[Seen], lease_ttl_ms: u64) -> Reply {
    Reply::json(
        200,
        &json!({
            "wake_id": wake.id,
            "generation": wake.generation,
            "token": token,
            "streams": streams(seen),
            "lease_ttl_ms": lease_ttl_ms,
        }),
    )
}

/// The event that workers read.
pub(crate) fn event(id: &str, stream: &str, generation: u64, now: UnixMillis) -> Vec<u8> {
    json!({ "type": "wake", "subscription_id": id, "stream": stream, "generation": generation, "ts": now })
        .to_string()
        .into_bytes()
}

/// The answer to an ack or a callback.
pub(crate) fn progress(next_wake: bool) -> Reply {
    Reply::json(200, &json!({ "ok": true, "next_wake": next_wake }))
}

fn streams(seen: &[Seen]) -> Vec<Value> {
    let stream = |seen: &Seen| {
        json!({
            "path": &*seen.path,
            "link_type": link_type(&seen.link),
            "acked_offset": offset(seen.link.cursor.map(|at| at.acked)),
            "tail_offset": offset(seen.link.tail),
            "has_pending": seen.has_pending(),
        })
    };
    seen.iter().map(stream).collect()
}

fn link_type(link: &Link) -> &'static str {
    if link.explicit { "explicit" } else { "glob" }
}

/// Where there is no stream there is nothing but its beginning.
fn offset(offset: Option<Offset>) -> String {
    offset.map_or_else(|| "-1".to_owned(), |offset| offset.to_string())
}
