//! What is read of a stream is compressed for those who ask, and the same to the byte; events only where the configuration says
//! so, and then each is there at once.

#[path = "support/decode.rs"]
mod decode;
mod support;

use decode::{Reader, whole};
use rustix::process::Signal;
use sedge::testing::http1::coding::Coding;
use support::streams::{append_with, close, create, path, read_all, request};
use support::{Body, Edge, End, Head, Wire, get};

/// Fields of a request that the response depends on.
const VARY: &str = "Accept, Last-Event-ID, Accept-Encoding";

const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];
const FROM_THE_BEGINNING: &str = "-1";

fn configured(compress: &str) -> Edge {
    Edge::configured(&format!("heartbeat = \"100ms\"\n\n[streams]\ncompress = \"{compress}\"\n"))
}

/// Appends `count` messages; gives back the body of a read of all of them.
fn messages(edge: &Edge, name: &str, count: usize) -> Vec<u8> {
    create(edge, name, "application/json");
    let one = |n: usize| {
        format!(r#"{{"n":{n},"text":"Reeds grow along a stream because their roots hold the bank."}}"#)
    };
    let all: Vec<String> = (0..count).map(one).collect();
    for part in all.chunks(1000) {
        append_as(edge, name, "application/json", &format!("[{}]", part.join(",")));
    }
    format!("[{}]", all.join(",")).into_bytes()
}

fn append_as(edge: &Edge, name: &str, kind: &str, body: &str) {
    let (head, _) = edge.ask(&request("POST", &path(name), &[&format!("Content-Type: {kind}")], body));
    assert_eq!(head.status(), 204, "{head:?}");
}

fn read(edge: &Edge, name: &str, fields: &[&str]) -> (Head, Body) {
    let (head, body) = edge.ask(&get(&path(name), fields));
    assert_eq!(body.end, End::Whole, "{head:?}");
    (head, body)
}

#[test]
fn a_read_is_the_same_to_the_byte_in_every_coding() {
    let edge = Edge::start(&[]);
    for (name, count) in [("short", 20), ("long", 20_000)] {
        let plain = messages(&edge, name, count);
        let (head, body) = read(&edge, name, &[]);
        assert!(!head.has("content-encoding") && head.has("content-length"), "{head:?}");
        assert_eq!(head.get("vary"), Some(VARY));
        assert!(body.bytes() == plain, "{name}: other bytes");
        for coding in CODINGS {
            let (head, body) = read(&edge, name, &[&format!("Accept-Encoding: {}", coding.name())]);
            assert_eq!(head.get("content-encoding"), Some(coding.name()));
            assert_eq!(head.get("vary"), Some(VARY));
            assert_eq!(head.get("content-type"), Some("application/json"));
            assert!(head.is_chunked() && head.get("stream-up-to-date") == Some("true"), "{head:?}");
            assert!(whole(coding, &body.bytes()) == plain, "{name}, {coding:?}: other bytes");
            assert!(body.bytes().len() * 5 < plain.len(), "{name}, {coding:?}: {} bytes", body.bytes().len());
        }
    }
}

#[test]
fn the_best_of_all_that_the_client_takes_is_chosen() {
    let edge = Edge::start(&[]);
    messages(&edge, "a", 100);
    for (fields, coding) in [
        (&["Accept-Encoding: gzip, deflate, br, zstd"][..], Some("zstd")),
        (&["Accept-Encoding: gzip;q=1, *;q=0.5"], Some("gzip")),
        (&["Accept-Encoding: gzip;q=0.2", "Accept-Encoding: br;q=0.3"], Some("br")),
        (&["Accept-Encoding: deflate"], None),
        (&["Accept-Encoding: gzip;q=none"], None),
        (&["Accept-Encoding: "], None),
    ] {
        assert_eq!(read(&edge, "a", fields).0.get("content-encoding"), coding, "{fields:?}");
    }
}

#[test]
fn each_coding_has_a_tag_of_its_own() {
    let edge = Edge::start(&[]);
    messages(&edge, "a", 100);
    let mut tags = Vec::new();
    for coding in Coding::ALL {
        let accepts = format!("Accept-Encoding: {}", coding.name());
        let tag = read(&edge, "a", &[&accepts]).0.get("etag").expect("a tag").to_owned();
        assert!(!tags.contains(&tag), "{tag} twice");
        let known = format!("If-None-Match: {tag}");
        let (head, _) = read(&edge, "a", &[&accepts, &known]);
        assert_eq!((head.status(), head.get("etag")), (304, Some(&*tag)), "{coding:?}");
        assert_eq!(head.get("vary"), Some(VARY));
        assert!(!head.has("content-encoding"), "{head:?}");
        for other in &tags {
            let known = format!("If-None-Match: {other}");
            assert_eq!(read(&edge, "a", &[&accepts, &known]).0.status(), 200, "{other} is no {coding:?}");
        }
        tags.push(tag);
    }
}

#[test]
fn what_is_short_packed_or_without_chunks_is_sent_as_it_is() {
    const EVERY: &str = "Accept-Encoding: gzip, br, zstd";
    let edge = Edge::start(&[]);
    for (name, kind, bytes, coded) in [
        ("kib", "text/plain", 1024, false),
        ("more", "text/plain", 1025, true),
        ("octets", "application/octet-stream", 1025, true),
        ("picture", "image/png", 9000, false),
    ] {
        create(&edge, name, kind);
        let body = "a".repeat(bytes);
        append_as(&edge, name, kind, &body);
        let (head, _) = read(&edge, name, &[EVERY]);
        assert_eq!(head.has("content-encoding"), coded, "{name}: {head:?}");
        assert_eq!(read_all(&edge, name, FROM_THE_BEGINNING).0, body.as_bytes(), "{name}");
    }
    let mut wire = edge.connect();
    wire.send(format!("GET {} HTTP/1.0\r\n{EVERY}\r\n\r\n", path("more")));
    let (head, body) = wire.read_answer();
    assert!(!head.has("content-encoding") && head.get("content-length") == Some("1025"), "{head:?}");
    assert_eq!(body.bytes().len(), 1025);
}

#[test]
fn one_connection_reads_in_every_coding() {
    let edge = Edge::start(&[]);
    let plain = messages(&edge, "a", 1000);
    let mut wire = edge.connect();
    for round in 0..3 {
        for coding in CODINGS {
            wire.send(get(&path("a"), &[&format!("Accept-Encoding: {}", coding.name())]));
            let (head, body) = wire.read_answer();
            assert_eq!(head.get("content-encoding"), Some(coding.name()), "round {round}");
            assert!(whole(coding, &body.bytes()) == plain, "{coding:?}: other bytes");
        }
    }
}

#[test]
fn a_core_has_no_more_encoders_than_it_may() {
    let edge = configured("always");
    messages(&edge, "a", 100);
    let coding = || read(&edge, "a", &["Accept-Encoding: gzip"]).0.get("content-encoding").map(str::to_owned);
    let mut readers: Vec<Live> = Vec::new();
    while coding().is_some() {
        assert!(readers.len() < 64, "{} encoders on one core", readers.len());
        readers.push(Live::open(&edge, &path("a"), Coding::Gzip));
    }
    assert_eq!(readers.len(), 64, "who comes after them is answered as well");
    // Who leaves makes room.
    readers.pop();
    support::wait_until("an encoder is free", || coding().is_some());
}

#[test]
fn nothing_is_compressed_where_the_configuration_says_so() {
    let edge = configured("never");
    let plain = messages(&edge, "a", 100);
    let (head, body) = read(&edge, "a", &["Accept-Encoding: gzip"]);
    assert!(!head.has("content-encoding") && head.get("vary") == Some("Accept, Last-Event-ID"), "{head:?}");
    assert!(body.bytes() == plain, "other bytes");
    edge.rewrite_config("heartbeat = \"100ms\"\n");
    edge.signal(Signal::HUP);
    support::wait_until("the reload", || {
        read(&edge, "a", &["Accept-Encoding: gzip"]).0.get("content-encoding") == Some("gzip")
    });
}

#[test]
fn events_are_compressed_only_where_the_configuration_says_so() {
    let edge = configured("reads");
    create(&edge, "a", "text/plain");
    let mut wire = edge.connect();
    wire.send(get(&path("a"), &["Accept: text/event-stream", "Accept-Encoding: gzip"]));
    let head = wire.read_head();
    assert!(
        head.status() == 200
            && !head.has("content-encoding")
            && head.get("vary") == Some("Accept, Last-Event-ID"),
        "{head:?}"
    );
}

/// Events that come compressed.
struct Live {
    wire: Wire,
    coding: Coding,
    reader: Reader,
    read: Vec<u8>,
    raw: Vec<u8>,
}

impl Live {
    fn open(edge: &Edge, target: &str, coding: Coding) -> Live {
        let mut wire = edge.connect();
        wire.send(get(
            target,
            &["Accept: text/event-stream", &format!("Accept-Encoding: {}", coding.name())],
        ));
        let head = wire.read_head();
        assert_eq!((head.status(), head.get("content-encoding")), (200, Some(coding.name())), "{head:?}");
        assert_eq!((head.get("vary"), head.get("content-type")), (Some(VARY), Some("text/event-stream")));
        Live { wire, coding, reader: Reader::of(coding), read: Vec::new(), raw: Vec::new() }
    }

    /// Reads until `text` is there, which nothing but what has come by then can tell.
    fn wait_for(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.read).contains(text) {
            let chunk = self.wire.read_chunk();
            self.reader.feed(&chunk, &mut self.read);
            self.raw.extend(chunk);
        }
    }

    /// Reads to the end, which has to be one.
    fn finish(mut self) -> String {
        while let Some(chunk) = self.wire.try_read_chunk().expect("a whole answer") {
            self.reader.feed(&chunk, &mut self.read);
            self.raw.extend(chunk);
        }
        assert!(whole(self.coding, &self.raw) == self.read, "{:?}: other bytes", self.coding);
        String::from_utf8(self.read).expect("UTF-8")
    }
}

