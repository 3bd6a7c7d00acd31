//! The floor of durable streams: one log, and bytes that go into it and out of it. One thread, one epoll; it knows as much of HTTP
//! as it takes to find where a request ends, and nothing of names, offsets, producers or limits.
//!
//! What a turn of the loop has brought is appended to the file with one write and one `fdatasync`, and then acknowledged; a
//! follower gets it as one write; whoever reads the log gets it by `read` into a block and `write` from there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use slab::Slab;

const LISTENER: u64 = u64::MAX;

/// What is read at once, of a socket or of the file.
const BLOCK_BYTES: usize = 128 * 1024;

const ACKNOWLEDGED: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

const FOLLOWS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

struct Connection {
    socket: TcpStream,
    /// Of a request that is not complete.
    received: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
    /// It reads the log, from here on.
    reads: Option<usize>,
}

struct Floor {
    epoll: OwnedFd,
    connections: Slab<Connection>,
    followers: Vec<usize>,
    file: Option<File>,
    /// The log, where there is no file.
    memory: Vec<u8>,
    /// Bytes of the log, in the file or in memory.
    length: usize,
    block: Box<[u8]>,
    turn: Turn,
}

/// What a turn of the loop has brought.
#[derive(Default)]
struct Turn {
    /// Bytes to append.
    appended: Vec<u8>,
    /// The same as events.
    events: Vec<u8>,
    /// Who waits for an acknowledgement.
    asked: Vec<usize>,
    /// Appends so far.
    number: u64,
}

/// Keeps a log, in `folder` or in memory; ends with the process.
pub fn run(listener: &TcpListener, folder: Option<&Path>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let open =
        |folder: &Path| File::options().read(true).append(true).create(true).open(folder.join("floor.log"));
    let file = folder.map(open).transpose()?;
    let mut floor = Floor {
        epoll,
        connections: Slab::new(),
        followers: Vec::new(),
        length: file.as_ref().map_or(Ok(0), |file| file.metadata().map(|data| data.len() as usize))?,
        file,
        memory: Vec::new(),
        block: vec![0; BLOCK_BYTES].into_boxed_slice(),
        turn: Turn::default(),
    };
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    loop {
        match epoll::wait(&floor.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let (flags, at) = (event.flags, event.data.u64());
            if at == LISTENER {
                floor.accept(listener)?;
                continue;
            }
            let at = at as usize;
            let done = if flags.contains(EventFlags::OUT) { floor.send(at) } else { floor.receive(at) };
            if done.is_err() {
                floor.followers.retain(|follower| *follower != at);
                floor.turn.asked.retain(|asked| *asked != at);
                drop(floor.connections.try_remove(at));
            }
        }
        floor.commit()?;
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            epoll::add(&self.epoll, &socket, EventData::new_u64(entry.key() as u64), EventFlags::IN)?;
            entry.insert(Connection { socket, received: Vec::new(), unsent: Vec::new(), reads: None });
        }
        Ok(())
    }

    fn receive(&mut self, at: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
        let read = match connection.socket.read(&mut self.block)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        if connection.received.is_empty()
            && let Some(asked) = request(&self.block[..read])
        {
            answer(connection, &asked, &self.block, at, &mut self.turn, &mut self.followers)?;
        } else {
            connection.received.extend_from_slice(&self.block[..read]);
            let Some(asked) = request(&connection.received) else { return Ok(()) };
            let received = std::mem::take(&mut connection.received);
            answer(connection, &asked, &received, at, &mut self.turn, &mut self.followers)?;
        }
        if connection.reads.is_some() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", self.length);
            connection.socket.write_all(head.as_bytes())?;
            return self.send(at);
        }
        Ok(())
    }

    /// Makes durable what the turn has brought, and tells everybody.
    fn commit(&mut self) -> io::Result<()> {
        let turn = &mut self.turn;
        if turn.asked.is_empty() {
            return Ok(());
        }
        match &mut self.file {
            Some(file) => {
                file.write_all(&turn.appended)?;
                file.sync_data()?;
            }
            None => self.memory.extend_from_slice(&turn.appended),
        }
        self.length += turn.appended.len();
        turn.appended.clear();
        for at in turn.asked.drain(..) {
            // A connection that is gone is found out when it is read.
            let _ = self.connections[at].socket.write(ACKNOWLEDGED);
        }
        for at in &self.followers {
            let connection = &mut self.connections[*at];
            let blocked = !connection.unsent.is_empty();
            let written = if blocked { 0 } else { connection.socket.write(&turn.events).unwrap_or(0) };
            if written < turn.events.len() {
                connection.unsent.extend_from_slice(&turn.events[written..]);
                watch(&self.epoll, connection, *at, true)?;
            }
        }
        turn.events.clear();
        Ok(())
    }

    /// Writes what was kept, or more of the log.
    fn send(&mut self, at: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
        while !connection.unsent.is_empty() || connection.reads.is_some() {
            if let (true, Some(from)) = (connection.unsent.is_empty(), connection.reads) {
                let length = (self.length - from).min(self.block.len());
                let piece = match &self.file {
                    Some(file) => {
                        file.read_exact_at(&mut self.block[..length], from as u64)?;
                        &self.block[..length]
                    }
                    None => &self.memory[from..from + length],
                };
                let written = written(connection.socket.write(piece))?;
                // What was not taken is read again: it is still in the cache.
                connection.reads = Some(from + written).filter(|next| *next < self.length);
                if written < length {
                    return watch(&self.epoll, connection, at, true);
                }
                continue;
            }
            let written = written(connection.socket.write(&connection.unsent))?;
            connection.unsent.drain(..written);
            if !connection.unsent.is_empty() {
                return Ok(());
            }
        }
        watch(&self.epoll, connection, at, false)
    }
}

