//! The built-in upstream: OpenAI-compatible, deterministic, as fast as asked.
//!
//! It answers when no upstream is configured, and is what tests and benchmarks stand before. It is reached over TCP like any
//! other upstream, so that nothing of the relay is skipped. The same request gets the same bytes: names, times and text
//! follow from the request alone.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`connection`] | a connection's requests, and the pace of their answers |
//! | [`knobs`] | what a request's `x-sim-` fields ask for |
//! | [`answer`] | which endpoint answers, and what an answer is: whole, or a script of events |
//! | `chat`, `responses`, `others` | the endpoints |
//! | `frame` | an event that is rendered once and copied with another text in it |
//! | [`text`] | what it has to say |
//! | `schema` | what it has to say if that is to fit a JSON schema |

pub(crate) mod answer;
pub(crate) mod chat;
pub(crate) mod connection;
pub(crate) mod frame;
pub(crate) mod knobs;
pub(crate) mod others;
pub(crate) mod responses;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod text;

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;

use crate::runtime::net::listener::Bound;
use crate::runtime::net::{cpu, process};
use crate::tell;

/// A running simulator; dropping it ends it.
pub struct Simulator {
    address: SocketAddr,
    /// Its end is what the threads wait for: seen by each of them, however late it looks.
    alive: Option<watch::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Simulator {
    /// Serves on `listen` with `workers` threads of its own.
    pub fn start(listen: SocketAddr, workers: usize) -> io::Result<Simulator> {
        let bound = Bound::many(listen, workers.max(1))?;
        let address = bound[0].address();
        let (alive, ended) = watch::channel(());
        let mut threads = Vec::with_capacity(bound.len());
        for bound in bound {
            let ended = ended.clone();
            let thread = std::thread::Builder::new().name("simulator".into());
            threads.push(thread.spawn(move || {
                if let Err(error) = serve(bound, ended) {
                    tell!("sedge: the simulator has stopped: {error}");
                }
            })?);
        }
        Ok(Simulator { address, alive: Some(alive), threads })
    }

    /// Where it serves.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves on `listen` until the process is told to end.
    pub(crate) fn run(listen: SocketAddr) -> io::Result<()> {
        process::raise_descriptor_limit()?;
        let simulator = Simulator::start(listen, cpu::allowed().len())?;
        tell!("sedge {} simulator listening on http://{}", env!("CARGO_PKG_VERSION"), simulator.addr());
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut terminate, mut interrupt) =
                (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            Ok(())
        })
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.alive.take());
        for thread in self.threads.drain(..) {
            // A panic in there has been told already.
            let _ = thread.join();
        }
    }
}

fn serve(bound: Bound, mut ended: watch::Receiver<()>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = bound.into_tokio()?;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => drop(tokio::task::spawn_local(connection::run(socket))),
                    Err(_) => connection::pause(std::time::Duration::from_millis(100)).await,
                },
                _ = ended.changed() => return Ok(()),
            }
        }
    })
}
