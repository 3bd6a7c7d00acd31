//! Which hosts are served, and pages of which origins may send requests, where no key tells clients apart.
//!
//! A browser runs the pages of everyone, on the machine that sedge trusts. Two ways lead from such a page to a server without keys:
//!
//! | attack | what the request looks like | what stops it |
//! | --- | --- | --- |
//! | DNS rebinding: the page's own name comes to mean 127.0.0.1 | `Host: evil.example`, same origin | [`is_loopback`], `hosts` |
//! | cross-site requests: a form, or `fetch` with `text/plain` | `Origin: https://evil.example`, or `Sec-Fetch-Site` | [`is_foreign`] |
//!
//! Pages can set none of these fields. Clients that are no browsers send neither `Origin` nor `Sec-Fetch-Site`.

use std::net::IpAddr;

use crate::config::{Config, Cors};
use crate::proto::http1::request::RequestHead;
use crate::proto::openai::ApiError;

/// The longest name or origin that is repeated in an error, in bytes.
const REPEATED_BYTES_MAX: usize = 255;

/// The listener that a request came to, and whether a credential is needed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Where clients are served.
    Public,
    /// Where operators are.
    Admin,
}

/// Checks the `Host` of a request to `listener`.
///
/// # Errors
/// 421, if it is not one that is served there.
pub(crate) fn check_host(
    head: &RequestHead<'_>,
    listener: Listener,
    config: &Config,
) -> Result<(), ApiError> {
    let (address, anyone) = match listener {
        Listener::Public => {
            // A relay of every path stands for whatever names its upstream has, which nobody has written down here.
            let is_known = config.listen.ip().is_loopback()
                && !config.open
                && !config.relay_all
                && config.keys.is_empty();
            (Some(config.listen), !is_known && config.hosts.is_empty())
        }
        Listener::Admin => (config.admin, config.admin_token.is_some()),
    };
    // Only HTTP/1.0 does without, and no browser speaks it.
    let Some(host) = head.host.filter(|_| !anyone) else { return Ok(()) };
    if is_loopback(host) || config.hosts.iter().any(|pattern| is_called(host, pattern)) {
        return Ok(());
    }
    let is_own = |ip: IpAddr| address.is_some_and(|address| address.ip() == ip);
    if address_of(name_of(host)).is_some_and(is_own) {
        return Ok(());
    }
    let name = shown(name_of(host));
    let message = format!(
        "The host {name} is not served here. If it is a name of this server, add it to the configuration: hosts = [{name}]."
    );
    Err(ApiError::new(421, "host_not_served", message))
}

/// Checks that no page of another site sent a request; `forwarded` is the host that a trusted proxy was asked for.
///
/// # Errors
/// 403, if one did and `cors` does not admit it.
pub(crate) fn check_origin(
    head: &RequestHead<'_>,
    forwarded: Option<&[u8]>,
    cors: Option<&Cors>,
) -> Result<(), ApiError> {
    if !is_foreign(head, forwarded, cors) {
        return Ok(());
    }
    let message = match head.origin {
        Some(origin) => {
            let origin = shown(origin);
            format!(
                "Pages of {origin} may not use this server: no client keys are configured, so any page could. \
                 If they should, allow them in the configuration: [cors] origins = [{origin}]."
            )
        }
        None => {
            "Pages of other sites may not use this server: no client keys are configured, so any page could. \
                 If they should, allow them in the configuration, by [cors] origins."
                .to_owned()
        }
    };
    Err(ApiError::new(403, "origin_not_allowed", message))
}

/// Whether a page of another site sent a request, and is not admitted. A browser's own word, `Sec-Fetch-Site`, is believed before
/// a comparison with `Host`, which proxies change.
fn is_foreign(head: &RequestHead<'_>, forwarded: Option<&[u8]>, cors: Option<&Cors>) -> bool {
    let is_admitted = |origin: &[u8]| cors.is_some_and(|cors| cors.admits(origin));
    match (head.fetch_site, head.origin) {
        (None, None) | (Some(b"same-origin" | b"none"), _) => false,
        (Some(_), Some(origin)) => !is_admitted(origin),
        (Some(_), None) => cors.is_none_or(|cors| cors.origins.is_some()),
        (None, Some(origin)) => {
            let mut hosts = [head.host, forwarded].into_iter().flatten();
            !hosts.any(|host| is_origin_of(origin, host)) && !is_admitted(origin)
        }
    }
}

/// Whether `origin` is that of pages from `host`, over either scheme: TLS may end before this process.
fn is_origin_of(origin: &[u8], host: &[u8]) -> bool {
    let split = |scheme: &[u8], port| origin.strip_prefix(scheme).map(|authority| (authority, port));
    let Some((authority, port)) = split(b"https://", &b":443"[..]).or_else(|| split(b"http://", b":80"))
    else {
        return false;
    };
    // An origin never has its scheme's own port.
    authority.eq_ignore_ascii_case(host.strip_suffix(port).unwrap_or(host))
}

