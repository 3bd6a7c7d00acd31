//! Answers that are kept in a real Redis, with two nodes in front of it: one that was begun at one node goes on at the other, and
//! what becomes of either, or of Redis, an answer that is not whole never looks so.

mod support;

use rustix::process::Signal;
use support::redis::Redis;
use support::streams::{Events, request};
use support::{
    Edge, LAST_CHUNK, SSE_HEAD, STREAM_BODY, Upstream, Wire, chunk, get, post, relayed, wait_until,
};

const EVENTS: [&str; 3] = ["data: {\"n\":1}\n\n", "data: {\"n\":2}\n\n", "data: [DONE]\n\n"];

/// An answer that is kept: both ends, and where it is.
fn begun(edge: &Edge, upstream: &Upstream, path: &str, body: &str) -> (Wire, Wire, String) {
    let request = post(path, &["Sedge-Durable: true"], body);
    let (mut client, mut peer, ..) = relayed(edge, upstream, &request);
    peer.send(SSE_HEAD);
    let head = client.read_head();
    assert_eq!(head.status(), 200, "{head:?}");
    (client, peer, head.get("location").expect("a location").to_owned())
}

fn with_upstream(redis: &Redis, upstream: &Upstream) -> Edge {
    Edge::configured(&format!(
        "[[upstream]]\nname = \"a\"\nurl = \"{}\"\n\n{}",
        upstream.url(),
        redis.config()
    ))
}

/// All there is of a stream, once it is closed.
fn whole(edge: &Edge, location: &str) -> String {
    wait_until("the stream is closed", || edge.ask(&get(location, &[])).0.has("stream-closed"));
    edge.ask(&get(location, &[])).1.text()
}

#[test]
fn an_answer_goes_on_at_another_node() {
    let (redis, upstream) = (Redis::start(), Upstream::listen());
    let [a, b] = [with_upstream(&redis, &upstream), with_upstream(&redis, &upstream)];
    let (mut client, mut peer, location) = begun(&a, &upstream, "/v1/chat/completions", STREAM_BODY);
    peer.send(chunk(EVENTS[0]));
    assert_eq!(client.read_chunk(), EVENTS[0].as_bytes());
    client.close();
    let mut reader = Events::source(&b, &location, None);
    let first = reader.next();
    assert_eq!(first.data, "{\"n\":1}");
    peer.send([chunk(EVENTS[1]), chunk(EVENTS[2]), LAST_CHUNK.to_vec()].concat());
    assert_eq!((reader.next().data, reader.next().data), ("{\"n\":2}".to_owned(), "[DONE]".to_owned()));
    assert_eq!(whole(&b, &location), EVENTS.concat());
}

#[test]
fn deleting_an_answer_at_one_node_stops_the_upstream_of_the_other() {
    let (redis, upstream) = (Redis::start(), Upstream::listen());
    let [a, b] = [with_upstream(&redis, &upstream), with_upstream(&redis, &upstream)];
    let (_client, mut peer, location) = begun(&a, &upstream, "/v1/chat/completions", STREAM_BODY);
    peer.send(chunk(EVENTS[0]));
    assert_eq!(b.ask(&request("DELETE", &location, &[], "")).0.status(), 204);
    peer.wait_closed();
    assert_eq!(b.ask(&get(&location, &[])).0.status(), 404);
}

#[test]
fn an_answer_of_the_responses_api_is_found_at_another_node() {
    let (redis, upstream) = (Redis::start(), Upstream::listen());
    let [a, b] = [with_upstream(&redis, &upstream), with_upstream(&redis, &upstream)];
    let body = r#"{"model":"m","stream":true,"input":"hi"}"#;
    let (client, mut peer, location) = begun(&a, &upstream, "/v1/responses", body);
    let event = |n| {
        let kind = if n == 3 { "response.completed" } else { "x" };
        format!(
            "data: {{\"type\":\"{kind}\",\"response\":{{\"id\":\"resp_7\"}},\"sequence_number\":{n}}}\n\n"
        )
    };
    let events: Vec<String> = (0..4).map(event).collect();
    client.close();
    peer.send([chunk(events[..2].concat()), chunk(events[2..].concat()), LAST_CHUNK.to_vec()].concat());
    assert_eq!(whole(&b, &location), events.concat());
    let (head, body) = b.ask(&get("/v1/responses/resp_7?stream=true&starting_after=1", &[]));
    assert_eq!((head.status(), body.text()), (200, events[2..].concat()));
    // One that nobody has kept is the upstream's to give.
    let (mut client, mut peer, head, _) =
        relayed(&b, &upstream, &get("/v1/responses/resp_8?stream=true", &[]));
    assert!(head.start.contains("resp_8"), "{head:?}");
    peer.send([SSE_HEAD, &chunk(EVENTS[2]), LAST_CHUNK].concat());
    assert_eq!(client.read_answer().1.text(), EVENTS[2]);
}

