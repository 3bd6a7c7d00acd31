//! What a subscription is asked to be: the body of its creation, read, checked and brought into one spelling.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::glob::Glob;
use super::refusal::{Code, Refusal};
use super::webhook_url::{self, Local};
use super::{ID_BYTES_MAX, LEASE_DEFAULT_MS, LEASE_MAX_MS, LEASE_MIN_MS, STREAMS_MAX, path};

/// The longest description, in bytes.
pub(crate) const DESCRIPTION_BYTES_MAX: usize = 1024;

/// How a worker is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// By a request to its URL.
    #[serde(rename = "webhook")]
    Webhook,
    /// By an event in a stream that it reads.
    #[serde(rename = "pull-wake")]
    PullWake,
}

/// The settings, normalized: equal ones are written as the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) pattern: Option<String>,
    /// In order, none twice.
    pub(crate) streams: Vec<String>,
    pub(crate) webhook: Option<String>,
    pub(crate) wake_stream: Option<String>,
    pub(crate) lease_ttl_ms: u64,
    pub(crate) description: Option<String>,
}

impl Settings {
    /// Reads a PUT.
    pub(crate) fn of(id: &str, body: &[u8], local: Local) -> Result<Settings, Refusal> {
        if id.is_empty() || id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
            return Err(Refusal::field(
                "id",
                format_args!("must have 1 to {ID_BYTES_MAX} bytes without control characters"),
            ));
        }
        Settings::parse(body, local)
    }

    /// Reads the body of a PUT.
    pub(crate) fn parse(body: &[u8], local: Local) -> Result<Settings, Refusal> {
        let body = object(body)?;
        let kind = match body.get("type").and_then(Value::as_str) {
            Some("webhook") => Kind::Webhook,
            Some("pull-wake") => Kind::PullWake,
            _ => return Err(Refusal::field("type", "must be \"webhook\" or \"pull-wake\"")),
        };
        let pattern = match string(&body, "pattern")? {
            Some(text) => Some(Glob::parse(text).map_err(|bad| Refusal::field("pattern", bad))?),
            None => None,
        };
        let streams = match body.get("streams") {
            None | Some(Value::Null) => Vec::new(),
            Some(list) => paths(list)?,
        };
        if pattern.is_none() && streams.is_empty() {
            return Err(Refusal::new(
                Code::InvalidRequest,
                "Neither `pattern` nor `streams` says which streams are meant. Send one of them, or both.",
            ));
        }
        let webhook = match kind {
            Kind::Webhook => Some(webhook(&body, local)?),
            Kind::PullWake => None,
        };
        let wake_stream = match kind {
            Kind::PullWake => Some(wake_stream(&body, &streams)?),
            Kind::Webhook => None,
        };
        let description = string(&body, "description")?.map(str::to_owned);
        if description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_BYTES_MAX) {
            return Err(Refusal::field(
                "description",
                format_args!("is longer than {DESCRIPTION_BYTES_MAX} bytes"),
            ));
        }
        Ok(Settings {
            kind,
            pattern: pattern.map(|glob| glob.as_str().to_owned()),
            streams,
            webhook,
            wake_stream,
            lease_ttl_ms: lease_ttl_ms(&body)?,
            description,
        })
    }

    /// What two equal configurations have in common.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let bytes = serde_json::to_vec(self).expect("strings and numbers are always JSON");
        digest(&SHA256, &bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Bytes of memory that they take.
    pub(crate) fn held(&self) -> u64 {
        let streams: usize = self.streams.iter().map(|path| size_of::<String>() + path.len()).sum();
        let texts = [&self.pattern, &self.webhook, &self.wake_stream, &self.description];
        // A pattern is kept as it is written and ready to match, and stands among all patterns as well.
        let glob = self.pattern.as_ref().map_or(0, |pattern| 4 * pattern.len());
        (streams + glob + texts.into_iter().flatten().map(String::len).sum::<usize>()) as u64
    }

    /// The pattern, ready to match.
    pub(crate) fn glob(&self) -> Option<Glob> {
        self.pattern.as_deref().and_then(Glob::restore)
    }
}

/// Reads a body that has to be a JSON object; an empty one is an empty object.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match body {
        [] => Ok(Map::new()),
        body => serde_json::from_slice(body).map_err(|error| {
            Refusal::new(
                Code::InvalidRequest,
                format!("The request's body is not a JSON object ({error}). Send one, as application/json."),
            )
        }),
    }
}

/// Reads a list of paths that is not empty.
pub(crate) fn paths(list: &Value) -> Result<Vec<String>, Refusal> {
    let Value::Array(list) = list else {
        return Err(Refusal::field("streams", "must be a list of paths"));
    };
    if list.len() > STREAMS_MAX {
        return Err(Refusal::field("streams", format_args!("has more than {STREAMS_MAX} paths")));
    }
    let mut paths = Vec::with_capacity(list.len());
    for item in list {
        let Some(text) = item.as_str() else {
            return Err(Refusal::field("streams", "must be a list of paths, each a string"));
        };
        let path = path::normalize(text);
        paths.push(path.map_err(|bad| Refusal::field("streams", format_args!("has a path that {bad}")))?);
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

/// A string with something in it; null and "" are as good as nothing.
pub(crate) fn string<'a>(
    body: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a str>, Refusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(Refusal::field(name, "must be a string")),
    }
}

