//! A core's memory of looked-up names. Look-ups run in threads of their own, since the system's resolver blocks.
//!
//! | what is known of a name | what a dial gets |
//! | --- | --- |
//! | addresses, looked up in the last 10 s | these |
//! | addresses that are older, up to 10 minutes | these at once; one look-up renews them meanwhile, and may fail or hang |
//! | that it could not be resolved, for a second | that error |
//! | nothing, or nothing of the above | what the look-up brings, for which all dials wait together |
//!
//! So a resolver that hangs stops nobody whose address was ever known, and costs one thread for each name at most. Names that
//! users choose (webhooks) have a resolver of their own, which cannot take the threads of the upstreams'.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use tokio::sync::{Notify, Semaphore};

use super::addresses::Addresses;
use super::dial::DialError;
use crate::runtime::clock::Millis;

/// How long looked-up addresses are used without another look-up.
const FRESH_MS: Millis = 10_000;

/// How long they are used at all while look-ups fail, or do not end.
const STALE_MS: Millis = 600_000;

/// How long a name that could not be resolved is not looked up again.
const FAILED_MS: Millis = 1000;

/// Names that a core remembers.
const NAMES_MAX: usize = 256;

/// Addresses that cloud providers give their metadata services beyond the link-local networks: AWS, Google Cloud, Oracle Cloud
/// and Alibaba Cloud.
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    IpAddr::V4(std::net::Ipv4Addr::new(100, 100, 100, 200)),
];

/// Names and what they lead to.
pub(crate) struct Resolver {
    names: RefCell<HashMap<(String, u16), Name>>,
    /// Look-ups that may run at a time.
    threads: Rc<Semaphore>,
}

#[derive(Default)]
struct Name {
    addresses: Option<Rc<Addresses>>,
    /// Why the last look-up failed.
    error: Option<Fault>,
    /// Until when the last look-up's result is used without another.
    fresh_until: Millis,
    stale_until: Millis,
    /// A look-up is under way; told when it is over.
    lookup: Option<Rc<Notify>>,
}

/// An error that several dials are told.
#[derive(Clone, Debug)]
enum Fault {
    Failed(Option<i32>, io::ErrorKind, String),
    /// All addresses are a metadata service's, such as this one.
    Forbidden(IpAddr),
}

impl Fault {
    fn of(&self, host: &str) -> DialError {
        match self {
            Fault::Failed(Some(code), ..) => {
                DialError::Resolve(host.into(), io::Error::from_raw_os_error(*code))
            }
            Fault::Failed(None, kind, text) => {
                DialError::Resolve(host.into(), io::Error::new(*kind, text.clone()))
            }
            Fault::Forbidden(address) => DialError::Forbidden(host.into(), *address),
        }
    }
}

impl Resolver {
    /// One that may use so many threads.
    pub(crate) fn new(threads: usize) -> Rc<Resolver> {
        Rc::new(Resolver { names: RefCell::default(), threads: Rc::new(Semaphore::new(threads)) })
    }

    /// The addresses of `host`, of which there is one at least. `now` is asked again after a wait.
    pub(crate) async fn resolve(
        self: &Rc<Self>,
        host: &str,
        port: u16,
        now: impl Fn() -> Millis,
    ) -> Result<Rc<Addresses>, DialError> {
        let key = (host.to_owned(), port);
        for _ in 0..2 {
            let over = {
                let mut names = self.names.borrow_mut();
                let now = now();
                make_room(&mut names, &key, now);
                let Some(name) = entry(&mut names, &key) else {
                    return Err(DialError::Resolve(
                        host.into(),
                        io::Error::other("too many names are being looked up"),
                    ));
                };
                let fresh = name.fresh_until > now;
                match (&name.addresses, &name.error) {
                    (Some(addresses), _) if fresh => return Ok(Rc::clone(addresses)),
                    (None, Some(fault)) if fresh => return Err(fault.of(host)),
                    (Some(addresses), _) if name.stale_until > now => {
                        let addresses = Rc::clone(addresses);
                        self.look_up(name, &key, now);
                        return Ok(addresses);
                    }
                    _ => self.look_up(name, &key, now),
                }
            };
            over.notified().await;
            if let Some(name) = self.names.borrow().get(&key) {
                // Whatever it has come to is for all who waited for it, however long it took.
                match (&name.addresses, &name.error) {
                    (Some(addresses), _) => return Ok(Rc::clone(addresses)),
                    (None, Some(fault)) => return Err(fault.of(host)),
                    (None, None) => {}
                }
            }
        }
        Err(DialError::Resolve(host.into(), io::Error::other("its look-up has ended without a result")))
    }

