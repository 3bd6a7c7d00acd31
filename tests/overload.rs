//! More than there is room for: what is already being served goes on, what is new is told at once, and nothing spins.

mod support;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use support::{
    Crowd, Edge, LAST_CHUNK, Upstream, Wire, answer, chunk, error_code, get, post, stream_request, streaming,
    timed, wait_until,
};

/// The least that can be configured.
const STREAM_MEMORY: usize = 1 << 20;

const BLOCK: usize = 16 * 1024;

fn limited(url: &str, limits: &str) -> Edge {
    Edge::configured(&format!("[[upstream]]\nname = \"u\"\nurl = \"{url}\"\n\n[limits]\n{limits}\n"))
}

#[track_caller]
fn alive(client: &mut Wire) {
    client.send(get("/livez", &[]));
    assert_eq!(client.read_answer().0.status(), 200);
}

/// Whether a new connection from `from` is served, or closed without a word.
fn is_served(edge: &Edge, from: [u8; 4]) -> Option<Wire> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::new(IpAddr::from(from), 0).into()).expect("bind");
    socket.connect(&edge.addr().into()).expect("connect");
    let mut client = Wire::new(TcpStream::from(socket));
    let _ = client.try_send(get("/livez", &[]));
    match client.try_read_head() {
        Ok(head) => {
            client.read_body(&head);
            Some(client)
        }
        Err(_) => None,
    }
}

#[test]
fn no_more_connections_than_allowed() {
    let upstream = Upstream::listen();
    let edge = limited(&upstream.url(), "max_connections = 3");
    let here = [127, 0, 0, 1];
    let mut held: Vec<Wire> = (0..3).map(|_| is_served(&edge, here).expect("a place")).collect();
    for from in [here, [127, 0, 0, 2]] {
        assert!(is_served(&edge, from).is_none(), "a fourth place");
    }
    edge.wait_metric("sedge_connections_refused_total", &["reason=\"limit\""], 2.0);
    held.iter_mut().for_each(alive);
    assert_eq!(edge.ask_admin("/livez").0.status(), 200);
    held.pop();
    edge.wait_metric("sedge_connections_open", &[], 2.0);
    assert!(is_served(&edge, here).is_some());
}

#[test]
fn no_more_connections_from_one_address_than_allowed() {
    let upstream = Upstream::listen();
    let edge = limited(&upstream.url(), "max_connections_per_address = 2");
    let (one, two) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    let mut held: Vec<Wire> = (0..2).map(|_| is_served(&edge, one).expect("a place")).collect();
    assert!(is_served(&edge, one).is_none(), "a third place for one address");
    let mut other: Vec<Wire> = (0..2).map(|_| is_served(&edge, two).expect("a place")).collect();
    assert!(is_served(&edge, two).is_none());
    held.iter_mut().chain(&mut other).for_each(alive);
    held.pop();
    edge.wait_metric("sedge_connections_open", &[], 3.0);
    assert!(is_served(&edge, two).is_none(), "the other's place");
    assert!(is_served(&edge, one).is_some());
}

/// Clients that wait for an answer and have begun their next request: each holds a block, and together more of them than
/// `stream_memory` allows. What their requests are waiting for comes back as well.
fn use_up_memory(edge: &Edge, upstream: &Upstream) -> (Crowd, Vec<Wire>) {
    let mut crowd = Crowd::connect(edge.addr(), STREAM_MEMORY / BLOCK + 10);
    crowd.say(&get("/v1/models", &[]));
    let peers = crowd.members.iter().map(|_| upstream.accept()).collect();
    crowd.say(b"GET /next");
    wait_until("there is no room any more", || {
        edge.metric("sedge_buffers_in_use", &[]) > (STREAM_MEMORY / BLOCK) as f64
    });
    (crowd, peers)
}

