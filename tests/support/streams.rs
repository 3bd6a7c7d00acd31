//! Durable streams as their clients see them: requests, and the events of an answer one at a time.

use std::path::Path;

use super::edge::scratch;
use super::{Body, Edge, End, Head, Wire, error_code, get};

/// The type of most streams here.
pub const TEXT: &str = "text/plain";

/// The path of a stream.
pub fn path(name: &str) -> String {
    format!("/v1/stream/{name}")
}

/// A request with a body, which may be empty; `fields` are whole lines without their CRLF.
pub fn request(method: &str, target: &str, fields: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    for field in fields {
        request += field;
        request += "\r\n";
    }
    request += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Makes a stream of this type; gives back where it ends.
#[track_caller]
pub fn create(edge: &Edge, name: &str, kind: &str) -> String {
    let (head, body) = edge.ask(&request("PUT", &path(name), &[&format!("Content-Type: {kind}")], ""));
    assert_eq!(head.status(), 201, "{head:?} {}", body.text());
    next(&head)
}

/// Appends text; gives back where the stream ends after it.
#[track_caller]
pub fn append(edge: &Edge, name: &str, body: &str) -> String {
    append_with(edge, name, &[], body)
}

#[track_caller]
pub fn append_with(edge: &Edge, name: &str, fields: &[&str], body: &str) -> String {
    let fields = [&["Content-Type: text/plain"], fields].concat();
    let (head, body) = edge.ask(&request("POST", &path(name), &fields, body));
    assert!(matches!(head.status(), 200 | 204), "{head:?} {}", body.text());
    next(&head)
}

/// Closes a stream.
#[track_caller]
pub fn close(edge: &Edge, name: &str) {
    let (head, _) = edge.ask(&request("POST", &path(name), &["Stream-Closed: true"], ""));
    assert_eq!((head.status(), head.get("stream-closed")), (204, Some("true")), "{head:?}");
}

/// What one read gives: the rest of the stream, or as much of it as one answer holds.
#[track_caller]
pub fn read(edge: &Edge, name: &str, offset: &str) -> (Head, Body) {
    edge.ask(&get(&format!("{}?offset={offset}", path(name)), &["Connection: close"]))
}

/// Everything from `offset` on, and where it ends.
#[track_caller]
pub fn read_all(edge: &Edge, name: &str, offset: &str) -> (Vec<u8>, String) {
    let (mut bytes, mut at) = (Vec::new(), offset.to_owned());
    loop {
        let (head, body) = read(edge, name, &at);
        assert_eq!((head.status(), body.end), (200, End::Whole), "{head:?} {}", body.text());
        bytes.extend(body.bytes());
        at = next(&head);
        if head.get("stream-up-to-date") == Some("true") {
            return (bytes, at);
        }
    }
}

/// The position that an answer tells.
#[track_caller]
pub fn next(head: &Head) -> String {
    head.get("stream-next-offset").unwrap_or_else(|| panic!("no offset: {head:?}")).to_owned()
}

/// A directory for streams that is not there yet.
pub fn directory(name: &str) -> String {
    scratch(name).to_str().expect("UTF-8").to_owned()
}

/// Goes, with all that is in it.
pub fn remove(directory: &str) {
    if Path::new(directory).exists() {
        std::fs::remove_dir_all(directory).expect("remove");
    }
}

/// One event as the text of an answer has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub name: Option<String>,
    pub retry: Option<u64>,
    /// Its lines, joined by LF.
    pub data: String,
}

impl Event {
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The events of a chunked answer that goes on.
#[derive(Debug)]
pub struct Events {
    wire: Wire,
    text: Vec<u8>,
    /// Heartbeats that came between events so far.
    pub beats: usize,
}

impl Events {
    /// Asks, and expects events.
    #[track_caller]
    pub fn open(edge: &Edge, target: &str, fields: &[&str]) -> Self {
        let mut wire = edge.connect();
        wire.send(get(target, fields));
        let head = wire.read_head();
        assert_eq!(head.status(), 200, "{target} {fields:?}: {head:?}");
        let kind = head.get("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/event-stream"), "{head:?}");
        Self::of(wire)
    }

    /// Those that follow a head that was read.
    pub fn of(wire: Wire) -> Self {
        Self { wire, text: Vec::new(), beats: 0 }
    }

    /// As a browser's EventSource asks, which was there already if it has an id.
    #[track_caller]
    pub fn source(edge: &Edge, target: &str, last_event_id: Option<&str>) -> Self {
        let last = last_event_id.map(|id| format!("Last-Event-ID: {id}"));
        let fields: Vec<&str> = ["Accept: text/event-stream"].into_iter().chain(last.as_deref()).collect();
        Self::open(edge, target, &fields)
    }

    /// The next event.
    #[track_caller]
    pub fn next(&mut self) -> Event {
        self.try_next().unwrap_or_else(|end| panic!("{end:?} instead of an event"))
    }

    /// The next event that has data and is no `control`.
    #[track_caller]
    pub fn data(&mut self) -> Event {
        loop {
            let event = self.next();
            if event.name.as_deref() != Some("control") {
                return event;
            }
        }
    }