/// Whether a `Host` can only mean the machine itself, whatever a name server says (RFC 6761, 6.3).
pub(crate) fn is_loopback(host: &[u8]) -> bool {
    let name = name_of(host);
    name == b"127.0.0.1" || name.eq_ignore_ascii_case(b"localhost") || {
        const SUFFIX: &[u8] = b".localhost";
        let plain = name.strip_suffix(b".").unwrap_or(name);
        let end = &plain[plain.len().saturating_sub(SUFFIX.len())..];
        end.eq_ignore_ascii_case(SUFFIX)
            || plain.eq_ignore_ascii_case(b"localhost")
            || address_of(name).is_some_and(|ip| ip.is_loopback())
    }
}

/// Whether a `Host` is what `pattern` says: a name, `*.` and a name for all below it, or `*`.
fn is_called(host: &[u8], pattern: &str) -> bool {
    let name = name_of(host);
    let name = name.strip_suffix(b".").unwrap_or(name);
    match pattern.as_bytes() {
        b"*" => true,
        [b'*', below @ ..] => {
            let at = name.len().saturating_sub(below.len());
            at > 0 && name[at..].eq_ignore_ascii_case(below)
        }
        exact => name.eq_ignore_ascii_case(exact),
    }
}

/// A `Host` without its port; an IPv6 address keeps its brackets.
fn name_of(host: &[u8]) -> &[u8] {
    let end = match host.first() {
        Some(b'[') => memchr::memchr(b']', host).map(|at| at + 1),
        _ => memchr::memchr(b':', host),
    };
    &host[..end.unwrap_or(host.len())]
}

fn address_of(name: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(name).ok()?;
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// A client's word as it may stand in an error, in quotes.
fn shown(bytes: &[u8]) -> String {
    let is_harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/[]".contains(byte);
    match bytes.len() <= REPEATED_BYTES_MAX && bytes.iter().all(is_harmless) {
        true => format!("\"{}\"", String::from_utf8_lossy(bytes)),
        false => "\"...\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::http1::request::parse;

    #[test]
    fn loopback_is_what_no_name_server_decides() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.:8080",
            "app.localhost",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
        ] {
            assert!(is_loopback(host.as_bytes()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1evil",
            "10.0.0.1",
            "0.0.0.0",
            "[::2]",
            "128.0.0.1",
            "localhost..",
            ".",
        ] {
            assert!(!is_loopback(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn patterns_are_names_and_all_below_a_name() {
        for (host, pattern, matches) in [
            ("sedge.internal:8080", "sedge.internal", true),
            ("Sedge.Internal.", "sedge.internal", true),
            ("a.sedge.internal", "*.sedge.internal", true),
            ("sedge.internal", "*.sedge.internal", false),
            (".sedge.internal", "*.sedge.internal", false),
            ("evilsedge.internal", "*.sedge.internal", false),
            ("sedge.internal.evil", "sedge.internal", false),
            ("[::2]:80", "[::2]", true),
            ("anything", "*", true),
        ] {
            assert_eq!(is_called(host.as_bytes(), pattern), matches, "{host} {pattern}");
        }
    }

    fn foreign(fields: &str, cors: Option<&Cors>) -> bool {
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8080\r\n{fields}\r\n");
        is_foreign(&parse(head.as_bytes()).unwrap(), Some(b"sedge.corp"), cors)
    }

    #[test]
    fn pages_of_other_sites_are_known_by_what_browsers_send() {
        for own in [
            "",
            "Origin: http://localhost:8080\r\n",
            "Origin: https://sedge.corp\r\n",
            "Sec-Fetch-Site: same-origin\r\nOrigin: https://changed.by.a.proxy\r\n",
            "Sec-Fetch-Site: none\r\n",
        ] {
            assert!(!foreign(own, None), "{own}");
        }
        for other in [
            "Origin: http://localhost:3000\r\n",
            "Origin: http://localhost\r\n",
            "Origin: http://evil.example\r\n",
            "Origin: null\r\n",
            "Origin: \r\n",
            "Origin: ftp://localhost:8080\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\nOrigin: http://localhost:3000\r\n",
            "Sec-Fetch-Site: anything\r\n",
        ] {
            assert!(foreign(other, None), "{other}");
        }
    }

    #[test]
    fn origins_that_are_configured_are_admitted() {
        let origins = Some(vec!["http://localhost:3000".to_owned()]);
        let cors = Cors { origins, credentials: false, allow_headers: None, max_age: Duration::ZERO };
        for site in ["", "Sec-Fetch-Site: same-site\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
            assert!(!foreign(&format!("{site}Origin: http://localhost:3000\r\n"), Some(&cors)), "{site}");
            assert!(foreign(&format!("{site}Origin: http://localhost:3001\r\n"), Some(&cors)), "{site}");
        }
        assert!(foreign("Sec-Fetch-Site: cross-site\r\n", Some(&cors)));
        let any = Cors { origins: None, ..cors };
        assert!(!foreign("Sec-Fetch-Site: cross-site\r\n", Some(&any)));
    }
}
