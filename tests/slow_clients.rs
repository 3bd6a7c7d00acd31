//! Time is the server's, not the client's: however slowly a client sends, and however many do, each phase ends at a time that
//! was set when it began, and everyone else is served meanwhile.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::crowd::raise_descriptors;
use support::edge::scratch;
use support::{
    Crowd, Edge, End, PATIENCE, Probe, Upstream, Wire, answer, config, error_code, get, wait_until,
};

/// Clients of each kind.
const MANY: usize = 1000;

const LIMIT: Duration = Duration::from_secs(1);

const DRIP: Duration = Duration::from_millis(100);

/// An edge with this limit of one second. Nothing may reach its upstream.
fn edge(name: &str) -> (Upstream, Edge) {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&config::timeouts(&upstream.url(), &[(name, "1s")]));
    (upstream, edge)
}

/// How many there are by hand, and what the figures were.
fn many() -> usize {
    std::env::var("SEDGE_CROWD").ok().and_then(|many| many.parse().ok()).unwrap_or(MANY)
}

/// A client that begins after all of a crowd, and then is silent. Its limit is theirs, so that its time is over no sooner than
/// theirs; and when that of another one is over that began then, none of them may be left, however busy the machine is.
struct Last<'a> {
    edge: &'a Edge,
    bytes: Vec<u8>,
    client: Wire,
    is_second: bool,
}

impl<'a> Last<'a> {
    /// It sends this much.
    fn begin(edge: &'a Edge, bytes: impl AsRef<[u8]>) -> Self {
        let client = Self::connect(edge, bytes.as_ref());
        Last { edge, bytes: bytes.as_ref().to_vec(), client, is_second: false }
    }

    fn connect(edge: &Edge, bytes: &[u8]) -> Wire {
        edge.settle();
        let mut client = edge.connect();
        client.send(bytes);
        client
    }

    /// Whether the second one has ended; the first one is followed by it.
    fn is_over(&mut self) -> bool {
        let ended = self.client.is_over();
        if ended && !self.is_second {
            (self.client, self.is_second) = (Self::connect(self.edge, &self.bytes), true);
            return false;
        }
        ended
    }

    /// The crowd drips as long as there is time; then all of it must have ended.
    #[track_caller]
    fn outlives_drips(&mut self, crowd: &mut Crowd, wire: &[u8], every: Duration) {
        crowd.drip_until(wire, every, || self.is_over());
        self.outlives(crowd);
    }

    /// The crowd is silent as long as there is time; then all of it must have ended.
    #[track_caller]
    fn outlives(&mut self, crowd: &mut Crowd) {
        wait_until("one that began later ends", || {
            crowd.hear(DRIP / 10);
            crowd.living() == 0 || self.is_over()
        });
        self.edge.settle();
        crowd.hear(Duration::ZERO);
        assert_eq!(crowd.living(), 0, "clients are left when one has ended that began after them");
    }
}

fn report(what: &str, crowd: &Crowd, times: (Duration, Duration), health: support::crowd::Health) {
    eprintln!("{what}: {} clients ended after {times:?}; {health:?}", crowd.members.len());
}

/// Each was told 408 in OpenAI's shape, and nothing else.
#[track_caller]
fn told_408(crowd: &Crowd) {
    for member in &crowd.members {
        let text = String::from_utf8_lossy(&member.got);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
        assert!(!error_code(body.as_bytes()).is_empty());
        assert_eq!(member.ended.expect("an end").0, End::Closed);
    }
}

#[test]
fn a_head_that_drips_is_a_408_at_its_deadline() {
    let (_upstream, edge) = edge("request_head");
    let probe = Probe::start(edge.addr());
    let mut crowd = Crowd::connect(edge.addr(), many());
    // Never a pause longer than a tenth of the limit: only a deadline for the whole of it can end this.
    let head = b"GET /v1/models HTTP/1.1\r\nHost: e\r\nX-Slow: a";
    crowd.say(&head[..1]);
    Last::begin(&edge, &head[..1]).outlives_drips(&mut crowd, &head[1..], DRIP);
    told_408(&crowd);
    let times = crowd.assert_ended_after(LIMIT);
    report("heads", &crowd, times, probe.finish());
    assert_eq!(edge.upstream_connections(), 0.0);
}

