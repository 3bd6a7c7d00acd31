//! A connection on which one request follows the other's answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::answer::Answer;

/// An answer that takes longer is broken.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A connection to a peer.
pub struct Caller {
    socket: TcpStream,
    request: Vec<u8>,
    written: usize,
    answer: Answer,
}

impl Caller {
    /// Connects; nothing is asked yet.
    pub fn connect(addr: SocketAddr) -> Result<Caller, String> {
        let connect = || {
            let socket = TcpStream::connect(addr)?;
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            Ok(socket)
        };
        let socket = connect().map_err(|error: io::Error| format!("connect: {error}"))?;
        Ok(Caller { socket, request: Vec::new(), written: 0, answer: Answer::new() })
    }

    /// Its socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether the last answer was read to its end.
    pub fn ended(&self) -> bool {
        self.answer.ended()
    }

    /// The answer, as far as it was read.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Asks, after `head`, with `body`. Whether all of it is written; if not, [`Caller::flush`] goes on.
    pub fn ask(&mut self, head: &str, body: &[u8]) -> Result<bool, String> {
        self.request.clear();
        self.written = 0;
        self.answer = Answer::new();
        let (request, length) = (&mut self.request, body.len());
        write!(request, "{head}content-length: {length}\r\n\r\n").map_err(|error| error.to_string())?;
        request.extend_from_slice(body);
        self.flush()
    }

    /// Writes on. Whether all of the request is written.
    pub fn flush(&mut self) -> Result<bool, String> {
        while self.written < self.request.len() {
            match self.socket.write(&self.request[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(format!("a request was not taken: {error}")),
            }
        }
        Ok(true)
    }

    /// One read; `sink` gets what belongs to the answer's body. Whether there was something.
    pub fn read(
        &mut self,
        room: &mut [u8],
        sink: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<bool, String> {
        match self.socket.read(room) {
            Ok(0) => Err("closed within an answer".into()),
            Ok(read) => self.answer.read(&room[..read], sink).map(|()| true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(format!("an answer was not given: {error}")),
        }
    }

    /// Asks and reads the answer to its end.
    pub fn call(
        &mut self,
        (head, body): (&str, &[u8]),
        room: &mut [u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut asked = self.ask(head, body)?;
        while !self.ended() {
            if !self.read(room, &mut sink)? {
                let wanted = if asked { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
                let ready = poll(&mut [PollFd::new(&self.socket, wanted)], Some(&PATIENCE));
                if ready.map_err(|error| error.to_string())? == 0 {
                    return Err("no answer for a minute".into());
                }
                asked = self.flush()?;
            }
        }
        Ok(())
    }
}
