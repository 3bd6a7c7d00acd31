//! Images in base64 are charged as images. Three of them were 500,000 tokens by their characters, so the second was refused at 200,000
//! tokens a minute, and told to come again in 60 s; the upstream took 1,105 for each.

mod support;

use support::base64::encode;
use support::limits::{number, route};
use support::{Edge, Head, Upstream, Wire, answer, post};

/// A PNG of so many bytes, as far as anyone looks.
fn png(bytes: usize) -> String {
    let noise = (0..bytes).map(|n| (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0]);
    encode(&b"\x89PNG\r\n\x1a\n".iter().copied().chain(noise).collect::<Vec<u8>>())
}

fn chat(image: &str) -> String {
    format!(
        r#"{{"model":"m","max_tokens":300,"messages":[{{"role":"user","content":[{{"type":"text","text":"And this?"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}}]}}]}}"#
    )
}

fn messages(image: &str) -> String {
    format!(
        r#"{{"model":"m","max_tokens":300,"messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{image}"}}}}]}}]}}"#
    )
}

fn sound(sound: &str) -> String {
    format!(
        r#"{{"model":"m","max_tokens":300,"messages":[{{"role":"user","content":[{{"type":"input_audio","input_audio":{{"data":"{sound}","format":"pcm16"}}}}]}}]}}"#
    )
}

/// Sends it and leaves it under way; what is left is told by the head of an answer to somebody else.
fn under_way(edge: &Edge, upstream: &Upstream, path: &str, body: &str) -> (Wire, Wire) {
    let mut client = edge.connect();
    client.send(post(path, &[], body));
    let mut peer = upstream.accept();
    let head = peer.read_head();
    assert_eq!(peer.read_request_body(&head).text().len(), body.len());
    (client, peer)
}

#[test]
fn three_images_fit_into_a_minute() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&route(&upstream.url(), "limits = { tokens_per_minute = 200000 }"));
    let image = png(600_000);
    let mut held: Vec<(Wire, Wire)> = Vec::new();
    for (path, body) in [
        ("/v1/chat/completions", chat(&image)),
        ("/v1/messages", messages(&image)),
        ("/v1/chat/completions", chat(&image)),
    ] {
        held.push(under_way(&edge, &upstream, path, &body));
    }
    // Raw samples have no first bytes to know them by.
    held.push(under_way(&edge, &upstream, "/v1/chat/completions", &sound(&"AAECAwQF".repeat(40_000))));
    for (client, peer) in &mut held {
        peer.send(answer("200 OK", &["Content-Type: application/json"], "{}"));
        let (head, _) = client.read_answer();
        let left = left(&head);
        assert!((190_000..=199_000).contains(&left), "{left}");
    }
}

fn left(head: &Head) -> u64 {
    number(head, "x-ratelimit-remaining-tokens")
}

/// Text is not let through in the name of an image.
#[test]
fn letters_that_are_no_base64_of_anything_are_text() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&route(&upstream.url(), "limits = { tokens_per_minute = 200000 }"));
    let body = format!(r#"{{"model":"m","max_tokens":300,"messages":["{}"]}}"#, "x".repeat(400_000));
    let (mut client, mut peer) = under_way(&edge, &upstream, "/v1/chat/completions", &body);
    peer.send(answer("200 OK", &["Content-Type: application/json"], "{}"));
    let (head, _) = client.read_answer();
    assert!((99_000..=105_000).contains(&left(&head)), "{head:?}");
}

/// A request that waits for others to end is told to come when they are likely to have, not when all that they might use is earned.
#[test]
fn retry_after_is_when_there_is_likely_to_be_room() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&route(&upstream.url(), "limits = { tokens_per_minute = 10000 }"));
    let body = r#"{"model":"m","max_tokens":9000}"#;
    let (mut client, mut peer) = under_way(&edge, &upstream, "/v1/chat/completions", body);
    let (head, _) = edge.ask(&post("/v1/chat/completions", &[], body));
    assert_eq!((head.status(), number(&head, "retry-after")), (429, 1), "{head:?}");
    let usage = r#"{"usage":{"prompt_tokens":5,"completion_tokens":15,"total_tokens":20}}"#;
    peer.send(answer("200 OK", &["Content-Type: application/json"], usage));
    assert_eq!(client.read_answer().0.status(), 200);
    edge.wait_metric(support::OUTCOMES, &["outcome=\"finished\""], 1.0);
    let mut next = edge.connect();
    next.send(post("/v1/chat/completions", &[], body));
    peer.read_head();
    peer.send(answer("200 OK", &[], usage));
    assert_eq!(next.read_answer().0.status(), 200);
}
