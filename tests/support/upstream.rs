//! An upstream under the test's control. [`Upstream::accept`] hands the test each connection that the edge opens, to be
//! driven by hand; [`Upstream::serve`] answers in the background where the test looks elsewhere.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{Body, Head, PATIENCE, Wire};

#[derive(Debug)]
pub struct Upstream {
    addr: SocketAddr,
    accepted: Receiver<Wire>,
}

impl Upstream {
    /// Listens on a port of its own. The accepting thread ends with the process.
    pub fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = listener.local_addr().expect("address");
        let (sender, accepted) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if sender.send(Wire::new(stream)).is_err() {
                    return;
                }
            }
        });
        Self { addr, accepted }
    }

    /// Answers every request on every connection with what `answer` makes of it; keeps connections open.
    pub fn serve(answer: impl Fn(&Head, &Body) -> Vec<u8> + Send + Sync + 'static) -> Served {
        let Self { addr, accepted } = Self::listen();
        let (answer, seen) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            while let Ok(mut peer) = accepted.recv() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                thread::spawn(move || {
                    // A pooled connection is silent for as long as the edge likes, and is not closed from here.
                    peer.be_patient(Duration::from_secs(3600));
                    while let Ok(head) = peer.try_read_head() {
                        let body = peer.read_request_body(&head);
                        let wire = answer(&head, &body);
                        log.lock().expect("the log").push(head);
                        if peer.try_send(wire).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Served { addr, seen }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The next connection from the edge.
    #[track_caller]
    pub fn accept(&self) -> Wire {
        self.accept_within(PATIENCE)
    }

    /// The same, for one that may come late.
    #[track_caller]
    pub fn accept_within(&self, patience: Duration) -> Wire {
        match self.accepted.recv_timeout(patience) {
            Ok(peer) => peer,
            Err(e) => panic!("the edge did not connect to its upstream: {e}"),
        }
    }

    /// Whether the edge has opened no further connection by now: one of our own, which is made now, is the next.
    pub fn is_idle(&self) -> bool {
        let own = TcpStream::connect(self.addr).and_then(|own| Ok((own.local_addr()?, own)));
        let (own_addr, _own) = own.expect("a connection of our own");
        self.accept().stream().peer_addr().is_ok_and(|addr| addr == own_addr)
    }

    /// Whether the edge opens no further connection for this long. On a busy machine that proves nothing.
    pub fn idle_for(&self, quiet: Duration) -> bool {
        matches!(self.accepted.recv_timeout(quiet), Err(RecvTimeoutError::Timeout))
    }
}

/// An upstream that answers by itself.
#[derive(Debug)]
pub struct Served {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Head>>>,
}

impl Served {
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<Head> {
        self.seen.lock().expect("the log").clone()
    }
}
