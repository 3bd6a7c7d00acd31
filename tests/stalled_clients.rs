//! A client that does not read costs one buffer: its upstream is not read meanwhile, memory does not grow, and after
//! `client_stall` it is gone. One that reads on in time has lost nothing.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use support::crowd::raise_descriptors;
use support::{
    Edge, End, LAST_CHUNK, OUTCOMES, SSE_HEAD, Upstream, Wire, chunk, config, get, post, reserved,
    stream_request, streaming, wait_until, wait_while_it_goes_on,
};

/// Clients that do not read.
const CLIENTS: usize = 1000;

/// So many more read on in time.
const RESUMING: usize = 5;

/// Bytes that the edge may hold for each: a block of 16 KiB, the task, and some room.
const BYTES_EACH: u64 = 64 * 1024;

const STALL: Duration = Duration::from_secs(8);

/// How long an upstream must be unable to write to say that it is blocked, which it says again when it was not.
const QUIET: Duration = Duration::from_millis(500);

/// Bytes of the whole stream: far more than all buffers on the way.
const STREAM_BYTES: usize = 16 << 20;

/// The stream, every byte of which tells where it stands.
fn events() -> Vec<u8> {
    (0..)
        .map(|n| format!("data: {n:0250}\n\n"))
        .scan(0, |bytes, event| {
            *bytes += event.len();
            (*bytes <= STREAM_BYTES).then_some(event)
        })
        .chain(["data: [DONE]\n\n".to_owned()])
        .collect::<String>()
        .into_bytes()
}

