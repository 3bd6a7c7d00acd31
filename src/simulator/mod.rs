//! The built-in upstream: OpenAI-compatible, deterministic, as fast as asked.
#![allow(missing_docs)]
pub struct Simulator;
impl Simulator { pub fn run(_: std::net::SocketAddr) -> std::io::Result<()> { Err(std::io::ErrorKind::Other.into()) } pub fn start(_: std::net::SocketAddr, _: usize) -> std::io::Result<Simulator> { Err(std::io::ErrorKind::Other.into()) } pub fn addr(&self) -> std::net::SocketAddr { unreachable!() } }
