//! Who may come in: client keys, known by their SHA-256 alone, and how many at a time ([`seats`]).
//!
//! Every known key is compared, in constant time, whether or not one has matched: how long it takes tells nothing about the
//! keys there are.

pub mod seats;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::config::ClientKey;
use crate::openai::ApiError;

/// The key that `authorization` presents, by its index.
pub fn check(keys: &[ClientKey], authorization: Option<&[u8]>) -> Result<usize, ApiError> {
    let token = authorization.and_then(bearer).ok_or_else(ApiError::missing_key)?;
    let hash = digest(&SHA256, token);
    let mut found = None;
    for (index, key) in keys.iter().enumerate() {
        if bool::from(hash.as_ref().ct_eq(&key.sha256)) {
            found = Some(index);
        }
    }
    found.ok_or_else(ApiError::wrong_key)
}

/// The token of a `Bearer` credential (RFC 6750, 2.1; the scheme's case does not matter, RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, secret: &str) -> ClientKey {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        ClientKey { name: name.into(), sha256 }
    }

    #[test]
    fn a_known_key_opens() {
        let keys = [key("one", "sk-one"), key("two", "sk-two")];
        assert_eq!(check(&keys, Some(b"Bearer sk-two")).unwrap(), 1);
        assert_eq!(check(&keys, Some(b"bearer  sk-one")).unwrap(), 0);
    }

    #[test]
    fn anything_else_does_not() {
        let keys = [key("one", "sk-one")];
        for wrong in [None, Some(&b""[..]), Some(b"Bearer "), Some(b"Basic sk-one"), Some(b"sk-one")] {
            assert_eq!(check(&keys, wrong).unwrap_err().status, 401);
        }
        assert_eq!(check(&keys, Some(b"Bearer sk-on")).unwrap_err().status, 401);
    }
}
