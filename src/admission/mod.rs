//! Who may come in: client keys, known by their SHA-256 alone ([`api_key`]), the operators' token, how many at a time
//! ([`connection_slots`]), and who may say for whom it asks ([`trusted_proxies`]); where there are no keys, what keeps web pages out ([`hosts`]). And how
//! much of it: the limits of keys, routes and upstreams ([`meter`]), kept by [`rate`], passed by each request ([`reservation`]) and told to its
//! client ([`rate_fields`]).
//!
//! Every known key is compared, in constant time, whether or not one has matched: how long it takes tells nothing about the
//! keys there are.

pub(crate) mod api_key;
pub(crate) mod connection_slots;
pub(crate) mod hosts;
pub(crate) mod meter;
pub(crate) mod meters;
pub(crate) mod rate;
pub(crate) mod rate_fields;
pub(crate) mod request_limits;
pub(crate) mod reservation;
pub(crate) mod trusted_proxies;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::config::{ClientKey, Secret};
use crate::proto::openai::ApiError;

/// The key that a request presents, by its index: the one in `authorization`, or, if there is no such field, `api_key`.
pub(crate) fn check(
    keys: &[ClientKey],
    authorization: Option<&[u8]>,
    api_key: Option<&[u8]>,
) -> Result<usize, ApiError> {
    let token = match authorization {
        Some(authorization) => bearer(authorization),
        None => api_key.filter(|key| !key.is_empty()),
    };
    let token = token.ok_or_else(ApiError::missing_key)?;
    let hash = digest(&SHA256, token);
    let mut found = None;
    for (index, key) in keys.iter().enumerate() {
        if bool::from(hash.as_ref().ct_eq(&key.sha256)) {
            found = Some(index);
        }
    }
    found.ok_or_else(ApiError::wrong_key)
}

/// Whether `authorization` presents the operators' token. Hashed first, so that not even its length can be measured.
pub(crate) fn opens(token: &Secret, authorization: Option<&[u8]>) -> bool {
    let sha256 = |bytes: &[u8]| digest(&SHA256, bytes);
    let known = sha256(token.expose().as_bytes());
    let theirs = authorization.and_then(bearer).map(sha256);
    theirs.is_some_and(|theirs| bool::from(theirs.as_ref().ct_eq(known.as_ref())))
}

/// The token of a `Bearer` credential (RFC 6750, 2.1; the scheme's case does not matter, RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// The SHA-256 of `bytes` in hexadecimal digits, as keys are written down.
pub fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Quota;

    fn key(name: &str, secret: &str) -> ClientKey {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        ClientKey { name: name.into(), sha256, models: Vec::new(), quota: Quota::default() }
    }

    #[test]
    fn a_known_key_opens() {
        let keys = [key("one", "sk-one"), key("two", "sk-two")];
        assert_eq!(check(&keys, Some(b"Bearer sk-two"), None).unwrap(), 1);
        assert_eq!(check(&keys, Some(b"bearer  sk-one"), None).unwrap(), 0);
    }

    #[test]
    fn anything_else_does_not() {
        let keys = [key("one", "sk-one")];
        for wrong in [None, Some(&b""[..]), Some(b"Bearer "), Some(b"Basic sk-one"), Some(b"sk-one")] {
            assert_eq!(check(&keys, wrong, None).unwrap_err().status, 401);
        }
        assert_eq!(check(&keys, Some(b"Bearer sk-on"), None).unwrap_err().status, 401);
    }

    #[test]
    fn an_api_key_opens_where_there_is_no_authorization() {
        let keys = [key("one", "sk-one"), key("two", "sk-two")];
        assert_eq!(check(&keys, None, Some(b"sk-two")).unwrap(), 1);
        for (authorization, api_key) in [
            (None, &b""[..]),
            (None, b"sk-three"),
            (None, b"Bearer sk-one"),
            (Some(&b"Bearer sk-three"[..]), b"sk-one"),
            (Some(b"Basic x"), b"sk-one"),
        ] {
            assert_eq!(check(&keys, authorization, Some(api_key)).unwrap_err().status, 401);
        }
    }

    #[test]
    fn the_token_opens_and_nothing_else() {
        let token = Secret::new("admin-token").unwrap();
        assert!(opens(&token, Some(b"Bearer admin-token")));
        for wrong in [
            None,
            Some(&b"Bearer admin-toke"[..]),
            Some(b"Bearer admin-token2"),
            Some(b"admin-token"),
            Some(b""),
        ] {
            assert!(!opens(&token, wrong), "{wrong:?}");
        }
    }
}
