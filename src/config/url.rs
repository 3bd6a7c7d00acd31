//! Where an upstream is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The longest URL of an upstream.
const URL_MAX_BYTES: usize = 2048;

/// The base URL of an API, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamUrl {
    /// `https`, or else `http`.
    pub(crate) tls: bool,
    /// A DNS name in lower case, or an address; IPv6 without its brackets.
    pub(crate) host: String,
    /// Its port, given or the scheme's.
    pub(crate) port: u16,
    /// Empty, or from its first slash without the last one, as in `/v1`.
    pub(crate) path: String,
}

/// Why a text is no such URL, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotAUrl(String);

impl UpstreamUrl {
    /// Reads a URL of RFC 3986, section 3, as far as an API's base has use for it: neither user, query nor fragment.
    pub(crate) fn parse(text: &str) -> Result<UpstreamUrl, NotAUrl> {
        if text.len() > URL_MAX_BYTES {
            return fault(format!("is longer than {URL_MAX_BYTES} bytes"));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let tls = match &scheme.to_ascii_lowercase()[..] {
            "https" => true,
            "http" => false,
            _ => return fault("must begin with https:// or http://, as in \"https://api.openai.com/v1\""),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // First of all, and without showing the URL: what stands before an `@` is a secret.
        if authority.contains('@') {
            return fault("must not hold a user or a password; an API key is set as key = \"env:NAME\"");
        }
        if path.contains(['?', '#']) {
            return fault("must end with its path; an upstream's base URL has neither ? nor #");
        }
        let (host, port) = split_port(authority, if tls { 443 } else { 80 })?;
        Ok(UpstreamUrl { tls, host: parse_host(host)?, port, path: parse_path(path)? })
    }

    /// The value of `Host`: the port is left out if it is the scheme's.
    pub(crate) fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        match self.port {
            port if port == default => format!("{open}{}{close}", self.host),
            port => format!("{open}{}{close}:{port}", self.host),
        }
    }

    /// Of a server at an address, in the clear.
    pub(crate) fn of_address(address: SocketAddr) -> UpstreamUrl {
        UpstreamUrl { tls: false, host: address.ip().to_string(), port: address.port(), path: String::new() }
    }

    /// Whether it leads to whoever listens at `address` on this machine, as far as can be told without asking DNS.
    pub(crate) fn leads_to(&self, address: SocketAddr) -> bool {
        let same_host = match self.host.parse::<IpAddr>() {
            Ok(host) => host == address.ip() || (address.ip().is_unspecified() && host.is_loopback()),
            Err(_) => {
                self.host == "localhost" && (address.ip().is_loopback() || address.ip().is_unspecified())
            }
        };
        same_host && self.port == address.port()
    }
}

fn split_port(authority: &str, default: u16) -> Result<(&str, u16), NotAUrl> {
    let after_host = match authority.find(']') {
        Some(end) => end + 1,
        None if authority.starts_with('[') => return Ok((authority, default)),
        None => 0,
    };
    let Some(colon) = authority[after_host..].find(':') else { return Ok((authority, default)) };
    let (host, port) = (&authority[..after_host + colon], &authority[after_host + colon + 1..]);
    match port.parse() {
        Ok(0) | Err(_) => fault(format!("has no port {port:?}; a port is a number from 1 to 65535")),
        Ok(_) if port.starts_with('+') => {
            fault(format!("has no port {port:?}; a port is a number from 1 to 65535"))
        }
        Ok(port) => Ok((host, port)),
    }
}

fn parse_host(host: &str) -> Result<String, NotAUrl> {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return match address {
            Some(address) => Ok(address.to_string()),
            None => fault(format!("has no IPv6 address in its brackets: {host:?}")),
        };
    }
    if host.is_empty() {
        return fault("has no host");
    }
    if !host.is_ascii() {
        return fault(format!(
            "has a host beyond ASCII, {host:?}; write its punycode, which begins with xn--"
        ));
    }
    let label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        letters && !label.is_empty() && label.len() <= 63
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > 253 || !name.split('.').all(label) {
        return fault(format!("has no host that can be looked up: {host:?}"));
    }
    Ok(name.to_ascii_lowercase())
}

