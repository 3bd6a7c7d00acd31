//! Streams in a real Redis, with two nodes in front of it: any node takes any append and serves any reader, and what becomes of
//! either, or of Redis, nobody is told something that is not so.

mod support;

use support::redis::Redis;
use support::streams::{Events, append, append_with, close, create, next, path, read, read_all, request};
use support::{Edge, STREAM_BODY, error_code, get, post, wait_until};

fn nodes(redis: &Redis) -> [Edge; 2] {
    [redis.node(), redis.node()]
}

/// The number in an offset.
fn number(offset: &str) -> u64 {
    offset.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).expect("an offset")
}

#[test]
fn what_one_node_takes_the_other_serves() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "news", "text/plain");
    let mut reader = Events::source(&b, &path("news"), None);
    let mut told = Vec::new();
    for (n, edge) in [&a, &b, &b, &a].into_iter().enumerate() {
        told.push(append(edge, "news", &format!("{n}")));
        let event = reader.data();
        assert_eq!((event.data, event.id.as_ref()), (n.to_string(), told.last()));
    }
    for edge in [&a, &b] {
        assert_eq!(read_all(edge, "news", "-1"), (b"0123".to_vec(), told[3].clone()));
        assert_eq!(read_all(edge, "news", &told[1]).0, b"23");
    }
    // One id space: an entry's id is the number of the offset.
    let entries: Vec<(String, Vec<String>)> = redis.ask(&["XRANGE", "sedge:l:news", "-", "+"]);
    let ids: Vec<String> = told.iter().map(|offset| format!("{}-0", number(offset))).collect();
    assert_eq!(entries.iter().map(|(id, _)| id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    close(&b, "news");
    while reader.try_next().is_ok() {}
    let id = format!("Last-Event-ID: {}", told[3]);
    let (head, _) = a.ask(&get(&path("news"), &["Accept: text/event-stream", &id]));
    assert_eq!(head.status(), 204);
    // It is gone for both, and made again by either it is another one.
    assert_eq!(a.ask(&request("DELETE", &path("news"), &[], "")).0.status(), 204);
    assert_eq!(read(&b, "news", "-1").0.status(), 404);
    create(&b, "news", "text/plain");
    assert_eq!(read(&a, "news", &told[1]).0.status(), 410);
}

#[test]
fn a_producer_may_change_nodes_in_the_middle() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "orders", "text/plain");
    let numbered = |edge: &Edge, epoch: u64, seq: u64| {
        let fields = [
            "Content-Type: text/plain".to_owned(),
            "Producer-Id: p".to_owned(),
            format!("Producer-Epoch: {epoch}"),
            format!("Producer-Seq: {seq}"),
        ];
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        edge.ask(&request("POST", &path("orders"), &fields, format!("{epoch}.{seq};"))).0
    };
    for seq in 0..20 {
        let (first, second) = if seq % 2 == 0 { (&a, &b) } else { (&b, &a) };
        assert_eq!(numbered(first, 0, seq).status(), 200);
        // Sent again, to another node: it is there already.
        let again = numbered(second, 0, seq);
        assert_eq!((again.status(), again.get("producer-seq")), (204, Some(&*seq.to_string())));
    }
    let gap = numbered(&a, 0, 25);
    assert_eq!((gap.status(), gap.get("producer-expected-seq")), (409, Some("20")));
    assert_eq!(numbered(&b, 1, 0).status(), 200);
    let fenced = numbered(&a, 0, 20);
    assert_eq!((fenced.status(), fenced.get("producer-epoch")), (403, Some("1")));
    let all: String = (0..20).map(|seq| format!("0.{seq};")).chain(["1.0;".to_owned()]).collect();
    assert_eq!(read_all(&b, "orders", "-1").0, all.as_bytes());
}

#[test]
fn several_streams_on_one_connection_have_one_order_everywhere() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    let names = ["x", "y", "z"];
    for name in names {
        create(&a, name, "text/plain");
    }
    let target = "/v1/stream?name=x&name=y&name=z";
    let mut both = [Events::source(&a, target, None), Events::source(&b, target, None)];
    let mut ids = Vec::new();
    for n in 0..30 {
        append([&a, &b][n % 2], names[n * 7 % 3], &n.to_string());
        let told = both.each_mut().map(|reader| {
            let event = reader.data();
            (event.json()["data"].as_str().map(str::to_owned), event.id)
        });
        assert_eq!(told[0].0.as_deref(), Some(&*n.to_string()));
        assert_eq!(told[0], told[1]);
        ids.extend(told[0].1.clone());
    }
    // Whoever comes back, to the other node, goes on.
    let mut again = Events::source(&b, target, Some(&ids[11]));
    for n in 12..30 {
        assert_eq!(again.data().json()["data"], n.to_string());
    }
}

