//! The addresses of a name, on one core: in which order they are tried, whose turn it is, and which have failed lately.
//!
//! - New connections go round the addresses of the preferred family, so that the pods behind a headless service share the load.
//!   The preferred family is the resolver's (RFC 6724).
//! - Both families are interleaved (RFC 8305, section 4): one that leads nowhere costs one attempt.
//! - An address that has failed, or was silent, is tried last for a while.

use std::cell::Cell;
use std::net::SocketAddr;

use crate::runtime::clock::Millis;

/// Most addresses of a name that are used.
pub(crate) const ADDRESSES_MAX: usize = 64;

/// How long an address that has failed is tried last.
pub(crate) const FAILED_MS: Millis = 30_000;

/// A name's addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    list: Vec<Known>,
    turn: Cell<usize>,
}

#[derive(Debug)]
struct Known {
    address: SocketAddr,
    /// It is tried last until then; 0 for one that works, as far as is known.
    failed_until: Cell<Millis>,
}

impl Addresses {
    /// What a look-up has `found`, each once and [`ADDRESSES_MAX`] at most. What was known of them `before` still is.
    pub(crate) fn new(found: impl IntoIterator<Item = SocketAddr>, before: Option<&Addresses>) -> Addresses {
        let mut list: Vec<Known> = Vec::new();
        for address in found {
            if list.len() == ADDRESSES_MAX {
                break;
            }
            if list.iter().all(|known| known.address != address) {
                let failed =
                    before.and_then(|before| before.find(address)).map(|known| known.failed_until.get());
                list.push(Known { address, failed_until: Cell::new(failed.unwrap_or(0)) });
            }
        }
        Addresses { list, turn: Cell::new(before.map_or(0, |before| before.turn.get())) }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// All of them, as the resolver ordered them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().map(|known| known.address)
    }

    /// The address whose turn it is, among those of the preferred family that work. The next call names the next one.
    pub(crate) fn next(&self, now: Millis) -> Option<SocketAddr> {
        let preferred = self.list.first()?.address.is_ipv4();
        let works = |known: &&Known| known.failed_until.get() <= now;
        let of_family = |known: &&Known| known.address.is_ipv4() == preferred;
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let pick = |count: usize| turn.checked_rem(count).unwrap_or(0);
        let count = self.list.iter().filter(of_family).filter(works).count();
        let known = match count {
            0 => self.list.iter().find(works).or(self.list.first()),
            _ => self.list.iter().filter(of_family).filter(works).nth(pick(count)),
        };
        known.map(|known| known.address)
    }

    /// The order in which they are tried, `first` at the front if it is one of them.
    pub(crate) fn order(&self, first: Option<SocketAddr>, now: Millis) -> Vec<SocketAddr> {
        let Some(first) = first.or_else(|| self.next(now)) else { return Vec::new() };
        let at = self.iter().position(|address| address == first).unwrap_or(0);
        let (before, from) = self.list.split_at(at);
        let round = || from.iter().chain(before);
        let works = |known: &&Known| known.failed_until.get() <= now || known.address == first;
        let family = |ipv4: bool| {
            round().filter(works).map(|known| known.address).filter(move |address| address.is_ipv4() == ipv4)
        };
        let (mut one, mut other) = (family(first.is_ipv4()), family(!first.is_ipv4()));
        let mut order = Vec::with_capacity(self.list.len());
        loop {
            let pair = [one.next(), other.next()];
            if pair == [None, None] {
                break;
            }
            order.extend(pair.into_iter().flatten());
        }
        let mut failed: Vec<&Known> = round().filter(|known| !works(known)).collect();
        failed.sort_by_key(|known| known.failed_until.get());
        order.extend(failed.into_iter().map(|known| known.address));
        order
    }

    /// No connection to `address` came about, or not in a reasonable time.
    pub(crate) fn failed(&self, address: SocketAddr, now: Millis) {
        if let Some(known) = self.find(address) {
            known.failed_until.set(now + FAILED_MS);
        }
    }

