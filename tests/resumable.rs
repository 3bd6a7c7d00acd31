//! A streamed answer that becomes a durable stream: the client gets the same bytes as ever, and whoever comes back misses
//! nothing and doubles nothing.

mod support;

use rustix::process::Signal;
use support::{
    Edge, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, Wire, chunk, get, post, relayed, wait_until,
};

const EVENTS: [&str; 3] = ["data: {\"n\":1}\n\n", ": ping\n\ndata: {\"n\":2}\r\n\r\n", "data: [DONE]\n\n"];

fn durable() -> Vec<u8> {
    post("/v1/chat/completions", &["Sedge-Durable: true"], STREAM_BODY)
}

/// An answer that has begun: both ends, where it is kept, and where it begins.
fn begun(edge: &Edge, upstream: &Upstream, request: &[u8]) -> (Wire, Wire, String, String) {
    let (mut client, mut peer, head, _) = relayed(edge, upstream, request);
    assert!(!head.has("sedge-durable"), "{head:?}");
    peer.send(SSE_HEAD);
    let head = client.read_head();
    assert_eq!(head.status(), 200, "{head:?}");
    let said =
        |name: &str| head.get(name).unwrap_or_else(|| panic!("{name} is missing: {head:?}")).to_owned();
    (client, peer, said("location"), said("stream-next-offset"))
}

/// All there is of a stream, once it is closed.
fn whole(edge: &Edge, location: &str) -> String {
    wait_until("the stream is closed", || edge.ask(&get(location, &[])).0.has("stream-closed"));
    edge.ask(&get(location, &[])).1.text()
}

#[test]
fn the_client_gets_the_same_bytes_and_a_reader_gets_them_again() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, location, begin) = begun(&edge, &upstream, &durable());
    // Cut anywhere: what is kept is kept event by event.
    let all = EVENTS.concat();
    for piece in all.as_bytes().chunks(7) {
        peer.send(chunk(piece));
    }
    assert_eq!(client.read_chunks(all.len()), all.as_bytes());
    // Another reader follows before the end, from the place that the head told.
    let mut reader = edge.connect();
    reader.send(get(&format!("{location}?offset={begin}&live=sse"), &[]));
    let head = reader.read_head();
    assert_eq!(head.status(), 200);
    peer.send(LAST_CHUNK);
    client.read_last_chunk();
    assert_eq!(whole(&edge, &location), all);
    let told = reader.read_body(&head).text();
    assert!(told.contains("\"streamClosed\":true"), "{told}");
}

#[test]
fn a_client_that_left_comes_back_and_misses_nothing() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, location, _) = begun(&edge, &upstream, &durable());
    peer.send(chunk(EVENTS[0]));
    assert_eq!(client.read_chunk(), EVENTS[0].as_bytes());
    client.close();
    edge.wait_metric("sedge_answers_abandoned_total", &[], 1.0);
    // It comes back as a browser would, while the answer is still being made.
    let mut reader = edge.connect();
    reader.send(get(&location, &["Accept: text/event-stream"]));
    assert_eq!(reader.read_head().get("content-type"), Some("text/event-stream"));
    let mut first = String::new();
    while !first.ends_with(EVENTS[0]) {
        first += &String::from_utf8(reader.read_chunk()).expect("text");
    }
    let id = first.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
    reader.close();
    peer.send([chunk(EVENTS[1]), chunk(EVENTS[2]), LAST_CHUNK.to_vec()].concat());
    assert_eq!(whole(&edge, &location), EVENTS.concat());
    let mut again = edge.connect();
    again.send(get(&location, &["Accept: text/event-stream", &format!("Last-Event-ID: {id}")]));
    let (head, body) = again.read_answer();
    assert_eq!(head.status(), 200);
    let rest = body.text();
    assert!(!rest.contains("\"n\":1") && !rest.contains(": ping"), "{rest}");
    assert!(rest.contains("data: {\"n\":2}\r\n\r\n") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
    let last = rest.lines().rfind(|line| line.starts_with("id: ")).expect("an id")[4..].to_owned();
    let id = format!("Last-Event-ID: {last}");
    let done = edge.ask(&get(&location, &["Accept: text/event-stream", &id])).0;
    assert_eq!(done.status(), 204, "{done:?}");
}

