//! Whatever happens while the first client of a durable answer is behind: it gets the bytes of the answer in order, none lost and
//! none doubled, or it is told that it does not.

mod support;

use support::kept::{
    ABANDONED, ANSWER_BYTES, Begun, CHUNK_BYTES, EVENT_BYTES, Keep, Reader, assert_same, begin, begin_with,
    events, pour, rest,
};
use support::redis::Redis;
use support::streams::{directory, remove, request};
use support::{
    Edge, End, LAST_CHUNK, OUTCOMES, STREAM_BODY, STREAMS, Upstream, chunk, error_event_code, get,
};

/// Pseudo-random numbers of a seed (splitmix64): a failure can be played again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % most as u64) as usize
    }
}

/// The client stops and goes on at any byte, the upstream writes any parts in any order with that, and it ends anywhere.
#[test]
fn whoever_stops_and_goes_on_anywhere_gets_the_same_bytes() {
    let all = events(6 << 20);
    for keep in Keep::all() {
        let upstream = Upstream::listen();
        let edge = keep.edge(&upstream, "");
        for seed in 0..12 {
            let mut chance = Chance(seed);
            // One that is whole says so itself, at the end of an event.
            let is_whole = chance.below(4) > 0;
            let length = 1 + chance.below(all.len());
            let answer = match is_whole {
                true => [&all[..length / EVENT_BYTES * EVENT_BYTES], b"data: [DONE]\n\n"].concat(),
                false => all[..length].to_vec(),
            };
            let Begun { mut client, mut peer, location } = begin(&edge, &upstream);
            let (mut sent, mut got) = (0, Vec::new());
            while sent < answer.len() {
                // Bursts and single events, now and then one that has to wait for the client alone.
                let most = [300, 20_000, 2 << 20][chance.below(3)];
                let part = &answer[sent..answer.len().min(sent + 1 + chance.below(most))];
                peer = pour(peer, part).join().expect("the upstream");
                sent += part.len();
                if chance.below(3) > 0 {
                    got.extend(client.read_chunks(chance.below(sent - got.len() + 1)));
                }
            }
            if is_whole {
                peer.send(LAST_CHUNK);
            }
            peer.close();
            let (more, end) = rest(&mut client);
            got.extend(more);
            let kept = Reader::new(&edge, &location).read_to_end();
            if is_whole {
                assert_same(&kept, &answer);
                assert_same(&got, &answer);
                assert_eq!(end, End::Whole, "seed {seed}");
            } else if answer.len() < all.len() {
                assert_ne!(end, End::Whole, "seed {seed}");
                // Either it was told at the end of an event, or it was cut where the upstream was.
                let at = memchr::memmem::find(&got, b"data: {\"error\"").unwrap_or(got.len());
                assert_same(&got[..at], &answer[..at]);
                assert!(at + 200 > answer.len(), "seed {seed}: {at} of {} bytes", answer.len());
                if at < got.len() {
                    assert_eq!(error_event_code(&got[at..]), "upstream_closed");
                }
            }
        }
    }
}

#[test]
fn a_body_that_ends_by_close_goes_on_likewise() {
    let answer = events(ANSWER_BYTES);
    let old = format!(
        "POST /v1/chat/completions HTTP/1.0\r\nSedge-Durable: true\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{STREAM_BODY}",
        STREAM_BODY.len()
    );
    let upstream = Upstream::listen();
    let edge = Keep::Memory.edge(&upstream, "");
    for is_whole in [true, false] {
        let Begun { mut client, peer, location } = begin_with(&edge, &upstream, old.as_bytes());
        let cut = if is_whole { answer.len() } else { answer.len() - 60 };
        let mut peer = pour(peer, &answer[..cut]).join().expect("the upstream");
        if is_whole {
            peer.send(LAST_CHUNK);
        }
        peer.close();
        let kept = Reader::new(&edge, &location).read_to_end();
        let body = client.read_to_close();
        assert_same(&body.bytes(), &kept);
        assert_eq!(body.end, End::Closed);
        assert_eq!(is_whole, kept == answer);
    }
}

