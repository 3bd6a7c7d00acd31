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
#[derive(Clone, Debug)] pub struct Limits { pub max_connections: usize, pub max_connections_per_address: usize, pub max_body: u64, pub max_model_peek: u64, pub stream_memory: u64 }
#[derive(Clone, Debug)] pub struct ClientKey { pub name: String, pub sha256: [u8; 32] }
impl Config { pub fn route(&self, _m: Option<&str>, _p: &str) -> Option<(usize, Option<&str>)> { Some((0, None)) } pub fn needs_peek(&self) -> bool { true } }
