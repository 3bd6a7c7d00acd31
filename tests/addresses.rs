//! A name with several addresses: one that is silent or dead costs next to nothing, and those that work share the load.
//!
//! The story: the addresses of a name were tried one after the other within one `connect` limit, always from the first on. A
//! dual-stack name whose IPv6 leads nowhere, or a headless service with one pod gone, was a 504 for every request; and of a
//! service's three pods one got 30 of 30 requests.
//!
//! How addresses are ordered and raced is proven beside the code, in simulated time.

mod support;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::subscriptions::{create, subscribe};
use support::{Edge, Wire, answer, config, error_code, names, post, wait_until};

/// A pod: answers requests on connections that it keeps, and counts them.
struct Pod {
    served: Arc<AtomicUsize>,
}

impl Pod {
    fn on(listener: TcpListener) -> Pod {
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    let mut peer = Wire::new(stream);
                    while let Ok(head) = peer.try_read_head() {
                        peer.read_request_body(&head);
                        count.fetch_add(1, Ordering::Relaxed);
                        if peer.try_send(answer("200 OK", &[], r#"{"done":true}"#)).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Pod { served }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port)
}

/// Listeners on the same port of 127.0.0.1, 127.0.0.2 and 127.0.0.3.
fn three() -> ([TcpListener; 3], u16) {
    loop {
        let one = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = one.local_addr().expect("an address").port();
        if let (Ok(two), Ok(three)) =
            (TcpListener::bind(address("127.0.0.2", port)), TcpListener::bind(address("127.0.0.3", port)))
        {
            return ([one, two, three], port);
        }
    }
}

/// Takes connections into its queue until that is full, and accepts none: to any further one the kernel is silent.
struct Silent {
    _socket: socket2::Socket,
    _fills: Vec<Wire>,
}

impl Silent {
    fn at(address: SocketAddr) -> Silent {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)
            .expect("a socket");
        socket.set_reuse_address(true).expect("reuse");
        socket.bind(&address.into()).expect("bind");
        socket.listen(0).expect("listen");
        Silent { _socket: socket, _fills: vec![Wire::connect(address)] }
    }
}

const DUAL: (&str, &[&str]) = ("localhost", &["::1", "127.0.0.1"]);
const SERVICE: (&str, &[&str]) = ("service.test", &["127.0.0.1", "127.0.0.2", "127.0.0.3"]);

fn to(name: &str, port: u16) -> String {
    config::timeouts(&format!("http://{name}:{port}"), &[("connect", "3s")])
}

#[track_caller]
fn is_answered(client: &mut Wire) {
    client.send(post("/v1/chat/completions", &[], "{}"));
    let (head, body) = client.read_answer();
    assert_eq!(head.status(), 200, "{}", body.text());
}

#[test]
fn a_silent_address_beside_one_that_works_is_no_timeout() {
    if !names::can_be_had() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let _silent = Silent::at(address("::1", port));
    let pod = Pod::on(listener);
    let edge = names::edge(&[DUAL], &to("localhost", port));
    for _ in 0..5 {
        is_answered(&mut edge.connect());
    }
    assert_eq!(pod.served(), 5);
    // It was silent once, and is tried last from then on.
    edge.stdout().wait_for_nth("\"outcome\":\"finished\"", 4);
    let lines = edge.stdout().all();
    let silent = lines
        .iter()
        .filter(|line| line.contains(&format!("\"connect_errors\":\"u0 [::1]:{port} no answer\"")));
    assert_eq!(silent.count(), 1, "{lines:#?}");
}

#[test]
fn the_pods_of_a_service_share_the_requests() {
    if !names::can_be_had() {
        return;
    }
    let (listeners, port) = three();
    let pods = listeners.map(Pod::on);
    let edge = names::edge(&[SERVICE], &to("service.test", port));
    let mut client = edge.connect();
    for _ in 0..30 {
        is_answered(&mut client);
    }
    assert_eq!(pods.each_ref().map(Pod::served), [10, 10, 10]);
    // Each over one connection.
    assert_eq!(edge.metric("sedge_upstream_connections_opened_total", &[]), 3.0);
}

#[test]
fn pods_that_are_gone_leave_their_share_to_the_others() {
    if !names::can_be_had() {
        return;
    }
    let ([one, two, three], port) = three();
    // The first refuses, the second is silent.
    drop((one, two));
    let _silent = Silent::at(address("127.0.0.2", port));
    let pod = Pod::on(three);
    let edge = names::edge(&[SERVICE], &to("service.test", port));
    let mut client = edge.connect();
    for _ in 0..30 {
        is_answered(&mut client);
    }
    assert_eq!(pod.served(), 30);
}

#[test]
fn where_no_address_takes_a_connection_the_error_says_so() {
    if !names::can_be_had() {
        return;
    }
    let (listeners, port) = three();
    drop(listeners);
    let edge = names::edge(&[SERVICE], &to("service.test", port));
    let (head, body) = edge.ask(&post("/v1/chat/completions", &[], "{}"));
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (502, "upstream_connect_failed"));
    assert!(body.text().contains("3 addresses were tried"), "{}", body.text());
    let log = edge.stdout().wait_for("\"connect_errors\"");
    for ip in SERVICE.1 {
        assert!(log.contains(&format!("{ip}:{port} Connection refused")), "{log}");
    }
}

#[test]
fn a_handshake_that_is_reset_at_one_address_is_made_at_another() {
    if !names::can_be_had() {
        return;
    }
    let ([one, two, three], port) = three();
    drop(three);
    // The first resets each connection when a handshake begins; the second takes it and closes.
    let resets = thread::spawn(move || {
        let mut peer = Wire::new(one.accept().expect("a connection").0);
        peer.read_exact(5);
        peer.reset();
    });
    let takes = thread::spawn(move || {
        let mut peer = Wire::new(two.accept().expect("a connection").0);
        peer.read_exact(5)
    });
    let toml = config::timeouts(&format!("https://service.test:{port}"), &[("connect", "3s")]);
    let edge = names::edge(&[SERVICE], &toml);
    let (head, body) = edge.ask(&post("/v1/chat/completions", &[], "{}"));
    // Nobody speaks TLS there, but the second was asked.
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (502, "upstream_connect_failed"));
    resets.join().expect("it was asked");
    assert_eq!(takes.join().expect("it was asked")[0], 22, "a handshake");
}

#[test]
fn a_webhook_and_a_probe_get_past_a_silent_address() {
    if !names::can_be_had() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let _silent = Silent::at(address("::1", port));
    let _pod = Pod::on(listener);
    let probed = format!(
        "[[upstream]]\nname = \"u\"\nurl = \"http://localhost:{port}\"\n\
         probe = {{ path = \"/health\", interval = \"100ms\", timeout = \"2s\" }}\n"
    );
    let edge = names::edge(&[DUAL], &probed);
    let settings = serde_json::json!({
        "type": "webhook", "pattern": "events/*", "lease_ttl_ms": 3_000,
        "webhook": { "url": format!("http://localhost:{port}/hook") },
    });
    subscribe(&edge, "s", &settings);
    create(&edge, "events/a");
    wait_until("it was delivered", || edge.metric("sedge_webhooks_total", &["outcome=\"done\""]) >= 1.0);
    assert_eq!(edge.metric("sedge_webhooks_total", &["outcome=\"failed\""]), 0.0);
    wait_until("it is well", || edge.metric("sedge_upstream_probes_total", &["result=\"ok\""]) >= 2.0);
    assert_eq!(edge.metric("sedge_upstream_probes_total", &["result=\"failed\""]), 0.0);
}

#[test]
fn clients_are_not_told_the_addresses_and_operators_are() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let edge = Edge::configured(&config::routes(&[("*", &format!("http://127.0.0.1:{port}"))]));
    let (head, body) = edge.ask(&post("/v1/chat/completions", &[], "{}"));
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (502, "upstream_connect_failed"));
    assert!(!body.text().contains("127.0.0.1") && body.text().contains("refused"), "{}", body.text());
    let log = edge.stdout().wait_for("\"connect_errors\"");
    assert!(log.contains(&format!("\"connect_errors\":\"u0 127.0.0.1:{port} Connection refused")), "{log}");
}
