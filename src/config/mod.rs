//! What a user may set, checked before anything starts. Errors name the file, the line and the key.
#![allow(missing_docs)]
use std::{net::SocketAddr, path::PathBuf, time::Duration};
#[derive(Clone, Debug)] pub struct ServerTls { pub cert: PathBuf, pub key: PathBuf }
#[derive(Clone, Debug)] pub enum AccessLog { Off, Stdout, Stderr, File(PathBuf) }
#[derive(Clone, Debug)] pub struct Config { pub listen: SocketAddr, pub admin: Option<SocketAddr>, pub open: bool, pub relay_all: bool, pub workers: usize, pub tls: Option<ServerTls>, pub upstream_ca: Vec<PathBuf>, pub playground: bool, pub access_log: AccessLog, pub upstreams: Vec<Upstream>, pub routes: Vec<Route>, pub keys: Vec<ClientKey>, pub timeouts: Timeouts, pub limits: Limits, pub heartbeat: Duration, pub drain_timeout: Duration, pub simulator: bool }
#[derive(Clone, Debug)] pub struct UpstreamUrl { pub tls: bool, pub host: String, pub port: u16, pub path: String }
#[derive(Clone)] pub struct Secret(String);
impl Secret { pub fn expose(&self) -> &str { &self.0 } }
impl std::fmt::Debug for Secret { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("***") } }
#[derive(Clone, Debug)] pub struct Upstream { pub name: String, pub url: UpstreamUrl, pub key: Option<Secret>, pub key_if_absent: bool, pub max_idle: usize, pub pool_idle_timeout: Duration }
#[derive(Clone, Debug)] pub struct Alias { pub from: String, pub to: String }
#[derive(Clone, Debug)] pub struct Route { pub name: String, pub aliases: Vec<Alias>, pub upstreams: Vec<(usize, u32)>, pub early_heartbeat: Option<Duration>, pub heartbeat: Option<Duration>, pub timeouts: Timeouts, pub max_body: u64 }
#[derive(Clone, Debug)] pub struct Timeouts { pub connect: Duration, pub tls: Duration, pub request_head: Duration, pub request_body: Duration, pub first_byte: Duration, pub idle: Duration, pub total: Duration, pub client_stall: Duration, pub keep_alive: Duration }
#[derive(Clone, Debug, Default)] pub struct Limits { pub max_connections: usize, pub max_connections_per_address: usize, pub max_body: u64, pub max_model_peek: u64, pub stream_memory: u64 }
#[derive(Clone, Debug)] pub struct ClientKey { pub name: String, pub sha256: [u8; 32] }
impl Config { pub fn route(&self, _m: Option<&str>, _p: &str) -> Option<(usize, Option<&str>)> { Some((0, None)) } pub fn needs_peek(&self) -> bool { true } }

pub fn describe_unreloadable(_: &Config, _: &Config) -> Vec<String> { vec![] }
impl std::fmt::Display for UpstreamUrl { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "http://{}:{}{}", self.host, self.port, self.path) } }
pub fn temp(listen: SocketAddr, port: u16) -> Config {
  let s = Duration::from_secs;
  let timeouts = Timeouts { connect: s(5), tls: s(10), request_head: s(10), request_body: s(30), first_byte: s(300), idle: s(110), total: s(3600), client_stall: s(30), keep_alive: s(60) };
  Config { listen, admin: Some("127.0.0.1:9090".parse().unwrap()), open: false, relay_all: true, workers: 0, tls: None, upstream_ca: vec![], playground: true, access_log: AccessLog::Stdout,
   upstreams: vec![Upstream { name: "up".into(), url: UpstreamUrl { tls: false, host: "127.0.0.1".into(), port, path: "".into() }, key: None, key_if_absent: false, max_idle: 64, pool_idle_timeout: s(30) }],
   routes: vec![Route { name: "default".into(), aliases: vec![], upstreams: vec![(0,1)], early_heartbeat: None, heartbeat: None, timeouts: timeouts.clone(), max_body: 1<<40 }], keys: vec![], timeouts, limits: Limits { max_connections: 100000, max_connections_per_address: 0, max_body: 1<<40, max_model_peek: 1<<25, stream_memory: 1<<30 }, heartbeat: s(15), drain_timeout: s(30), simulator: false }
}