    /// The next event, or how the answer ended instead.
    #[track_caller]
    pub fn try_next(&mut self) -> Result<Event, End> {
        loop {
            while self.text.starts_with(b":\n") {
                self.text.drain(..2);
                self.beats += 1;
            }
            if let Some(at) = memchr::memmem::find(&self.text, b"\n\n") {
                let block: Vec<u8> = self.text.drain(..at + 2).collect();
                return Ok(parse(std::str::from_utf8(&block[..at]).expect("UTF-8")));
            }
            match self.wire.try_read_chunk() {
                Ok(Some(chunk)) => self.text.extend(chunk),
                Ok(None) => {
                    assert!(
                        self.text.is_empty(),
                        "cut within an event: {:?}",
                        String::from_utf8_lossy(&self.text)
                    );
                    return Err(End::Whole);
                }
                Err(end) => return Err(end),
            }
        }
    }

    /// The next heartbeat; only what ends a part of the stream, a `control`, may come before it.
    #[track_caller]
    pub fn wait_beat(&mut self) {
        let before = self.beats;
        loop {
            while self.text.starts_with(b":\n") {
                self.text.drain(..2);
                self.beats += 1;
            }
            if self.beats > before {
                return;
            }
            if self.text.is_empty() {
                let chunk = self.wire.read_chunk();
                self.text.extend(chunk);
            } else {
                let event = self.next();
                assert_eq!(event.name.as_deref(), Some("control"), "instead of a heartbeat: {event:?}");
            }
        }
    }
}

/// The lines of one event, which has no comments in it: whoever cannot stand one within an event exists (see the heartbeats).
#[track_caller]
fn parse(block: &str) -> Event {
    let mut event = Event::default();
    let mut data = Vec::new();
    for line in block.split('\n') {
        let (field, value) =
            line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?} in {block:?}"));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => assert!(event.id.replace(value.to_owned()).is_none(), "two ids: {block:?}"),
            "event" => assert!(event.name.replace(value.to_owned()).is_none(), "two names: {block:?}"),
            "retry" => {
                event.retry = Some(value.parse().unwrap_or_else(|_| panic!("milliseconds: {block:?}")));
            }
            "data" => data.push(value),
            _ => panic!("an unknown field: {block:?}"),
        }
    }
    assert!(!data.is_empty(), "an event without data breaks clients: {block:?}");
    event.data = data.join("\n");
    event
}

/// `<epoch>-<number>`, as the two.
#[track_caller]
pub fn parts(offset: &str) -> (&str, u64) {
    assert!(offset.len() <= 64, "{offset}");
    assert!(offset.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{offset}");
    let (epoch, number) = offset.rsplit_once('-').unwrap_or_else(|| panic!("no epoch: {offset}"));
    (epoch, number.parse().unwrap_or_else(|_| panic!("no number: {offset}")))
}

/// An offset that says this instead.
pub fn altered(offset: &str, epoch: Option<&str>, number: Option<u64>) -> String {
    let (own, at) = parts(offset);
    let width = offset.len() - own.len() - 1;
    format!("{}-{:0width$}", epoch.unwrap_or(own), number.unwrap_or(at))
}

/// A stream of three messages, and where each of them ended.
pub fn of_three(edge: &Edge) -> (String, [String; 3]) {
    let start = create(edge, "a", TEXT);
    (start, ["1", "2", "3"].map(|text| append(edge, "a", text)))
}

/// What an EventSource with this id is told, and that it reads on from the earliest position there is.
#[track_caller]
pub fn is_reset(edge: &Edge, id: &str, reason: &str, earliest: &str) {
    let mut events = Events::source(edge, &path("a"), Some(id));
    let event = events.next();
    assert_eq!(event.name.as_deref(), Some("reset"), "{event:?}");
    let told = event.json();
    let expected = serde_json::json!({ "reason": reason, "requested": id, "earliest": earliest });
    assert_eq!(told, expected);
    // Whatever happens to the connection now: from its new id it goes on without another reset.
    let id = event.id.expect("a reset has the id to go on from");
    let mut events = Events::source(edge, &path("a"), Some(&id));
    assert_ne!(events.next().name.as_deref(), Some("reset"));

    for target in [format!("{}?offset={id}", path("a")), format!("{}?offset={id}&live=long-poll", path("a"))]
    {
        let (head, body) = edge.ask(&get(&target.replace(&id, &requested(&told)), &[]));
        assert_eq!(head.status(), 410, "{head:?}");
        error_code(&body.bytes());
    }
}

fn requested(told: &serde_json::Value) -> String {
    told["requested"].as_str().expect("text").to_owned()
}

/// What an event of several streams says: the stream, and its text.
#[track_caller]
pub fn of_several(event: &Event) -> (String, String) {
    let told = event.json();
    let word = |key: &str| told[key].as_str().unwrap_or_else(|| panic!("{key}: {told}")).to_owned();
    (word("stream"), word("data"))
}
