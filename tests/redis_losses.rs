//! What Redis loses, refuses or is silent about is told, and nobody is told something else instead.
//!
//! The stories: a firewall forgot the connection on which a node hears of appends, and whoever followed there heard nothing any
//! more, for good, while requests went on as ever. A Redis that evicts keys took the log of a stream, and readers were told that
//! they had read all of it; it took what was known of its producers, and appends that were there already were taken again.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use support::redis::Redis;
use support::streams::{Events, append, create, is_reset, next, path, read, read_all, request};
use support::{Edge, error_code, get, wait_until};

/// Between a node and Redis: passes everything on, until it is silent about what is published.
struct Between {
    addr: SocketAddr,
    silent: Arc<AtomicBool>,
}

impl Between {
    fn start(redis: SocketAddr) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let (addr, silent) = (listener.local_addr().expect("address"), Arc::new(AtomicBool::new(false)));
        let is_silent = Arc::clone(&silent);
        thread::spawn(move || {
            for node in listener.incoming().map_while(Result::ok) {
                let Ok(redis) = TcpStream::connect(redis) else { return };
                // Once it was silenced a connection stays so; those that come later are sound.
                let (listens, silenced) =
                    (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
                for (mut from, mut to) in [
                    (node.try_clone().expect("clone"), redis.try_clone().expect("clone")),
                    (redis.try_clone().expect("clone"), node.try_clone().expect("clone")),
                ] {
                    let (listens, silenced) = (Arc::clone(&listens), Arc::clone(&silenced));
                    let is_silent = Arc::clone(&is_silent);
                    thread::spawn(move || {
                        let mut block = [0; 16384];
                        while let Ok(count @ 1..) = from.read(&mut block) {
                            let said = &block[..count];
                            if memchr::memmem::find(said, b"SUBSCRIBE").is_some() {
                                listens.store(true, SeqCst);
                            }
                            if listens.load(SeqCst) && is_silent.load(SeqCst) {
                                silenced.store(true, SeqCst);
                            }
                            if !silenced.load(SeqCst) && to.write_all(said).is_err() {
                                return;
                            }
                        }
                    });
                }
            }
        });
        Between { addr, silent }
    }
}

#[test]
fn a_connection_that_was_cut_silently_is_noticed_and_nothing_is_missed() {
    let redis = Redis::start();
    let between = Between::start(redis.addr());
    let far = Edge::configured(&format!("[streams]\nredis = \"redis://{}\"\n", between.addr));
    let near = redis.node();
    create(&near, "a", "text/plain");
    let mut reader = Events::source(&far, &path("a"), None);
    append(&near, "a", "one");
    assert_eq!(reader.data().data, "one");
    between.silent.store(true, SeqCst);
    append(&near, "a", "two");
    far.stderr().wait_for("the connection that listens does not answer");
    between.silent.store(false, SeqCst);
    assert_eq!(reader.data().data, "two");
    append(&near, "a", "three");
    assert_eq!(reader.data().data, "three");
}

#[test]
fn a_log_that_redis_has_evicted_is_lost_and_readers_are_told() {
    let redis = Redis::start();
    let [one, other] = [redis.node(), redis.node()];
    create(&one, "a", "text/plain");
    append(&one, "a", "1");
    let before = append(&one, "a", "2");
    assert_eq!(read(&other, "a", "-1").1.text(), "12");
    let mut follower = Events::source(&other, &path("a"), Some(&before));
    let _: u64 = redis.ask(&["DEL", "sedge:l:a"]);
    // A node that has never seen the stream and one that has: neither says that this was all.
    for edge in [&one, &other, &redis.node()] {
        assert_eq!(read(edge, "a", &before).0.status(), 410);
    }
    // Where it stands, that what it followed is gone, and the end.
    let told: Vec<_> = (0..3).map_while(|_| follower.try_next().ok()).collect();
    assert!(told.len() < 3, "whoever follows comes back: {told:?}");
    let (head, body) = read(&one, "a", "-1");
    assert_eq!((head.status(), body.text().as_str()), (200, ""));
    let earliest = next(&head);
    assert_ne!(earliest, before, "another epoch");
    is_reset(&other, &before, "epoch", &earliest);
    // It goes on from there, everywhere.
    append(&other, "a", "3");
    for edge in [&one, &other] {
        assert_eq!(read_all(edge, "a", &earliest).0, b"3");
    }
}

