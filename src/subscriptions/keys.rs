//! The server's secrets: the key that webhooks are signed with (PROTOCOL.md, sections 6.5 and 12.10), and the one that makes
//! tokens. Both come from 64 random bytes, which are kept beside the streams: receivers know the public key by its id, and
//! workers hold tokens across a restart.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use ring::{error, hmac};
use serde_json::json;

use super::UnixMillis;
use super::token::Tokens;

/// The bytes that all keys come from.
pub(crate) const SECRET_BYTES: usize = 64;

/// What makes the keys. It is written nowhere but into its own file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub(crate) fn random() -> Result<Secret, error::Unspecified> {
        let mut bytes = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes)?;
        Ok(Secret(bytes))
    }

    /// One that was kept.
    pub(crate) fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Secret {
        Secret(bytes)
    }

    /// To keep it.
    pub(crate) fn as_bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// What tokens are made with.
    pub(crate) fn tokens(&self) -> Tokens {
        Tokens::new(hmac::Key::new(hmac::HMAC_SHA256, &self.0[32..]))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Signs webhooks. It has no state: any core may use it.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    kid: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Signer {
    /// Of a server's secret.
    pub(crate) fn new(secret: &Secret) -> Signer {
        // Only a seed of another length is refused.
        let pair = Ed25519KeyPair::from_seed_unchecked(&secret.0[..32]).expect("a seed of 32 bytes");
        let kid = kid(pair.public_key().as_ref());
        Signer { pair, kid }
    }

    /// The key's id, made from the key itself.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The public keys, `application/jwk-set+json`.
    pub(crate) fn jwks(&self) -> Vec<u8> {
        let key = json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "kid": self.kid,
            "use": "sig",
            "alg": "EdDSA",
            "x": URL_SAFE_NO_PAD.encode(self.pair.public_key()),
        });
        json!({ "keys": [key] }).to_string().into_bytes()
    }

    /// The value of `Webhook-Signature` for a body that is sent now.
    pub(crate) fn sign(&self, now: UnixMillis, body: &[u8]) -> String {
        let seconds = now / 1000;
        let mut message = format!("{seconds}.").into_bytes();
        message.extend_from_slice(body);
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(&message));
        format!("t={seconds},kid={},ed25519={signature}", self.kid)
    }
}

/// All keys of a server.
#[derive(Debug)]
pub(crate) struct Keys {
    /// What signs webhooks.
    pub(crate) signer: Signer,
    /// What makes tokens.
    pub(crate) tokens: Tokens,
}

impl Keys {
    /// Of a server's secret.
    pub(crate) fn new(secret: &Secret) -> Keys {
        Keys { signer: Signer::new(secret), tokens: secret.tokens() }
    }
}

/// The thumbprint of RFC 7638: the hash of the members that make the key, in the order of their names.
fn kid(public: &[u8]) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(public));
    format!("ds_{}", URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes())))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        // Appendix A.3, for the key of A.2.
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(kid(&x), "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_signature_is_good_for_its_body_and_time_alone() {
        let signer = Signer::new(&Secret::random().unwrap());
        let header = signer.sign(1_778_324_210_999, b"{\"a\":1}");
        let parts: Vec<_> = header.splitn(3, ',').collect();
        assert_eq!(parts[0], "t=1778324210");
        assert_eq!(parts[1], format!("kid={}", signer.kid()));
        let signature = URL_SAFE_NO_PAD.decode(parts[2].strip_prefix("ed25519=").unwrap()).unwrap();
        let jwks: Value = serde_json::from_slice(&signer.jwks()).unwrap();
        let x = URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, x);
        assert!(key.verify(b"1778324210.{\"a\":1}", &signature).is_ok());
        assert!(key.verify(b"1778324211.{\"a\":1}", &signature).is_err());
        assert!(key.verify(b"1778324210.{\"a\":2}", &signature).is_err());
    }

    #[test]
    fn a_kept_secret_is_the_same_key_and_is_never_shown() {
        let secret = Secret::random().unwrap();
        let again = Secret::from_bytes(*secret.as_bytes());
        assert_eq!(Signer::new(&secret).kid(), Signer::new(&again).kid());
        assert_ne!(Signer::new(&secret).kid(), Signer::new(&Secret::random().unwrap()).kid());
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
