//! The upstream's side of a connection: requests are read to their end and checked for their length, and answered by the
//! script of the stream that they name.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::script::Script;

/// The field that says which stream a request belongs to.
const STREAM_FIELD: &str = "x-bench-stream:";

/// A connection from a peer.
pub struct Upstream {
    socket: TcpStream,
    received: Vec<u8>,
    /// The stream that is being answered.
    pub stream: Option<usize>,
    /// It is watched for room to write into.
    pub blocked: bool,
    /// Bytes that the socket did not take.
    unsent: Vec<u8>,
}

/// A request that was received whole.
pub struct Asked {
    /// The stream it names.
    pub stream: usize,
    /// Bytes of its body.
    pub body: usize,
}

impl Upstream {
    /// A connection that was accepted.
    pub fn new(socket: TcpStream) -> io::Result<Upstream> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Upstream { socket, received: Vec::new(), stream: None, blocked: false, unsent: Vec::new() })
    }

    /// Its socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads what has come; a request when it is complete. `None` at the end of the connection.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<Option<Option<Asked>>> {
        loop {
            match self.socket.read(room) {
                Ok(0) => return Ok(None),
                Ok(read) => self.received.extend_from_slice(&room[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if let Some((asked, length)) = request(&self.received)? {
                self.received.drain(..length);
                return Ok(Some(Some(asked)));
            }
        }
        Ok(Some(None))
    }

    /// Writes; what does not fit is kept. Whether all of it was written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let written = match self.unsent.is_empty() {
            true => match self.socket.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                written => written?,
            },
            false => 0,
        };
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(self.unsent.is_empty())
    }

    /// Writes what was kept. Whether nothing is left.
    pub fn flush(&mut self) -> io::Result<bool> {
        let written = match self.socket.write(&self.unsent) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            written => written?,
        };
        self.unsent.drain(..written);
        Ok(self.unsent.is_empty())
    }

    /// Writes the whole of a script, each event in a write of its own. Whether all of it was written.
    pub fn write_all(&mut self, script: &Script) -> io::Result<bool> {
        self.write(&script.head)?;
        for number in 0..script.events {
            self.write(script.wire_of(number))?;
        }
        self.write(&script.end)
    }
}

/// A complete request at the beginning of `bytes`, and where it ends.
fn request(bytes: &[u8]) -> io::Result<Option<(Asked, usize)>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
    let broken = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("a request {what}: {head}"));
    let stream = field(STREAM_FIELD).and_then(|value| value.parse().ok());
    let stream = stream.ok_or_else(|| broken("without its stream"))?;
    let body = &bytes[end + 4..];
    let length = match (field("content-length:"), field("transfer-encoding:")) {
        (Some(length), None) => {
            let length = length.parse().map_err(|_| broken("without a length"))?;
            if body.len() < length {
                return Ok(None);
            }
            (length, length)
        }
        (None, Some("chunked")) => {
            if !body.ends_with(b"0\r\n\r\n") {
                return Ok(None);
            }
            (chunks(body), body.len())
        }
        _ => return Err(broken("whose end cannot be told")),
    };
    Ok(Some((Asked { stream, body: length.0 }, end + 4 + length.1)))
}

/// Payload bytes of a chunked body that is complete.
fn chunks(mut body: &[u8]) -> usize {
    let mut payload = 0;
    while let Some(at) = memchr::memchr(b'\n', body) {
        let size = std::str::from_utf8(&body[..at]).unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).unwrap_or_default();
        if size == 0 || body.len() < at + 1 + size + 2 {
            break;
        }
        payload += size;
        body = &body[at + 1 + size + 2..];
    }
    payload
}
