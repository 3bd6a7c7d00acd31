//! Where a webhook may lead (PROTOCOL.md, sections 6.2 and 12.8).
//!
//! Whoever may create a subscription chooses where this machine sends requests to, so it must not be a machine that trusts
//! this one for where it stands. What a name leads to is known only when it is dialed: [`Reach::allows`] is asked again then,
//! of the very address that is connected to.

use std::fmt;
use std::net::IpAddr;

use super::address;
use crate::config::{NotAUrl, UpstreamUrl};

/// The longest URL, in bytes.
pub(crate) const URL_BYTES_MAX: usize = 2048;

/// Whether webhooks on this very machine are allowed, for development.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// `http://localhost` and `http://127.0.0.x` are.
    Allowed,
    /// None is.
    Refused,
}

/// Which addresses a URL may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those of the public network alone.
    Public,
    /// This machine alone.
    Loopback,
}

impl Reach {
    /// Whether `address` is one of them.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match self {
            Reach::Public => address::is_public(address),
            Reach::Loopback => address.to_canonical().is_loopback(),
        }
    }
}

/// A URL that a webhook may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebhookUrl {
    /// Scheme, host and port.
    pub(crate) origin: UpstreamUrl,
    /// Path and query as they are asked for, from the first slash on.
    pub(crate) target: String,
    /// Where its host may lead.
    pub(crate) reach: Reach,
}

/// Why a text is no such URL. Its text goes on from the field's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadWebhookUrl {
    /// It is not a URL that can be asked.
    NotAUrl(NotAUrl),
    /// It is longer than [`URL_BYTES_MAX`].
    TooLong,
    /// Its path or its query has a character that a URL has not.
    Target,
    /// It is in the clear, and not on this machine.
    Insecure,
    /// It leads into a network that is nobody else's business.
    NotPublic,
}

impl fmt::Display for BadWebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadWebhookUrl::NotAUrl(bad) => write!(f, "{bad}"),
            BadWebhookUrl::TooLong => write!(f, "is longer than {URL_BYTES_MAX} bytes"),
            BadWebhookUrl::Target => f.write_str(
                "has a fragment, a space or a character beyond ASCII; write it as %20 and the like",
            ),
            BadWebhookUrl::Insecure => f.write_str(
                "must begin with https://; http:// is for webhooks on localhost and 127.0.0.x, where those are allowed",
            ),
            BadWebhookUrl::NotPublic => {
                f.write_str("leads to a private, local or reserved address; a webhook must be reachable publicly")
            }
        }
    }
}

impl std::error::Error for BadWebhookUrl {}

impl WebhookUrl {
    /// Reads a URL of RFC 3986, section 3, without user and fragment.
    ///
    /// # Errors
    /// If it cannot be asked, or may not.
    pub(crate) fn parse(text: &str, local: Local) -> Result<WebhookUrl, BadWebhookUrl> {
        if text.len() > URL_BYTES_MAX {
            return Err(BadWebhookUrl::TooLong);
        }
        let authority = text.find("://").map_or(0, |at| at + "://".len());
        let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |at| authority + at);
        let (origin, target) = text.split_at(end);
        let origin = UpstreamUrl::parse(origin).map_err(BadWebhookUrl::NotAUrl)?;
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(BadWebhookUrl::Target);
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let reach = reach(&origin, local)?;
        Ok(WebhookUrl { origin, target, reach })
    }
}

fn reach(origin: &UpstreamUrl, local: Local) -> Result<Reach, BadWebhookUrl> {
    let host = origin.host.strip_suffix('.').unwrap_or(&origin.host);
    let address = host.parse::<IpAddr>().ok();
    if !origin.tls {
        let development = match address {
            Some(IpAddr::V4(address)) => address.octets()[..3] == [127, 0, 0],
            Some(IpAddr::V6(_)) => false,
            None => host == "localhost",
        };
        return match development && local == Local::Allowed {
            true => Ok(Reach::Loopback),
            false => Err(BadWebhookUrl::Insecure),
        };
    }
    let is_public = match address {
        Some(address) => address::is_public(address),
        // Names that a resolver answers by itself, and numbers that some resolvers take for addresses (`0x7f.1`, `2130706433`):
        // a name that is looked up on the public network ends with a letter.
        None => {
            let last = host.rsplit('.').next().unwrap_or_default();
            host.contains('.')
                && !matches!(last, "localhost" | "local" | "internal")
                && last.starts_with(|first: char| first.is_ascii_alphabetic())
        }
    };
    if is_public { Ok(Reach::Public) } else { Err(BadWebhookUrl::NotPublic) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn https_to_the_public_network_and_http_to_this_machine() {
        for (url, reach, target) in [
            ("https://worker.example/hooks", Reach::Public, "/hooks"),
            ("https://worker.example", Reach::Public, "/"),
            ("https://worker.example?key=a/b", Reach::Public, "/?key=a/b"),
            ("https://worker.example/v1/responses/?a=%20&b", Reach::Public, "/v1/responses/?a=%20&b"),
            ("https://1.1.1.1:8443/", Reach::Public, "/"),
            ("https://[2606:4700::1111]/x", Reach::Public, "/x"),
            ("http://localhost:3000/x", Reach::Loopback, "/x"),
            ("http://127.0.0.9:3000/x", Reach::Loopback, "/x"),
        ] {
            let parsed = WebhookUrl::parse(url, Local::Allowed).unwrap();
            assert_eq!((parsed.reach, &*parsed.target), (reach, target), "{url}");
        }
    }

    #[test]
    fn all_else_is_refused() {
        for url in [
            "http://worker.example/",
            "http://10.0.0.1/hook",
            "http://127.1.0.1/",
            "http://[::1]/",
            "http://169.254.169.254/latest/meta-data",
            "https://localhost/",
            "https://localhost./",
            "https://a.localhost/",
            "https://printer.local/",
            "https://metadata.google.internal/",
            "https://intranet/",
            "https://127.0.0.1/",
            "https://10.1.2.3/",
            "https://172.20.0.1/",
            "https://192.168.0.1/",
            "https://169.254.169.254/",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[fd00::1]/",
            "https://[fe80::1]/",
            "https://[64:ff9b::a00:1]/",
            "https://user@worker.example/",
            "https://worker.example/#x",
            "https://worker.example/a b",
            "ftp://worker.example/",
            "worker.example",
            "",
        ] {
            assert!(WebhookUrl::parse(url, Local::Allowed).is_err(), "{url}");
        }
        assert_eq!(WebhookUrl::parse("http://localhost/", Local::Refused), Err(BadWebhookUrl::Insecure));
    }

    #[test]
    fn an_address_is_checked_again_when_it_is_known() {
        let allows = |reach: Reach, address: &str| reach.allows(address.parse().unwrap());
        assert!(allows(Reach::Public, "1.1.1.1") && !allows(Reach::Public, "127.0.0.1"));
        assert!(allows(Reach::Loopback, "::1") && !allows(Reach::Loopback, "1.1.1.1"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(https?://)?[a-z:@/?#.\\[\\]0-9 ü]{0,24}") {
            if let Ok(url) = WebhookUrl::parse(&text, Local::Refused) {
                prop_assert!(url.origin.tls && url.target.starts_with('/'));
            }
        }
    }
}
