//! The reserved paths below `/v1/stream/__ds`: what of subscriptions a request is about (PROTOCOL.md, section 6).

use percent_encoding::percent_decode_str;

use crate::subscriptions::ROOT;

/// What a path leads to. An id is as clients chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The public keys of webhook signatures.
    Keys,
    /// A subscription itself.
    Subscription(String),
    /// The streams that are its by name.
    Streams(String),
    /// One of them.
    Stream(String, String),
    /// Where the receiver of a webhook calls back.
    Callback(String),
    /// Where a worker claims.
    Claim(String),
    /// Where it says how far it is.
    Ack(String),
    /// Where it gives up.
    Release(String),
}

/// Whether a path is reserved.
pub(crate) fn is_control(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether it is no business of the keys of clients: what is asked there carries the token of a wake, or is public.
pub(crate) fn is_for_anyone(path: &str) -> bool {
    use Control::{Ack, Callback, Keys, Release};
    matches!(Control::parse(path), Some(Keys | Callback(_) | Ack(_) | Release(_)))
}

impl Control {
    /// Reads a path; none if it leads nowhere.
    pub(crate) fn parse(path: &str) -> Option<Control> {
        let rest = path.strip_prefix(ROOT)?.strip_prefix('/')?;
        if rest == "jwks.json" {
            return Some(Control::Keys);
        }
        let rest = rest.strip_prefix("subscriptions/")?;
        let (id, rest) = rest.split_once('/').map_or((rest, None), |(id, rest)| (id, Some(rest)));
        let id = decode(id).filter(|id| !id.is_empty())?;
        match rest {
            None => Some(Control::Subscription(id)),
            Some("streams") => Some(Control::Streams(id)),
            Some("callback") => Some(Control::Callback(id)),
            Some("claim") => Some(Control::Claim(id)),
            Some("ack") => Some(Control::Ack(id)),
            Some("release") => Some(Control::Release(id)),
            Some(rest) => Some(Control::Stream(id, decode(rest.strip_prefix("streams/")?)?)),
        }
    }

    /// The methods that it knows.
    pub(crate) fn methods(&self) -> &'static str {
        match self {
            Control::Keys => "GET, HEAD",
            Control::Subscription(_) => "GET, PUT, DELETE",
            Control::Stream(..) => "DELETE",
            _ => "POST",
        }
    }

    /// Whether a method is one of them.
    pub(crate) fn takes(&self, method: &str) -> bool {
        self.methods().split(", ").any(|known| known == method)
    }
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_what_they_say() {
        let id = || "a b".to_owned();
        for (path, control) in [
            ("/v1/stream/__ds/jwks.json", Some(Control::Keys)),
            ("/v1/stream/__ds/subscriptions/a%20b", Some(Control::Subscription(id()))),
            ("/v1/stream/__ds/subscriptions/a%20b/streams", Some(Control::Streams(id()))),
            ("/v1/stream/__ds/subscriptions/a%20b/streams/x%2Fy", Some(Control::Stream(id(), "x/y".into()))),
            ("/v1/stream/__ds/subscriptions/a%20b/streams/x/y", Some(Control::Stream(id(), "x/y".into()))),
            ("/v1/stream/__ds/subscriptions/a%20b/callback", Some(Control::Callback(id()))),
            ("/v1/stream/__ds/subscriptions/a%20b/claim", Some(Control::Claim(id()))),
            ("/v1/stream/__ds/subscriptions/a%20b/ack", Some(Control::Ack(id()))),
            ("/v1/stream/__ds/subscriptions/a%20b/release", Some(Control::Release(id()))),
            ("/v1/stream/__ds", None),
            ("/v1/stream/__ds/", None),
            ("/v1/stream/__ds/subscriptions", None),
            ("/v1/stream/__ds/subscriptions/", None),
            ("/v1/stream/__ds/subscriptions/a/else", None),
            ("/v1/stream/__ds/subscriptions/%ff", None),
        ] {
            assert_eq!(Control::parse(path), control, "{path}");
            assert!(is_control(path), "{path}");
        }
        assert!(!is_control("/v1/stream/__dsx") && !is_control("/v1/stream/a/__ds"));
    }

    #[test]
    fn only_what_carries_a_token_of_its_own_is_for_anyone() {
        for (path, anyone) in [
            ("jwks.json", true),
            ("subscriptions/s/callback", true),
            ("subscriptions/s/ack", true),
            ("subscriptions/s/release", true),
            ("subscriptions/s/claim", false),
            ("subscriptions/s/streams", false),
            ("subscriptions/s", false),
            ("", false),
        ] {
            assert_eq!(is_for_anyone(&format!("{ROOT}/{path}")), anyone, "{path}");
        }
        assert!(!is_for_anyone("/v1/chat/completions") && !is_for_anyone("/v1/stream/a/callback"));
    }
}
