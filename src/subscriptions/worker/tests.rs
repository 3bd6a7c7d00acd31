//! The desk with real streams: what happens to them is told, and what is asked for is kept and done in order.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::streams::store::journal::{Fsync, Settings};
use crate::streams::store::recovery::Opened;
use crate::streams::{Append, Bounds, Creation, Kind, Lifetime, Stream, open};
use crate::subscriptions::{Local, Reply};

fn ids() -> Nonces {
    Nonces::from_os().unwrap()
}

fn in_memory() -> Desk {
    let streams = Arc::new(Streams::new(1, Bounds::default(), ids()));
    Desk::new(streams, Notes::default(), &[], ids(), 0).unwrap()
}

fn create(desk: &Desk, name: &str, bytes: &'static [u8]) -> Arc<Stream> {
    let creation = Creation {
        name,
        kind: Kind::new("text/plain"),
        lifetime: Lifetime::Unbounded,
        bytes: Bytes::from_static(bytes),
        ends: Box::default(),
        closed: false,
        fork: None,
        owner: None,
        generated: false,
    };
    desk.streams.create(&creation, unix_millis()).unwrap().stream
}

fn append(stream: &Arc<Stream>, bytes: &'static [u8]) {
    let append =
        Append { bytes: Bytes::from_static(bytes), content_type: Some("text/plain"), ..Append::default() };
    stream.append(&append, unix_millis()).result.unwrap();
}

fn put(desk: &Desk, id: &str) -> Reply {
    let body = json!({ "type": "webhook", "pattern": "events/*", "webhook": { "url": "http://localhost/" } });
    let body = body.to_string().into_bytes();
    let asked = desk.ask(1, |subscriptions, scene| {
        subscriptions.put(id, &body, "http://edge.example", Local::Allowed, scene)
    });
    asked.stored.unwrap();
    asked.answer.unwrap()
}

fn get(desk: &Desk, id: &str) -> Value {
    let reply = desk.ask(1, |subscriptions, scene| subscriptions.get(id, scene)).answer;
    reply.map_or(Value::Null, |reply| serde_json::from_slice(&reply.body).unwrap())
}

/// The bodies of the webhooks that are to be sent.
fn webhooks(desk: &Desk) -> Vec<Value> {
    desk.ask(1, |_, _| ());
    let orders = std::mem::take(&mut desk.inner.lock().unwrap().orders);
    let body = |order: Order| match order.task {
        Task::Deliver(delivery) => serde_json::from_slice(&delivery.body).unwrap(),
        Task::Announce(_) => panic!("nothing is announced"),
    };
    orders.into_iter().map(body).collect()
}

#[test]
fn what_happens_to_streams_is_told() {
    let desk = in_memory();
    let old = create(&desk, "events/old", b"history");
    put(&desk, "s");
    assert!(webhooks(&desk).is_empty());
    append(&old, b"more");
    let [first] = &webhooks(&desk)[..] else { panic!("one webhook") };
    assert_eq!(first["streams"][0]["path"], "events/old");
    assert_eq!(first["streams"][0]["tail_offset"], old.offset(11).to_string());
    assert_eq!(first["streams"][0]["acked_offset"], old.offset(7).to_string());
    // One wake at a time, whatever happens meanwhile.
    let new = create(&desk, "events/new", b"all of it is new");
    append(&old, b"more");
    assert!(webhooks(&desk).is_empty());
    let links = get(&desk, "s")["streams"].as_array().unwrap().len();
    assert_eq!(links, 2);
    desk.streams.delete(&new).unwrap();
    assert_eq!(get(&desk, "s")["streams"].as_array().unwrap().len(), 1);
}

#[test]
fn who_has_no_subscription_hears_nothing() {
    let desk = in_memory();
    let stream = create(&desk, "events/a", b"x");
    append(&stream, b"x");
    assert!(desk.streams.news().take().is_empty());
    put(&desk, "s");
    desk.ask(1, |subscriptions, _| subscriptions.delete("s"));
    append(&stream, b"x");
    // The first one finds out that nobody listens any more.
    desk.ask(1, |_, _| ());
    append(&stream, b"x");
    create(&desk, "events/b", b"x");
    assert!(desk.streams.news().take().is_empty());
}

#[test]
fn a_stream_that_belongs_to_somebody_is_not_seen() {
    let desk = in_memory();
    put(&desk, "s");
    let creation = Creation {
        name: "events/private",
        kind: Kind::new("text/plain"),
        lifetime: Lifetime::Unbounded,
        bytes: Bytes::from_static(b"x"),
        ends: Box::default(),
        closed: false,
        fork: None,
        owner: Some("alice"),
        generated: false,
    };
    desk.streams.create(&creation, unix_millis()).unwrap();
    assert!(webhooks(&desk).is_empty());
    assert_eq!(get(&desk, "s")["streams"], json!([]));
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("sedge-desk-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }

    fn open(&self) -> (Desk, impl Sized) {
        let settings = Settings { fsync: Fsync::Never, ..Settings::default() };
        let Opened { streams, notes, noted, keeper, .. } =
            open(&self.0, &settings, 1, Bounds::default(), ids(), unix_millis(), b"").unwrap();
        (Desk::new(Arc::new(streams), notes, &noted, ids(), 1).unwrap(), keeper)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits for all that was handed to the journal.
fn durable(desk: &Desk) {
    let journal = desk.streams.journal().unwrap();
    let ticket = desk.inner.lock().unwrap().notes.write("mark", b"", true).unwrap().unwrap();
    while journal.outcome(ticket).is_none() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_restart_keeps_subscriptions_and_keys() {
    let directory = Directory::new("restart");
    let (desk, keeper) = directory.open();
    let kid = desk.keys.signer.kid().to_owned();
    let stream = create(&desk, "events/a", b"old");
    durable(&desk);
    put(&desk, "kept");
    put(&desk, "deleted");
    let made = get(&desk, "kept");
    assert_eq!(made["streams"][0]["acked_offset"], stream.offset(3).to_string());
    append(&stream, b"new");
    desk.ask(1, |subscriptions, _| subscriptions.delete("deleted"));
    durable(&desk);
    drop((stream, desk, keeper));
    for _ in 0..2 {
        let (desk, keeper) = directory.open();
        assert_eq!(desk.keys.signer.kid(), kid);
        assert_eq!(get(&desk, "kept"), made);
        assert_eq!(get(&desk, "deleted"), Value::Null);
        // What was appended wakes, if it was not told before; and if it was, it is told again under the same wake.
        let [wake] = &webhooks(&desk)[..] else { panic!("one webhook") };
        assert_eq!((&wake["generation"], &wake["streams"][0]["has_pending"]), (&json!(1), &json!(true)));
        durable(&desk);
        drop((desk, keeper));
    }
}
