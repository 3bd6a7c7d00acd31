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

/// Says what the upstream has heard: its path, and its body.
fn telling() -> support::upstream::Served {
    Upstream::serve(|head, body| {
        let path = head.start.split(' ').nth(1).unwrap_or_default();
        let told = if path == "/v1/models" {
            listing(&["gpt-4o", "azure-o1"])
        } else {
            format!("{path} {}", body.text())
        };
        answer("200 OK", &["Content-Type: application/json"], told)
    })
}

fn with_patterns(url: &str) -> String {
    format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{url}\"\n\n[[route]]\nmodels = [\"plain\"]\n\n[route.aliases]\n\
         \"openai/*\" = \"*\"\n\"openai/o*\" = \"azure-o*\"\n\"openai/o1-mini\" = \"mini\"\n\"*-latest\" = \"gpt-4o\"\n"
    )
}

/// A prefix for each of hundreds of models meant hundreds of aliases.
#[test]
fn an_alias_may_be_a_pattern_and_the_most_specific_counts() {
    let one = telling();
    let edge = Edge::configured(&with_patterns(&one.url()));
    for (asked, heard) in [
        ("openai/gpt-4o", "gpt-4o"),
        ("openai/o1", "azure-o1"),
        ("openai/o1-mini", "mini"),
        ("chatgpt-latest", "gpt-4o"),
        ("openai/gpt-latest", "gpt-latest"),
        ("plain", "plain"),
    ] {
        let request = post("/v1/chat/completions", &[], &format!(r#"{{"model":"{asked}"}}"#));
        let (_, body) = edge.ask(&request);
        assert_eq!(body.text(), format!(r#"/v1/chat/completions {{"model":"{heard}"}}"#), "{asked}");
    }
    for nobodys in ["openai/", "gpt-4o"] {
        let request = post("/v1/chat/completions", &[], &format!(r#"{{"model":"{nobodys}"}}"#));
        assert_eq!(edge.ask(&request).0.status(), 404, "{nobodys}");
    }
    assert_eq!(
        ids(&edge),
        ["azure-o1", "gpt-4o", "openai/azure-o1", "openai/gpt-4o", "openai/o1", "openai/o1-mini"]
    );
}

/// `GET /v1/models/{id}` went to the route of requests without a model, or to none.
#[test]
fn one_model_of_the_union_is_told_and_deleted_where_it_is() {
    let (one, two) = (named("one", &["gpt-x"]), named("two", &["meta/llama"]));
    let edge = Edge::configured(&config::routes(&[("gpt-*", &one.url()), ("meta/*", &two.url())]));
    for path in ["/v1/models/gpt-x", "/v1/models/meta/llama", "/v1/models/meta%2Fllama"] {
        let (head, body) = edge.ask(&get(path, &[]));
        let model: serde_json::Value = serde_json::from_slice(&body.bytes()).expect("JSON");
        assert_eq!((head.status(), &model["object"]), (200, &"model".into()), "{path} {model}");
        assert!(path.replace("%2F", "/").ends_with(model["id"].as_str().expect("an id")));
    }
    // A slash more is the list, and not one upstream's.
    let (_, body) = edge.ask(&get("/v1/models/", &[]));
    assert!(body.text().contains("gpt-x") && body.text().contains("meta/llama"), "{}", body.text());
    let (head, body) = edge.ask(&get("/v1/models/nobody's", &[]));
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (404, "model_not_found"));
    // To delete one is asked of the upstream that has it.
    let delete = b"DELETE /v1/models/meta/llama HTTP/1.1\r\nHost: e\r\n\r\n";
    assert_eq!(edge.ask(delete).0.status(), 200);
    assert!(two.requests().iter().any(|head| head.start.starts_with("DELETE /v1/models/meta/llama")));
    assert!(!one.requests().iter().any(|head| head.start.starts_with("DELETE")));
    let delete = b"DELETE /v1/models/nobody's HTTP/1.1\r\nHost: e\r\n\r\n";
    assert_eq!(edge.ask(delete).0.status(), 404);
}

/// An alias is carried over wherever the model is named.
#[test]
fn an_alias_holds_in_a_path_and_a_query() {
    let one = telling();
    let edge = Edge::configured(&with_patterns(&one.url()));
    let delete = b"DELETE /v1/models/openai/gpt%204o?x=1 HTTP/1.1\r\nHost: e\r\n\r\n";
    assert_eq!(edge.ask(delete).1.text(), "/v1/models/gpt%204o?x=1 ");
    let realtime = get("/v1/realtime?a=b&model=openai%2Fgpt-4o&c=d", &[]);
    assert_eq!(edge.ask(&realtime).1.text(), "/v1/realtime?a=b&model=gpt-4o&c=d ");
}
