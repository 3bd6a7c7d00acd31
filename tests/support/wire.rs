//! One end of an HTTP/1.1 connection, in the hands of a test: exact bytes out, exact framing in. It reads no further
//! than it must judge, keeps every chunk's boundary, and tells a last chunk from a close and a close from a reset.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// How a body, or a connection, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The message says that it is whole: a last chunk, a full length, or no body at all.
    Whole,
    /// The peer closed (FIN) before the message was whole, or the message ends by close.
    Closed,
    /// The peer reset the connection.
    Reset,
}

/// A message's body, with the chunks it came in (one "chunk" when it was not chunked).
#[derive(Debug)]
pub struct Body {
    pub chunks: Vec<Vec<u8>>,
    pub trailers: Vec<String>,
    pub end: End,
}

impl Body {
    pub fn bytes(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

/// A start line and its fields, as they stood on the wire.
#[derive(Clone, Debug)]
pub struct Head {
    pub start: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    fn parse(raw: &[u8]) -> Self {
        let text = std::str::from_utf8(raw).expect("a head in ASCII");
        let mut lines = text.split("\r\n");
        let start = lines.next().expect("a start line").to_owned();
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon: {line:?}"));
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        Self { start, fields }
    }

    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {:?}", self.start));
        code.parse().unwrap_or_else(|_| panic!("no status: {:?}", self.start))
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// The only value of `name`; twice the same field is a failure.
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands {} times in {self:?}", all.len());
        all.first().copied()
    }

    pub fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    }
}

/// A connection and what was received but not yet read.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    end: Option<End>,
    patience: Duration,
}

