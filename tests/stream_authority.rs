//! Nobody reads a stream for longer than it may.
//!
//! Whoever had begun to read by a signed address went on after the moment for which it was signed, for as long as its connection
//! lasted, and so did the readers of a key that a reload had taken away: a key that leaked could not be shut out.

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use support::config::key;
use support::streams::{Events, path, request};
use support::{Edge, End, SSE_HEAD, STREAM_BODY, Upstream, chunk, error_code, get, post};

const TEXT: &str = "Content-Type: text/plain";
const ONE: &str = "Authorization: Bearer sk-one";
const SOURCE: &str = "Accept: text/event-stream";

fn make(edge: &Edge, name: &str) {
    assert_eq!(edge.ask(&request("PUT", &path(name), &[ONE, TEXT], "x")).0.status(), 201);
}

/// The next event is the last one, says this, and is followed by no last chunk.
fn ends_with(reader: &mut Events, code: &str) {
    let event = reader.data();
    assert_eq!((event.name.as_deref(), &event.id), (Some("error"), &None), "{event:?}");
    assert_eq!(error_code(event.data.as_bytes()), code);
    assert_eq!(reader.try_next(), Err(End::Closed));
}

#[test]
fn a_key_that_is_taken_away_reads_no_more() {
    let upstream = Upstream::listen();
    let rest = format!("heartbeat = \"0\"\n\n[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n", upstream.url());
    let edge = Edge::configured(&(rest.clone() + &key("one") + &key("two")));
    make(&edge, "a");
    make(&edge, "b");
    let mut source = Events::open(&edge, &path("a"), &[SOURCE, ONE]);
    assert_eq!(source.next().data, "x");
    let mut several = Events::open(&edge, "/v1/stream?name=a&name=b", &[SOURCE, ONE]);
    several.data();
    several.data();
    let mut protocol = Events::open(&edge, &format!("{}?live=sse&offset=-1", path("a")), &[ONE]);
    protocol.next();
    let (head, _) = edge.ask(&get(&path("a"), &[ONE]));
    let at = support::streams::next(&head);
    let mut poll = edge.connect();
    poll.send(get(&format!("{}?live=long-poll&offset={at}", path("a")), &[ONE]));
    edge.wait_metric("sedge_durable_readers", &[], 5.0);
    // A chat that is being kept, and its first client.
    let mut client = edge.connect();
    client.send(post("/v1/chat/completions", &["Sedge-Durable: true", ONE], STREAM_BODY));
    let mut peer = upstream.accept();
    let head = peer.read_head();
    peer.read_request_body(&head);
    peer.send([SSE_HEAD.to_vec(), chunk("data: 1\n\n")].concat());
    assert_eq!(client.read_head().status(), 200);
    assert_eq!(client.read_chunk(), b"data: 1\n\n");
    // The other key stays.
    edge.rewrite_config(&(rest + &key("two")));
    edge.signal(Signal::HUP);
    ends_with(&mut source, "key_revoked");
    ends_with(&mut several, "key_revoked");
    let last = protocol.data();
    assert_eq!(error_code(last.data.as_bytes()), "key_revoked");
    let (head, body) = poll.read_answer();
    assert_eq!((head.status(), error_code(&body.bytes())), (401, "key_revoked".into()));
    let last = String::from_utf8(client.read_chunk()).expect("text");
    assert!(last.contains("key_revoked"), "{last}");
    client.wait_closed();
    peer.wait_closed();
    assert_eq!(edge.ask(&get(&path("a"), &[SOURCE, ONE])).0.status(), 401);
}

#[test]
fn a_key_that_stays_reads_on() {
    let edge = Edge::configured(&(key("one") + &key("two")));
    make(&edge, "a");
    let mut source = Events::open(&edge, &path("a"), &[SOURCE, ONE]);
    assert_eq!(source.next().data, "x");
    edge.rewrite_config(&key("one"));
    edge.signal(Signal::HUP);
    edge.stderr().wait_for("configuration reloaded");
    support::wait_until("the other key is gone", || {
        edge.ask(&get(&path("a"), &["Authorization: Bearer sk-two"])).0.status() == 401
    });
    assert_eq!(edge.ask(&request("POST", &path("a"), &[ONE, TEXT], "y")).0.status(), 204);
    assert_eq!(source.data().data, "y");
}

#[test]
fn a_signed_address_ends_when_it_says() {
    let secret = support::edge::scratch("sign");
    std::fs::write(&secret, "pepper\n").expect("write");
    let edge = Edge::configured(&format!(
        "heartbeat = \"0\"\n\n[streams]\nsign_key = \"file:{}\"\n\n{}",
        secret.display(),
        key("one")
    ));
    make(&edge, "a");
    let (head, _) = edge.ask(&get(&path("a"), &[ONE]));
    let at = support::streams::next(&head);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let expires = (now + Duration::from_secs(3)).as_secs();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"pepper");
    let tag = ring::hmac::sign(&key, format!("{}\n{expires}", path("a")).as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = format!("{}?expires={expires}&signature={hex}", path("a"));
    let mut source = Events::open(&edge, &signed, &[SOURCE]);
    assert_eq!(source.next().data, "x");
    let mut poll = edge.connect();
    poll.send(get(&format!("{signed}&live=long-poll&offset={at}"), &[]));
    ends_with(&mut source, "address_expired");
    let (head, body) = poll.read_answer();
    assert_eq!((head.status(), error_code(&body.bytes())), (401, "address_expired".into()));
    assert_eq!(edge.ask(&get(&signed, &[SOURCE])).0.status(), 401);
}
