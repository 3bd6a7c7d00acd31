//! A tidy end is not a whole stream. A server whose worker dies sends its last chunk all the same, and so does a proxy in front of one
//! that was cut; the client was then given a clean end, and the log said `finished`. A stream of a conversation API says itself that
//! it is over, and what has not said so was cut.

mod support;

use support::{
    CLOSING_SSE_HEAD, Edge, End, LAST_CHUNK, OUTCOMES, SSE_HEAD, Upstream, chunk, error_event_code, get,
    post, relayed,
};

const CUT: &str = "outcome=\"upstream_cut\"";
const FINISHED: &str = "outcome=\"finished\"";

const CHAT: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
const CHAT_END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const RESPONSE: &str =
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n";
const MESSAGE: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";
const GEMINI: &str =
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}],\"usageMetadata\":{}}\r\n\r\n";

/// Paths, the beginning of a stream there, and ends that say that it is over.
const STREAMS: [(&str, &str, &[&str]); 5] = [
    ("/v1/chat/completions", CHAT, &["data: [DONE]\n\n", CHAT_END]),
    ("/v1/completions", "data: {\"choices\":[{\"text\":\"a\"}]}\n\n", &["data: [DONE]\n\n"]),
    (
        "/v1/responses",
        RESPONSE,
        &[
            "event: response.completed\ndata: {\"type\":\"response.completed\"}\n\n",
            "event: response.incomplete\ndata: {\"type\":\"response.incomplete\"}\n\n",
            "data: {\"response\":{\"error\":null},\"type\":\"response.completed\"}\n\n",
        ],
    ),
    (
        "/v1/messages",
        MESSAGE,
        &[
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            "data: {\"type\": \"message_stop\"}\n\n",
        ],
    ),
    (
        "/v1/models/m:streamGenerateContent?alt=sse",
        GEMINI,
        &["data: {\"candidates\": [{\"content\": {},\"finishReason\": \"STOP\"}]}\r\n\r\n"],
    ),
];

/// The ways in which an upstream can end its stream tidily: each makes head and body of what the body is.
fn tidy(body: &str) -> [Vec<u8>; 4] {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n";
    let sized = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let extended =
        format!("Transfer-Encoding: chunked\r\n\r\n{:x};a=b\r\n{body}\r\n0\r\nX-T: 1\r\n\r\n", body.len());
    [
        [CLOSING_SSE_HEAD, &chunk(body), LAST_CHUNK].concat(),
        [&head[..], extended.as_bytes()].concat(),
        [&head[..], sized.as_bytes()].concat(),
        [&head[..], b"\r\n", body.as_bytes()].concat(),
    ]
}

#[test]
fn a_tidy_end_without_a_last_event_is_a_cut() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut cut = 0.0;
    for (path, begin, _) in STREAMS {
        for body in ["", ": hello\n\n", begin, &begin.repeat(3)] {
            for wire in tidy(body) {
                let (mut client, mut peer, ..) = relayed(&edge, &upstream, &post(path, &[], "{}"));
                peer.send(&wire);
                peer.close();
                let (head, got) = client.read_answer();
                assert_eq!(head.status(), 200);
                assert_ne!(got.end, End::Whole, "{path} {}", String::from_utf8_lossy(&wire));
                let text = got.text();
                let told = text
                    .strip_prefix(body)
                    .unwrap_or_else(|| panic!("{text:?} is not {body:?} and an error"));
                let code = told.to_ascii_lowercase();
                assert!(
                    code.contains("upstream_unfinished") || code.contains("upstream_closed"),
                    "{path} {told:?}"
                );
                assert!(told.ends_with("\n\n") && !told.contains("[DONE]"), "{told:?}");
                cut += 1.0;
                edge.wait_metric(OUTCOMES, &[CUT], cut);
            }
        }
    }
}

#[test]
fn the_last_chunk_is_held_back_when_it_comes_alone_and_when_it_does_not() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    for parts in [
        vec![chunk(CHAT), LAST_CHUNK.to_vec()],
        vec![[&chunk(CHAT), LAST_CHUNK].concat()],
        vec![chunk(CHAT), b"0\r\n".to_vec(), b"\r\n".to_vec()],
    ] {
        let (mut client, mut peer, ..) = relayed(&edge, &upstream, &support::stream_request());
        peer.send(CLOSING_SSE_HEAD);
        let head = client.read_head();
        for part in parts {
            peer.send(part);
        }
        assert_eq!(client.read_chunk(), CHAT.as_bytes());
        let event = client.read_chunk();
        assert_eq!(error_event_code(&event), "upstream_unfinished");
        assert_eq!(client.read_body(&head).end, End::Closed);
    }
}

