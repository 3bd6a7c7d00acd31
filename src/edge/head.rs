//! A request's head, read and judged by what it says of itself: its path has one spelling, its host is served here, and no page of
//! another site has sent it where there are no keys.

use std::net::IpAddr;

use super::endpoints::{builtin, streams};
use super::{Door, cors, path};
use crate::admission::hosts::{self, Listener};
use crate::admission::trusted_proxies;
use crate::config::Config;
use crate::proto::http1::Reject;
use crate::proto::http1::request::{self, RequestHead};
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::request::Request;
use crate::relay::settings::Settings;
use crate::routing::affinity;

/// Reads a head. From here on its path has one spelling, and that is what is decided on and sent.
pub(crate) fn parse<'b>(bytes: &'b [u8], config: &Config) -> Result<RequestHead<'b>, Reject> {
    let mut head = request::parse(bytes)?;
    if let Some(canonical) = path::canonical(&head.target, || config.decides_by_path())? {
        head.target = canonical.into();
    }
    Ok(head)
}

/// A request whose head has been read.
pub(crate) struct Taken {
    pub(crate) request: Box<Request>,
    /// It is a preflight.
    pub(crate) preflight: bool,
    /// Its host is not served, or a page of another site has sent it.
    pub(crate) barred: Option<ApiError>,
}

/// Takes what is needed out of a head.
pub(crate) fn take(
    head: &RequestHead<'_>,
    core: &Core,
    settings: &Settings,
    peer: IpAddr,
    door: Door,
) -> Taken {
    let config = &settings.config;
    let trusted = trusted_proxies::is_trusted(&config.trusted_proxies, peer);
    let mut request = Box::new(Request::new(head, trusted, &mut core.ids.borrow_mut()));
    if trusted {
        request.client = Some(trusted_proxies::client(&config.trusted_proxies, peer, &head.fields));
    }
    request.who = number(request.client.unwrap_or(peer).to_canonical(), settings.knows_clients);
    let barred = bar(head, &request, config, door).err();
    let cors = config.cors.as_ref().filter(|_| door == Door::Public);
    let Some(said) = cors.and_then(|cors| cors::answer(head, cors)) else {
        return Taken { request, preflight: false, barred };
    };
    request.cross_origin = Some(said.fields);
    Taken { request, preflight: said.preflight, barred }
}

/// Refuses what a web page may not do to a server without keys. Probes of a service's health call it by any name.
fn bar(head: &RequestHead<'_>, request: &Request, config: &Config, door: Door) -> Result<(), ApiError> {
    let path = request.path();
    if builtin::is_health(path) {
        return Ok(());
    }
    let (listener, is_keyed) = match door {
        Door::Public => (Listener::Public, !config.keys.is_empty()),
        Door::Admin => (Listener::Admin, config.admin_token.is_some()),
    };
    hosts::check_host(head, listener, config)?;
    // A page cannot send a key to another origin unless a preflight lets it.
    if is_keyed || (head.origin, head.fetch_site) == (None, None) {
        return Ok(());
    }
    let may_be_asked_by_anyone = match head.method {
        // What there is, and nothing of it.
        "OPTIONS" => true,
        "GET" | "HEAD" => door == Door::Public && !streams::is_read(path),
        _ => false,
    };
    if may_be_asked_by_anyone {
        return Ok(());
    }
    let cors = config.cors.as_ref().filter(|_| door == Door::Public);
    hosts::check_origin(head, request.field_value("x-forwarded-host"), cors)
}

/// A client without a key, as a number: a hash that is the same in every process where upstreams are chosen by it. An IPv6 client has a
/// whole network of addresses.
fn number(address: IpAddr, agreed: bool) -> u64 {
    match address {
        address if agreed => affinity::hash(address.to_string().as_bytes()),
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}
