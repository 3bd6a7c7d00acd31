//! Names that clients reach this server by.

use super::document::Value;

/// The longest host name (RFC 1035, 2.3.4), and brackets around an address.
const HOST_MAX_BYTES: usize = 255;

/// From an item of `hosts`: a name, `*.` and a name for all below it, an IP address, or `*`. In lower case.
pub(crate) fn host(value: &Value<'_>) -> Result<String, String> {
    let text = value.name(HOST_MAX_BYTES)?;
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        return Err(format!("{text:?} is a URL; write the host alone: {:?}", without_port(host)));
    }
    if text == "*" || text.starts_with('[') && text.ends_with(']') && is_address(&text[1..text.len() - 1]) {
        return Ok(text);
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!("{text:?} is written in brackets: \"[{text}]\""));
    }
    let name = text.strip_prefix("*.").unwrap_or(&text);
    if without_port(name).len() < name.len() {
        return Err(format!("{text:?} has a port; every port is meant, write {:?}", without_port(&text)));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match !name.is_empty() && !name.ends_with('.') && name.bytes().all(is_name) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(format!(
            "{text:?} is no host; write a name, as in \"sedge.internal\", or \"*.internal\" for all names below one"
        )),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use crate::cli::ServeArgs;
    use crate::config::tests::{Place, loaded};

    #[test]
    fn names_are_read() {
        let config = loaded("hosts = [\"Sedge.internal\", \"*.corp\", \"[fd00::1]\", \"10.0.0.1\"]");
        assert_eq!(config.hosts, ["sedge.internal", "*.corp", "[fd00::1]", "10.0.0.1"]);
        assert_eq!(loaded("hosts = \"*\"").hosts, ["*"]);
        assert!(loaded("").hosts.is_empty());
    }

    #[test]
    fn what_is_no_host_is_told() {
        for (host, advice) in [
            ("https://sedge.internal/v1", "write the host alone: \"sedge.internal\""),
            ("sedge.internal:8080", "write \"sedge.internal\""),
            ("fd00::1", "\"[fd00::1]\""),
            ("a.*.b", "is no host"),
            ("^sedge$", "is no host"),
            ("", "is empty"),
        ] {
            let errors = Place::new(&format!("hosts = [{host:?}]")).load(&ServeArgs::default(), &[]);
            let errors = errors.unwrap_err();
            assert!(
                errors.starts_with("sedge.toml:1: hosts: ") && errors.contains(advice),
                "{host}: {errors}"
            );
        }
    }
}
