//! The first client of an answer that becomes a durable stream holds nobody back: while it does not read, the upstream is read
//! on into the stream, every other reader gets the events as they come, and when it reads on it gets the rest from there,
//! byte for byte, with the end as it was.

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::kept::{
    ABANDONED, ANSWER_BYTES, Begun, CHUNK_BYTES, Keep, Reader, assert_same, begin, chunks, events, pour,
    pour_chunks, rest,
};
use support::streams::request;
use support::{
    End, LAST_CHUNK, OUTCOMES, SSE_HEAD, STREAM_BODY, Upstream, chunk, error_event_code, get, post,
    wait_until,
};

#[test]
fn a_client_that_stops_holds_nobody_back_and_then_gets_every_byte() {
    let answer = events(ANSWER_BYTES);
    for keep in Keep::all() {
        let upstream = Upstream::listen();
        let edge = keep.edge(&upstream, "");
        for _ in 0..2 {
            let Begun { mut client, peer, location } = begin(&edge, &upstream);
            let pouring = pour(peer, &answer);
            let mut reader = Reader::new(&edge, &location);
            reader.read_until(answer.len());
            // All of it was taken, and the end is for everybody as well.
            let mut peer = pouring.join().expect("the upstream");
            peer.send(LAST_CHUNK);
            assert_same(&reader.read_to_end(), &answer);
            // Now the client reads on.
            let (got, end) = rest(&mut client);
            assert_same(&got, &answer);
            assert_eq!(end, End::Whole);
            // Both connections can be used again.
            client.send(post("/v1/chat/completions", &[], STREAM_BODY));
            let head = peer.read_head();
            peer.read_request_body(&head);
            peer.send([SSE_HEAD, &chunk("data: [DONE]\n\n"), LAST_CHUNK].concat());
            assert_eq!(client.read_answer().1.end, End::Whole);
        }
        edge.wait_metric(OUTCOMES, &["outcome=\"finished\""], 4.0);
        assert_eq!(edge.metric(ABANDONED, &[]), 0.0);
        let logged = edge.stdout().wait_for("/v1/chat/completions");
        assert!(logged.contains(&format!("\"bytes_out\":{}", answer.len())), "{logged}");
    }
}

#[test]
fn a_client_that_catches_up_is_served_as_before() {
    let answer = events(4 << 20);
    for keep in Keep::all() {
        let upstream = Upstream::listen();
        let edge = keep.edge(&upstream, "");
        let Begun { mut client, mut peer, location } = begin(&edge, &upstream);
        let mut reader = Reader::new(&edge, &location);
        let (mut got, mut sent) = (Vec::new(), 0);
        // Steps that end within an event, so that it changes over there, too.
        for part in answer.chunks(500_007) {
            peer = pour(peer, part).join().expect("the upstream");
            sent += part.len();
            reader.read_until(sent - 200);
            while got.len() < sent {
                got.extend(client.read_chunk());
            }
            assert_same(&got, &answer[..sent]);
        }
        peer.send(LAST_CHUNK);
        assert_eq!(rest(&mut client), (Vec::new(), End::Whole));
        assert_same(&reader.read_to_end(), &answer);
    }
}

#[test]
fn a_slow_client_gets_the_same_bytes_at_its_own_pace() {
    const STEP: usize = 256 * 1024;
    const SLOWER: usize = 64 * 1024;
    let answer = events(ANSWER_BYTES);
    for keep in Keep::all() {
        let upstream = Upstream::listen();
        let edge = keep.edge(&upstream, "");
        let Begun { mut client, mut peer, location } = begin(&edge, &upstream);
        let mut reader = Reader::new(&edge, &location);
        let (mut got, mut sent) = (Vec::new(), 0);
        for part in answer.chunks(STEP) {
            peer = pour(peer, part).join().expect("the upstream");
            sent += part.len();
            // Everything is with the others before it has taken its own small part.
            reader.read_until(sent - 200);
            got.extend(client.read_chunks(SLOWER));
            assert!(got.len() < sent || sent <= STEP);
        }
        peer.send(LAST_CHUNK);
        assert_same(&reader.read_to_end(), &answer);
        let (more, end) = rest(&mut client);
        got.extend(more);
        assert_same(&got, &answer);
        assert_eq!(end, End::Whole);
    }
}

