//! A durable answer with a first client that does not read, and other readers that do.

use std::cell::RefCell;
use std::net::TcpStream;
use std::thread::{self, JoinHandle};

use super::redis::Redis;
use super::streams::{directory, remove};
use super::{Edge, End, SSE_HEAD, STREAM_BODY, Upstream, Wire, chunk, get, post, wait_while_it_goes_on};

/// Bytes of an answer: far more than all buffers on the way to a client that does not read.
pub const ANSWER_BYTES: usize = 8 << 20;

/// A chunk of the upstream's: events begin and end anywhere in it.
pub const CHUNK_BYTES: usize = 15_000;

/// The counter of answers that are read on without a client.
pub const ABANDONED: &str = "sedge_answers_abandoned_total";

/// The length of each event of [`events`], but for the last.
pub const EVENT_BYTES: usize = 200;

/// Events of 200 bytes, every one of which tells where it stands.
pub fn events(bytes: usize) -> Vec<u8> {
    let mut text: String = (0..bytes / EVENT_BYTES).map(|n| format!("data: {n:0192}\n\n")).collect();
    text += "data: [DONE]\n\n";
    text.into_bytes()
}

/// Where streams are kept, and what has to go afterwards.
pub enum Keep {
    Memory,
    Disk(String),
    Redis(Redis),
}

impl Keep {
    pub fn all() -> [Keep; 3] {
        [Keep::Memory, Keep::Disk(directory("first-client")), Keep::Redis(Redis::start())]
    }

    /// An edge in front of `upstream`, with `more` in its configuration: keys of `[streams]`, then other tables. Clients may stop
    /// reading for longer than any machine takes for a test, unless it says when they are given up.
    pub fn edge(&self, upstream: &Upstream, more: &str) -> Edge {
        let url = upstream.url();
        let (mut store, mut streams) = (String::new(), "[streams]\n".to_owned());
        match self {
            Keep::Memory => {}
            Keep::Disk(path) => store = format!("data_dir = \"{path}\"\n"),
            Keep::Redis(redis) => streams = redis.config(),
        }
        let patient = if more.contains("client_stall") { "" } else { "[timeouts]\nclient_stall = \"1h\"\n" };
        Edge::configured(&format!(
            "drain_timeout = \"1s\"\n{store}[[upstream]]\nname = \"a\"\nurl = \"{url}\"\n\n{streams}{more}\n{patient}"
        ))
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        if let Keep::Disk(path) = self {
            remove(path);
        }
    }
}

/// A durable answer that has begun.
pub struct Begun {
    pub client: Wire,
    pub peer: Wire,
    pub location: String,
}

/// Begins one at a client that has little room of its own.
pub fn begin(edge: &Edge, upstream: &Upstream) -> Begun {
    begin_with(edge, upstream, &post("/v1/chat/completions", &["Sedge-Durable: true"], STREAM_BODY))
}

pub fn begin_with(edge: &Edge, upstream: &Upstream, request: &[u8]) -> Begun {
    let stream = TcpStream::connect(edge.addr()).expect("connect");
    socket2::SockRef::from(&stream).set_recv_buffer_size(32 * 1024).expect("a small buffer");
    begin_on(Wire::new(stream), upstream, request)
}

/// The same for a client with whatever room it has.
pub fn begin_on(mut client: Wire, upstream: &Upstream, request: &[u8]) -> Begun {
    client.send(request);
    let mut peer = upstream.accept();
    let head = peer.read_head();
    peer.read_request_body(&head);
    peer.send(SSE_HEAD);
    let head = client.read_head();
    assert_eq!(head.status(), 200, "{head:?}");
    let location = head.get("location").expect("a location").to_owned();
    Begun { client, peer, location }
}

/// Writes `answer` as the upstream, as fast as it is taken; gives the connection back when all of it was.
pub fn pour(peer: Wire, answer: &[u8]) -> JoinHandle<Wire> {
    pour_chunks(peer, chunks(answer))
}

/// An answer in chunks, as an upstream sends it.
pub fn chunks(answer: &[u8]) -> Vec<u8> {
    answer.chunks(CHUNK_BYTES).flat_map(chunk).collect()
}

/// The same, where a busy machine has no time to make the chunks meanwhile.
pub fn pour_chunks(mut peer: Wire, wire: Vec<u8>) -> JoinHandle<Wire> {
    thread::spawn(move || {
        peer.send(wire);
        peer
    })
}

/// Another reader of the same answer, which asks for what there is until it has all that it wants.
pub struct Reader<'a> {
    edge: &'a Edge,
    location: &'a str,
    offset: String,
    pub got: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub fn new(edge: &'a Edge, location: &'a str) -> Self {
        Reader { edge, location, offset: "-1".into(), got: Vec::new() }
    }

    /// Says whether the stream is closed, and all of it was read.
    pub fn read(&mut self) -> bool {
        let target = format!("{}?offset={}", self.location, self.offset);
        let (head, body) = self.edge.ask(&get(&target, &["Connection: close"]));
        assert_eq!((head.status(), body.end), (200, End::Whole), "{head:?}");
        self.got.extend(body.bytes());
        self.offset = head.get("stream-next-offset").expect("an offset").to_owned();
        head.has("stream-closed")
    }

    pub fn read_until(&mut self, bytes: usize) {
        self.read_while("another reader has it", |reader, _| reader.got.len() >= bytes);
    }

    pub fn read_to_end(mut self) -> Vec<u8> {
        self.read_while("the stream is closed, and read", |_, is_closed| is_closed);
        self.got
    }

    /// Reads on as long as more comes, until it is so.
    fn read_while(&mut self, what: &str, so: impl Fn(&Self, bool) -> bool) {
        let reader = RefCell::new(self);
        let done = || reader.borrow().got.len();
        wait_while_it_goes_on(what, done, || {
            let mut reader = reader.borrow_mut();
            let is_closed = reader.read();
            so(&reader, is_closed)
        });
    }
}

/// What still comes to the client, and how it ends.
pub fn rest(client: &mut Wire) -> (Vec<u8>, End) {
    let mut got = Vec::new();
    loop {
        match client.try_read_chunk() {
            Ok(Some(part)) => got.extend(part),
            Ok(None) => {
                assert_eq!(client.read_exact(2), b"\r\n");
                return (got, End::Whole);
            }
            Err(end) => return (got, end),
        }
    }
}

#[track_caller]
pub fn assert_same(got: &[u8], sent: &[u8]) {
    let differs = got.iter().zip(sent).position(|(one, other)| one != other);
    assert!(got == sent, "{} bytes of {}; the first that differs: {differs:?}", got.len(), sent.len());
}
