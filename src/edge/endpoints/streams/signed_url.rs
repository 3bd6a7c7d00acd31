//! Signed addresses: whoever has one may read one stream until a moment, without a key. A browser's `EventSource` can show no
//! key, and a page must not have one.
//!
//! ```text
//!  /v1/stream/NAME?expires=SECONDS&signature=HEX      HEX = HMAC-SHA256(sign_key, "/v1/stream/NAME\nSECONDS")
//!  /v1/stream?name=A&name=B&expires=SECONDS&...       HEX = HMAC-SHA256(sign_key, "/v1/stream?name=A&name=B\nSECONDS")
//! ```
//!
//! The path is signed as it stands in the address, and what is asked of it is not: a position or a way to read may be added.

use ring::hmac;
use subtle::ConstantTimeEq;

use super::target::ROOT;
use crate::config::Secret;
use crate::edge::endpoints::subscriptions::path::Control;
use crate::relay::request::Request;

/// Whether a request reads a stream by an address that was signed with `secret` and is still good at `now`, in milliseconds
/// since 1970.
pub(crate) fn opens(request: &Request, secret: &Secret, now: u64) -> bool {
    let path = request.path();
    let reads = matches!(&*request.method, "GET" | "HEAD");
    let is_one = path.strip_prefix(ROOT).is_some_and(|rest| rest.len() > 1) && Control::parse(path).is_none();
    let names = if path == ROOT { names(&request.target) } else { String::new() };
    let (Some(until), Some(signature)) = (expires(request), value(request, "signature")) else {
        return false;
    };
    let names_any = is_one || !names.is_empty();
    reads && names_any && now < until && {
        let ours =
            signature_of(secret, &format!("{path}{names}"), value(request, "expires").unwrap_or_default());
        bool::from(ours.as_bytes().ct_eq(signature.to_ascii_lowercase().as_bytes()))
    }
}

/// The names of several streams, as they stand in an address. A parameter whose key is written otherwise, and names a stream as well,
/// is none of them, so that address was not signed.
fn names(target: &str) -> String {
    let mut names = String::new();
    for parameter in target.split(['?', '&']).skip(1) {
        let key = parameter.split('=').next().unwrap_or_default();
        if key == "name" {
            names.push(if names.is_empty() { '?' } else { '&' });
            names.push_str(parameter);
        } else if key.contains(['%', '+']) {
            return String::new();
        }
    }
    names
}

/// Until when the address of a request is good, signed well or not, in milliseconds since 1970.
pub(crate) fn expires(request: &Request) -> Option<u64> {
    value(request, "expires")?.parse::<u64>().ok()?.checked_mul(1000)
}

fn value<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let mut parameters = request.target.split(['?', '&']).skip(1);
    parameters.find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='))
}

fn signature_of(secret: &Secret, path: &str, expires: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let tag = hmac::sign(&key, format!("{path}\n{expires}").as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_openssl_makes_of_it() {
        // printf '/v1/stream/news\n2000000000' | openssl dgst -sha256 -hmac secret
        let secret = Secret::new("secret").expect("a secret");
        assert_eq!(signature_of(&secret, "/v1/stream/news", "2000000000"), SIGNATURE);
    }

    const SIGNATURE: &str = "0676f69a932278e0d4e062dd4347f984f49f6484f701d20950a42394d0ebf90f";
}