#[test]
fn an_answer_that_is_cut_ends_for_it_as_for_the_others() {
    let answer = events(ANSWER_BYTES);
    let whole_events = answer.len() - "data: [DONE]\n\n".len();
    for keep in Keep::all() {
        let upstream = Upstream::listen();
        let edge = keep.edge(&upstream, "");
        for cut_at in [whole_events, whole_events - 50] {
            let Begun { mut client, peer, location } = begin(&edge, &upstream);
            let peer = pour(peer, &answer[..cut_at]).join().expect("the upstream");
            peer.close();
            let kept = Reader::new(&edge, &location).read_to_end();
            let (got, end) = rest(&mut client);
            assert_same(&got, &kept);
            assert_eq!(end, End::Closed);
            let error = got.strip_prefix(&answer[..cut_at / 200 * 200]).expect("what came before");
            assert_eq!(error_event_code(error), "upstream_closed");
        }
        edge.wait_metric(OUTCOMES, &["outcome=\"upstream_cut\""], 2.0);
    }
}

#[test]
fn within_an_event_that_is_cut_nothing_is_made_up() {
    let upstream = Upstream::listen();
    let edge = Keep::Memory.edge(&upstream, "");
    let Begun { mut client, peer, location } = begin(&edge, &upstream);
    let mut answer = b"data: ".to_vec();
    answer.resize(ANSWER_BYTES, b'x');
    pour(peer, &answer).join().expect("the upstream").close();
    let kept = Reader::new(&edge, &location).read_to_end();
    assert!(kept.ends_with(b"}}\n\n"), "the others are told by an event");
    let (got, end) = rest(&mut client);
    assert_eq!(end, End::Closed);
    assert!(got.len() > ANSWER_BYTES / 2 && answer.starts_with(&got), "{} bytes", got.len());
}

#[test]
fn a_client_that_stops_and_leaves_leaves_the_answer_whole() {
    let answer = events(ANSWER_BYTES);
    for keep in Keep::all() {
        let upstream = Upstream::listen();
        let edge = keep.edge(&upstream, "");
        let Begun { client, peer, location } = begin(&edge, &upstream);
        let half = answer.len() / 2;
        let peer = pour(peer, &answer[..half]).join().expect("the upstream");
        let mut reader = Reader::new(&edge, &location);
        reader.read_until(half - 200);
        client.close();
        edge.wait_metric(ABANDONED, &[], 1.0);
        let mut peer = pour(peer, &answer[half..]).join().expect("the upstream");
        peer.send(LAST_CHUNK);
        assert_same(&reader.read_to_end(), &answer);
        edge.wait_metric(OUTCOMES, &["outcome=\"client_gone\""], 1.0);
    }
}

#[test]
fn a_client_that_never_reads_is_let_go_while_the_answer_goes_on() {
    let answer = events(ANSWER_BYTES);
    for keep in Keep::all() {
        let upstream = Upstream::listen();
        let edge = keep.edge(&upstream, "\n[timeouts]\nclient_stall = \"1s\"\n");
        let Begun { mut client, peer, location } = begin(&edge, &upstream);
        let half = answer.len() / 2;
        let peer = pour(peer, &answer[..half]).join().expect("the upstream");
        edge.wait_metric(ABANDONED, &[], 1.0);
        // It need not wait for the end of the answer.
        assert_eq!(client.wait_closed(), End::Reset);
        let mut peer = pour(peer, &answer[half..]).join().expect("the upstream");
        peer.send(LAST_CHUNK);
        assert_same(&Reader::new(&edge, &location).read_to_end(), &answer);
        edge.wait_metric(OUTCOMES, &["outcome=\"client_stalled\""], 1.0);
    }
}

/// A client that is slow is not one that does not read, however fast its upstream is.
#[test]
fn one_that_reads_a_little_in_time_stays() {
    let answer = events(ANSWER_BYTES);
    let upstream = Upstream::listen();
    let edge = Keep::Memory.edge(&upstream, "\n[timeouts]\nclient_stall = \"6s\"\n");
    let wire = chunks(&answer);
    let another = wire.clone();
    let Begun { mut client, peer, location } = begin(&edge, &upstream);
    let pouring = pour_chunks(peer, wire);
    // Another one that reads nothing, until its time is over.
    let stalled = begin(&edge, &upstream);
    let others = pour_chunks(stalled.peer, another);
    let (_never, pace) = std::sync::mpsc::channel::<()>();
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| edge.wait_metric(ABANDONED, &[], 1.0));
        while !other.is_finished() {
            // Nobody sends on it; its time-out is the pace.
            let _ = pace.recv_timeout(Duration::from_millis(100));
            got.extend(client.read_chunks(16 * 1024));
        }
    });
    assert!(got.len() < answer.len() / 2, "{} bytes: it was not slow", got.len());
    // It reads on at once.
    let ends = std::thread::spawn(|| {
        [others, pouring].into_iter().for_each(|upstream| upstream.join().expect("it").send(LAST_CHUNK));
    });
    let (more, end) = rest(&mut client);
    got.extend(more);
    assert_same(&got, &answer);
    assert_eq!(end, End::Whole);
    ends.join().expect("the upstreams");
    assert_same(&Reader::new(&edge, &location).read_to_end(), &answer);
}

