//! The simulator over its own socket.

#![allow(
    clippy::disallowed_methods,
    reason = "the bans are for the data path; this is the other side of the wire"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::Simulator;

fn start(workers: usize) -> Simulator {
    Simulator::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), workers).unwrap()
}

/// Threads that were not listening yet when they were told to end never heard of it, and the process hung in a join.
#[test]
fn every_thread_ends_even_if_it_has_hardly_begun() {
    for _ in 0..50 {
        let simulator = start(4);
        let address = simulator.addr();
        drop(simulator);
        assert!(TcpStream::connect(address).is_err(), "still listening");
    }
}

const STREAM: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's end of a connection.
struct Client {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn new(simulator: &Simulator) -> Client {
        let socket = TcpStream::connect(simulator.addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { socket, received: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    /// Everything up to and including `mark`.
    fn until(&mut self, mark: &str) -> String {
        let mut room = [0; 4096];
        loop {
            if let Some(at) = memchr::memmem::find(&self.received, mark.as_bytes()) {
                let rest = self.received.split_off(at + mark.len());
                return String::from_utf8(std::mem::replace(&mut self.received, rest)).unwrap();
            }
            match self.socket.read(&mut room).unwrap() {
                0 => panic!("no {mark:?} in {:?}", String::from_utf8_lossy(&self.received)),
                n => self.received.extend_from_slice(&room[..n]),
            }
        }
    }

    /// Everything until the connection is closed; a reset is an error.
    fn rest(mut self) -> String {
        self.socket.read_to_end(&mut self.received).unwrap();
        String::from_utf8(self.received).unwrap()
    }
}

fn post(path: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

fn chat(fields: &str) -> String {
    post("/v1/chat/completions", fields, STREAM)
}

const LAST: &str = "\r\n0\r\n\r\n";

#[test]
fn pipelined_requests_are_answered_in_order() {
    let simulator = start(1);
    let mut client = Client::new(&simulator);
    let models = "GET /v1/models/sim-small HTTP/1.1\r\nHost: a\r\nX-Request-Id: two\r\n\r\n";
    client.send(
        [&chat("X-Request-Id: one\r\nx-sim-interval-ms: 1\r\n"), models, &chat("Connection: close\r\n")]
            .concat(),
    );
    let first = client.until(LAST);
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && first.contains("X-Request-Id: one\r\n"));
    assert!(first.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"));
    assert!(client.until("\"sedge-simulator\"}").contains("X-Request-Id: two\r\n"));
    let last = client.rest();
    assert!(last.contains("Connection: close\r\n") && last.ends_with(LAST));
}

#[test]
fn the_same_request_gets_the_same_body_on_any_connection() {
    let simulator = start(2);
    let body = || {
        let mut client = Client::new(&simulator);
        client.send(chat(""));
        client.until("\r\n\r\n");
        client.until(LAST)
    };
    let first = body();
    assert!((0..8).all(|_| body() == first));
}

#[test]
fn every_event_is_a_chunk_of_its_own() {
    let simulator = start(1);
    let mut client = Client::new(&simulator);
    client.send(chat("x-sim-events: 5\r\n"));
    client.until("\r\n\r\n");
    let body = client.until(LAST);
    let mut rest = body.as_str();
    let mut events = 0;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        let event = &after[..size];
        assert!(event.starts_with("data: ") && event.find("\n\n") == Some(size - 2), "{event:?}");
        assert_eq!(&after[size..size + 2], "\r\n");
        (rest, events) = (&after[size + 2..], events + 1);
    }
    assert_eq!(events, 1 + 5 + 2, "role, content, finish, [DONE]");
}

#[test]
fn a_cut_stream_has_no_last_chunk_and_the_connection_ends() {
    let simulator = start(1);
    for (after, events) in [(0, 0), (1, 1), (4, 4), (8, 8), (9, 9)] {
        let mut client = Client::new(&simulator);
        client.send(chat(&format!("x-sim-events: 7\r\nx-sim-cut-after: {after}\r\n")));
        let all = client.rest();
        assert_eq!(all.matches("data: ").count(), events);
        assert!(!all.ends_with(LAST), "cut after {after}");
    }
}

#[test]
fn a_stalled_stream_stays_open_until_its_client_leaves() {
    let simulator = start(1);
    let mut client = Client::new(&simulator);
    client.send(chat("x-sim-stall-after: 3\r\n"));
    for _ in 0..3 {
        client.until("\n\n\r\n");
    }
    client.socket.set_nonblocking(true).unwrap();
    assert_eq!(client.socket.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    client.socket.set_nonblocking(false).unwrap();
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "");
}

#[test]
fn a_client_that_leaves_in_a_pause_is_noticed_at_once() {
    let simulator = start(1);
    for knob in ["x-sim-first-ms: 3600000\r\n", "x-sim-interval-ms: 3600000\r\n"] {
        let mut client = Client::new(&simulator);
        client.send(chat(knob));
        if knob.contains("interval") {
            client.until("\"role\"");
        }
        client.socket.shutdown(Shutdown::Write).unwrap();
        // The end of the connection, long before the end of the pause.
        assert!(!client.rest().contains("[DONE]"));
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let simulator = start(1);
    let mut client = Client::new(&simulator);
    let request = chat("Expect: 100-continue\r\nConnection: close\r\n");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    client.send(format!("{head}\r\n\r\n"));
    assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(body);
    assert!(client.rest().ends_with(LAST));
}

#[test]
fn an_upload_is_counted_and_its_bytes_may_come_in_chunks() {
    let simulator = start(1);
    let mut client = Client::new(&simulator);
    let head = "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n";
    client.send(format!("{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000));
    for _ in 0..20 {
        client.send(&chunk);
    }
    client.send("0\r\n\r\n");
    assert!(client.rest().contains("\"bytes\":2000000,"));
}

/// The answer was lost to a reset, since the connection was closed on bytes that nobody had read.
#[test]
fn a_refused_client_that_is_still_sending_reads_why() {
    let simulator = start(1);
    let mut client = Client::new(&simulator);
    client.send("POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n");
    client.until("400");
    client.send("x".repeat(1 << 20));
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert!(client.rest().contains("invalid_request"));
}

#[test]
fn errors_have_the_shape_of_the_api() {
    let simulator = start(1);
    let asked = [
        ("x-sim-status: 429\r\n", "/v1/chat/completions", STREAM, 429, "simulated"),
        ("x-sim-events: many\r\n", "/v1/chat/completions", STREAM, 400, "invalid_knob"),
        ("", "/v1/chat/completions", "{", 400, "invalid_json"),
        ("", "/v1/nothing", STREAM, 404, "unknown_url"),
    ];
    for (fields, path, body, status, code) in asked {
        let mut client = Client::new(&simulator);
        client.send(post(path, &format!("{fields}Connection: close\r\n"), body));
        let answer = client.rest();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["error"]["code"], code);
        assert_eq!(body["error"].as_object().unwrap().len(), 4);
    }
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let simulator = start(1);
    let ask = |method: &str| {
        let mut client = Client::new(&simulator);
        client.send(format!("{method} /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        client.rest()
    };
    let (head, get) = (ask("HEAD"), ask("GET"));
    let length =
        |answer: &str| answer.lines().find(|line| line.starts_with("Content-Length: ")).unwrap().to_owned();
    assert!(head.ends_with("\r\n\r\n") && get.ends_with('}'));
    assert_eq!(length(&head), length(&get));
}