    /// One has.
    pub(crate) fn connected(&self, address: SocketAddr) {
        if let Some(known) = self.find(address) {
            known.failed_until.set(0);
        }
    }

    fn find(&self, address: SocketAddr) -> Option<&Known> {
        self.list.iter().find(|known| known.address == address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn of(list: &[&str]) -> Addresses {
        Addresses::new(addresses(list), None)
    }

    #[test]
    fn the_pods_of_a_headless_service_share_the_load() {
        let pods = of(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let mut counts = [0; 3];
        for _ in 0..30 {
            let first = pods.order(None, 0)[0];
            counts[pods.iter().position(|address| address == first).unwrap()] += 1;
        }
        assert_eq!(counts, [10, 10, 10]);
    }

    #[test]
    fn families_are_interleaved_and_the_resolvers_first_one_is_preferred() {
        let name = of(&["[::1]:80", "[::2]:80", "10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(name.order(None, 0), addresses(&["[::1]:80", "10.0.0.1:80", "[::2]:80", "10.0.0.2:80"]));
        assert_eq!(name.order(None, 0), addresses(&["[::2]:80", "10.0.0.1:80", "[::1]:80", "10.0.0.2:80"]));
    }

    #[test]
    fn one_that_has_failed_is_tried_last_for_a_while() {
        let name = of(&["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]);
        let dead = addresses(&["10.0.0.1:80"])[0];
        name.failed(dead, 1000);
        for _ in 0..4 {
            assert_eq!(name.order(None, 1001), addresses(&["10.0.0.2:80", "[::1]:80", "10.0.0.1:80"]));
        }
        // Another look-up does not bring it back; time does, or a connection.
        let name = Addresses::new(addresses(&["10.0.0.1:80", "10.0.0.2:80"]), Some(&name));
        assert_eq!(name.order(None, 1001 + FAILED_MS - 2).last(), Some(&dead));
        assert!((0..2).any(|_| name.order(None, 1000 + FAILED_MS)[0] == dead));
        name.failed(dead, 50_000);
        name.connected(dead);
        assert!((0..2).any(|_| name.next(50_000) == Some(dead)));
        // Where all have failed, all are tried.
        name.iter().for_each(|address| name.failed(address, 60_000));
        assert_eq!(name.order(None, 60_001).len(), 2);
    }

    #[test]
    fn a_family_that_leads_nowhere_gives_its_turn_away() {
        let name = of(&["[::1]:80", "10.0.0.1:80"]);
        name.failed(addresses(&["[::1]:80"])[0], 0);
        assert_eq!(name.next(1), Some(addresses(&["10.0.0.1:80"])[0]));
    }

    #[test]
    fn a_name_with_a_thousand_addresses_has_64() {
        let many = (0..1000_u16).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let name = Addresses::new(many.clone().chain(many), None);
        assert_eq!((name.len(), name.order(None, 0).len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        assert!(Addresses::default().order(None, 0).is_empty());
    }

    proptest! {
        #[test]
        fn the_order_is_all_of_them(
            found in proptest::collection::vec((any::<bool>(), 0_u8..20), 0..30),
            failed in proptest::collection::vec(0_usize..30, 0..10),
            turns in 0_usize..50,
        ) {
            let address = |(ipv4, number): (bool, u8)| match ipv4 {
                true => SocketAddr::from(([10, 0, 0, number], 80)),
                false => SocketAddr::from(([0, 0, 0, 0, 0, 0, 1, number.into()], 80)),
            };
            let name = Addresses::new(found.into_iter().map(address), None);
            for number in failed {
                if let Some(address) = name.iter().nth(number) {
                    name.failed(address, 10);
                }
            }
            for _ in 0..turns {
                name.next(20);
            }
            let mut order = name.order(None, 20);
            prop_assert_eq!(order.len(), name.len());
            order.sort_unstable();
            order.dedup();
            prop_assert_eq!(order.len(), name.len());
        }
    }
}
