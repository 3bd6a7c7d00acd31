//! Addresses to listen at.

use std::net::{Ipv4Addr, SocketAddr};

use super::document::Value;

/// An IP address and a port; `localhost` is 127.0.0.1.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| match text.strip_prefix(':').or(Some(text)).and_then(port) {
        Some(port) => {
            format!("{text:?} has no address; write 127.0.0.1:{port} for this machine alone, or 0.0.0.0:{port} for every interface")
        }
        None if text.parse::<std::net::IpAddr>().is_ok() => format!("{text:?} has no port; write one, as in 127.0.0.1:8080"),
        None => format!("{text:?} is not an address; write an IP address and a port, as in 127.0.0.1:8080 or [::1]:8080"),
    })
}

/// The address of a listener that can be turned off.
pub(crate) fn parse_address_or_off(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        _ => parse_address(text).map(Some).map_err(|what| format!("{what}; \"off\" turns it off")),
    }
}

pub(crate) fn address(value: &Value<'_>) -> Result<SocketAddr, String> {
    parse_address(value.plain()?)
}

pub(crate) fn address_or_off(value: &Value<'_>) -> Result<Option<SocketAddr>, String> {
    parse_address_or_off(value.plain()?)
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, address) in
            [("127.0.0.1:8080", "127.0.0.1:8080"), ("[::]:80", "[::]:80"), ("localhost:0", "127.0.0.1:0")]
        {
            assert_eq!(parse_address(text).unwrap().to_string(), address);
        }
        assert_eq!(parse_address_or_off("off"), Ok(None));
    }

    #[test]
    fn what_is_missing_is_told() {
        for (text, advice) in [
            (":8080", "0.0.0.0:8080"),
            ("8080", "127.0.0.1:8080 for this machine"),
            ("127.0.0.1", "has no port"),
            ("::1", "has no port"),
            ("example.org:80", "is not an address"),
            ("127.0.0.1:99999", "is not an address"),
            ("", "is not an address"),
        ] {
            let error = parse_address(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
        assert!(parse_address_or_off("none").unwrap_err().ends_with("\"off\" turns it off"));
    }
}