#[test]
fn what_is_kept_no_more_is_told_and_nothing_is_skipped() {
    let answer = events(168 << 20);
    // Measured for 80 MiB as for 240: 3 MB in memory, 11 to 24 on disk, and 28 to 70 on the way to Redis, where everything lies in
    // several places at once.
    let bounds = [
        ("memory = 1048576", 16 << 20),
        ("keep_bytes = 1048576", 48 << 20),
        ("keep_bytes = 1048576", 112 << 20),
    ];
    for (keep, (bound, bytes_max)) in Keep::all().into_iter().zip(bounds) {
        let upstream = Upstream::listen();
        let edge = keep.edge(&upstream, bound);
        let Begun { mut client, mut peer, location } = begin(&edge, &upstream);
        let before = edge.resident_bytes();
        // One by one, so that the client stops between two events; then more than is kept.
        let mut reader = Reader::new(&edge, &location);
        let (slow, fast) = answer.split_at(40 * CHUNK_BYTES);
        for part in slow.chunks(CHUNK_BYTES) {
            peer.send(chunk(part));
            reader.read_until(reader.got.len() + part.len());
        }
        let (fast, later) = fast.split_at(160 << 20);
        let peer = pour(peer, fast).join().expect("the upstream");
        let grown = edge.peak_bytes().saturating_sub(before);
        eprintln!("{} bytes went by: memory grew by {grown} bytes", fast.len());
        assert!(grown < bytes_max, "grew by {grown} bytes");
        let (got, end) = rest(&mut client);
        assert_eq!(end, End::Closed, "{} bytes", got.len());
        let at = memchr::memmem::find(&got, b"data: {\"error\"").expect("an error event");
        assert_same(&got[..at], &answer[..at]);
        assert_eq!(error_event_code(&got[at..]), "rest_not_kept");
        // For the others it goes on.
        edge.wait_metric(ABANDONED, &[], 1.0);
        let mut peer = pour(peer, later).join().expect("the upstream");
        peer.send(LAST_CHUNK);
        edge.wait_metric(OUTCOMES, &["outcome=\"client_stalled\""], 1.0);
        let now = format!("{location}?offset=now");
        wait_until("the stream is closed", || edge.ask(&get(&now, &[])).0.has("stream-closed"));
    }
}

#[test]
fn deleting_it_stops_both_sides() {
    let answer = events(ANSWER_BYTES);
    for keep in Keep::all() {
        let upstream = Upstream::listen();
        let edge = keep.edge(&upstream, "");
        let Begun { mut client, peer, location } = begin(&edge, &upstream);
        let mut peer = pour(peer, &answer).join().expect("the upstream");
        Reader::new(&edge, &location).read_until(answer.len());
        // The upstream need not wait until the client has been told.
        assert_eq!(edge.ask(&request("DELETE", &location, &[], "")).0.status(), 204);
        peer.wait_closed();
        let (got, end) = rest(&mut client);
        assert_eq!(end, End::Closed);
        let at = memchr::memmem::find(&got, b"data: {\"error\"").unwrap_or(got.len());
        assert_same(&got[..at], &answer[..at]);
        if at < got.len() {
            assert_eq!(error_event_code(&got[at..]), "answer_deleted");
        }
        assert!(at < answer.len());
    }
}

#[test]
fn a_drain_ends_it_within_its_time() {
    let answer = events(ANSWER_BYTES);
    for keep in Keep::all() {
        let upstream = Upstream::listen();
        let mut edge = keep.edge(&upstream, "\n[timeouts]\nclient_stall = \"1m\"\n");
        let Begun { client: _client, peer, location } = begin(&edge, &upstream);
        let _peer = pour(peer, &answer).join().expect("the upstream");
        Reader::new(&edge, &location).read_until(answer.len());
        edge.signal(Signal::TERM);
        assert_eq!(edge.wait_exit().code(), Some(0));
        let log = edge.stdout().wait_for("/v1/chat/completions");
        assert!(log.contains("\"outcome\":\"drained\""), "{log}");
    }
}