#[test]
fn beyond_its_memory_new_requests_wait_and_streams_go_on() {
    let upstream = Upstream::listen();
    let edge = limited(&upstream.url(), &format!("stream_memory = {STREAM_MEMORY}"));
    let (mut client, mut peer, _) = streaming(&edge, &upstream);
    let mut idle = edge.connect();
    alive(&mut idle);

    let crowd = use_up_memory(&edge, &upstream);
    for request in [get("/v1/models", &[]), stream_request()] {
        let (head, body) = edge.ask(&request);
        assert_eq!(head.status(), 503, "{}", body.text());
        let seconds: u32 = head.get("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((1..=60).contains(&seconds));
        error_code(&body.bytes());
    }
    assert!(upstream.is_idle(), "a refused request reached the upstream");
    alive(&mut idle);
    // What has begun goes on to its end.
    for n in 0..10 {
        let event = format!("data: {n}\n\n");
        peer.send(chunk(&event));
        assert_eq!(client.read_chunk(), event.as_bytes());
    }
    peer.send(chunk("data: [DONE]\n\n"));
    peer.send(LAST_CHUNK);
    assert_eq!(client.read_chunk(), b"data: [DONE]\n\n");
    client.read_last_chunk();

    // And when there is room again, so is everyone.
    drop(crowd);
    wait_until("the memory comes back", || edge.metric("sedge_buffers_in_use", &[]) < 10.0);
    idle.send(get("/v1/models", &[]));
    peer.read_head();
    peer.send(answer("200 OK", &[], "{}"));
    assert_eq!(idle.read_answer().1.text(), "{}");
}

/// Half a head is what anyone can send, with no key and at no cost: it must not take from those who send whole ones.
#[test]
fn half_heads_take_nothing_from_whole_ones() {
    const HEAD_MEMORY: usize = 64 * 1024;
    const EACH: usize = 9 * 1024;
    const STOPPED: usize = 40;
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let limits = format!("head_memory = {HEAD_MEMORY}\nstream_memory = {STREAM_MEMORY}");
    let edge = limited(&upstream.url(), &limits);
    let before = edge.resident_bytes();
    let mut crowd = Crowd::connect(edge.addr(), STOPPED);
    // Two at a time: a line may have 8 KiB at most.
    let line = format!("\r\nX-Half: {}", "h".repeat(EACH / 2));
    crowd.say(format!("GET /v1/models HTTP/1.1\r\nHost: e{line}{line}").as_bytes());
    let kept = HEAD_MEMORY / EACH;
    wait_until("those who are too many are told", || {
        crowd.hear(Duration::from_millis(10));
        STOPPED - crowd.living() >= STOPPED - kept - 2
    });
    wait_until("all of them are", || {
        crowd.hear(Duration::from_millis(10));
        edge.metric("sedge_connections_open", &[]) == crowd.living() as f64
    });
    assert!(crowd.living() > 0, "some of it fits");
    for refused in crowd.members.iter().filter(|member| member.ended.is_some()) {
        let told = String::from_utf8_lossy(&refused.got);
        assert!(
            told.starts_with("HTTP/1.1 503 ") && told.to_lowercase().contains("retry-after: 1"),
            "{told}"
        );
    }
    assert!(edge.metric("sedge_partial_head_bytes", &[]) <= (HEAD_MEMORY + EACH + 256) as f64);
    assert_eq!(edge.metric("sedge_buffers_in_use", &[]), 0.0);
    // Nobody else notices, and what has stopped may go on.
    assert_eq!(edge.ask(&get("/v1/models", &[])).0.status(), 200);
    crowd.say(b"\r\n\r\n");
    wait_until("the others are served", || {
        crowd.hear(Duration::from_millis(10));
        let mut living = crowd.members.iter().filter(|member| member.ended.is_none());
        living.all(|member| member.got.starts_with(b"HTTP/1.1 200 "))
    });
    edge.wait_metric("sedge_partial_head_bytes", &[], 0.0);
    let grown = edge.resident_bytes().saturating_sub(before);
    eprintln!("{STOPPED} half heads of {EACH} bytes: memory grew by {grown} bytes");
}

/// Memory was looked at when a request began, and a body whose model is looked for is held after that: requests that all
/// began while there was room could together hold any amount.
#[test]
fn bodies_that_are_being_looked_through_stay_within_the_memory_together() {
    const EACH: usize = 512 * 1024;
    // Each begins with a block, and all come from one address, which may hold half of the memory.
    const CLIENTS: usize = STREAM_MEMORY / BLOCK / 2 - 2;
    let upstream = Upstream::listen();
    let url = upstream.url();
    let routes = support::config::routes(&[("a", &url), ("b", &url)]);
    let edge = Edge::configured(&format!("{routes}[limits]\nstream_memory = {STREAM_MEMORY}\n"));
    let before = edge.resident_bytes();
    let head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\n\
                 Content-Length: 10000000\r\n\r\n{\"input\":\"";
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| edge.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(head));
    // Every one of them has begun before any of them grows.
    edge.wait_metric("sedge_requests_open", &[], CLIENTS as f64);
    let mut refused = 0;
    for client in &mut clients {
        let _ = client.try_send(vec![b'x'; EACH]);
    }
    wait_until("most are refused", || edge.metric("sedge_requests_open", &[]) <= 4.0);
    for client in &mut clients {
        if client.is_silent() {
            continue;
        }
        let answer = client.read_head();
        assert!(matches!(answer.status(), 429 | 503), "{answer:?}");
        assert_eq!(answer.get("retry-after"), Some("1"));
        refused += 1;
    }
    assert!(refused >= CLIENTS - 4, "{refused} of {CLIENTS} were refused");
    let grown = edge.peak_bytes().saturating_sub(before);
    eprintln!(
        "{CLIENTS} bodies of {EACH} bytes: {refused} refused, memory grew by {grown} bytes at its peak"
    );
    assert!(grown < 4 * STREAM_MEMORY as u64, "grew by {grown} bytes");
    assert!(upstream.is_idle());
}

/// The admin's door has one descriptor in reserve: whoever keeps it must not keep the next one out.
#[test]
fn without_descriptors_an_operator_who_stays_keeps_nobody_out() {
    const DESCRIPTORS: u32 = 64;
    let upstream = Upstream::listen();
    let edge = Edge::start_with_descriptors(DESCRIPTORS, &["--upstream", &upstream.url()]);
    let _crowd = Crowd::connect(edge.addr(), 2 * DESCRIPTORS as usize);
    wait_until("descriptors run out", || edge.metric("sedge_connections_refused_total", &["no_fd"]) >= 1.0);
    // The first ones may take what the other door gives up of its own reserve.
    let (mut staying, mut sent_away) = (Vec::new(), 0);
    while sent_away < 5 {
        let mut operator = Wire::connect(edge.admin());
        operator.send(get("/livez", &[]));
        let (head, _) = operator.read_answer();
        assert_eq!(head.status(), 200);
        match head.get("connection") {
            Some("close") => sent_away += 1,
            _ => staying.push(operator),
        }
        assert!(staying.len() < DESCRIPTORS as usize, "so many descriptors there are not");
    }
}

#[test]
fn without_descriptors_it_does_not_spin_and_comes_back() {
    const DESCRIPTORS: u32 = 64;
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let edge = Edge::start_with_descriptors(DESCRIPTORS, &["--upstream", &upstream.url()]);
    assert_eq!(edge.ask(&get("/v1/models", &[])).0.status(), 200);

    // More clients than descriptors. Those that were let in before are served; the rest wait or are turned away.
    let mut crowd = Crowd::connect(edge.addr(), 2 * DESCRIPTORS as usize);
    wait_until("descriptors run out", || edge.metric("sedge_connections_refused_total", &["no_fd"]) >= 1.0);
    let before = edge.cpu_ticks();
    let (answers, took) = timed(|| {
        // Time in which nothing happens is what is measured here; the admin's answers mark its passing.
        (0..8)
            .map(|_| {
                let mut quiet = Wire::connect(edge.addr());
                quiet.silent_for(Duration::from_millis(250));
                edge.ask_admin("/livez").0.status()
            })
            .collect::<Vec<_>>()
    });
    let ticks = edge.cpu_ticks() - before;
    eprintln!("without descriptors: {ticks} ticks of 10 ms in {took:?}");
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    // 5 % of a core.
    assert!((ticks * 10) as u128 * 20 <= took.as_millis(), "{ticks} ticks in {took:?}");

    // Those who were let in are served.
    crowd.say(&get("/livez", &[]));
    wait_until("those inside are served", || {
        crowd.hear(Duration::from_millis(10));
        crowd.members.iter().filter(|member| member.got.ends_with(b"alive\n")).count() > 10
    });
    drop(crowd);
    let came_back = wait_until("new clients are served", || {
        let mut client = Wire::connect(edge.addr());
        client.try_send(get("/v1/models", &[])).is_ok()
            && client.try_read_head().is_ok_and(|h| h.status() == 200)
    });
    eprintln!("served again after {came_back:?}");
}

/// A connection to an upstream needs a descriptor as well: without one the client is told, and can try again.
#[test]
fn without_a_descriptor_for_the_upstream_it_is_a_502() {
    const DESCRIPTORS: u32 = 64;
    // Closed after each answer, so that each request needs a descriptor of its own.
    let upstream = Upstream::serve(|_, _| answer("200 OK", &["Connection: close"], "{}"));
    let edge = Edge::start_with_descriptors(DESCRIPTORS, &["--upstream", &upstream.url()]);
    let mut client = edge.connect();
    alive(&mut client);
    let crowd = Crowd::connect(edge.addr(), 2 * DESCRIPTORS as usize);
    wait_until("descriptors run out", || edge.metric("sedge_connections_refused_total", &["no_fd"]) >= 1.0);
    // The connection that asked for the count leaves its descriptor to whoever comes first, which may be this request.
    wait_until("a request finds none", || {
        client.send(post("/v1/chat/completions", &[], "{}"));
        let (head, body) = client.read_answer();
        match head.status() {
            200 => false,
            status => {
                assert_eq!(status, 502, "{}", body.text());
                error_code(&body.bytes());
                true
            }
        }
    });
    drop(crowd);
    wait_until("it is served again", || {
        client.send(get("/v1/models", &[]));
        client.read_answer().0.status() == 200
    });
}
