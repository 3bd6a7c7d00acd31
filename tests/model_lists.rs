//! `GET /v1/models` while an upstream is away: it takes no longer than it must, keeps what is known, and says what is missing.
//!
//! The story: one upstream that was silent made the list take 10 s, each time, whatever the time limits were, and took its
//! models out of it without a word.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use support::{Edge, Head, Upstream, answer, get, timed};

/// The ids of the list, and the head that came with it.
#[track_caller]
fn list(edge: &Edge, fields: &[&str]) -> (Head, Vec<String>) {
    let (head, body) = edge.ask(&get("/v1/models", fields));
    assert_eq!(head.status(), 200, "{}", body.text());
    let value: serde_json::Value = serde_json::from_slice(&body.bytes()).expect("JSON");
    assert_eq!(value["object"], "list");
    let data = value["data"].as_array().expect("data");
    (head, data.iter().map(|model| model["id"].as_str().expect("an id").to_owned()).collect())
}

fn serve(list: &'static str) -> support::upstream::Served {
    Upstream::serve(move |_, _| answer("200 OK", &["Content-Type: application/json"], list))
}

fn two(one: &str, two: &str, more: &str) -> String {
    format!(
        "[[upstream]]\nname = \"one\"\nurl = \"{one}\"\n\n[[upstream]]\nname = \"two\"\nurl = \"{two}\"\n{more}\n\n\
         [[route]]\nmodels = [\"*\"]\nupstreams = [\"one\", \"two\"]\n\n\
         [timeouts]\nconnect = \"300ms\"\nfirst_byte = \"300ms\"\n"
    )
}

#[test]
fn a_silent_upstream_takes_no_longer_than_its_limits_and_is_named() {
    let one = serve(r#"{"data":[{"id":"a"}]}"#);
    let silent = Upstream::listen();
    let edge = Edge::configured(&two(&one.url(), &silent.url(), ""));
    let ((head, ids), took) = timed(|| list(&edge, &[]));
    assert_eq!((head.get("sedge-models-missing"), head.get("sedge-models-stale")), (Some("two"), None));
    assert_eq!(ids, ["a"]);
    assert!(took < Duration::from_secs(9), "{took:?}: the limits were not obeyed");
    let line = edge.stdout().wait_for("\"path\":\"/v1/models\"");
    assert!(line.contains("\"tried\":\"two: silence\""), "{line}");
    assert_eq!(
        edge.metric("sedge_upstream_model_lists_total", &["upstream=\"two\"", "result=\"missing\""]),
        1.0
    );
    // It is not asked again at once.
    silent.accept();
    assert_eq!(list(&edge, &[]).0.get("sedge-models-missing"), Some("two"));
    assert!(silent.idle_for(Duration::from_millis(50)));
}

#[test]
fn the_last_list_of_an_upstream_that_is_away_stands_for_it() {
    let one = serve(r#"{"data":[{"id":"a"}]}"#);
    let state = Arc::new(AtomicU8::new(0));
    let seen = Arc::clone(&state);
    let other = Upstream::serve(move |_, _| match seen.load(Ordering::Relaxed) {
        0 => answer("200 OK", &[], r#"{"data":[{"id":"b"}]}"#),
        1 => answer("500 Internal Server Error", &[], "no"),
        _ => answer("200 OK", &[], r#"{"data":[{"id":"c"}]}"#),
    });
    let edge = Edge::configured(&two(&one.url(), &other.url(), ""));
    let (head, ids) = list(&edge, &[]);
    assert_eq!((head.get("sedge-models-stale"), ids), (None, vec!["a".to_owned(), "b".to_owned()]));
    state.store(1, Ordering::Relaxed);
    let (head, ids) = list(&edge, &[]);
    assert_eq!((head.get("sedge-models-stale"), ids), (Some("two"), vec!["a".to_owned(), "b".to_owned()]));
    // A client with a key of its own gets what that key gets, and nobody else's list.
    let (head, ids) = list(&edge, &["Authorization: Bearer mine"]);
    assert_eq!((head.get("sedge-models-missing"), ids), (Some("two"), vec!["a".to_owned()]));
    state.store(2, Ordering::Relaxed);
    assert_eq!(list(&edge, &["Authorization: Bearer mine"]).1, ["a", "c"]);
    let (head, ids) = list(&edge, &[]);
    assert_eq!((head.get("sedge-models-stale"), ids), (Some("two"), vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn lists_of_other_forms_are_read() {
    let one = serve(r#"[{"id":"a"},{"id":"b"}]"#);
    let other = serve(r#"{"models":[{"name":"c","model":"c"}]}"#);
    let edge = Edge::configured(&two(&one.url(), &other.url(), ""));
    let (head, ids) = list(&edge, &[]);
    assert_eq!(ids, ["a", "b", "c"]);
    assert!(!head.has("sedge-models-missing") && !head.has("sedge-models-stale"), "{head:?}");
}

#[test]
fn an_ejected_upstream_is_not_asked() {
    let one = serve(r#"{"data":[{"id":"a"}]}"#);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", gone.local_addr().expect("an address"));
    drop(gone);
    let breaker = "probe = { path = \"/health\", interval = \"100ms\" }\nbreaker = { connect_failures = 1, cool_down = \"60s\" }";
    let edge = Edge::configured(&two(&one.url(), &url, breaker));
    support::wait_until("it is ejected", || {
        edge.metric("sedge_upstream_state", &["upstream=\"two\"", "state=\"open\""]) == 1.0
    });
    assert_eq!(list(&edge, &[]).0.get("sedge-models-missing"), Some("two"));
    let line = edge.stdout().wait_for("\"path\":\"/v1/models\"");
    assert!(line.contains("\"tried\":\"two: out\""), "{line}");
}
