//! A connection's requests, and the pace of their answers.
//!
//! A client that leaves while an answer pauses ends it within moments: whatever stands before a model must see its
//! cancellations arrive.

use std::io;
use std::io::Write;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::answer::{Answer, Asked, Script, answer};
use super::knobs::Knobs;
use super::text::name;
use crate::proto::http1::body::BodyDecoder;
use crate::proto::http1::date::imf_fixdate;
use crate::proto::http1::request::{self, HeadScanner, RequestHead};
use crate::proto::http1::{Reject, Version};
use crate::proto::openai::ApiError;
use crate::runtime::clock::unix_millis;

/// JSON bodies that are taken in.
const JSON_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is written at once when nothing is to be waited for.
const BURST_BYTES: usize = 16 * 1024;

/// Room for a read of a body. A vector that is only drained is read into by as many bytes as the head happened to be long.
const BODY_READ_BYTES: usize = 64 * 1024;

/// Room for any other read: it is held while an answer pauses, by every connection.
const READ_BYTES: usize = 1024;

/// How far behind its pace a stream may fall and still catch up; a client that stalled longer is not flooded.
const BEHIND_MAX: Duration = Duration::from_millis(50);

/// How long a refused client is listened to, so that the answer is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of next requests that are taken in while an answer is on its way.
const PIPELINED_BYTES_MAX: usize = 64 * 1024;

/// Serves requests until the connection ends.
pub(crate) async fn run(socket: TcpStream) {
    let mut connection = Connection { socket, bytes: Vec::new() };
    // However it ends, there is nobody to tell.
    while let Ok(true) = connection.serve().await {}
}

/// Waits. In the simulator's own runtime timers are cheap enough.
#[expect(clippy::disallowed_methods, reason = "not on the data path: this is the model that thinks")]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

struct Connection {
    socket: TcpStream,
    /// Read and not used yet.
    bytes: Vec<u8>,
}

/// What is remembered of a request while it is answered.
struct Manner {
    head_only: bool,
    chunked: bool,
    keep_alive: bool,
    request_id: String,
}

impl Connection {
    /// One request and its answer. Says whether another may follow.
    async fn serve(&mut self) -> io::Result<bool> {
        let length = match self.head().await? {
            Ok(length) => length,
            Err(reject) => return self.refuse(&reject).await,
        };
        let head: Vec<u8> = self.bytes.drain(..length).collect();
        let head = match request::parse(&head) {
            Ok(head) => head,
            Err(reject) => return self.refuse(&reject).await,
        };
        if head.expect_continue {
            self.socket.write_all(request::CONTINUE).await?;
        }
        let json = head.field("content-type").is_none_or(|kind| !kind.starts_with(b"multipart/"));
        let (body, length) = match self.body(&head, json).await? {
            Ok(body) => body,
            Err(reject) => return self.refuse(&reject).await,
        };
        let path = head.target.split('?').next().unwrap_or_default();
        let answer = match Knobs::read(&head) {
            Ok(knobs) => (answer(&Asked { method: head.method, path, body: &body, length, knobs }), knobs),
            Err(error) => (Answer::from(error), Knobs::default()),
        };
        let manner = Manner {
            head_only: head.method == "HEAD",
            chunked: head.version == Version::Http11,
            keep_alive: head.keep_alive,
            request_id: head.field("x-request-id").map_or_else(
                || format!("req_{}", name(&body)),
                |id| String::from_utf8_lossy(id).into_owned(),
            ),
        };
        drop(body);
        match answer {
            (Answer::Whole { status, content_type, body }, knobs) => {
                self.wait_until(Instant::now() + Duration::from_millis(knobs.first_ms)).await?;
                self.whole(&manner, status, content_type, &body).await?;
            }
            (Answer::Events(script), knobs) => {
                self.wait_until(Instant::now() + Duration::from_millis(knobs.first_ms)).await?;
                return Ok(self.events(&manner, &script, knobs).await?
                    && manner.keep_alive
                    && manner.chunked);
            }
        }
        Ok(manner.keep_alive)
    }

    async fn head(&mut self) -> io::Result<Result<usize, Reject>> {
        let mut scanner = HeadScanner::default();
        loop {
            match scanner.scan(&self.bytes) {
                Ok(Some(length)) => return Ok(Ok(length)),
                Ok(None) => {}
                Err(reject) => return Ok(Err(reject)),
            }
            self.read(READ_BYTES).await?;
        }
    }

