//! What the black-box tests stand on: the real binary as a child process ([`edge`]), both ends of a connection held in
//! the test's own hands ([`wire`]), and an upstream that does exactly what the test says, when it says so ([`upstream`]);
//! for what takes many, a [`crowd`]; what is counted, under [`callgrind`].
//!
//! A test holds the client's socket and the upstream's socket and moves them in turn, on one thread. So "this segment
//! reached the client before the upstream sent the next one" needs no clock: had the edge kept it back, the
//! read would never have come home. Every wait ends after [`PATIENCE`] with a panic that says what was missing.
//!
//! No test depends on how fast the machine is. To show that something does not come, a test lets the edge go through its
//! sockets once more ([`Edge::settle`]), or waits for a later event of the same kind, and looks then; a limit that must not pass
//! meanwhile is an hour, one that must pass is waited for. A time is compared only with the least that it must be.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test crate uses its own part of this module"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans are for the edge's data path; this is the other side of the wire"
)]

pub mod base64;
pub mod batch;
pub mod bytes;
pub mod callgrind;
pub mod chaos;
pub mod config;
pub mod crowd;
pub mod edge;
pub mod kept;
pub mod limits;
pub mod names;
pub mod redis;
pub mod streams;
pub mod subscriptions;
pub mod upstream;
pub mod wire;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use crowd::{Crowd, Probe};
pub use edge::Edge;
pub use upstream::Upstream;
pub use wire::{Body, End, Head, Wire};

/// How long a test waits for something that must come. Generous: two cores may run everything at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The body of a request for a stream.
pub const STREAM_BODY: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

/// The head of an upstream's streamed answer.
pub const SSE_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The same of one that closes its connection behind it: the next request comes on a new one, for certain.
pub const CLOSING_SSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";

/// The counter of how relayed requests ended.
pub const OUTCOMES: &str = "sedge_request_outcomes_total";

/// The gauge of streams that are being relayed.
pub const STREAMS: &str = "sedge_streams_open";

/// A last chunk without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A `POST` with a JSON body; `fields` are whole lines without their CRLF.
pub fn post(path: &str, fields: &[&str], body: &str) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    for field in fields {
        request += field;
        request += "\r\n";
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    request.into_bytes()
}

/// A `GET`; `fields` are whole lines without their CRLF.
pub fn get(path: &str, fields: &[&str]) -> Vec<u8> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
    for field in fields {
        request += field;
        request += "\r\n";
    }
    request += "\r\n";
    request.into_bytes()
}

/// The request for a stream that most tests begin with.
pub fn stream_request() -> Vec<u8> {
    post("/v1/chat/completions", &[], STREAM_BODY)
}

/// One chunk on the wire.
pub fn chunk(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    let mut wire = format!("{:x}\r\n", data.len()).into_bytes();
    wire.extend_from_slice(data);
    wire.extend_from_slice(b"\r\n");
    wire
}

/// A whole answer with a length.
pub fn answer(status: &str, fields: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut wire = format!("HTTP/1.1 {status}\r\n");
    for field in fields {
        wire += field;
        wire += "\r\n";
    }
    wire += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut wire = wire.into_bytes();
    wire.extend_from_slice(body);
    wire
}

/// Asks again and again until it is so; gives back how long that took.
#[track_caller]
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        look_again();
    }
    started.elapsed()
}

/// Asks again and again until it is so, as long as `done` goes on: for what takes many steps, of which each must come in time.
#[track_caller]
pub fn wait_while_it_goes_on<T: PartialEq>(
    what: &str,
    mut done: impl FnMut() -> T,
    mut so: impl FnMut() -> bool,
) {
    let (mut last, mut started) = (done(), Instant::now());
    while !so() {
        let now = done();
        if now != last {
            (last, started) = (now, Instant::now());
        }
        assert!(started.elapsed() < PATIENCE, "nothing new within {PATIENCE:?}: {what}");
        look_again();
    }
}

/// A moment between two looks, which is left to those who are waited for.
pub fn look_again() {
    std::thread::sleep(Duration::from_millis(1));
}

/// An address where nobody listens, now and for as long as this process lives: the port is taken, so that no other test gets it.
pub fn nobody() -> SocketAddr {
    let (socket, addr) = reserved();
    std::mem::forget(socket);
    addr
}

/// A port that is kept from everybody who asks for any, and can be listened at by whoever knows it, again and again.
pub fn reserved() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket()).expect("an IP address");
    (socket, addr)
}

/// What comes of it, and how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
}

/// Sends `request` to the edge and takes it at the upstream: both ends, and the request as the upstream saw it.
pub fn relayed(edge: &Edge, upstream: &Upstream, request: &[u8]) -> (Wire, Wire, Head, Body) {
    let mut client = edge.connect();
    client.send(request);
    let mut peer = upstream.accept();
    let head = peer.read_head();
    let body = peer.read_request_body(&head);
    (client, peer, head, body)
}

/// A stream that has begun: the request is at the upstream, the answer's head at the client.
pub fn streaming(edge: &Edge, upstream: &Upstream) -> (Wire, Wire, Head) {
    let (mut client, mut peer, ..) = relayed(edge, upstream, &stream_request());
    peer.send(SSE_HEAD);
    let head = client.read_head();
    assert_eq!(head.status(), 200, "{head:?}");
    (client, peer, head)
}

/// Checks an error made by the edge: OpenAI's shape with all four keys; gives back its `code`.
#[track_caller]
pub fn error_code(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body)
        .unwrap_or_else(|e| panic!("not JSON ({e}): {:?}", String::from_utf8_lossy(body)));
    let error = value["error"].as_object().unwrap_or_else(|| panic!("no error object: {value}"));
    let mut keys: Vec<_> = error.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["code", "message", "param", "type"], "{value}");
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{value}");
    assert!(error["type"].as_str().is_some_and(|t| !t.is_empty()), "{value}");
    assert!(error["code"].is_string() || error["code"].is_null(), "{value}");
    error["code"].as_str().unwrap_or_default().to_owned()
}

/// The `code` of an in-stream error event: `data: {"error":...}` and a blank line, nothing else.
#[track_caller]
pub fn error_event_code(event: &[u8]) -> String {
    let text = String::from_utf8_lossy(event);
    let json = text
        .strip_prefix("data: ")
        .and_then(|rest| rest.strip_suffix("\n\n"))
        .unwrap_or_else(|| panic!("not one data event: {text:?}"));
    assert!(!json.contains('\n'), "more than one line: {text:?}");
    error_code(json.as_bytes())
}
