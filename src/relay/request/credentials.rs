//! Where clients show their keys: fields and query parameters of the vendors' SDKs. A key that was shown to sedge, or beside which sedge
//! sends a key of its own, reaches no upstream.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::Request;
use crate::proto::http1::fields::write_field;

/// Fields that hold a key, beside `Authorization`: Anthropic's, Azure's, Google's and Azure API Management's.
pub(crate) static FIELDS: [&str; 4] = ["X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Ocp-Apim-Subscription-Key"];

/// Query parameters that hold a key.
const PARAMETERS: [&str; 6] = ["key", "api_key", "api-key", "apikey", "access_token", "subscription-key"];

/// What a client says who it is.
#[derive(Default)]
pub(crate) struct Credentials {
    /// `Authorization`.
    pub(crate) authorization: Option<Vec<u8>>,
    /// The fields of [`FIELDS`], each with its name.
    pub(crate) keys: Vec<(&'static str, Vec<u8>)>,
    /// `Cookie`: a browser's business with whatever else is served under this name.
    pub(crate) cookie: Option<Vec<u8>>,
    /// They were meant for this server: no upstream may see them.
    pub(crate) are_ours: bool,
}

impl Credentials {
    pub(crate) const NOTHING: Credentials =
        Credentials { authorization: None, keys: Vec::new(), cookie: None, are_ours: false };
}

impl Request {
    /// What the client says who it is: `Authorization`, and the first of the fields that others use for it.
    pub(crate) fn credentials(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        let Credentials { authorization, keys, .. } = &self.sending().credentials;
        (authorization.as_deref(), keys.first().map(|(_, key)| &key[..]))
    }

    /// Whether the client shows a key anywhere.
    pub(crate) fn carries_key(&self) -> bool {
        self.credentials() != (None, None) || self.target_without_keys().is_some()
    }

    /// The target without the parameters that hold keys, if it has any.
    pub(crate) fn target_without_keys(&self) -> Option<String> {
        if self.path_bytes < self.target.len() { without_keys(&self.target) } else { None }
    }

    /// Appends the fields in which the client says who it is.
    pub(crate) fn write_credentials(&self, out: &mut Vec<u8>) {
        let Credentials { authorization, keys, cookie, are_ours } = &self.sending().credentials;
        if *are_ours {
            return;
        }
        if let Some(theirs) = authorization {
            write_field(out, "Authorization", theirs);
        }
        for (name, theirs) in keys {
            write_field(out, name, theirs);
        }
        if let Some(theirs) = cookie {
            write_field(out, "Cookie", theirs);
        }
    }

    /// The credentials have admitted the client here, and are nobody else's business. The cookie may still decide which upstream is
    /// chosen.
    pub(crate) fn forget_credentials(&mut self) {
        if let Some(sending) = &mut self.sending {
            let cookie = sending.credentials.cookie.take();
            sending.credentials = Credentials { cookie, are_ours: true, ..Credentials::default() };
        }
        if let Some(target) = self.target_without_keys() {
            self.target = target.into();
        }
    }

    /// The value of a field that may decide which upstream is chosen.
    pub(crate) fn affinity_value(&self, name: &str) -> Option<&[u8]> {
        let cookie = || self.sending().credentials.cookie.as_deref().filter(|_| name == "cookie");
        self.field_value(name).or_else(cookie)
    }
}

/// The name of a credential field as vendors write it, if `name` is one of [`FIELDS`]. Servers that take underscores for hyphens
/// would read `x_api_key` as one, too.
pub(crate) fn field(name: &str) -> Option<&'static str> {
    let is_same =
        |(&one, &other): (&u8, &u8)| one.eq_ignore_ascii_case(&other) || (one == b'_' && other == b'-');
    FIELDS
        .into_iter()
        .find(|known| name.len() == known.len() && name.as_bytes().iter().zip(known.as_bytes()).all(is_same))
}

/// A request target without the parameters that hold keys, if it has any.
fn without_keys(target: &str) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    let is_key = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default();
        let name: Cow<'_, str> = percent_decode_str(name).decode_utf8_lossy();
        PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    if !query.split('&').any(|parameter| is_key(&parameter)) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|parameter| !is_key(parameter)).collect();
    Some(if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_out_of_a_query_and_nothing_else() {
        for (target, kept) in [
            ("/v1/models?key=AIza", "/v1/models"),
            ("/v1/x?a=1&key=AIza&b=%20&key", "/v1/x?a=1&b=%20"),
            ("/v1/x?Api_Key=1&api-key=2&access_token=3&subscription-key=4&apikey=5&z", "/v1/x?z"),
            ("/v1/x?k%65y=1&alt=sse", "/v1/x?alt=sse"),
        ] {
            assert_eq!(without_keys(target).as_deref(), Some(kept), "{target}");
        }
        for target in ["/v1/key=a", "/v1/x", "/v1/x?", "/v1/x?keys=1&alt=sse&monkey=2", "/v1/x?a=key=b"] {
            assert_eq!(without_keys(target), None, "{target}");
        }
    }

    #[test]
    fn fields_are_known_in_any_case_and_with_underscores() {
        assert_eq!(field("x-goog-api-key"), Some("X-Goog-Api-Key"));
        assert_eq!(field("X_API_KEY"), Some("X-Api-Key"));
        assert_eq!(field("ocp-apim-subscription-key"), Some("Ocp-Apim-Subscription-Key"));
        for other in ["x-api-keys", "authorization", "x-stainless-os", "openai-beta", ""] {
            assert_eq!(field(other), None, "{other}");
        }
    }
}