#[test]
fn an_answer_that_was_cut_ends_in_an_error_for_everybody() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, location, _) = begun(&edge, &upstream, &durable());
    peer.send([chunk(EVENTS[0]), chunk("data: {\"half")].concat());
    client.read_chunks(EVENTS[0].len() + 12);
    peer.close();
    client.wait_closed();
    let kept = whole(&edge, &location);
    let rest = kept.strip_prefix(EVENTS[0]).expect("what came before");
    assert!(rest.starts_with("data: {\"error\":{") && rest.contains("upstream_closed"), "{kept}");
}

#[test]
fn deleting_it_stops_the_upstream() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    for client_stays in [true, false] {
        let (mut client, mut peer, location, _) = begun(&edge, &upstream, &durable());
        peer.send(chunk(EVENTS[0]));
        assert_eq!(client.read_chunk(), EVENTS[0].as_bytes());
        if !client_stays {
            client.close();
            edge.wait_metric("sedge_answers_abandoned_total", &[], 1.0);
            assert_eq!(edge.ask(&delete(&location)).0.status(), 204);
        } else {
            assert_eq!(edge.ask(&delete(&location)).0.status(), 204);
            let last = String::from_utf8(client.read_chunk()).expect("text");
            assert!(last.contains("answer_deleted"), "{last}");
            client.wait_closed();
        }
        peer.wait_closed();
        assert_eq!(edge.ask(&get(&location, &[])).0.status(), 404);
    }
}

fn delete(path: &str) -> Vec<u8> {
    format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

#[test]
fn a_route_keeps_its_answers_and_only_for_the_key_that_asked() {
    let upstream = Upstream::listen();
    let (one, other) = (sha256("one"), sha256("other"));
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n[[route]]\ndurable = true\n\n\
         [[key]]\nname = \"one\"\nsha256 = \"{one}\"\n\n[[key]]\nname = \"other\"\nsha256 = \"{other}\"\n",
        upstream.url()
    ));
    let request = post("/v1/chat/completions", &["Authorization: Bearer one"], STREAM_BODY);
    let (mut client, mut peer, location, _) = begun(&edge, &upstream, &request);
    peer.send([chunk(EVENTS[2]), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), EVENTS[2].as_bytes());
    for (key, status) in [("one", 200), ("other", 404), ("nobody", 401)] {
        let head = edge.ask(&get(&location, &[&format!("Authorization: Bearer {key}")])).0;
        assert_eq!(head.status(), status, "{key}: {head:?}");
    }
}