fn parse_path(path: &str) -> Result<String, NotAUrl> {
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return fault("has a space or a character beyond ASCII in its path; write it as %20 and the like");
    }
    let path = path.trim_end_matches('/');
    for endpoint in ["/chat/completions", "/completions", "/responses", "/embeddings"] {
        if let Some(base) = path.strip_suffix(endpoint) {
            return fault(format!(
                "is one endpoint's; end it with the API's base, {base:?}, since clients add {endpoint:?}"
            ));
        }
    }
    Ok(path.to_owned())
}

fn fault<T>(what: impl Into<String>) -> Result<T, NotAUrl> {
    Err(NotAUrl(what.into()))
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Display for NotAUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAUrl {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, tls, host, port, path) in [
            ("https://api.openai.com/v1", true, "api.openai.com", 443, "/v1"),
            ("https://api.openai.com/v1/", true, "api.openai.com", 443, "/v1"),
            ("HTTP://LocalHost:8000", false, "localhost", 8000, ""),
            ("http://10.0.0.1", false, "10.0.0.1", 80, ""),
            ("http://[::1]:8000/api/v1", false, "::1", 8000, "/api/v1"),
            ("https://[2001:DB8::1]/", true, "2001:db8::1", 443, ""),
            ("http://vllm_one.internal.:80//", false, "vllm_one.internal", 80, ""),
        ] {
            let url = UpstreamUrl::parse(text).unwrap();
            assert_eq!(url, UpstreamUrl { tls, host: host.into(), port, path: path.into() }, "{text}");
        }
    }

    #[test]
    fn they_are_written_as_short_as_they_can_be() {
        for (text, short) in [
            ("https://API.openai.com:443/v1/", "https://api.openai.com/v1"),
            ("http://[::1]:8000", "http://[::1]:8000"),
            ("http://h:443", "http://h:443"),
        ] {
            assert_eq!(UpstreamUrl::parse(text).unwrap().to_string(), short);
        }
    }

    #[test]
    fn what_is_no_base_url_is_told_why() {
        for (text, why) in [
            ("", "must begin with https://"),
            ("api.openai.com/v1", "must begin with https://"),
            ("ftp://x", "must begin with https://"),
            ("https://", "has no host"),
            ("https:///v1", "has no host"),
            ("https://h:0", "from 1 to 65535"),
            ("https://h:65536", "from 1 to 65535"),
            ("https://h:", "from 1 to 65535"),
            ("https://h:+80", "from 1 to 65535"),
            ("https://h?x=1", "neither ? nor #"),
            ("https://h/v1#x", "neither ? nor #"),
            ("https://a..b", "looked up"),
            ("https://a b", "looked up"),
            ("https://bücher.example", "punycode"),
            ("https://[::1", "IPv6"),
            ("https://h/a b", "%20"),
            ("https://h/v1/chat/completions", "\"/v1\""),
        ] {
            let error = UpstreamUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let error = UpstreamUrl::parse("https://user:hunter2@h?x").unwrap_err().to_string();
        assert!(error.contains("password") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn one_that_leads_back_is_seen() {
        let leads =
            |url: &str, address: &str| UpstreamUrl::parse(url).unwrap().leads_to(address.parse().unwrap());
        assert!(leads("http://127.0.0.1:8080/v1", "127.0.0.1:8080"));
        assert!(leads("http://localhost:8080", "127.0.0.1:8080"));
        assert!(leads("http://127.0.0.1:8080", "0.0.0.0:8080"));
        assert!(!leads("http://127.0.0.1:8081", "127.0.0.1:8080"));
        assert!(!leads("http://10.0.0.1:8080", "127.0.0.1:8080"));
        assert!(!leads("http://api.example:8080", "0.0.0.0:8080"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_stays_the_same(text in "(https?://)?[a-z:@/?#.\\[\\]0-9 ü]{0,24}") {
            if let Ok(url) = UpstreamUrl::parse(&text) {
                prop_assert_eq!(UpstreamUrl::parse(&url.to_string()), Ok(url));
            }
        }
    }
}