/// The upstream's silence counts although the client does not read: the others are told in time.
#[test]
fn an_upstream_that_falls_silent_is_given_up() {
    let answer = events(ANSWER_BYTES);
    let answer = answer.strip_suffix(b"data: [DONE]\n\n").expect("its end");
    // Beside each other, since it takes the same time.
    std::thread::scope(|scope| {
        for keep in Keep::all() {
            scope.spawn(move || {
                let upstream = Upstream::listen();
                // The upstream's pauses are no longer than this, as long as it has something to write.
                let limits = "\n[timeouts]\nidle = \"5s\"\nclient_stall = \"1h\"\n";
                let edge = keep.edge(&upstream, limits);
                let Begun { mut client, peer, location } = begin(&edge, &upstream);
                let mut peer = pour(peer, answer).join().expect("the upstream");
                let kept = Reader::new(&edge, &location).read_to_end();
                assert_eq!(edge.metric(STREAMS, &[]), 1.0);
                let error = kept.strip_prefix(answer).expect("all of it");
                assert_eq!(error_event_code(error), "upstream_idle_timeout");
                let (got, end) = rest(&mut client);
                assert_same(&got, &kept);
                assert_eq!(end, End::Closed);
                peer.wait_closed();
                edge.wait_metric(OUTCOMES, &["outcome=\"timeout_idle\""], 1.0);
                assert_eq!(edge.metric(STREAMS, &[]), 0.0);
            });
        }
    });
}

/// Redis goes away while the client is behind. What it would read next is there alone, so it waits, and so does the upstream,
/// before more of its answer waits to be kept than may.
#[test]
fn redis_may_come_back() {
    let answer = events(ANSWER_BYTES);
    let mut redis = Redis::start();
    let upstream = Upstream::listen();
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n{}",
        upstream.url(),
        redis.config()
    ));
    let Begun { mut client, peer, location } = begin(&edge, &upstream);
    let (first, later) = answer.split_at(answer.len() / 2);
    let peer = pour(peer, first).join().expect("the upstream");
    Reader::new(&edge, &location).read_until(first.len() - 200);
    redis.kill();
    edge.wait_metric("sedge_redis_up", &[], 0.0);
    let pouring = pour(peer, later);
    // What lies in sockets and buffers, and not all that was written.
    let mut got = client.read_chunks(64 * 1024);
    redis.come_back();
    let mut peer = pouring.join().expect("the upstream");
    peer.send(LAST_CHUNK);
    let (more, end) = rest(&mut client);
    got.extend(more);
    assert_same(&got, &answer);
    assert_eq!(end, End::Whole);
    edge.wait_metric("sedge_redis_up", &[], 1.0);
    assert_same(&Reader::new(&edge, &location).read_to_end(), &answer);
}

/// A client that can be served without Redis is not made to wait for it.
#[test]
fn while_redis_is_gone_the_client_is_served_directly() {
    let answer = events(4 << 20);
    let mut redis = Redis::start();
    let upstream = Upstream::listen();
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n{}",
        upstream.url(),
        redis.config()
    ));
    let Begun { mut client, peer, location } = begin(&edge, &upstream);
    redis.kill();
    edge.wait_metric("sedge_redis_up", &[], 0.0);
    let pouring = pour(peer, &answer);
    let got = client.read_chunks(answer.len());
    assert_same(&got, &answer);
    let mut peer = pouring.join().expect("the upstream");
    peer.send(LAST_CHUNK);
    client.read_last_chunk();
    redis.come_back();
    edge.wait_metric("sedge_redis_up", &[], 1.0);
    assert_same(&Reader::new(&edge, &location).read_to_end(), &answer);
}