fn numbered(edge: &Edge, producer: &str, epoch: u64, seq: u64) -> (u16, Option<String>) {
    let fields = [
        "Content-Type: text/plain".to_owned(),
        format!("Producer-Id: {producer}"),
        format!("Producer-Epoch: {epoch}"),
        format!("Producer-Seq: {seq}"),
    ];
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let (head, _) = edge.ask(&request("POST", &path("a"), &fields, format!("{producer}{epoch}.{seq};")));
    (head.status(), head.get("producer-epoch").map(str::to_owned))
}

#[test]
fn producers_that_redis_has_forgotten_begin_anew_and_append_nothing_twice() {
    let redis = Redis::start();
    let edge = redis.node();
    create(&edge, "a", "text/plain");
    for seq in 0..2 {
        assert_eq!(numbered(&edge, "p", 0, seq).0, 200);
    }
    assert_eq!(numbered(&edge, "q", 4, 0).0, 200);
    let _: u64 = redis.ask(&["DEL", "sedge:p:a"]);
    // What comes next, what was appended already, and what may have been: each is told to begin another session.
    assert_eq!(numbered(&edge, "p", 0, 2), (403, Some("1".into())));
    assert_eq!(numbered(&edge, "p", 0, 1), (403, Some("1".into())));
    assert_eq!(numbered(&edge, "q", 4, 0), (403, Some("5".into())));
    // As the protocol has it: one epoch up, or the one that was named.
    assert_eq!(numbered(&edge, "p", 2, 0).0, 200);
    assert_eq!(numbered(&edge, "p", 2, 1).0, 200);
    assert_eq!(numbered(&edge, "q", 5, 0).0, 200);
    assert_eq!(read_all(&edge, "a", "-1").0, b"p0.0;p0.1;q4.0;p2.0;p2.1;q5.0;");
}

#[test]
fn a_stream_whose_own_key_was_evicted_can_be_made_again() {
    let redis = Redis::start();
    let edge = redis.node();
    create(&edge, "a", "text/plain");
    append(&edge, "a", "before");
    let _: u64 = redis.ask(&["DEL", "sedge:s:a"]);
    assert_eq!(read(&edge, "a", "-1").0.status(), 404);
    create(&edge, "a", "text/plain");
    append(&edge, "a", "after");
    assert_eq!(read_all(&edge, "a", "-1").0, b"after");
}

#[test]
fn a_redis_that_may_evict_streams_is_warned_of() {
    let redis = Redis::start();
    let ready = |edge: &Edge| edge.ask(&get("/readyz", &["Connection: close"])).1.text();
    assert!(!ready(&redis.node()).contains("maxmemory-policy"));
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let edge = redis.node();
    edge.stderr().wait_for("has maxmemory-policy volatile-lru: streams have no time to live there");
    assert!(!ready(&edge).contains("maxmemory-policy"), "{}", ready(&edge));
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let edge = redis.node();
    edge.stderr().wait_for("has maxmemory-policy allkeys-lru: it deletes streams when its memory is full");
    assert!(ready(&edge).contains("maxmemory-policy is allkeys-lru"), "{}", ready(&edge));
}

#[test]
fn a_redis_without_memory_refuses_appends_and_takes_them_again_when_there_is_room() {
    let redis = Redis::start();
    let edge = redis.node();
    create(&edge, "a", "text/plain");
    append(&edge, "a", "1");
    let fields = ["Content-Type: text/plain", "Stream-TTL: 3600"];
    assert_eq!(edge.ask(&request("PUT", &path("t"), &fields, "kept")).0.status(), 201);
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    for (method, name) in [("POST", "a"), ("PUT", "b")] {
        let (head, body) = edge.ask(&request(method, &path(name), &["Content-Type: text/plain"], "2"));
        assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (503, "storage_unavailable"));
        assert!(
            body.text().contains("has no memory left (its maxmemory): nothing was changed"),
            "{}",
            body.text()
        );
    }
    edge.stderr().wait_for("refuses: \"OOM\"");
    // What is there can be read, and given up, by a node that begins now as well.
    for edge in [&edge, &redis.node()] {
        assert_eq!(read_all(edge, "a", "-1").0, b"1");
        assert_eq!(read_all(edge, "t", "-1").0, b"kept");
    }
    assert_eq!(edge.ask(&request("DELETE", &path("t"), &[], "")).0.status(), 204);
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    append(&edge, "a", "2");
    assert_eq!(read_all(&edge, "a", "-1").0, b"12");
    wait_until("one connection was enough", || edge.metric("sedge_redis_connects_total", &[]) == 1.0);
}