#[test]
fn an_answer_whose_node_has_died_ends_in_an_error() {
    let (redis, upstream) = (Redis::start(), Upstream::listen());
    let [mut a, b] = [with_upstream(&redis, &upstream), with_upstream(&redis, &upstream)];
    let (mut client, mut peer, location) = begun(&a, &upstream, "/v1/chat/completions", STREAM_BODY);
    peer.send(chunk(EVENTS[0]));
    assert_eq!(client.read_chunk(), EVENTS[0].as_bytes());
    let mut reader = Events::source(&b, &location, None);
    assert_eq!(reader.next().data, "{\"n\":1}");
    a.signal(Signal::KILL);
    a.wait_exit();
    let last = reader.next();
    assert!(last.data.contains("generation_interrupted"), "{last:?}");
    assert!(reader.try_next().is_err(), "and that is the end");
    let kept = whole(&b, &location);
    assert!(kept.starts_with(EVENTS[0]) && kept.contains("generation_interrupted"), "{kept}");
}

#[test]
fn an_answer_outlives_an_absence_of_redis() {
    let (mut redis, upstream) = (Redis::start(), Upstream::listen());
    let a = with_upstream(&redis, &upstream);
    let (mut client, mut peer, location) = begun(&a, &upstream, "/v1/chat/completions", STREAM_BODY);
    peer.send(chunk(EVENTS[0]));
    assert_eq!(client.read_chunk(), EVENTS[0].as_bytes());
    redis.kill();
    // The client does not notice.
    peer.send(chunk(EVENTS[1]));
    assert_eq!(client.read_chunk(), EVENTS[1].as_bytes());
    peer.send([chunk(EVENTS[2]), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), EVENTS[2].as_bytes());
    client.read_last_chunk();
    redis.come_back();
    a.wait_metric("sedge_redis_up", &[], 1.0);
    assert_eq!(whole(&a, &location), EVENTS.concat());
    append_with_nothing_left(&redis);
}

#[test]
fn an_answer_of_which_too_much_waits_for_redis_ends_in_an_error() {
    let (mut redis, upstream) = (Redis::start(), Upstream::listen());
    let a = with_upstream(&redis, &upstream);
    let (mut client, mut peer, location) = begun(&a, &upstream, "/v1/chat/completions", STREAM_BODY);
    peer.send(chunk(EVENTS[0]));
    assert_eq!(client.read_chunk(), EVENTS[0].as_bytes());
    redis.kill();
    let event = format!("data: {}\n\n", "x".repeat(64 << 10));
    for _ in 0..140 {
        peer.send(chunk(&event));
        assert_eq!(client.read_chunks(event.len()), event.as_bytes());
    }
    peer.send([chunk(EVENTS[2]), LAST_CHUNK.to_vec()].concat());
    assert_eq!(client.read_chunk(), EVENTS[2].as_bytes());
    client.read_last_chunk();
    redis.come_back();
    a.wait_metric("sedge_redis_up", &[], 1.0);
    let kept = whole(&a, &location);
    assert!(kept.starts_with(EVENTS[0]) && kept.len() < 9 << 20, "{} bytes", kept.len());
    assert!(kept.ends_with("\"code\":\"storage_unavailable\"}}\n\n"), "{}", &kept[kept.len() - 200..]);
}

#[test]
fn an_answer_of_which_redis_has_lost_a_part_ends_in_an_error() {
    let (redis, upstream) = (Redis::start(), Upstream::listen());
    let a = with_upstream(&redis, &upstream);
    let (mut client, mut peer, location) = begun(&a, &upstream, "/v1/chat/completions", STREAM_BODY);
    peer.send(chunk(EVENTS[0]));
    assert_eq!(client.read_chunk(), EVENTS[0].as_bytes());
    wait_until("it is kept", || a.ask(&get(&format!("{location}?offset=-1"), &[])).1.text() == EVENTS[0]);
    // As after a failover to a replica that was behind.
    let name = location.strip_prefix("/v1/stream/").expect("a name");
    let () = redis.ask(&["DEL", &format!("sedge:l:{name}"), &format!("sedge:p:{name}")]);
    let () = redis.ask(&["HSET", &format!("sedge:s:{name}"), "tail", "0"]);
    peer.send(chunk(EVENTS[1]));
    assert_eq!(client.read_chunk(), EVENTS[1].as_bytes());
    let kept = whole(&a, &location);
    assert!(kept.starts_with("data: {\"error\":{") && kept.contains("storage_unavailable"), "{kept}");
}

/// No answer is on record as being written any more.
fn append_with_nothing_left(redis: &Redis) {
    let writing: Vec<String> = redis.ask(&["KEYS", "sedge:g:*"]);
    assert_eq!(writing, Vec::<String>::new());
}