#[test]
fn a_body_that_drips_is_a_408_at_its_deadline() {
    let (_upstream, edge) = edge("request_body");
    let probe = Probe::start(edge.addr());
    let mut crowd = Crowd::connect(edge.addr(), many());
    crowd.restart_clocks();
    let head = b"POST /v1/embeddings HTTP/1.1\r\nHost: e\r\nContent-Length: 4000\r\n\r\n";
    crowd.say(head);
    Last::begin(&edge, head).outlives_drips(&mut crowd, b"a", DRIP);
    told_408(&crowd);
    let times = crowd.assert_ended_after(LIMIT);
    report("bodies", &crowd, times, probe.finish());
    assert_eq!(edge.upstream_connections(), 0.0);
}

#[test]
fn a_body_in_single_byte_chunks_earns_no_time_with_its_framing() {
    let (_upstream, edge) = edge("request_body");
    let mut crowd = Crowd::connect(edge.addr(), 10);
    crowd.restart_clocks();
    let mut wire = b"POST /v1/embeddings HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\n".to_vec();
    wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n");
    crowd.say(&wire);
    let mut last = Last::begin(&edge, &wire);
    last.outlives_drips(&mut crowd, &b"1\r\n \r\n".repeat(1000), Duration::from_millis(2));
    told_408(&crowd);
    crowd.assert_ended_after(LIMIT);
    assert_eq!(edge.upstream_connections(), 0.0);
}

#[test]
fn a_large_body_that_slows_down_below_the_minimum_is_cut_on_both_sides() {
    let (upstream, edge) = edge("request_body");
    let mut client = edge.connect();
    client.send(b"POST /v1/files HTTP/1.1\r\nHost: e\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    let mut peer = upstream.accept();
    let head = peer.read_head();
    assert_eq!(head.get("content-length"), Some("1000000"));
    let (answer, body) = client.read_answer();
    assert_eq!(answer.status(), 408, "{}", body.text());
    client.wait_closed();
    let body = peer.read_request_body(&head);
    assert_ne!(body.end, End::Whole, "the upstream must not take it for the whole body");
    assert_eq!(body.bytes().len(), 100_000);
}

#[test]
fn a_body_that_keeps_the_minimum_rate_may_take_longer_than_the_limit() {
    let (upstream, edge) = edge("request_body");
    let mut client = edge.connect();
    client.send(b"POST /v1/files HTTP/1.1\r\nHost: e\r\nContent-Length: 3200000\r\n\r\n");
    let writer = std::thread::spawn(move || {
        // 1.6 MB/s for two limits: a hundred times the minimum, so that even a busy machine keeps it.
        for part in 1..=20 {
            client.send(vec![b'x'; 160_000]);
            // The answer may follow the last part at once.
            assert!(part == 20 || client.silent_for(DRIP), "an answer before the whole body was sent");
        }
        client
    });
    let mut peer = upstream.accept();
    let head = peer.read_head();
    assert_eq!(peer.read_request_body(&head).bytes().len(), 3_200_000);
    peer.send(answer("200 OK", &[], "{}"));
    let mut client = writer.join().expect("the client");
    assert_eq!(client.read_answer().1.text(), "{}");
}

#[test]
fn an_idle_connection_is_closed_at_its_deadline() {
    let (_upstream, edge) = edge("keep_alive");
    let probe = Probe::start(edge.addr());
    let mut crowd = Crowd::connect(edge.addr(), many());
    crowd.restart_clocks();
    crowd.say(&get("/livez", &[]));
    Last::begin(&edge, get("/livez", &[])).outlives(&mut crowd);
    assert!(crowd.members.iter().all(|member| member.ended.expect("an end").0 == End::Closed));
    assert!(crowd.members.iter().all(|member| member.got.ends_with(b"alive\n")), "closed without a word");
    let times = crowd.assert_ended_after(LIMIT);
    report("idle", &crowd, times, probe.finish());
}

#[test]
fn a_connection_that_never_says_anything_is_closed_at_its_deadline() {
    let (_upstream, edge) = edge("request_head");
    let probe = Probe::start(edge.addr());
    let mut crowd = Crowd::connect(edge.addr(), many());
    Last::begin(&edge, "").outlives(&mut crowd);
    assert!(crowd.members.iter().all(|member| member.got.is_empty()), "closed without a word");
    let times = crowd.assert_ended_after(LIMIT);
    report("silent", &crowd, times, probe.finish());
}

/// An edge that serves TLS, and what its clients need to trust it.
fn tls_edge(timeouts: &[(&str, &str)]) -> (Edge, Arc<ClientConfig>) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let files = [("cert.pem", cert.pem()), ("key.pem", signing_key.serialize_pem())].map(|(name, pem)| {
        let path = scratch(name);
        std::fs::write(&path, pem).expect("write");
        path.to_str().expect("UTF-8").to_owned()
    });
    let toml = config::timeouts("http://127.0.0.1:1", timeouts);
    let edge = Edge::configured_with(&toml, &["--tls-cert", &files[0], "--tls-key", &files[1]]);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(cert)).expect("a root");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (edge, Arc::new(config))
}

fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::clone(config), name).expect("a session")
}

fn client_hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut hello = Vec::new();
    session(config).write_tls(&mut hello).expect("a hello");
    hello
}

/// Someone who has come in already, and is served on.
fn tls_probe(edge: &Edge, config: &Arc<ClientConfig>) -> Probe {
    let stream = TcpStream::connect(edge.addr()).expect("connect");
    // A thousand signatures may be before it.
    stream.set_read_timeout(Some(PATIENCE * 10)).expect("timeout");
    let mut tls = StreamOwned::new(session(config), stream);
    Probe::with(move || {
        let mut answer = Vec::new();
        let mut block = [0; 1024];
        if tls.write_all(&get("/livez", &[])).is_err() {
            return false;
        }
        while !answer.ends_with(b"\r\n\r\nalive\n") {
            match tls.read(&mut block) {
                Ok(count) if count > 0 => answer.extend_from_slice(&block[..count]),
                _ => return false,
            }
        }
        answer.starts_with(b"HTTP/1.1 200 ")
    })
}

#[test]
fn a_handshake_that_never_ends_is_closed_at_its_deadline() {
    raise_descriptors();
    let (edge, trust) = tls_edge(&[("tls", "1s")]);
    let probe = tls_probe(&edge, &trust);
    let hello = client_hello(&trust);

    let mut silent = Crowd::connect(edge.addr(), many());
    Last::begin(&edge, "").outlives(&mut silent);
    assert!(silent.members.iter().all(|member| member.got.is_empty()));
    let times = silent.assert_ended_after(LIMIT);
    eprintln!("silent handshakes: {times:?}");

    drop(silent);
    let mut dripping = Crowd::connect(edge.addr(), many());
    dripping.say(&hello[..1]);
    Last::begin(&edge, &hello[..1]).outlives_drips(&mut dripping, &hello[1..hello.len() - 1], DRIP);
    let times = dripping.assert_ended_after(LIMIT);
    report("dripping handshakes", &dripping, times, probe.finish());
}

#[test]
fn a_handshake_that_is_left_in_the_middle_is_closed_at_its_deadline() {
    let (edge, trust) = tls_edge(&[("tls", "1s")]);
    let probe = tls_probe(&edge, &trust);
    let mut half = Crowd::connect(edge.addr(), many());
    let hello = client_hello(&trust);
    half.say(&hello);
    Last::begin(&edge, &hello).outlives(&mut half);
    let times = half.assert_ended_after(LIMIT);
    assert!(half.members.iter().all(|member| member.got.len() > 100), "the server's side of the handshake");
    report("half handshakes", &half, times, probe.finish());
}

#[test]
fn a_handshake_without_a_limit_may_take_its_time() {
    let (edge, trust) = tls_edge(&[("tls", "0"), ("keep_alive", "500ms")]);
    let hello = client_hello(&trust);
    let mut client = edge.connect();
    client.send(&hello[..100]);
    // So long, at least, until a connection that has begun after it has been idle for its own limit.
    let stream = TcpStream::connect(edge.addr()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut tls = StreamOwned::new(session(&trust), stream);
    tls.write_all(&get("/livez", &[])).expect("send");
    let mut answer = Vec::new();
    // It is closed without another word.
    let _ = tls.read_to_end(&mut answer);
    assert!(answer.ends_with(b"alive\n"), "{answer:?}");
    edge.settle();
    assert!(client.is_silent(), "zero is no limit, not no time");
    client.send(&hello[100..]);
    assert!(!client.read_exact(5).is_empty());
}