fn webhook(body: &Map<String, Value>, local: Local) -> Result<String, Refusal> {
    let url = body.get("webhook").and_then(|webhook| webhook.get("url")).and_then(Value::as_str);
    let Some(url) = url else {
        return Err(Refusal::field("webhook.url", "is missing: it is who gets the wakes"));
    };
    match webhook_url::WebhookUrl::parse(url, local) {
        Ok(_) => Ok(url.to_owned()),
        Err(bad) => Err(Refusal::field("webhook.url", bad).with_code(Code::WebhookUrlRejected)),
    }
}

fn wake_stream(body: &Map<String, Value>, streams: &[String]) -> Result<String, Refusal> {
    let Some(text) = string(body, "wake_stream")? else {
        return Err(Refusal::field("wake_stream", "is missing: workers read the wakes there"));
    };
    let path = path::normalize(text).map_err(|bad| Refusal::field("wake_stream", bad))?;
    // Each wake would be new work, and each work another wake.
    match streams.contains(&path) {
        true => Err(Refusal::field("wake_stream", "is one of `streams`: it would wake itself for ever")),
        false => Ok(path),
    }
}

fn lease_ttl_ms(body: &Map<String, Value>) -> Result<u64, Refusal> {
    match body.get("lease_ttl_ms") {
        None | Some(Value::Null) => Ok(LEASE_DEFAULT_MS),
        Some(value) => {
            value.as_u64().filter(|ms| (LEASE_MIN_MS..=LEASE_MAX_MS).contains(ms)).ok_or_else(|| {
                Refusal::field(
                    "lease_ttl_ms",
                    format_args!("must be a whole number from {LEASE_MIN_MS} to {LEASE_MAX_MS}"),
                )
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Settings, Refusal> {
        Settings::parse(body.as_bytes(), Local::Allowed)
    }

    #[test]
    fn one_meaning_has_one_hash() {
        let hash = |body: &str| parse(body).unwrap().hash();
        let one = hash(
            r#"{"type":"pull-wake","streams":["b","/a/"],"pattern":"/e/*","wake_stream":"w","lease_ttl_ms":30000}"#,
        );
        for same in [
            r#"{"type":"pull-wake","streams":["a","b","a"],"pattern":"e/*","wake_stream":"/w"}"#,
            r#"{"wake_stream":"w","pattern":"e/*","type":"pull-wake","streams":["a","b"],"description":null,"webhook":null}"#,
        ] {
            assert_eq!(hash(same), one, "{same}");
        }
        for other in [
            r#"{"type":"pull-wake","streams":["a"],"pattern":"e/*","wake_stream":"w"}"#,
            r#"{"type":"pull-wake","streams":["a","b"],"pattern":"e/**","wake_stream":"w"}"#,
            r#"{"type":"pull-wake","streams":["a","b"],"pattern":"e/*","wake_stream":"v"}"#,
            r#"{"type":"pull-wake","streams":["a","b"],"pattern":"e/*","wake_stream":"w","description":"x"}"#,
            r#"{"type":"pull-wake","streams":["a","b"],"pattern":"e/*","wake_stream":"w","lease_ttl_ms":1000}"#,
        ] {
            assert_ne!(hash(other), one, "{other}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let long = format!(
            r#"{{"type":"pull-wake","pattern":"a","wake_stream":"w","description":"{}"}}"#,
            "x".repeat(1025)
        );
        for (body, param) in [
            ("[]", None),
            ("", Some("type")),
            (r#"{"type":"push"}"#, Some("type")),
            (r#"{"type":"webhook"}"#, None),
            (r#"{"type":"webhook","streams":[]}"#, None),
            (r#"{"type":"webhook","pattern":7}"#, Some("pattern")),
            (r#"{"type":"webhook","pattern":"a*"}"#, Some("pattern")),
            (r#"{"type":"webhook","streams":"a"}"#, Some("streams")),
            (r#"{"type":"webhook","streams":[1]}"#, Some("streams")),
            (r#"{"type":"webhook","streams":["__ds/x"]}"#, Some("streams")),
            (r#"{"type":"webhook","pattern":"a"}"#, Some("webhook.url")),
            (r#"{"type":"pull-wake","pattern":"a"}"#, Some("wake_stream")),
            (r#"{"type":"pull-wake","streams":["w"],"wake_stream":"w"}"#, Some("wake_stream")),
            (
                r#"{"type":"pull-wake","pattern":"a","wake_stream":"w","lease_ttl_ms":999}"#,
                Some("lease_ttl_ms"),
            ),
            (
                r#"{"type":"pull-wake","pattern":"a","wake_stream":"w","lease_ttl_ms":1.5}"#,
                Some("lease_ttl_ms"),
            ),
            (&long, Some("description")),
        ] {
            let refusal = parse(body).unwrap_err();
            assert_eq!((refusal.param, refusal.code), (param, Code::InvalidRequest), "{body}");
        }
        let refusal =
            parse(r#"{"type":"webhook","pattern":"a","webhook":{"url":"http://10.0.0.1/"}}"#).unwrap_err();
        assert_eq!(refusal.code, Code::WebhookUrlRejected);
    }
}