/// Writes as fast as the edge reads. Tells each time it cannot; ends with its stream, or with its client.
fn pour(mut stream: TcpStream, wire: &[u8], blocked: &std::sync::mpsc::Sender<usize>) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(&stream);
    socket.set_send_buffer_size(64 * 1024)?;
    stream.set_write_timeout(Some(QUIET))?;
    let (mut sent, mut told) = (0, usize::MAX);
    while sent < wire.len() {
        match stream.write(&wire[sent..]) {
            Ok(count) => sent += count,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if told != sent {
                    told = sent;
                    let _ = blocked.send(sent);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// An upstream that answers every connection with the whole stream. Each message is what one had sent when it was blocked.
fn pouring(wire: Vec<u8>, ended: &Arc<AtomicUsize>) -> (String, Receiver<usize>) {
    let (socket, addr) = reserved();
    // They come faster than a busy machine accepts them.
    socket.listen(2 * CLIENTS as i32).expect("listen");
    let listener = TcpListener::from(socket);
    let url = format!("http://{addr}");
    let (blocked, reports) = channel();
    let (wire, ended) = (Arc::new(wire), Arc::clone(ended));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut peer = Wire::new(stream);
            let (blocked, wire, ended) = (blocked.clone(), Arc::clone(&wire), Arc::clone(&ended));
            thread::spawn(move || {
                // A client that leaves at once may be gone before its request was sent on.
                if let Ok(head) = peer.try_read_head() {
                    peer.read_request_body(&head);
                    let stream = peer.stream().try_clone().expect("a handle");
                    let _ = pour(stream, &wire, &blocked);
                }
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    (url, reports)
}

/// A client that has asked for a stream.
fn client(edge: &Edge) -> TcpStream {
    let mut stream = TcpStream::connect(edge.addr()).expect("connect");
    stream.write_all(&stream_request()).expect("send");
    stream
}

#[test]
fn a_client_that_does_not_read_costs_a_buffer_and_then_goes() {
    raise_descriptors();
    let events = events();
    let mut wire = SSE_HEAD.to_vec();
    events.chunks(16 * 1024 - 100).for_each(|part| wire.extend(chunk(part)));
    wire.extend_from_slice(LAST_CHUNK);
    let total = wire.len();

    let ended = Arc::new(AtomicUsize::new(0));
    let (url, blocked) = pouring(wire, &ended);
    let stall = format!("{}s", STALL.as_secs());
    let edge = Edge::configured(&config::timeouts(&url, &[("client_stall", &stall), ("connect", "1h")]));
    // One stream before counting: what a process needs once is no client's.
    drop(client(&edge));
    edge.wait_metric(OUTCOMES, &["outcome=\"client_gone\""], 1.0);
    let before = edge.resident_bytes();

    let wait_blocked = || blocked.recv_timeout(support::PATIENCE).expect("a blocked upstream");
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| client(&edge)).collect();
    let sent: Vec<usize> = (0..CLIENTS).map(|_| wait_blocked()).collect();
    let grown = edge.resident_bytes().saturating_sub(before);
    let most = sent.iter().max().expect("upstreams");
    eprintln!("{CLIENTS} clients: upstreams blocked after {most} bytes; memory grew by {grown} bytes");
    assert!(*most < total / 2, "the edge read {most} of {total} bytes for a client that reads nothing");
    assert!(grown < BYTES_EACH * CLIENTS as u64, "grew by {grown} bytes");

    // Those who come after them and read on get every byte.
    let resuming: Vec<TcpStream> = (0..RESUMING).map(|_| client(&edge)).collect();
    wait_blocked();
    let readers: Vec<_> =
        resuming.into_iter().map(|stream| thread::spawn(move || read_all(stream))).collect();
    for reader in readers {
        let got = reader.join().expect("a reader");
        assert!(got == events, "{} of {} bytes, or others", got.len(), events.len());
    }
    let stalled = || edge.metric(OUTCOMES, &["outcome=\"client_stalled\""]);
    wait_while_it_goes_on("all others leave", stalled, || stalled() == CLIENTS as f64);
    assert_eq!(edge.metric(OUTCOMES, &["outcome=\"finished\""]), RESUMING as f64);
    wait_until("all upstreams are let go", || ended.load(Ordering::Relaxed) == CLIENTS + RESUMING + 1);
    // What was cut does not look finished.
    for stream in clients {
        let mut client = Wire::new(stream);
        let head = client.read_head();
        assert_ne!(client.read_body(&head).end, End::Whole);
    }
}

fn read_all(stream: TcpStream) -> Vec<u8> {
    let mut client = Wire::new(stream);
    // A thousand others are being let go.
    client.be_patient(support::PATIENCE * 3);
    let head = client.read_head();
    let body = client.read_body(&head);
    assert_eq!(body.end, End::Whole);
    body.bytes()
}

#[test]
fn an_event_without_a_boundary_passes_at_flat_memory() {
    const BYTES: usize = 8 << 20;
    // As chunks of 64 KiB, and as a single one.
    for size in [64 * 1024, BYTES] {
        let upstream = Upstream::listen();
        let edge = Edge::to(&upstream);
        let (mut client, mut peer, _) = streaming(&edge, &upstream);
        peer.send(chunk("data: warm\n\n"));
        assert_eq!(client.read_chunk(), b"data: warm\n\n");
        let before = edge.resident_bytes();
        let writer = thread::spawn(move || {
            peer.send(chunk("data: "));
            let part = chunk("x".repeat(size));
            (0..BYTES / size).for_each(|_| peer.send(&part));
            peer.send(chunk("\n\ndata: [DONE]\n\n"));
            peer.send(LAST_CHUNK);
        });
        let mut got = 0;
        while got < 6 + BYTES + 2 + 14 {
            got += client.read_chunk().len();
        }
        client.read_last_chunk();
        writer.join().expect("the upstream");
        let grown = edge.peak_bytes().saturating_sub(before);
        eprintln!("an event of {BYTES} bytes in chunks of {size}: memory grew by {grown} bytes");
        assert!(grown < 1 << 20, "grew by {grown} bytes");
        edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 1.0);
    }
}

/// A stream whose client has stopped reading, at an edge with these limits.
fn blocked_stream(toml: impl Fn(&str) -> String) -> (Edge, TcpStream, Receiver<usize>) {
    let wire = [SSE_HEAD.to_vec(), chunk("data: x\n\n".repeat(1 << 20))].concat();
    let (url, blocked) = pouring(wire, &Arc::default());
    let edge = Edge::configured(&toml(&url));
    let client = client(&edge);
    blocked.recv_timeout(support::PATIENCE).expect("a blocked upstream");
    (edge, client, blocked)
}

/// The wheel fires once for a limit. When that was the total of a stream whose client did not read, the last words waited
/// behind what was unwritten, and nothing was left that would ever have ended the wait.
#[test]
fn the_total_ends_a_stream_that_nobody_reads() {
    let (edge, _client, _blocked) =
        blocked_stream(|url| config::timeouts(url, &[("total", "3s"), ("client_stall", "8s")]));
    edge.wait_metric(OUTCOMES, &["outcome=\"timeout_total\""], 1.0);
    edge.wait_metric("sedge_connections_open", &[], 0.0);
}

#[test]
fn a_drain_ends_a_stream_that_nobody_reads() {
    let (mut edge, _client, _blocked) =
        blocked_stream(|url| config::drain_timeout(url, "1s") + "[timeouts]\nclient_stall = \"1m\"\n");
    edge.signal(rustix::process::Signal::TERM);
    assert_eq!(edge.wait_exit().code(), Some(0));
    let log = edge.stdout().wait_for("\"outcome\":");
    assert!(log.contains("drained"), "{log}");
}

/// Answers of our own are waited for no longer than an upstream's.
#[test]
fn a_client_that_does_not_read_our_own_answers_goes_too() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::timeouts(&upstream.url(), &[("client_stall", "1s")]));
    for request in [get("/", &[]), get("/livez", &[]), get("/none", &[]), post("/v1/x", &["Expect: no"], "")]
    {
        let client = edge.connect();
        let many = request.repeat((64 << 10) / request.len());
        // Until nothing moves any more in either direction, or the edge has had enough.
        edge.fill(client.stream(), &many, usize::MAX);
        edge.wait_metric("sedge_connections_open", &[], 0.0);
    }
}

#[test]
fn a_slow_reader_is_not_a_stalled_one() {
    let payload = "data: x\n\n".repeat(2 << 20) + "data: [DONE]\n\n";
    let wire = [SSE_HEAD.to_vec(), chunk(&payload), LAST_CHUNK.to_vec()].concat();
    let (url, blocked) = pouring(wire, &Arc::default());
    let edge = Edge::configured(&config::timeouts(&url, &[("client_stall", "4s")]));
    let mut stream = client(&edge);
    blocked.recv_timeout(support::PATIENCE).expect("a blocked upstream");
    // Another one that reads nothing, until its time is over.
    let _stalled = client(&edge);
    let (mut got, mut block) = (Vec::new(), vec![0; 32 * 1024]);
    let mut read = |got: &mut Vec<u8>| {
        let count = stream.read(&mut block).expect("more");
        assert!(count > 0, "closed after {} bytes", got.len());
        got.extend_from_slice(&block[..count]);
    };
    wait_until("the other one has left", || {
        // Nobody sends on it; its time-out is the pace.
        let (_never, pace) = channel::<()>();
        let _ = pace.recv_timeout(Duration::from_millis(100));
        read(&mut got);
        edge.metric(OUTCOMES, &["outcome=\"client_stalled\""]) == 1.0
    });
    assert!(got.len() < payload.len() / 2, "{} bytes: it was not slow", got.len());
    while !got.ends_with(LAST_CHUNK) {
        read(&mut got);
    }
    assert!(got.len() > payload.len());
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 1.0);
}