    async fn read(&mut self, room: usize) -> io::Result<()> {
        self.bytes.reserve(room);
        match self.socket.read_buf(&mut self.bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The body, if it is to be kept, and its length.
    async fn body(
        &mut self,
        head: &RequestHead<'_>,
        keep: bool,
    ) -> io::Result<Result<(Vec<u8>, u64), Reject>> {
        let mut decoder = BodyDecoder::from(head.body);
        let (mut body, mut length) = (Vec::new(), 0);
        while !decoder.finished() {
            if self.bytes.is_empty() {
                self.read(BODY_READ_BYTES).await?;
            }
            let decoded = match decoder.decode_in_place(&mut self.bytes) {
                Ok(decoded) => decoded,
                Err(error) => return Ok(Err(error.into())),
            };
            length += decoded.payload as u64;
            if keep {
                body.extend_from_slice(&self.bytes[..decoded.payload]);
            }
            self.bytes.drain(..decoded.consumed);
            if body.len() > JSON_BYTES_MAX {
                return Ok(Err(Reject {
                    status: 413,
                    code: "body_too_large",
                    message: "the body is longer than 64 MiB",
                }));
            }
        }
        self.bytes.shrink_to(READ_BYTES);
        Ok(Ok((body, length)))
    }

    /// Waits, and takes note of a client that leaves meanwhile.
    async fn wait_until(&mut self, due: Instant) -> io::Result<()> {
        if due <= Instant::now() {
            return Ok(());
        }
        let over = sleep_until(due);
        tokio::pin!(over);
        while self.bytes.len() < PIPELINED_BYTES_MAX {
            tokio::select! {
                () = &mut over => return Ok(()),
                read = self.read(READ_BYTES) => read?,
            }
        }
        over.await;
        Ok(())
    }

    async fn whole(
        &mut self,
        manner: &Manner,
        status: u16,
        content_type: &str,
        body: &[u8],
    ) -> io::Result<()> {
        let mut out = manner.head(status, content_type);
        if status != 204 && status != 304 {
            out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if !manner.head_only && status != 204 && status != 304 {
            out.extend_from_slice(body);
        }
        self.socket.write_all(&out).await
    }

    /// Plays a script. Says whether it came to its end.
    async fn events(&mut self, manner: &Manner, script: &Script, knobs: Knobs) -> io::Result<bool> {
        let mut out = manner.head(200, "text/event-stream; charset=utf-8");
        if manner.chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(b"Cache-Control: no-cache\r\n\r\n");
        let mut event = Vec::new();
        let interval = Duration::from_millis(knobs.interval_ms);
        let mut due = Instant::now();
        let content = script.opening.len() as u64..script.opening.len() as u64 + script.count;
        for index in 0..content.end + script.closing.len() as u64 {
            if knobs.cut_after == Some(index) {
                self.socket.write_all(&out).await?;
                return Ok(false);
            }
            if knobs.stall_after == Some(index) {
                self.socket.write_all(&out).await?;
                return self.stall().await;
            }
            if knobs.interval_ms > 0 && content.contains(&index) {
                self.socket.write_all(&out).await?;
                out.clear();
                // From one due time to the next: a timer's lateness does not add up.
                due = (due + interval).max(Instant::now() - BEHIND_MAX);
                self.wait_until(due).await?;
            }
            event.clear();
            match index {
                _ if index < content.start => event.extend_from_slice(&script.opening[index as usize]),
                _ if index < content.end => (script.content)(index - content.start, &mut event),
                _ => event.extend_from_slice(&script.closing[(index - content.end) as usize]),
            }
            manner.chunk(&mut out, &event);
            if out.len() >= BURST_BYTES {
                self.socket.write_all(&out).await?;
                out.clear();
            }
        }
        if manner.chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.socket.write_all(&out).await?;
        Ok(true)
    }

    /// Says nothing more until the client leaves.
    async fn stall(&mut self) -> io::Result<bool> {
        loop {
            self.bytes.clear();
            self.read(READ_BYTES).await?;
        }
    }

    async fn refuse(&mut self, reject: &Reject) -> io::Result<bool> {
        let error = ApiError::from(*reject);
        let manner =
            Manner { head_only: false, chunked: true, keep_alive: false, request_id: "req_refused".into() };
        self.whole(&manner, error.status, "application/json", &error.body()).await?;
        self.linger().await
    }

    /// Reads what a refused client is still sending: to close on unread bytes is a reset, which may overtake the answer.
    async fn linger(&mut self) -> io::Result<bool> {
        self.socket.shutdown().await?;
        let over = sleep_until(Instant::now() + LINGER);
        tokio::pin!(over);
        loop {
            self.bytes.clear();
            tokio::select! {
                () = &mut over => return Ok(false),
                read = self.read(READ_BYTES) => read?,
            }
        }
    }
}

impl Manner {
    fn head(&self, status: u16, content_type: &str) -> Vec<u8> {
        let date = imf_fixdate(unix_millis() / 1000);
        let connection = if self.keep_alive { "" } else { "Connection: close\r\n" };
        let mut head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nX-Request-Id: {}\r\nOpenai-Version: 2020-10-01\r\n\
             Openai-Processing-Ms: 1\r\nX-Ratelimit-Limit-Requests: 10000\r\nX-Ratelimit-Remaining-Requests: 9999\r\n{connection}Date: ",
            if status < 400 { "OK" } else { "Simulated" },
            self.request_id,
        )
        .into_bytes();
        head.extend_from_slice(&date);
        head.extend_from_slice(b"\r\n");
        head
    }

    fn chunk(&self, out: &mut Vec<u8>, event: &[u8]) {
        if !self.chunked {
            out.extend_from_slice(event);
            return;
        }
        // Writing into a Vec cannot fail.
        let _ = write!(out, "{:x}\r\n", event.len());
        out.extend_from_slice(event);
        out.extend_from_slice(b"\r\n");
    }
}