impl Wire {
    pub fn connect(addr: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&addr, PATIENCE).expect("connect"))
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("nodelay");
        stream.set_write_timeout(Some(PATIENCE)).expect("write timeout");
        Self { stream, buffer: Vec::new(), end: None, patience: PATIENCE }
    }

    /// Waits for so long for what must come, instead of [`PATIENCE`].
    pub fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends all of it, as one segment where the kernel can.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("send");
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// The next head. Interim answers (1xx) are heads too: the caller asks again.
    #[track_caller]
    pub fn read_head(&mut self) -> Head {
        match self.try_read_head() {
            Ok(head) => head,
            Err(end) => panic!("{end:?} instead of a head; got {:?}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// The next head, or how the connection ended instead.
    #[track_caller]
    pub fn try_read_head(&mut self) -> Result<Head, End> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                let raw: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Ok(Head::parse(&raw[..at]));
            }
            if let Some(end) = self.fill() {
                return Err(end);
            }
        }
    }

    /// The body of a response with this head. Not for answers to HEAD.
    #[track_caller]
    pub fn read_body(&mut self, head: &Head) -> Body {
        match head.status() {
            100..=199 | 204 | 304 => Body { chunks: vec![], trailers: vec![], end: End::Whole },
            _ if head.is_chunked() => self.read_chunked(),
            _ => match head.get("content-length") {
                Some(length) => self.read_sized(length.parse().expect("a length")),
                None => self.read_to_close(),
            },
        }
    }

    /// The body of a request with this head: chunked, sized, or none (RFC 9112, section 6.3).
    #[track_caller]
    pub fn read_request_body(&mut self, head: &Head) -> Body {
        if head.is_chunked() {
            return self.read_chunked();
        }
        self.read_sized(head.get("content-length").map_or(0, |length| length.parse().expect("a length")))
    }

    /// A whole response: head and body.
    #[track_caller]
    pub fn read_answer(&mut self) -> (Head, Body) {
        let head = self.read_head();
        let body = self.read_body(&head);
        (head, body)
    }

    fn read_chunked(&mut self) -> Body {
        let mut body = Body { chunks: vec![], trailers: vec![], end: End::Whole };
        loop {
            match self.try_read_chunk() {
                Ok(Some(data)) => body.chunks.push(data),
                Ok(None) => loop {
                    match self.read_line() {
                        Ok(line) if line.is_empty() => return body,
                        Ok(line) => body.trailers.push(line),
                        Err(end) => return Body { end, ..body },
                    }
                },
                Err(end) => return Body { end, ..body },
            }
        }
    }

    fn read_sized(&mut self, length: usize) -> Body {
        let mut end = End::Whole;
        while self.buffer.len() < length {
            if let Some(e) = self.fill() {
                end = e;
                break;
            }
        }
        let have = length.min(self.buffer.len());
        let data: Vec<u8> = self.buffer.drain(..have).collect();
        Body { chunks: if data.is_empty() { vec![] } else { vec![data] }, trailers: vec![], end }
    }

    /// All that still comes until the peer ends the connection.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Body {
        let end = loop {
            if let Some(end) = self.fill() {
                break end;
            }
        };
        Body { chunks: vec![std::mem::take(&mut self.buffer)], trailers: vec![], end }
    }

    /// The data of the next chunk; a last chunk is a failure.
    #[track_caller]
    pub fn read_chunk(&mut self) -> Vec<u8> {
        match self.try_read_chunk() {
            Ok(Some(data)) => data,
            Ok(None) => panic!("the last chunk instead of another"),
            Err(end) => panic!("{end:?} instead of a chunk; got {:?}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// `None` is the last chunk's size line; its trailers are still to be read.
    #[track_caller]
    pub fn try_read_chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        let line = self.read_line()?;
        assert!(line.bytes().all(|b| b.is_ascii_hexdigit()), "a bare chunk size, not {line:?}");
        let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("a chunk size, not {line:?}"));
        if size == 0 {
            return Ok(None);
        }
        while self.buffer.len() < size + 2 {
            if let Some(end) = self.fill() {
                return Err(end);
            }
        }
        let mut data: Vec<u8> = self.buffer.drain(..size + 2).collect();
        assert!(data.ends_with(b"\r\n"), "a chunk ends with CRLF");
        data.truncate(size);
        Ok(Some(data))
    }

    /// Body bytes from as many chunks as it takes to have `want` of them.
    #[track_caller]
    pub fn read_chunks(&mut self, want: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < want {
            data.extend(self.read_chunk());
        }
        data
    }

    /// The end of a chunked message: the last chunk and no trailers.
    #[track_caller]
    pub fn read_last_chunk(&mut self) {
        let body = self.read_chunked();
        assert_eq!(body.end, End::Whole, "a last chunk");
        assert!(body.chunks.is_empty() && body.trailers.is_empty(), "nothing but the last chunk: {body:?}");
    }

    #[track_caller]
    fn read_line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8(line[..at].to_vec()).expect("a line in ASCII"));
            }
            if let Some(end) = self.fill() {
                return Err(end);
            }
        }
    }

    /// Exactly this many raw bytes, framing and all.
    #[track_caller]
    pub fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            if let Some(end) = self.fill() {
                panic!("{end:?} after {} of {count} bytes", self.buffer.len());
            }
        }
        self.buffer.drain(..count).collect()
    }

    /// Waits for the peer to end the connection; what came before is kept for a later read.
    #[track_caller]
    pub fn wait_closed(&mut self) -> End {
        loop {
            if let Some(end) = self.fill() {
                return end;
            }
        }
    }

    /// Whether the peer has ended the connection; what came before is kept for a later read.
    pub fn is_over(&mut self) -> bool {
        while let Ok(Some(Filled::Bytes)) = self.fill_within(Duration::from_millis(1)) {}
        self.end.is_some()
    }

    /// Whether nothing at all has arrived. It proves something only after an event that comes later than what must not come: see
    /// [`Edge::settle`](super::Edge::settle).
    pub fn is_silent(&mut self) -> bool {
        self.silent_for(Duration::from_millis(1))
    }

    /// Whether nothing at all arrives for this long. On a busy machine that proves nothing: it is for the pace of a client.
    pub fn silent_for(&mut self, quiet: Duration) -> bool {
        self.buffer.is_empty() && self.end.is_none() && matches!(self.fill_within(quiet), Ok(None))
    }

    /// Closes the sending side.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Closes with a reset instead of a FIN.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    }

    /// Closes both ways. Dropping does the same; the name says that it is meant.
    pub fn close(self) {}

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    #[track_caller]
    fn fill(&mut self) -> Option<End> {
        match self.fill_within(self.patience) {
            Ok(Some(Filled::Bytes)) => None,
            Ok(Some(Filled::End(end))) => Some(end),
            Ok(None) => panic!(
                "nothing came for {:?}; unread: {:?}",
                self.patience,
                String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(400)])
            ),
            Err(e) => panic!("read: {e}"),
        }
    }

    /// `None`: nothing came within `limit`.
    fn fill_within(&mut self, limit: Duration) -> std::io::Result<Option<Filled>> {
        if let Some(end) = self.end {
            return Ok(Some(Filled::End(end)));
        }
        self.stream.set_read_timeout(Some(limit))?;
        let started = Instant::now();
        let mut block = [0; 16 * 1024];
        loop {
            let end = match self.stream.read(&mut block) {
                Ok(0) => End::Closed,
                Ok(count) => {
                    self.buffer.extend_from_slice(&block[..count]);
                    return Ok(Some(Filled::Bytes));
                }
                Err(e) if e.kind() == ErrorKind::Interrupted && started.elapsed() < limit => continue,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    End::Reset
                }
                Err(e) => return Err(e),
            };
            self.end = Some(end);
            return Ok(Some(Filled::End(end)));
        }
    }
}

enum Filled {
    Bytes,
    End(End),
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