    /// No address of it takes a connection: it may have others by now.
    pub(crate) fn renew(self: &Rc<Self>, host: &str, port: u16, now: Millis) {
        let key = (host.to_owned(), port);
        if let Some(name) = self.names.borrow_mut().get_mut(&key) {
            name.fresh_until = now;
            self.look_up(name, &key, now);
        }
    }

    /// Starts a look-up unless there is one, in a task of its own: a dial that is given up does not end it.
    fn look_up(self: &Rc<Self>, name: &mut Name, key: &(String, u16), now: Millis) -> Rc<Notify> {
        if let Some(under_way) = &name.lookup {
            return Rc::clone(under_way);
        }
        let over = Rc::new(Notify::new());
        name.lookup = Some(Rc::clone(&over));
        let (resolver, key, told) = (Rc::clone(self), key.clone(), Rc::clone(&over));
        tokio::task::spawn_local(async move {
            let permit = resolver.threads.acquire().await;
            let found = tokio::net::lookup_host((&*key.0, key.1)).await;
            drop(permit);
            let found = found.map(Iterator::collect::<Vec<_>>);
            if let Some(name) = resolver.names.borrow_mut().get_mut(&key) {
                name.lookup = None;
                // It began at `now`: how long it took makes it no fresher.
                name.learn(found, now);
            }
            told.notify_waiters();
        });
        over
    }
}

impl Name {
    /// A look-up that began at `now` has come to this.
    fn learn(&mut self, found: io::Result<Vec<SocketAddr>>, now: Millis) {
        let allowed = found.map(|mut found| {
            let first = found.first().map(SocketAddr::ip);
            // Whoever controls the name must not choose this machine's metadata service. Checked after the look-up, on the very
            // addresses that are then connected to.
            found.retain(|address| !is_link_local(address.ip()));
            (found, first)
        });
        match allowed {
            Ok((found, _)) if !found.is_empty() => {
                let addresses = Addresses::new(found, self.addresses.as_deref());
                (self.addresses, self.error) = (Some(Rc::new(addresses)), None);
                (self.fresh_until, self.stale_until) = (now + FRESH_MS, now + STALE_MS);
                return;
            }
            // It is there, and leads elsewhere now: the addresses it had are no longer meant.
            Ok((_, Some(first))) => (self.addresses, self.error) = (None, Some(Fault::Forbidden(first))),
            Ok((_, None)) => {
                self.error = Some(Fault::Failed(None, io::ErrorKind::NotFound, "it has no address".into()));
            }
            Err(error) => {
                self.error = Some(Fault::Failed(error.raw_os_error(), error.kind(), error.to_string()));
            }
        }
        if self.stale_until <= now {
            self.addresses = None;
        }
        self.fresh_until = now + FAILED_MS;
    }
}

/// Makes room for `key`, if it is not there and there is none.
fn make_room(names: &mut HashMap<(String, u16), Name>, key: &(String, u16), now: Millis) {
    if names.len() < NAMES_MAX || names.contains_key(key) {
        return;
    }
    names.retain(|_, name| name.fresh_until > now || name.lookup.is_some());
    if names.len() >= NAMES_MAX {
        let oldest = names.iter().filter(|(_, name)| name.lookup.is_none());
        let oldest = oldest.min_by_key(|(_, name)| name.fresh_until).map(|(key, _)| key.clone());
        oldest.map(|key| names.remove(&key));
    }
}

