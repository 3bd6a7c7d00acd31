//! TLS towards clients and towards upstreams, with a CA of our own: who is not who they say gets nothing.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use support::edge::scratch;
use support::kept::{ANSWER_BYTES, assert_same, events, pour};
use support::{Edge, PATIENCE, STREAM_BODY, Upstream, answer, error_code, get, post};

struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Identity {
    cert: String,
    key: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }

    fn file(&self) -> String {
        write("ca.pem", &self.0.pem()).to_str().expect("UTF-8").to_owned()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        roots
    }
}

fn write(name: &str, text: &str) -> PathBuf {
    let path = scratch(name);
    std::fs::write(&path, text).expect("write");
    path
}

/// Serves TLS as `identity` on a port of its own; every request gets a chunked stream that ends by the book, or, on
/// `/v1/cut`, by a close without a last chunk and without a close_notify.
fn serve_tls(identity: &Identity) -> u16 {
    let chain = vec![CertificateDer::from_pem_slice(identity.cert.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a server");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            thread::spawn(move || speak(StreamOwned::new(connection, stream)));
        }
    });
    port
}

fn speak(mut tls: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    loop {
        let head = until(&mut tls, b"\r\n\r\n")?;
        let mut body = vec![0; if head.starts_with("POST") { STREAM_BODY.len() } else { 0 }];
        tls.read_exact(&mut body)?;
        tls.write_all(support::SSE_HEAD)?;
        tls.write_all(&support::chunk("data: a\n\n"))?;
        if head.contains("/v1/cut") {
            return Ok(());
        }
        tls.write_all(&support::chunk("data: [DONE]\n\n"))?;
        tls.write_all(support::LAST_CHUNK)?;
    }
}

fn until(stream: &mut impl Read, marker: &[u8]) -> std::io::Result<String> {
    let (mut got, mut byte) = (Vec::new(), [0]);
    while !got.ends_with(marker) {
        stream.read_exact(&mut byte)?;
        got.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&got).into_owned())
}