#[test]
fn a_fork_reads_its_source_on_every_node() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "trunk", "text/plain");
    let at = append(&a, "trunk", "one");
    append(&b, "trunk", "two");
    let fields = ["Stream-Forked-From: /v1/stream/trunk", &format!("Stream-Fork-Offset: {at}")];
    assert_eq!(b.ask(&request("PUT", &path("branch"), &fields, "")).0.status(), 201);
    append(&a, "branch", "three");
    assert_eq!(a.ask(&request("DELETE", &path("trunk"), &[], "")).0.status(), 204);
    for edge in [&a, &b] {
        assert_eq!(read_all(edge, "branch", "-1").0, b"onethree");
        assert_eq!(read(edge, "trunk", "-1").0.status(), 410);
    }
    // The last fork takes the source that it has kept with it.
    assert_eq!(a.ask(&request("DELETE", &path("branch"), &[], "")).0.status(), 204);
    let left: Vec<String> = redis.ask(&["KEYS", "sedge:[slp]:*"]);
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(read(&b, "trunk", "-1").0.status(), 404);
}

#[test]
fn what_is_kept_is_bounded_by_count_bytes_and_age() {
    let redis = Redis::start();
    let few = Edge::configured(&format!("{}keep_records = 3\n", redis.config()));
    create(&few, "count", "text/plain");
    let told: Vec<String> = (0..8).map(|n| append(&few, "count", &n.to_string())).collect();
    let (head, body) = read(&few, "count", &told[2]);
    assert_eq!(
        (head.status(), head.get("stream-earliest-offset")),
        (410, Some(&*told[4])),
        "{}",
        body.text()
    );
    assert_eq!(read_all(&few, "count", "-1").0, b"567");
    let mut reset = Events::source(&few, &path("count"), Some(&told[0]));
    let event = reset.next();
    assert_eq!((event.name.as_deref(), event.json()["reason"].as_str()), (Some("reset"), Some("trimmed")));
    drop(few);
    let short = Edge::configured(&format!("{}keep = \"1s\"\n", redis.config()));
    create(&short, "age", "text/plain");
    append(&short, "age", "old");
    wait_until("it is too old", || redis.ask::<u64>(&["XLEN", "sedge:l:age"]) == 0);
    assert_eq!(read_all(&short, "age", "-1").0, b"");
    let fields = ["Content-Type: text/plain", "Stream-TTL: 1"];
    assert_eq!(short.ask(&request("PUT", &path("brief"), &fields, "x")).0.status(), 201);
    wait_until("it is over", || redis.ask::<u64>(&["EXISTS", "sedge:s:brief"]) == 0);
    assert_eq!(read(&short, "brief", "-1").0.status(), 404);
}

#[test]
fn while_redis_is_gone_appends_are_refused_and_readers_wait() {
    let mut redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "news", "text/plain");
    append(&a, "news", "before");
    let mut reader = Events::source(&b, &path("news"), None);
    assert_eq!(reader.data().data, "before");
    redis.kill();
    let (head, body) = a.ask(&request("POST", &path("news"), &["Content-Type: text/plain"], "lost"));
    assert_eq!((head.status(), head.get("retry-after")), (503, Some("1")));
    assert_eq!(error_code(&body.bytes()), "storage_unavailable");
    assert_eq!(read(&a, "news", "-1").0.status(), 503, "nobody is told what may be old");
    // A browser is not sent away for good, whether it asks for what is known or not.
    let mut other = Events::source(&b, &path("news"), None);
    assert_eq!(other.data().data, "before");
    let (head, body) = b.ask(&get(&path("never"), &["Accept: text/event-stream"]));
    assert_eq!(head.status(), 200);
    assert!(body.text().starts_with("retry: "), "{}", body.text());
    let (head, body) = a.ask(&get("/readyz", &[]));
    assert_eq!(head.status(), 200);
    assert!(body.text().contains("Redis cannot be reached"), "{}", body.text());
    assert_eq!(a.metric("sedge_redis_up", &[]), 0.0);
    // An answer that cannot be kept is given all the same, and says so.
    let (head, _) = a.ask(&post("/v1/chat/completions", &["Sedge-Durable: true"], STREAM_BODY));
    assert_eq!((head.status(), head.get("sedge-durable")), (200, Some("off; reason=storage")));
    redis.come_back();
    a.wait_metric("sedge_redis_up", &[], 1.0);
    append(&a, "news", "after");
    assert_eq!((reader.data().data, other.data().data), ("after".to_owned(), "after".to_owned()));
    assert_eq!(read_all(&b, "news", "-1").0, b"beforeafter");
}