#[test]
fn a_stream_that_has_said_its_end_is_whole() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut finished = 0.0;
    for (path, begin, ends) in STREAMS {
        for end in ends {
            // A server gives all of its events a name, or none.
            let unnamed = end.starts_with("data:").then(|| begin.split_once('\n')).flatten();
            let begin =
                unnamed.filter(|(name, _)| name.starts_with("event:")).map_or(begin, |(_, data)| data);
            let body = [begin, end].concat();
            for wire in tidy(&body) {
                let (mut client, mut peer, ..) = relayed(&edge, &upstream, &post(path, &[], "{}"));
                peer.send(wire);
                peer.close();
                let (_, got) = client.read_answer();
                assert_eq!((got.text().as_str(), got.end), (body.as_str(), End::Whole), "{path}");
                finished += 1.0;
                edge.wait_metric(OUTCOMES, &[FINISHED], finished);
            }
        }
    }
}

/// SDKs stop reading at the last event, and most close then.
#[test]
fn a_client_that_leaves_after_the_last_event_has_missed_nothing() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let mut finished = 0.0;
    for (path, begin, ends) in STREAMS {
        // A reason to end is not the end: what is left is what it has used.
        for end in ends.iter().filter(|end| **end != CHAT_END) {
            let (mut client, mut peer, ..) = relayed(&edge, &upstream, &post(path, &[], "{}"));
            peer.send([CLOSING_SSE_HEAD, &chunk(begin)].concat());
            client.read_head();
            client.read_chunks(begin.len());
            peer.send(chunk(end));
            client.read_chunks(end.len());
            client.close();
            finished += 1.0;
            edge.wait_metric(OUTCOMES, &[FINISHED], finished);
            peer.wait_closed();
        }
    }
    assert!(edge.metric(OUTCOMES, &["outcome=\"client_gone\""]).abs() < f64::EPSILON);
}

#[test]
fn a_client_that_leaves_at_an_error_has_been_told() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (mut client, mut peer, _) = support::streaming(&edge, &upstream);
    let error = "data: {\"id\":\"x\",\"error\":{\"message\":\"no\"}}\n\n";
    peer.send(chunk(error));
    assert_eq!(client.read_chunk(), error.as_bytes());
    client.close();
    edge.wait_metric(OUTCOMES, &["outcome=\"upstream_error\""], 1.0);
}

#[test]
fn other_streams_end_as_they_like() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let event = "data: {\"progress\":1}\n\n";
    for request in [
        get("/v1/events", &[]),
        post("/v1/images/generations", &[], "{}"),
        post("/v1/threads/t/messages", &[], "{}"),
        post("/v1/my/endpoint", &[], "{}"),
    ] {
        for wire in tidy(event) {
            let (mut client, mut peer, ..) = relayed(&edge, &upstream, &request);
            peer.send(wire);
            peer.close();
            let (_, got) = client.read_answer();
            assert_eq!((got.text().as_str(), got.end), (event, End::Whole));
        }
    }
    // Nor does an answer that is no success have to say that it is over.
    let (mut client, mut peer, ..) = relayed(&edge, &upstream, &post("/v1/chat/completions", &[], "{}"));
    let head = String::from_utf8_lossy(SSE_HEAD).replace("200 OK", "500 Oops");
    peer.send([head.as_bytes(), &chunk(event), LAST_CHUNK].concat());
    assert_eq!(client.read_answer().1.end, End::Whole);
}

#[test]
fn a_client_of_http_1_0_gets_a_reset_where_nothing_can_be_told() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let request = String::from_utf8(post("/v1/chat/completions", &[], "{}")).expect("text");
    let (mut client, mut peer, ..) =
        relayed(&edge, &upstream, request.replace("HTTP/1.1", "HTTP/1.0").as_bytes());
    peer.send([SSE_HEAD, &chunk([CHAT, "data: half"].concat()), LAST_CHUNK].concat());
    client.read_head();
    assert_eq!(client.read_to_close().end, End::Reset);
}