#[test]
fn an_event_that_is_compressed_is_there_at_once() {
    let edge = configured("always");
    for (place, coding) in CODINGS.into_iter().enumerate() {
        let name = format!("a{place}");
        create(&edge, &name, "text/plain");
        let mut live = Live::open(&edge, &path(&name), coding);
        live.wait_for("\"upToDate\":true}\n\n");
        for n in 0..20 {
            append_with(&edge, &name, &["Stream-Event: tick"], &format!("number {n} "));
            live.wait_for(&format!("data:number {n} \n\n"));
        }
        // Silence is filled here, too.
        live.wait_for("\n\n:\n:\n");
        close(&edge, &name);
        let text = live.finish();
        assert!(text.contains("\"streamClosed\":true"), "{text}");
        assert_eq!(
            text.matches("retry:").count(),
            2,
            "with the first event, and with the first that has data: {text}"
        );
        assert_eq!(text.matches("event: tick\n").count(), 20, "{text}");
    }
}

#[test]
fn several_streams_are_compressed_as_one() {
    let edge = configured("always");
    for coding in CODINGS {
        let names = ["x", "y"].map(|name| format!("{name}-{}", coding.name()));
        for name in &names {
            create(&edge, name, "text/plain");
        }
        let mut live = Live::open(&edge, &format!("/v1/stream?name={}&name={}", names[0], names[1]), coding);
        for n in 0..5 {
            for name in &names {
                append_with(&edge, name, &[], &format!("{name} {n};"));
                live.wait_for(&format!("\"{name} {n};\"}}\n\n"));
            }
        }
        live.wait_for("\n\n:\n:\n");
        names.iter().for_each(|name| close(&edge, name));
        live.finish();
    }
}