fn entry<'a>(names: &'a mut HashMap<(String, u16), Name>, key: &(String, u16)) -> Option<&'a mut Name> {
    if !names.contains_key(key) && names.len() >= NAMES_MAX {
        return None;
    }
    Some(names.entry(key.clone()).or_default())
}

/// 169.254.0.0/16 and fe80::/10, the first also in the IPv6 addresses that stand for IPv4 ones, and the addresses of metadata
/// services beyond them.
fn is_link_local(address: IpAddr) -> bool {
    let address = embedded(address.to_canonical());
    METADATA.contains(&address)
        || match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
}

/// The IPv4 address that a translator makes of an IPv6 one (NAT64's 64:ff9b::/96, RFC 6052, and 6to4's 2002::/16, RFC 3056); of
/// any other, itself.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            IpAddr::V4((u32::from(high) << 16 | u32::from(low)).into())
        }
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(list: &[&str]) -> io::Result<Vec<SocketAddr>> {
        Ok(list.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn addresses(name: &Name) -> Vec<String> {
        name.addresses
            .iter()
            .flat_map(|addresses| addresses.iter())
            .map(|address| address.to_string())
            .collect()
    }

    #[test]
    fn metadata_services_are_known() {
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "100.100.100.200",
            "::ffff:100.100.100.200",
        ] {
            assert!(is_link_local(address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.1", "10.0.0.1", "::1", "2001:db8::1", "64:ff9b::a00:1", "100.100.100.201"] {
            assert!(!is_link_local(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_look_up_that_fails_leaves_what_was_known_for_a_while() {
        let mut name = Name::default();
        name.learn(found(&["10.0.0.1:80", "169.254.169.254:80"]), 1000);
        assert_eq!(addresses(&name), ["10.0.0.1:80"]);
        name.learn(Err(io::Error::other("no server")), 20_000);
        assert_eq!(addresses(&name), ["10.0.0.1:80"]);
        assert_eq!(name.fresh_until, 20_000 + FAILED_MS);
        name.learn(found(&[]), 30_000);
        assert_eq!(addresses(&name), ["10.0.0.1:80"]);
        name.learn(Err(io::Error::other("no server")), 1000 + STALE_MS);
        assert!(addresses(&name).is_empty());
    }

    #[test]
    fn a_name_that_comes_to_lead_to_a_metadata_service_leads_nowhere() {
        let mut name = Name::default();
        name.learn(found(&["10.0.0.1:80"]), 1000);
        name.learn(found(&["[::ffff:169.254.169.254]:80"]), 20_000);
        assert!(addresses(&name).is_empty());
        assert!(matches!(name.error, Some(Fault::Forbidden(_))));
    }

    #[tokio::test]
    async fn dials_wait_for_one_look_up_together_and_a_failure_is_remembered() {
        let resolver = Resolver::new(1);
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let (one, two) = tokio::join!(
                    resolver.resolve("localhost", 80, || 0),
                    resolver.resolve("localhost", 80, || 0)
                );
                assert!(Rc::ptr_eq(&one.unwrap(), &two.unwrap()));
                for now in [0, FAILED_MS - 1] {
                    let missing = resolver.resolve("does-not-exist.invalid", 80, || now).await;
                    assert!(matches!(missing, Err(DialError::Resolve(..))));
                }
                assert_eq!(resolver.names.borrow().len(), 2);
            })
            .await;
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut names = HashMap::new();
        for number in 0..2 * NAMES_MAX {
            let key = (format!("name{number}"), 80);
            make_room(&mut names, &key, 0);
            let name = entry(&mut names, &key).unwrap();
            name.fresh_until = 1 + number as u64;
        }
        assert_eq!(names.len(), NAMES_MAX);
        names.values_mut().for_each(|name| name.lookup = Some(Rc::default()));
        let key = ("one more".to_owned(), 80);
        make_room(&mut names, &key, 0);
        assert!(entry(&mut names, &key).is_none());
    }
}
