//! The floor: a relay of bytes that knows nothing of HTTP. One thread, one epoll, one read and one write for what arrives; an
//! upstream connection for each client's. What a proxy costs beyond this is what it does for its user.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

const LISTENER: u64 = u64::MAX;

/// As much as sedge reads at once.
const BLOCK_BYTES: usize = 16 * 1024;

/// A socket, and what could not be written to it yet.
struct End {
    socket: TcpStream,
    unsent: Vec<u8>,
}

struct Relay {
    epoll: OwnedFd,
    upstream: SocketAddr,
    /// The two ends of a connection stand side by side: an end's other is its index with the last bit turned.
    ends: Vec<Option<End>>,
    free: Vec<usize>,
    block: Box<[u8]>,
}

/// Relays every connection to `upstream`; ends with the process.
pub fn run(listener: &TcpListener, upstream: SocketAddr) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let block = vec![0; BLOCK_BYTES].into_boxed_slice();
    let mut relay = Relay { epoll, upstream, ends: Vec::new(), free: Vec::new(), block };
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    loop {
        match epoll::wait(&relay.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let (flags, at) = (event.flags, event.data.u64());
            if at == LISTENER {
                relay.accept(listener)?;
                continue;
            }
            let at = at as usize;
            let done = if flags.contains(EventFlags::OUT) { relay.flush(at) } else { relay.pump(at) };
            match done {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => relay.close(at),
                _ => {}
            }
        }
    }
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        while let Ok((client, _)) = listener.accept() {
            let upstream = TcpStream::connect(self.upstream)?;
            let at = self.free.pop().unwrap_or_else(|| {
                self.ends.extend([None, None]);
                self.ends.len() - 2
            });
            for (socket, at) in [(client, at), (upstream, at + 1)] {
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                epoll::add(&self.epoll, &socket, EventData::new_u64(at as u64), EventFlags::IN)?;
                self.ends[at] = Some(End { socket, unsent: Vec::new() });
            }
        }
        Ok(())
    }

    /// Moves what has arrived at `at` to the other end.
    fn pump(&mut self, at: usize) -> io::Result<()> {
        let Some(from) = &mut self.ends[at] else { return Ok(()) };
        let read = from.socket.read(&mut self.block)?;
        let Some(to) = self.ends[at ^ 1].as_mut().filter(|_| read > 0) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let written = match to.socket.write(&self.block[..read]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            written => written?,
        };
        if written < read {
            to.unsent.extend_from_slice(&self.block[written..read]);
            self.watch(at)?;
        }
        Ok(())
    }

    /// `at` can be written to again.
    fn flush(&mut self, at: usize) -> io::Result<()> {
        let Some(end) = &mut self.ends[at] else { return Ok(()) };
        let written = end.socket.write(&end.unsent)?;
        end.unsent.drain(..written);
        if end.unsent.is_empty() { self.watch(at) } else { Ok(()) }
    }

    /// An end whose other is full is not read; one that is full waits until it can be written to.
    fn watch(&self, at: usize) -> io::Result<()> {
        let unsent = |at: usize| self.ends[at].as_ref().is_some_and(|end| !end.unsent.is_empty());
        for at in [at, at ^ 1] {
            let Some(end) = &self.ends[at] else { continue };
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::OUT, unsent(at));
            flags.set(EventFlags::IN, !unsent(at ^ 1));
            epoll::modify(&self.epoll, &end.socket, EventData::new_u64(at as u64), flags)?;
        }
        Ok(())
    }

    fn close(&mut self, at: usize) {
        let pair = at & !1;
        if self.ends[pair].is_some() {
            (self.ends[pair], self.ends[pair + 1]) = (None, None);
            self.free.push(pair);
        }
    }
}
