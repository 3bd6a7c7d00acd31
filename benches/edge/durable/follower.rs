//! A reader of an event stream. What the `data` of its events says, put together, has to be what was appended, byte for byte: a
//! server may make one event of each append, or one of several.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::super::answer::Answer;

/// A connection that follows a stream.
pub struct Follower {
    socket: TcpStream,
    answer: Answer,
    events: Events,
}

/// What has been read of the events.
struct Events {
    /// A line that has not ended.
    line: Vec<u8>,
    /// The event is the server's own.
    skipped: bool,
    /// Bytes that were read and found to be right.
    cursor: usize,
}

impl Follower {
    /// Connects and asks, by `head`, for what comes after the first `cursor` bytes.
    pub fn connect(addr: SocketAddr, head: &str, cursor: usize) -> Result<Follower, String> {
        let connect = || {
            let mut socket = TcpStream::connect(addr)?;
            socket.set_nodelay(true)?;
            socket.write_all(format!("{head}\r\n").as_bytes())?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = connect().map_err(|error: std::io::Error| format!("connect: {error}"))?;
        let events = Events { line: Vec::new(), skipped: false, cursor };
        Ok(Follower { socket, answer: Answer::endless(), events })
    }

    /// Its socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether the answer has begun.
    pub fn begun(&self) -> bool {
        self.answer.begun()
    }

    /// How much of what was appended it has read.
    pub fn cursor(&self) -> usize {
        self.events.cursor
    }

    /// One read, compared with what was appended.
    pub fn read(&mut self, room: &mut [u8], appended: &[u8]) -> Result<(), String> {
        match self.socket.read(room) {
            Ok(0) => Err("closed while it was followed".into()),
            Ok(read) => {
                let events = &mut self.events;
                self.answer.read(&room[..read], |piece| events.read(piece, appended))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Events {
    fn read(&mut self, mut piece: &[u8], appended: &[u8]) -> Result<(), String> {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            if self.line.is_empty() {
                self.take(line, appended)?;
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take(&whole, appended)?;
            }
            piece = rest;
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn take(&mut self, line: &[u8], appended: &[u8]) -> Result<(), String> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            self.skipped = false;
        } else if let Some(name) = line.strip_prefix(b"event:") {
            match name.trim_ascii() {
                b"control" => self.skipped = true,
                b"reset" | b"error" => return Err("an event that tells of something lost".into()),
                _ => {}
            }
        } else if let (false, Some(data)) = (self.skipped, line.strip_prefix(b"data:")) {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            if appended.get(self.cursor..self.cursor + data.len()) != Some(data) {
                let text = String::from_utf8_lossy(data);
                return Err(format!("behind byte {}, not what was appended: {text:.120}", self.cursor));
            }
            self.cursor += data.len();
        }
        Ok(())
    }
}
