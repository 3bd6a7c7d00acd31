//! Whose word for a client's address is believed: `X-Forwarded-For` of a trusted proxy, and nobody else's.
//!
//! Each proxy appends the address that it was asked from, so the list is to be trusted from its end, and only as far as the
//! addresses in it are proxies of ours: the last one that is not is the client, whatever stands before it.

use std::net::{IpAddr, SocketAddr};

use crate::config::Network;
use crate::proto::http1::fields::Field;

/// Whether `peer` is a proxy of ours.
pub(crate) fn is_trusted(trusted: &[Network], peer: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(peer))
}

/// The client behind a trusted `peer`, by the fields of its request. Where the list ends, or cannot be read any further, it
/// is the last address that was believed.
pub(crate) fn client(trusted: &[Network], peer: IpAddr, fields: &[Field<'_>]) -> IpAddr {
    let mut client = peer;
    let lists = fields.iter().rev().filter(|field| field.is("x-forwarded-for"));
    for element in lists.flat_map(|field| field.value.rsplit(|&byte| byte == b',')) {
        let Some(address) = address(element.trim_ascii()) else { break };
        client = address;
        if !is_trusted(trusted, address) {
            break;
        }
    }
    client
}

/// An address; some proxies add the port.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    text.parse().ok().or_else(with_port).or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(lists: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "::1"].map(|text| Network::parse(text).unwrap());
        let fields: Vec<_> =
            lists.iter().map(|list| Field { name: "X-FORWARDED-FOR", value: list.as_bytes() }).collect();
        client(&trusted, IpAddr::from([10, 0, 0, 1]), &fields).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        for (lists, expected) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.7"], "192.0.2.7"),
            (&["1.2.3.4, 192.0.2.7"], "192.0.2.7"),
            (&["1.2.3.4,192.0.2.7 ,10.9.9.9,::1"], "192.0.2.7"),
            (&["1.2.3.4", "192.0.2.7, 10.9.9.9", "10.1.1.1"], "192.0.2.7"),
            (&["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            (&["192.0.2.7:5123"], "192.0.2.7"),
            (&["[2001:db8::1]:443, 10.2.2.2"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["::ffff:10.2.2.2, 10.2.2.2"], "::ffff:10.2.2.2"),
        ] {
            assert_eq!(client_of(lists), expected, "{lists:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_ends_the_list() {
        for (list, expected) in [
            ("1.2.3.4, unknown", "10.0.0.1"),
            ("1.2.3.4, unknown, 10.2.2.2", "10.2.2.2"),
            ("1.2.3.4, ", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("1.2.3.4, caf\u{e9}", "10.0.0.1"),
            ("1.2.3.4;DROP", "10.0.0.1"),
        ] {
            assert_eq!(client_of(&[list]), expected, "{list:?}");
        }
    }
}
