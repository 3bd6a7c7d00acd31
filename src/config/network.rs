//! Networks of addresses, as they are written in `trusted_proxies`.

use std::net::IpAddr;

use super::document::Value;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` is one of them. An IPv4 address counts as such, though a dual-stack socket calls it an IPv6 one.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                shared(u128::from(ours.to_bits()) << 96, u128::from(theirs.to_bits()) << 96) >= self.prefix
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => shared(ours.to_bits(), theirs.to_bits()) >= self.prefix,
            _ => false,
        }
    }

    /// An address, or one with the length of the prefix that others share with it.
    pub(crate) fn parse(text: &str) -> Result<Network, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            format!(
                "{text:?} is not a network; write an IP address, or one with its prefix, as in 10.0.0.0/8"
            )
        })?;
        if address.to_canonical() != address {
            return Err(format!("{text:?} is an IPv4 address in disguise; write {}", address.to_canonical()));
        }
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= bits && !digits.starts_with('+'))
                .ok_or_else(|| format!("{text:?} has a prefix that is none; it is from 0 to {bits}"))?,
        };
        let network = Network { address: first(address, prefix), prefix };
        if network.address != address {
            // Whoever wrote it may mean the one address, or all of them.
            return Err(format!(
                "{text:?} has bits beyond its prefix; write {address}, or {}/{prefix}",
                network.address
            ));
        }
        Ok(network)
    }
}

/// From an item of the list.
pub(crate) fn network(value: &Value<'_>) -> Result<Network, String> {
    Network::parse(value.string()?)
}

/// How many leading bits agree.
fn shared(one: u128, other: u128) -> u32 {
    (one ^ other).leading_zeros()
}

/// `address` with nothing beyond its prefix.
fn first(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            IpAddr::V4((address.to_bits() & u32::MAX.checked_shl(32 - prefix).unwrap_or(0)).into())
        }
        IpAddr::V6(address) => {
            IpAddr::V6((address.to_bits() & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        Network::parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_are_in_it_or_not() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("192.168.4.0/23", "192.168.5.255", "192.168.6.0"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "ffff::", "127.0.0.1"),
        ] {
            assert!(contains(network, inside), "{inside} in {network}");
            assert!(!contains(network, outside), "{outside} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_told() {
        for (text, advice) in [
            ("proxy.example", "is not a network"),
            ("", "is not a network"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.1.2.3/8", "write 10.1.2.3, or 10.0.0.0/8"),
            ("fd00::1/64", "write fd00::1, or fd00::/64"),
            ("::ffff:10.0.0.1", "write 10.0.0.1"),
        ] {
            let error = Network::parse(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}
