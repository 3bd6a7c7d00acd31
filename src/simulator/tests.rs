//! The simulator over its own socket.

#![allow(
    clippy::disallowed_methods,
    reason = "the bans are for the data path; this is the other side of the wire"
)]

use std::net::{Ipv4Addr, SocketAddr};

use super::Simulator;

fn start(workers: usize) -> Simulator {
    Simulator::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), workers).unwrap()
}

/// Threads that were not listening yet when they were told to end never heard of it, and the process hung in a join.
#[test]
fn every_thread_ends_even_if_it_has_hardly_begun() {
    for _ in 0..50 {
        let simulator = start(4);
        let address = simulator.addr();
        drop(simulator);
        assert!(std::net::TcpStream::connect(address).is_err(), "still listening");
    }
}