/// Does what a request asks for, as far as that does not wait for the turn's end.
fn answer(
    connection: &mut Connection,
    asked: &Asked,
    bytes: &[u8],
    at: usize,
    turn: &mut Turn,
    followers: &mut Vec<usize>,
) -> io::Result<()> {
    match asked.verb {
        Verb::Append => {
            let body = &bytes[asked.head..asked.end];
            turn.asked.push(at);
            turn.appended.extend_from_slice(body);
            turn.number += 1;
            if !followers.is_empty() {
                let front = format!("id: {:016}\ndata: ", turn.number);
                write!(turn.events, "{:x}\r\n{front}", front.len() + body.len() + 2)?;
                turn.events.extend_from_slice(body);
                turn.events.extend_from_slice(b"\n\n\r\n");
            }
        }
        Verb::Follow => {
            connection.socket.write_all(FOLLOWS)?;
            followers.push(at);
        }
        Verb::Read => connection.reads = Some(0),
    }
    Ok(())
}

fn written(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

/// Who has something to send waits for room, and is not read meanwhile.
fn watch(epoll: &OwnedFd, connection: &Connection, at: usize, blocked: bool) -> io::Result<()> {
    let flags = if blocked { EventFlags::OUT } else { EventFlags::IN };
    epoll::modify(epoll, &connection.socket, EventData::new_u64(at as u64), flags)?;
    Ok(())
}

enum Verb {
    Append,
    Follow,
    Read,
}

struct Asked {
    verb: Verb,
    /// Where the head ends, and where the body does.
    head: usize,
    end: usize,
}

/// A request, when it is complete.
fn request(bytes: &[u8]) -> Option<Asked> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let find = |text: &[u8]| memchr::memmem::find(&bytes[..head], text);
    let verb = match bytes[0] {
        b'P' => Verb::Append,
        _ if find(b"text/event-stream").is_some() => Verb::Follow,
        _ => Verb::Read,
    };
    let field = b"\r\ncontent-length: ";
    let length = find(field).map_or(0, |at| {
        let digits = bytes[at + field.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
    });
    (bytes.len() >= head + length).then_some(Asked { verb, head, end: head + length })
}
