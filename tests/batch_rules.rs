//! The rules of a request hold for each request of a batch: its route, its key's models, its limits, and that all readers read it
//! alike. None of them can be escaped by sending it along with others.

mod support;

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use support::batch::{PATH, Reader, told};
use support::limits::{REMAINING, ok};
use support::{Edge, Upstream, error_code, post};

fn edge(url: &str, limits: &str) -> Edge {
    let sha256: String = digest(&SHA256, b"sk").as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Edge::configured(&format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{url}\"\n\n[[route]]\nmodels = [\"small-*\", \"large\"]\n\n\
         [[key]]\nname = \"team\"\nsha256 = \"{sha256}\"\nmodels = [\"small-*\", \"hear\"]\nlimits = {{ {limits} }}\n"
    ))
}

const KEY: &[&str] = &["Authorization: Bearer sk"];

#[test]
fn each_request_of_a_batch_is_read_like_one_that_comes_alone() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = edge(&upstream.url(), "max_tokens = 100");
    let cases = [
        (r#"{"body":{"model":"small-1","max_tokens":50,"n":2}}"#, 200, None),
        (r#"{"body":{"model":"small-1","max_tokens":50,"n":3}}"#, 400, Some("max_tokens")),
        (r#"{"body":{"model":"small-1","max_tokens":-1}}"#, 400, Some("max_tokens")),
        ("{\"body\":{\"model\":\"small-1\",\"max_to\u{212A}ens\":999}}", 400, Some("max_tokens")),
        (r#"{"body":{"model":"small-1","model":"large"}}"#, 400, Some("model")),
        (r#"{"body":{"model":"small-1","Model":"large"}}"#, 400, Some("model")),
        (r#"{"url":"/v1/embeddings?model=large","body":{"model":"small-1"}}"#, 400, Some("model")),
        (r#"{"url":"/v1/embeddings?model=large","body":{}}"#, 403, Some("model")),
        (r#"{"url":"/v1/models/large","body":{}}"#, 403, Some("model")),
        (r#"{"body":{"model":"large"}}"#, 403, Some("model")),
        (r#"{"body":{"model":"hear"}}"#, 404, Some("model")),
        (r#"{"body":{}}"#, 404, Some("model")),
        (r#"{"url":"/v1/embeddings?model=small-1","body":{"model":"small-1"}}"#, 200, None),
    ];
    let lines: Vec<&str> = cases.iter().map(|(line, ..)| *line).collect();
    let mut client = edge.connect();
    client.send(post(PATH, KEY, &format!("[{}]", lines.join(","))));
    let (mut reader, head) = Reader::of(client);
    assert_eq!(head.status(), 200);
    let mut outcomes = BTreeMap::new();
    while outcomes.len() < cases.len() {
        let (name, data) = reader.next();
        if name == "outcome" {
            let outcome = told(&data);
            outcomes.insert(outcome["index"].as_u64().expect("an index") as usize, outcome);
        }
    }
    for (index, (line, status, param)) in cases.iter().enumerate() {
        let outcome = &outcomes[&index];
        assert_eq!(outcome["status"], *status, "{line}: {outcome}");
        assert_eq!(outcome["error"]["param"].as_str(), *param, "{line}: {outcome}");
    }
    assert_eq!(upstream.requests().len(), 2);
}

/// The batch itself is read by one reader alone, which refuses what another would take differently.
#[test]
fn a_batch_that_readers_take_differently_is_refused_whole() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = edge(&upstream.url(), "max_tokens = 100");
    for batch in [
        r#"[{"body":{"model":"small-1"},"body":{"model":"large"}}]"#,
        r#"[{"body":{"model":"small-1"},"Body":{"model":"large"}}]"#,
        r#"[{"url":"/v1/a","url":"/v1/b","body":{}}]"#,
        r#"{"requests":[],"requests":[{"body":{}}]}"#,
        "\u{FEFF}[{\"body\":{\"model\":\"small-1\"}}]",
    ] {
        let (head, body) = edge.ask(&post(PATH, KEY, batch));
        assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (400, "invalid_batch"), "{batch}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn each_request_of_a_batch_takes_its_own_place() {
    let upstream = Upstream::listen();
    let edge = edge(&upstream.url(), "streams = 2");
    let mut client = edge.connect();
    client.send(post(PATH, KEY, &format!("[{}]", [r#"{"body":{"model":"small-1"}}"#; 3].join(","))));
    let (mut reader, _) = Reader::of(client);
    let mut peers = [upstream.accept(), upstream.accept()];
    let (_, status, code) = reader.outcome();
    assert_eq!((status, code.as_deref()), (Some(429), Some("rate_limit_exceeded")));
    for peer in &mut peers {
        let head = peer.read_head();
        peer.read_request_body(&head);
        peer.send(ok(&[]));
    }
    for _ in 0..2 {
        while reader.next().0 != "outcome" {}
    }
    reader.done();
    edge.wait_metric(REMAINING, &["scope=\"key\"", "name=\"team\"", "limit=\"streams\""], 2.0);
}