/// A TLS connection to the edge that trusts this CA and asks for this name.
fn connect(edge: &Edge, ca: &Ca, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let config = ClientConfig::builder().with_root_certificates(ca.roots()).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TcpStream::connect(edge.addr()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a connection"), stream)
}

fn serving_tls(upstream: &str, identity: &Identity) -> Edge {
    let (cert, key) = (write("cert.pem", &identity.cert), write("key.pem", &identity.key));
    let (cert, key) = (cert.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    Edge::start(&["--upstream", upstream, "--tls-cert", cert, "--tls-key", key])
}

#[test]
fn clients_are_served_over_tls() {
    let (ca, upstream) = (Ca::new(), Upstream::serve(|_, _| answer("200 OK", &[], "over TLS")));
    let edge = serving_tls(&upstream.url(), &ca.issue("localhost"));
    assert!(edge.stderr().all()[0].contains("https://"), "{:?}", edge.stderr().all());
    let mut tls = connect(&edge, &ca, "localhost");
    for _ in 0..3 {
        tls.write_all(&get("/v1/models", &[])).expect("send");
        let head = until(&mut tls, b"\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let mut body = [0; 8];
        tls.read_exact(&mut body).expect("a body");
        assert_eq!(&body, b"over TLS");
    }
}

/// A renewed certificate is shown to whoever connects after the reload, and takes nothing from who is connected; one that does
/// not fit its key changes nothing.
#[test]
fn a_reload_takes_up_a_new_certificate() {
    let (ca, upstream) = (Ca::new(), Upstream::serve(|_, _| answer("200 OK", &[], "over TLS")));
    let (first, second) = (ca.issue("localhost"), ca.issue("localhost"));
    let (cert, key) = (write("cert.pem", &first.cert), write("key.pem", &first.key));
    let files = format!("tls = {{ cert = \"{}\", key = \"{}\" }}\n", cert.display(), key.display());
    let edge = Edge::configured(&format!("{files}[[upstream]]\nurl = \"{}\"\n", upstream.url()));
    let ask = |tls: &mut StreamOwned<ClientConnection, TcpStream>| {
        tls.write_all(&get("/v1/models", &[])).expect("send");
        until(tls, b"over TLS").expect("an answer");
        tls.conn.peer_certificates().expect("a certificate")[0].clone().into_owned()
    };
    let der = |identity: &Identity| {
        CertificateDer::from_pem_slice(identity.cert.as_bytes()).expect("a certificate").into_owned()
    };
    let mut before = connect(&edge, &ca, "localhost");
    assert_eq!(ask(&mut before), der(&first));

    std::fs::write(&cert, &second.cert).expect("write");
    edge.signal(Signal::HUP);
    edge.stderr().wait_for("not reloaded");
    assert_eq!(ask(&mut connect(&edge, &ca, "localhost")), der(&first));

    std::fs::write(&key, &second.key).expect("write");
    edge.signal(Signal::HUP);
    edge.stderr().wait_for("configuration reloaded");
    assert_eq!(ask(&mut connect(&edge, &ca, "localhost")), der(&second));
    assert_eq!(ask(&mut before), der(&first));
}

#[test]
fn a_stream_passes_over_tls_segment_by_segment() {
    let (ca, upstream) = (Ca::new(), Upstream::listen());
    let edge = serving_tls(&upstream.url(), &ca.issue("localhost"));
    let mut tls = connect(&edge, &ca, "localhost");
    tls.write_all(&support::stream_request()).expect("send");
    let mut peer = upstream.accept();
    peer.read_head();
    peer.send(support::SSE_HEAD);
    until(&mut tls, b"\r\n\r\n").expect("a head");
    for part in ["data: a\n\n", "data: b", "\n\n"] {
        peer.send(support::chunk(part));
        let want = support::chunk(part);
        let mut got = vec![0; want.len()];
        tls.read_exact(&mut got).expect("a chunk");
        assert_eq!(got, want);
    }
    drop(tls);
    peer.wait_closed();
}

/// A record is written whole or not at all, and may wait in the session: a client that stops between loses none of it.
#[test]
fn a_durable_answer_over_tls_is_read_on_while_its_client_does_not_read() {
    let (ca, upstream) = (Ca::new(), Upstream::listen());
    let edge = serving_tls(&upstream.url(), &ca.issue("localhost"));
    let mut tls = connect(&edge, &ca, "localhost");
    tls.write_all(&post("/v1/chat/completions", &["Sedge-Durable: true"], STREAM_BODY)).expect("send");
    let mut peer = upstream.accept();
    peer.read_head();
    peer.send(support::SSE_HEAD);
    until(&mut tls, b"\r\n\r\n").expect("a head");
    let sent = events(ANSWER_BYTES);
    let mut peer = pour(peer, &sent).join().expect("the upstream");
    edge.wait_metric("sedge_durable_appended_bytes_total", &[], sent.len() as f64);
    peer.send(support::LAST_CHUNK);
    let mut got = Vec::new();
    loop {
        let line = until(&mut tls, b"\r\n").expect("a chunk");
        let size = usize::from_str_radix(line.trim_end(), 16).expect("its size");
        let mut data = vec![0; size + 2];
        tls.read_exact(&mut data).expect("its data");
        if size == 0 {
            break;
        }
        got.extend_from_slice(&data[..size]);
    }
    assert_same(&got, &sent);
}

#[test]
fn plain_text_on_a_tls_port_gets_no_answer() {
    let (ca, upstream) = (Ca::new(), Upstream::serve(|_, _| answer("200 OK", &[], "no")));
    let edge = serving_tls(&upstream.url(), &ca.issue("localhost"));
    let mut client = edge.connect();
    client.send(get("/v1/models", &[]));
    let rest = client.read_to_close();
    assert!(!rest.text().contains("HTTP/1.1 200"), "{}", rest.text());
    assert!(upstream.requests().is_empty());
}

#[test]
fn an_upstream_is_trusted_by_its_ca() {
    let ca = Ca::new();
    let port = serve_tls(&ca.issue("127.0.0.1"));
    let edge =
        Edge::start(&["--upstream", &format!("https://127.0.0.1:{port}"), "--upstream-ca", &ca.file()]);
    let mut client = edge.connect();
    for _ in 0..3 {
        client.send(support::stream_request());
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 200);
        assert_eq!(body.text(), "data: a\n\ndata: [DONE]\n\n");
    }
}

#[test]
fn an_upstream_without_trust_is_a_502() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let unknown_ca = serve_tls(&theirs.issue("127.0.0.1"));
    let wrong_name = serve_tls(&ours.issue("elsewhere.test"));
    for port in [unknown_ca, wrong_name] {
        let url = format!("https://127.0.0.1:{port}");
        let edge = Edge::start(&["--upstream", &url, "--upstream-ca", &ours.file()]);
        let (head, body) = edge.ask(&support::stream_request());
        assert_eq!(head.status(), 502);
        error_code(&body.bytes());
    }
}

#[test]
fn a_cut_under_tls_is_a_cut() {
    let ca = Ca::new();
    let port = serve_tls(&ca.issue("127.0.0.1"));
    let edge =
        Edge::start(&["--upstream", &format!("https://127.0.0.1:{port}"), "--upstream-ca", &ca.file()]);
    let (head, body) = edge.ask(&post("/v1/cut", &[], STREAM_BODY));
    assert_eq!(head.status(), 200);
    assert_ne!(body.end, support::End::Whole);
    let text = body.text();
    assert!(text.starts_with("data: a\n\n") && !text.contains("[DONE]"), "{text}");
}
