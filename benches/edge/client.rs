//! The client's side of a connection: a request, and an answer that is compared byte for byte with what the upstream said.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::answer::Answer;
use super::script::Script;

/// A comment line that keeps a silent stream alive; it may stand between two events.
const HEARTBEAT: &[u8] = b":\n";

/// A connection to a peer.
pub struct Client {
    io: Transport,
    /// The request, and how much of it was written.
    request: Vec<u8>,
    written: usize,
    answer: Answer,
    /// Payload bytes that were read and found to be right.
    pub cursor: usize,
    /// When the request was begun; 0 before.
    pub asked_at: u64,
    /// When the first byte of the answer came; 0 before.
    pub first_at: u64,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<ClientConnection>, TcpStream),
}

impl Client {
    /// Connects. The kernel completes the connection before the peer has accepted it.
    pub fn connect(
        addr: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        request: Vec<u8>,
    ) -> io::Result<Client> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let io = match tls {
            None => Transport::Plain(socket),
            Some(config) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Transport::Tls(Box::new(session), socket)
            }
        };
        Ok(Client { io, request, written: 0, answer: Answer::new(), cursor: 0, asked_at: 0, first_at: 0 })
    }

    /// Its socket.
    pub fn socket(&self) -> &TcpStream {
        match &self.io {
            Transport::Plain(socket) | Transport::Tls(_, socket) => socket,
        }
    }

    /// Begins the request anew.
    pub fn ask_again(&mut self) {
        self.written = 0;
        self.answer = Answer::new();
        self.cursor = 0;
        self.asked_at = 0;
        self.first_at = 0;
    }

    /// Writes on the request, as far as the socket takes it. Whether all of it is written.
    pub fn write(&mut self) -> io::Result<bool> {
        while self.written < self.request.len() {
            let rest = &self.request[self.written..];
            let written = match &mut self.io {
                Transport::Plain(socket) => socket.write(rest),
                Transport::Tls(session, socket) => rustls::Stream::new(session.as_mut(), socket).write(rest),
            };
            match written {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether all of the request is written.
    pub fn has_asked(&self) -> bool {
        self.written == self.request.len()
    }

    /// Whether the head of the answer was read.
    pub fn begun(&self) -> bool {
        self.answer.begun()
    }

    /// Whether the answer was read to its end, and nothing of it was missing.
    pub fn ended(&self) -> bool {
        self.answer.ended()
    }

    /// One read, compared with the script. Whether there may be more to read at once.
    pub fn read(&mut self, room: &mut [u8], script: &Script) -> Result<bool, String> {
        let (read, more) = match &mut self.io {
            Transport::Plain(socket) => {
                let read = socket.read(room);
                let more = read.as_ref().is_ok_and(|&read| read == room.len());
                (read, more)
            }
            Transport::Tls(session, socket) => {
                (rustls::Stream::new(session.as_mut(), socket).read(room), true)
            }
        };
        match read {
            Ok(0) => Err("closed within an answer".into()),
            Ok(read) => {
                let cursor = &mut self.cursor;
                self.answer.read(&room[..read], |piece| compare(piece, cursor, script))?;
                if self.answer.ended() && self.cursor != script.payload.len() {
                    return Err(format!("ended after {} bytes of {}", self.cursor, script.payload.len()));
                }
                Ok(more && !self.answer.ended())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Holds `piece` against what the script has at `cursor`.
fn compare(mut piece: &[u8], cursor: &mut usize, script: &Script) -> Result<(), String> {
    loop {
        let expected = script.payload.get(*cursor..*cursor + piece.len()).unwrap_or_default();
        if expected == piece {
            *cursor += piece.len();
            return Ok(());
        }
        if cursor.is_multiple_of(script.event)
            && let Some(rest) = piece.strip_prefix(HEARTBEAT)
        {
            piece = rest;
            continue;
        }
        let text = String::from_utf8_lossy(piece);
        return Err(format!("at byte {cursor}, not what the upstream said: {text:.120}"));
    }
}
