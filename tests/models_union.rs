//! A request finds its upstream by its model, and `GET /v1/models` is the list of all that can be asked for.

mod support;

use support::{Edge, Upstream, answer, config, error_code, get, post};

fn listing(models: &[&str]) -> String {
    let data: Vec<_> = models
        .iter()
        .map(|id| serde_json::json!({"id": id, "object": "model", "created": 1, "owned_by": "test"}))
        .collect();
    serde_json::json!({"object": "list", "data": data}).to_string()
}

/// An upstream that lists these models and answers everything else with its own name.
fn named(name: &'static str, models: &'static [&'static str]) -> support::upstream::Served {
    Upstream::serve(move |head, _| {
        let list = head.start.contains("/models");
        answer(
            "200 OK",
            &["Content-Type: application/json"],
            if list { listing(models) } else { name.to_owned() },
        )
    })
}

fn ids(edge: &Edge) -> Vec<String> {
    let (head, body) = edge.ask(&get("/v1/models", &[]));
    assert_eq!(head.status(), 200, "{}", body.text());
    let value: serde_json::Value = serde_json::from_slice(&body.bytes()).expect("JSON");
    assert_eq!(value["object"], "list");
    let data = value["data"].as_array().expect("data");
    let mut ids: Vec<_> = data.iter().map(|m| m["id"].as_str().expect("an id").to_owned()).collect();
    assert!(data.iter().all(|m| m["object"] == "model"), "{value}");
    ids.sort();
    ids
}

#[test]
fn a_model_goes_to_its_upstream() {
    let (one, two) = (named("one", &["gpt-x"]), named("two", &["llama"]));
    let edge = Edge::configured(&config::routes(&[("gpt-*", &one.url()), ("llama", &two.url())]));
    for (model, body) in [("gpt-x", "one"), ("gpt-other", "one"), ("llama", "two")] {
        let request = post("/v1/chat/completions", &[], &format!(r#"{{"messages":[],"model":"{model}"}}"#));
        assert_eq!(edge.ask(&request).1.text(), body, "{model}");
    }
}

#[test]
fn a_model_that_nobody_has_is_a_404() {
    let one = named("one", &["gpt-x"]);
    let edge = Edge::configured(&config::routes(&[("gpt-*", &one.url())]));
    let (head, body) = edge.ask(&post("/v1/chat/completions", &[], r#"{"model":"nobody's","messages":[]}"#));
    assert_eq!(head.status(), 404);
    assert!(head.has("x-request-id"), "{head:?}");
    assert_eq!(error_code(&body.bytes()), "model_not_found");
    assert!(one.requests().is_empty());
}

#[test]
fn the_list_is_the_union() {
    let (one, two) = (named("one", &["gpt-x", "shared"]), named("two", &["llama", "shared"]));
    let edge = Edge::configured(&config::routes(&[("gpt-*", &one.url()), ("*", &two.url())]));
    let ids = ids(&edge);
    assert!(ids.contains(&"gpt-x".to_owned()) && ids.contains(&"llama".to_owned()), "{ids:?}");
    assert_eq!(ids.iter().filter(|id| *id == "shared").count(), 1, "{ids:?}");
}

#[test]
fn an_upstream_that_fails_does_not_hide_the_others() {
    let one = named("one", &["gpt-x"]);
    let broken = Upstream::serve(|_, _| answer("500 Internal Server Error", &[], "no"));
    let edge = Edge::configured(&config::routes(&[("gpt-*", &one.url()), ("*", &broken.url())]));
    assert!(ids(&edge).contains(&"gpt-x".to_owned()));
}

/// curl's `-d` without a content type says that the body is a form; what is JSON is routed by its model all the same.
#[test]
fn json_that_is_not_called_json_is_routed_by_its_model() {
    let one = Upstream::serve(|_, _| answer("200 OK", &[], "one"));
    let two = Upstream::serve(|_, _| answer("200 OK", &[], "two"));
    let edge = Edge::configured(&config::routes(&[("b-*", &one.url()), ("*", &two.url())]));
    let body = r#"{"messages":[],"model":"b-1"}"#;
    for kind in ["Content-Type: application/x-www-form-urlencoded\r\n", ""] {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(edge.ask(request.as_bytes()).1.text(), "one", "{kind:?}");
    }
    let form = "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b";
    assert_eq!(edge.ask(form.as_bytes()).1.text(), "two");
}

/// A request for the list that nobody waits for any more is in the books like any other.
#[test]
fn a_client_that_leaves_before_the_list_is_there_is_counted() {
    let (one, two) = (Upstream::listen(), Upstream::listen());
    let edge = Edge::configured(&config::routes(&[("b-*", &one.url()), ("*", &two.url())]));
    let mut client = edge.connect();
    client.send(get("/v1/models", &[]));
    let mut asked = one.accept();
    asked.read_head();
    client.close();
    edge.wait_metric(support::OUTCOMES, &["outcome=\"client_gone\""], 1.0);
    asked.wait_closed();
}
