//! A path leads to one place. `/v1/embeddings/../../internal/x` was relayed as it stood, with the upstream's key, and the upstream
//! went where the dots led: out of `/v1/`, and around the `paths` of every route. So did `%2e%2e` and `%2f..%2f`.

mod support;

use support::upstream::Served;
use support::{Edge, Upstream, answer, error_code, get, post};

fn paths(upstream: &Served) -> Vec<String> {
    let target = |start: &str| start.split(' ').nth(1).expect("a target").to_owned();
    upstream.requests().iter().map(|head| target(&head.start)).collect()
}

fn serve() -> Served {
    Upstream::serve(|_, _| answer("200 OK", &["Content-Type: application/json"], "{}"))
}

fn edge_to(upstream: &Served) -> Edge {
    Edge::start(&["--upstream", &upstream.url()])
}

#[test]
fn a_path_that_leads_elsewhere_is_refused() {
    let upstream = serve();
    let edge = edge_to(&upstream);
    for path in [
        "/v1/embeddings/../../internal/x",
        "/v1/embeddings/%2e%2e/%2e%2e/internal/x",
        "/v1/embeddings/.%2E/internal",
        "/v1/embeddings/..%2f..%2finternal",
        "/v1/embeddings/..;/..;/internal",
        "/v1/embeddings/..\\..\\internal",
        "/v1/embeddings/..%5c..%5cinternal",
        "/v1/./chat/completions",
        "/v1/..",
        "/v1%2Fchat/completions",
        "/v1/models/a%2f..%2f..%2finternal",
        "/v1/stream/../models",
        "/v1/%zz",
    ] {
        let (head, body) = edge.ask(&post(path, &[], "{}"));
        assert_eq!((head.status(), &*error_code(&body.bytes())), (400, "invalid_request"), "{path}");
    }
    assert!(upstream.requests().is_empty(), "{:?}", paths(&upstream));
}

#[test]
fn spellings_of_one_path_are_decided_and_sent_as_one() {
    let upstream = serve();
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{}\"\n[[route]]\nname = \"chat\"\npaths = [\"/v1/chat/*\"]\nupstreams = [\"u\"]\n",
        upstream.url()
    ));
    for path in [
        "/v1/chat/completions?a=%2e%2e/..",
        "/v1/%63hat/%63ompletions?a=%2e%2e/..",
        "//v1//chat///completions?a=%2e%2e/..",
        "/%76%31/chat/completion%73?a=%2e%2e/..",
    ] {
        let (head, _) = edge.ask(&post(path, &[], "{}"));
        assert_eq!(head.status(), 200, "{path}");
    }
    assert_eq!(paths(&upstream), vec!["/v1/chat/completions?a=%2e%2e/.."; 4]);
    // The other way about: no spelling of another path leads into the route.
    assert_eq!(edge.ask(&get("/v1/files/%63hat/x", &[])).0.status(), 404);
}

#[test]
fn names_with_slashes_stay_as_they_are() {
    let upstream = serve();
    let edge = edge_to(&upstream);
    assert_eq!(edge.ask(&get("/v1/models/meta-llama%2FLlama-3%2e1", &[])).0.status(), 200);
    assert_eq!(paths(&upstream), ["/v1/models/meta-llama%2FLlama-3.1"]);
    let put = b"PUT /v1/stream/a%2Fb HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(edge.ask(put).0.status(), 201);
    assert_eq!(edge.ask(&get("/v1/stream/a/b", &[])).0.status(), 200);
}

#[test]
fn the_requests_of_a_batch_have_paths_as_well() {
    let upstream = serve();
    let edge = edge_to(&upstream);
    for url in ["/v1/x/../../internal", "/v1/%2e%2e/internal", "/v1/sedge/%62atch", "//v1/sedge//batch"] {
        let body = format!(r#"{{"requests":[{{"url":"{url}","body":{{}}}}]}}"#);
        let (head, body) = edge.ask(&post(support::batch::PATH, &[], &body));
        assert_eq!(head.status(), 400, "{url}: {}", body.text());
    }
    assert!(upstream.requests().is_empty(), "{:?}", paths(&upstream));
}

/// `GET http://host?a=b` is what a client sends through a proxy for the root with a query: it was refused, although it is a URL like
/// any other. A Host of a port alone names nobody, and was served.
#[test]
fn an_absolute_target_may_have_a_query_alone_and_a_host_is_never_a_port_alone() {
    let upstream = serve();
    let edge = Edge::start(&["--relay-all", "--upstream", &upstream.url()]);
    let ask = |target: &str, host: &str| {
        edge.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).0.status()
    };
    assert_eq!(ask("http://localhost?a=b", "localhost"), 200);
    assert_eq!(paths(&upstream), ["/?a=b"]);
    for host in [":", ":80", ""] {
        assert_eq!(ask("/v1/models", host), 400, "{host:?}");
    }
}