/// The disk fails while the client is behind: it gets what is stored, and is told that it gets no more; nobody waits for ever.
#[test]
fn a_disk_that_fails_is_told() {
    let answer = events(ANSWER_BYTES);
    let data = directory("laggard");
    let upstream = Upstream::listen();
    let url = upstream.url();
    let edge = Edge::start_with_file_bytes(4 << 20, &["--upstream", &url, "--data-dir", &data]);
    let Begun { mut client, peer, location: _ } = begin(&edge, &upstream);
    let pouring = pour(peer, &answer);
    edge.stderr().wait_for("nothing more is stored until there is room");
    let (got, end) = rest(&mut client);
    assert_ne!(end, End::Whole);
    let at = memchr::memmem::find(&got, b"data: {\"error\"").unwrap_or(got.len());
    assert_same(&got[..at], &answer[..at]);
    assert!(at < answer.len());
    // The upstream is read to its end all the same.
    let mut peer = pouring.join().expect("the upstream");
    peer.send(LAST_CHUNK);
    edge.wait_metric(OUTCOMES, &["outcome=\"client_stalled\""], 1.0);
    drop(edge);
    remove(&data);
}

/// There is no memory left for streams, and what is there may not be given up since a fork reads it. What is refused is not lost
/// for a client that is behind: it gets the rest as if there were no stream.
#[test]
fn what_is_refused_reaches_the_client_all_the_same() {
    let answer = events(ANSWER_BYTES);
    let upstream = Upstream::listen();
    let edge = Keep::Memory.edge(&upstream, "memory = 4194304");
    let Begun { mut client, mut peer, location } = begin(&edge, &upstream);
    let (first, later) = answer.split_at(20 * CHUNK_BYTES);
    peer = pour(peer, first).join().expect("the upstream");
    let mut reader = Reader::new(&edge, &location);
    reader.read_until(first.len() - 200);
    let fork = [format!("Stream-Forked-From: {location}"), "Content-Type: text/event-stream".to_owned()];
    let fork = edge.ask(&request("PUT", "/v1/stream/fork", &[&fork[0], &fork[1]], "")).0;
    assert_eq!(fork.status(), 201, "{fork:?}");
    let pouring = pour(peer, later);
    edge.wait_metric("sedge_durable_appends_refused_total", &["reason=\"full\""], 1.0);
    let mut got = client.read_chunks(answer.len());
    let mut peer = pouring.join().expect("the upstream");
    peer.send(LAST_CHUNK);
    let (more, end) = rest(&mut client);
    got.extend(more);
    assert_same(&got, &answer);
    assert_eq!(end, End::Whole);
    edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 1.0);
    assert_eq!(edge.metric(ABANDONED, &[]), 0.0);
}

/// Its request is still being sent when it stops reading: both go on.
#[test]
fn a_request_that_is_not_complete_goes_on_as_well() {
    let answer = events(ANSWER_BYTES);
    let upstream = Upstream::listen();
    let edge = Keep::Memory.edge(&upstream, "");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nSedge-Durable: true\r\n\
                Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
    let mut client = edge.connect();
    client.send(head);
    let mut peer = upstream.accept();
    peer.read_head();
    assert_eq!(peer.read_chunk(), b"one");
    peer.send(support::SSE_HEAD);
    let location = client.read_head().get("location").expect("a location").to_owned();
    let mut peer = pour(peer, &answer).join().expect("the upstream");
    Reader::new(&edge, &location).read_until(answer.len());
    client.send([chunk("two"), LAST_CHUNK.to_vec()].concat());
    assert_eq!(peer.read_chunk(), b"two");
    peer.read_last_chunk();
    peer.send(LAST_CHUNK);
    let (got, end) = rest(&mut client);
    assert_same(&got, &answer);
    assert_eq!(end, End::Whole);
    client.send(get("/livez", &[]));
    assert_eq!(client.read_answer().0.status(), 200);
}