#[test]
fn a_redis_that_is_full_refuses_appends_and_serves_readers() {
    let redis = Redis::start();
    let a = redis.node();
    create(&a, "news", "text/plain");
    append(&a, "news", "before");
    let mut reader = Events::source(&a, &path("news"), None);
    assert_eq!(reader.data().data, "before");
    let () = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let (head, body) = a.ask(&request("POST", &path("news"), &["Content-Type: text/plain"], "lost"));
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (503, "storage_unavailable"));
    a.stderr().wait_for("refuses: ");
    assert_eq!(read_all(&a, "news", "-1").0, b"before");
    let () = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    append(&a, "news", "after");
    assert_eq!(reader.data().data, "after");
}

#[test]
fn what_redis_has_lost_is_told_and_never_taken_for_something_else() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "news", "text/plain");
    let told: Vec<String> = ["one", "two"].map(|text| append(&a, "news", text)).into();
    let mut reader = Events::source(&b, &path("news"), None);
    assert_eq!(reader.data().data, "one");
    // As after a failover to a replica that was behind: the last append was acknowledged, and is not there.
    let () = redis.ask(&["XDEL", "sedge:l:news", &format!("{}-0", number(&told[1]))]);
    let () = redis.ask(&["XSETID", "sedge:l:news", &format!("{}-0", number(&told[0]))]);
    let () = redis.ask(&["HSET", "sedge:s:news", "tail", &number(&told[0]).to_string()]);
    let (head, _) = read(&b, "news", "-1");
    assert_ne!(next(&head), told[0], "its offsets are of another log now");
    append(&a, "news", "TWO");
    let mut again = Events::source(&b, &path("news"), Some(&told[1]));
    let event = again.next();
    assert_eq!((event.name.as_deref(), event.json()["reason"].as_str()), (Some("reset"), Some("epoch")));
    assert_eq!(again.data().data, "one");
    // And when all of it is lost, both nodes know that.
    let () = redis.ask(&["FLUSHALL"]);
    wait_until("both have begun anew", || {
        [&a, &b].iter().all(|edge| read(edge, "news", "-1").0.status() == 404)
    });
    create(&b, "news", "text/plain");
    assert_eq!(read(&a, "news", &told[0]).0.status(), 410);
}

#[test]
fn messages_keep_their_borders_and_events_their_names() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "json", "application/json");
    let fields = ["Content-Type: application/json", "Stream-Event: chat"];
    assert_eq!(
        a.ask(&request("POST", &path("json"), &fields, "[{\"n\":1},{\"n\":2},{\"n\":3}]")).0.status(),
        204
    );
    let mut reader = Events::source(&b, &path("json"), None);
    let events: Vec<_> = (0..3).map(|_| reader.next()).collect();
    for (n, event) in events.iter().enumerate() {
        assert_eq!((event.name.as_deref(), &event.json()["n"]), (Some("chat"), &(n + 1).into()));
    }
    let second = events[1].id.clone().expect("an id");
    assert_eq!(read_all(&b, "json", &second).0, b"[{\"n\":3}]");
    let fields = ["Stream-Event: note"];
    create(&a, "text", "text/plain");
    append_with(&b, "text", &fields, "hello");
    assert_eq!(Events::source(&a, &path("text"), None).next().name.as_deref(), Some("note"));
}

#[test]
fn what_is_not_held_here_is_fetched_when_it_is_read() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    create(&a, "long", "text/plain");
    let record = |n: usize| format!("{n}:{}\n", "x".repeat(9_000));
    let mut all = String::new();
    for n in 0..200 {
        all += &record(n);
        append([&a, &b][n % 2], "long", &record(n));
    }
    for edge in [&a, &b] {
        assert!(read_all(edge, "long", "-1").0 == all.as_bytes(), "1.8 MB, of which 256 KiB are held");
        let held = edge.metric("sedge_durable_memory_bytes", &[]);
        assert!(held < 600_000.0, "{held}");
    }
}
