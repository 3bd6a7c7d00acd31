//! Tokens of one wake (PROTOCOL.md, sections 7.3 and 12.9): JSON Web Tokens signed with HMAC-SHA256 (RFC 7515 and 7519) that say
//! which subscription, in which life of it, which generation, and until when.
//!
//! A token is good for one wake and dies with it; its own end is a second bound, for one that was lost.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::UnixMillis;
use super::refusal::{Code, Refusal};

/// How long a token is good at most. A lease that is extended beyond it ends with it.
pub(crate) const TOKEN_TTL_MS: UnixMillis = 24 * 3600 * 1000;

/// A longer text is no token of ours. Base64 of an id of [`super::ID_BYTES_MAX`] bytes, each escaped in JSON, with room.
const TOKEN_BYTES_MAX: usize = 4096;

/// `{"alg":"HS256","typ":"JWT"}`: the only header there is. It is compared as text, so nobody can ask for another algorithm.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The subscription's id.
    pub(crate) sub: String,
    /// Which life of that id: it may have been deleted and made again.
    pub(crate) life: u64,
    /// Which wake.
    pub(crate) generation: u64,
    /// Its end, in seconds since 1970.
    pub(crate) exp: u64,
}

/// Makes and reads tokens.
pub(crate) struct Tokens(hmac::Key);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    pub(crate) fn new(key: hmac::Key) -> Tokens {
        Tokens(key)
    }

    /// A token that is good from now on.
    pub(crate) fn mint(&self, id: &str, life: u64, generation: u64, now: UnixMillis) -> String {
        let claims = Claims { sub: id.to_owned(), life, generation, exp: (now + TOKEN_TTL_MS) / 1000 };
        let claims = serde_json::to_vec(&claims).expect("strings and numbers are always JSON");
        let mut token = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.0, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }

    /// Which generation a token is for, if it is one of this subscription.
    pub(crate) fn check(&self, token: &str, id: &str, life: u64, now: UnixMillis) -> Result<u64, Refusal> {
        let claims = self.read(token).filter(|claims| claims.sub == id && claims.life == life);
        let Some(claims) = claims else {
            return Err(Refusal::new(
                Code::TokenInvalid,
                "The token is not one of this subscription. Send the one that came with the wake, as `Authorization: Bearer TOKEN`.",
            ));
        };
        match now / 1000 < claims.exp {
            true => Ok(claims.generation),
            false => {
                Err(Refusal::new(Code::TokenExpired, "The token's time is over. Wait for the next wake."))
            }
        }
    }

    fn read(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        // In constant time.
        hmac::verify(&self.0, signed.as_bytes(), &signature).ok()?;
        let claims = URL_SAFE_NO_PAD.decode(claims).ok().filter(|_| header == HEADER)?;
        serde_json::from_slice(&claims).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::subscriptions::keys::Secret;

    const NOW: UnixMillis = 1_778_324_210_000;

    fn code(result: Result<u64, Refusal>) -> Code {
        result.unwrap_err().code
    }

    #[test]
    fn the_header_is_what_it_stands_for() {
        assert_eq!(URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#), HEADER);
    }

    #[test]
    fn a_token_is_good_for_its_subscription_its_life_and_its_time() {
        let tokens = Secret::random().unwrap().tokens();
        let token = tokens.mint("sub-1", 5, 7, NOW);
        assert_eq!(tokens.check(&token, "sub-1", 5, NOW), Ok(7));
        assert_eq!(tokens.check(&token, "sub-1", 5, NOW + TOKEN_TTL_MS - 1000), Ok(7));
        assert_eq!(code(tokens.check(&token, "sub-1", 5, NOW + TOKEN_TTL_MS)), Code::TokenExpired);
        assert_eq!(code(tokens.check(&token, "sub-2", 5, NOW)), Code::TokenInvalid);
        assert_eq!(code(tokens.check(&token, "sub-1", 6, NOW)), Code::TokenInvalid);
        let others = Secret::random().unwrap().tokens();
        assert_eq!(code(others.check(&token, "sub-1", 5, NOW)), Code::TokenInvalid);
    }

    #[test]
    fn a_token_without_a_signature_is_none() {
        let tokens = Secret::random().unwrap().tokens();
        let token = tokens.mint("s", 1, 1, NOW);
        let claims = token.split('.').nth(1).unwrap();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for forged in [
            format!("{none}.{claims}."),
            format!("{HEADER}.{claims}."),
            format!("{HEADER}.{claims}"),
            String::new(),
        ] {
            assert_eq!(code(tokens.check(&forged, "s", 1, NOW)), Code::TokenInvalid, "{forged}");
        }
    }

    #[test]
    fn the_longest_id_has_room() {
        let tokens = Secret::random().unwrap().tokens();
        let id = "\u{1}".repeat(crate::subscriptions::ID_BYTES_MAX);
        assert_eq!(
            tokens.check(&tokens.mint(&id, u64::MAX, u64::MAX, NOW), &id, u64::MAX, NOW),
            Ok(u64::MAX)
        );
    }

    proptest! {
        #[test]
        fn no_byte_of_a_token_can_be_changed(at: proptest::sample::Index, byte in "[A-Za-z0-9_.-]") {
            let tokens = Secret::from_bytes([7; 64]).tokens();
            let mut token = tokens.mint("sub-1", 5, 7, NOW);
            let at = at.index(token.len());
            prop_assume!(token[at..=at] != *byte);
            token.replace_range(at..=at, &byte);
            prop_assert!(tokens.check(&token, "sub-1", 5, NOW).is_err());
        }
    }
}