#[test]
fn a_signed_address_needs_no_key() {
    let upstream = Upstream::listen();
    let secret = support::edge::scratch("sign");
    std::fs::write(&secret, "pepper\n").expect("write");
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n[[route]]\ndurable = true\n\n\
         [streams]\nsign_key = \"file:{}\"\n\n[[key]]\nname = \"one\"\nsha256 = \"{}\"\n",
        upstream.url(),
        secret.display(),
        sha256("one"),
    ));
    let request = post("/v1/chat/completions", &["Authorization: Bearer one"], STREAM_BODY);
    let (_client, mut peer, location, _) = begun(&edge, &upstream, &request);
    peer.send([chunk(EVENTS[2]), LAST_CHUNK.to_vec()].concat());
    let signed = |path: &str, expires: u64| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"pepper");
        let tag = ring::hmac::sign(&key, format!("{path}\n{expires}").as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("expires={expires}&signature={hex}")
    };
    let good = signed(&location, 4_000_000_000);
    let ask = |request: Vec<u8>| edge.ask(&request).0.status();
    assert_eq!(ask(get(&format!("{location}?{good}"), &[])), 200);
    assert_eq!(ask(get(&format!("{location}?offset=now&{good}"), &[])), 200);
    let past = signed(&location, 1_000_000_000);
    let other = signed("/v1/stream/other", 4_000_000_000);
    let forged = good.replace("4000000000", "4000000001");
    for wrong in [past, other, forged, "expires=4000000000&signature=".into(), String::new()] {
        assert_eq!(ask(get(&format!("{location}?{wrong}"), &[])), 401, "{wrong}");
    }
    // Whoever has the address may read by it until then, and no cache longer.
    let (head, _) = edge.ask(&get(&format!("{location}?{good}"), &[]));
    assert_eq!(head.get("cache-control"), Some("private, no-store"));
    // Several streams on one connection are signed by their names.
    let several = format!("/v1/stream?name={}&name=other", location.trim_start_matches("/v1/stream/"));
    let both = signed(&several, 4_000_000_000);
    assert_eq!(ask(get(&format!("{several}&offset=-1&{both}"), &["Accept: text/event-stream"])), 200);
    for wrong in [
        format!("{several}&name=more&{both}"),
        format!("{several}&n%61me=more&{both}"),
        format!("/v1/stream?name=other&{both}"),
        format!("{location}?{both}"),
    ] {
        assert_eq!(ask(get(&wrong, &["Accept: text/event-stream"])), 401, "{wrong}");
    }
    // It is for reading.
    assert_eq!(ask(delete(&format!("{location}?{good}"))), 401);
    assert_eq!(ask(get(&format!("/v1/models?{good}"), &[])), 401);
}

fn sha256(text: &str) -> String {
    sedge::testing::admission::sha256_hex(text.as_bytes())
}

#[test]
fn an_answer_of_the_responses_api_is_found_by_its_own_name() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let body = r#"{"model":"m","stream":true,"input":"hi"}"#;
    let request = post("/v1/responses", &["Sedge-Durable: true"], body);
    let (client, mut peer, location, _) = begun(&edge, &upstream, &request);
    let events: Vec<String> = (0..4)
        .map(|n| {
            let kind = if n == 3 { "response.completed" } else { "x" };
            format!(
                "event: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{{\"id\":\"resp_7\"}},\"sequence_number\":{n}}}\n\n"
            )
        })
        .collect();
    client.close();
    peer.send([chunk(events[..2].concat()), chunk(events[2..].concat()), LAST_CHUNK.to_vec()].concat());
    assert_eq!(whole(&edge, &location), events.concat());
    for after in 0..4 {
        let path = format!("/v1/responses/resp_7?stream=true&starting_after={after}");
        let (head, body) = edge.ask(&get(&path, &[]));
        assert_eq!(head.status(), 200);
        assert_eq!(body.text(), events[after + 1..].concat(), "after {after}");
    }
    assert_eq!(edge.ask(&get("/v1/responses/resp_7?stream=true", &[])).1.text(), events.concat());
}

#[test]
fn a_restart_in_its_middle_is_an_explicit_end() {
    let upstream = Upstream::listen();
    let directory = support::edge::scratch("resumable");
    let data = directory.to_str().expect("UTF-8");
    let url = upstream.url();
    let args = ["--upstream", &url, "--data-dir", data];
    let mut edge = Edge::start(&args);
    let (mut client, mut peer, location, _) = begun(&edge, &upstream, &durable());
    peer.send(chunk(EVENTS[0]));
    assert_eq!(client.read_chunk(), EVENTS[0].as_bytes());
    wait_until("it is kept", || edge.ask(&get(&format!("{location}?offset=-1"), &[])).1.text() == EVENTS[0]);
    edge.signal(Signal::KILL);
    edge.wait_exit();
    let edge = Edge::start(&args);
    let kept = whole(&edge, &location);
    assert!(kept.starts_with(EVENTS[0]) && kept.contains("generation_interrupted"), "{kept}");
    drop(edge);
    std::fs::remove_dir_all(directory).expect("remove");
}
