//! A sedge without client keys listens on loopback, where only the user of the machine can reach it. So can every web page that
//! this user opens. A page whose name was rebound to 127.0.0.1 read the answers of the model, files, durable streams and
//! metrics; any page at all could send requests that need no preflight (a POST of `text/plain`), and spend the upstream's key.

mod support;

use support::edge::{command, scratch};
use support::upstream::Served;
use support::{Edge, Upstream, Wire, answer, error_code};

const STREAM: &str = "/v1/stream/news";

fn closed(more: &[&str]) -> (Served, Edge) {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &["Content-Type: application/json"], "{}"));
    let edge =
        Edge::run_closed(command(), &[&["--workers", "1", "--upstream", &upstream.url()], more].concat());
    (upstream, edge)
}

/// With `toml` beside one upstream.
fn configured(toml: &str) -> (Served, Edge) {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &["Content-Type: application/json"], "{}"));
    let path = scratch("sedge.toml");
    let toml = format!("{toml}\n[[upstream]]\nurl = \"{}\"\n", upstream.url());
    std::fs::write(&path, toml).expect("write");
    let args = ["--workers", "1", "--config", path.to_str().expect("UTF-8")];
    (upstream, Edge::run_closed(command(), &args))
}

fn request(method: &str, path: &str, host: &str, fields: &[&str]) -> Vec<u8> {
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}")
        .into_bytes()
}

/// The status of an answer, and the code of its error.
fn ask(edge: &Edge, method: &str, path: &str, host: &str, fields: &[&str]) -> (u16, Option<String>) {
    let (head, body) = edge.ask(&request(method, path, host, fields));
    let body = body.bytes();
    assert!(head.start.splitn(3, ' ').nth(2).is_some_and(|reason| !reason.is_empty()), "{}", head.start);
    (head.status(), (head.status() >= 400 && !body.is_empty()).then(|| error_code(&body)))
}

const HOST_NOT_SERVED: &str = "host_not_served";
const ORIGIN_NOT_ALLOWED: &str = "origin_not_allowed";

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

#[test]
fn a_name_that_was_rebound_to_this_machine_is_not_served() {
    let (upstream, edge) = closed(&[]);
    for (method, path) in [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/"),
        ("PUT", STREAM),
        ("GET", STREAM),
        ("POST", "/v1/sedge/batch"),
        ("OPTIONS", "/v1/chat/completions"),
    ] {
        for host in
            ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil"]
        {
            assert_eq!(
                ask(&edge, method, path, host, &[]),
                refused(421, HOST_NOT_SERVED),
                "{method} {path} {host}"
            );
        }
    }
    let (_, body) = edge.ask(&request("GET", "/v1/models", "evil.example:8080", &[]));
    assert!(body.text().contains(r#"hosts = [\"evil.example\"]"#), "{}", body.text());
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "127.0.0.2", "[::1]:8080", "app.localhost"]
    {
        assert_eq!(ask(&edge, "POST", "/v1/chat/completions", host, &[]).0, 200, "{host}");
    }
    // A probe of its health may call it by any name.
    assert_eq!(ask(&edge, "GET", "/livez", "evil.example", &[]).0, 200);
    // An absolute target is the same as a Host.
    let target = "http://evil.example/v1/models";
    assert_eq!(ask(&edge, "GET", target, "evil.example", &[]), refused(421, HOST_NOT_SERVED));
}

#[test]
fn operators_numbers_are_not_for_web_pages() {
    let (_upstream, edge) = closed(&[]);
    let ask = |host: &str, fields: &[&str]| {
        let mut client = Wire::connect(edge.admin());
        client.send(request("GET", "/metrics", host, fields));
        client.read_answer().0.status()
    };
    assert_eq!(ask("evil.example:9091", &[]), 421);
    assert_eq!(ask("localhost:9091", &["Origin: https://evil.example"]), 403);
    assert_eq!(ask("localhost:9091", &["Sec-Fetch-Site: cross-site"]), 403);
    assert_eq!(ask("localhost:9091", &[]), 200);
    assert_eq!(ask("127.0.0.1:9091", &["Sec-Fetch-Site: none"]), 200);
}

#[test]
fn a_page_of_another_site_can_neither_send_nor_follow() {
    let (upstream, edge) = closed(&[]);
    assert_eq!(ask(&edge, "PUT", STREAM, "localhost", &[]).0, 201);
    let foreign: [&[&str]; 5] = [
        &["Origin: https://evil.example"],
        &["Origin: null"],
        &["Origin: http://localhost:3000"],
        &["Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"],
        &["Sec-Fetch-Site: cross-site"],
    ];
    for fields in foreign {
        for (method, path) in [
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/files"),
            ("DELETE", "/v1/files/a"),
            ("POST", "/v1/sedge/batch"),
            ("POST", STREAM),
            ("PUT", STREAM),
            ("DELETE", STREAM),
            ("GET", STREAM),
            ("HEAD", STREAM),
            ("GET", "/v1/stream?name=news"),
            ("GET", "/v1/responses/resp_1?stream=true"),
            ("PUT", "/v1/stream/__ds/subscriptions/s"),
        ] {
            let (status, code) = ask(&edge, method, path, "localhost:8080", fields);
            assert_eq!(status, 403, "{method} {path} {fields:?}");
            assert!(
                method == "HEAD" || code.as_deref() == Some(ORIGIN_NOT_ALLOWED),
                "{method} {path} {code:?}"
            );
        }
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    let (_, body) = edge.ask(&request("POST", "/v1/x", "localhost:8080", &["Origin: http://localhost:3000"]));
    assert!(body.text().contains(r#"[cors] origins = [\"http://localhost:3000\"]"#), "{}", body.text());
    // Its own pages may, and clients that are no browsers.
    for fields in [
        &[][..],
        &["Origin: http://localhost:8080"],
        &["Origin: http://localhost:8080", "Sec-Fetch-Site: same-origin"],
    ] {
        assert_eq!(ask(&edge, "POST", "/v1/chat/completions", "localhost:8080", fields).0, 200, "{fields:?}");
        assert_eq!(ask(&edge, "GET", STREAM, "localhost:8080", fields).0, 200, "{fields:?}");
    }
    // What a page may do without CORS everywhere: ask for what it cannot read.
    assert_eq!(ask(&edge, "GET", "/v1/models", "localhost:8080", &["Origin: https://evil.example"]).0, 200);
}

#[test]
fn hosts_and_origins_that_are_configured_are_served() {
    let (_upstream, edge) = configured(
        "hosts = [\"sedge.internal\", \"*.corp.example\"]\n[cors]\norigins = [\"http://localhost:3000\"]",
    );
    for (host, status) in [
        ("sedge.internal", 200),
        ("SEDGE.internal:8080", 200),
        ("a.corp.example", 200),
        ("corp.example", 421),
        ("localhost:8080", 200),
        ("evil.example", 421),
    ] {
        assert_eq!(ask(&edge, "POST", "/v1/chat/completions", host, &[]).0, status, "{host}");
    }
    for (fields, status) in [
        (&["Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"][..], 200),
        (&["Origin: http://localhost:3001", "Sec-Fetch-Site: same-site"], 403),
        (&["Origin: http://sedge.internal"], 200),
    ] {
        assert_eq!(
            ask(&edge, "POST", "/v1/chat/completions", "sedge.internal", fields).0,
            status,
            "{fields:?}"
        );
    }
    // The requests of a batch are the page's own as well.
    let body = r#"{"requests":[{"body":{"model":"m"}}]}"#;
    let batch = format!(
        "POST /v1/sedge/batch HTTP/1.1\r\nHost: sedge.internal\r\nOrigin: http://localhost:3000\r\nSec-Fetch-Site: cross-site\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let (head, body) = edge.ask(batch.as_bytes());
    assert!(head.status() == 200 && body.text().contains("\"status\":200"), "{}", body.text());
}

/// Whoever opens it to a network does not know by which names it is called there; pages are still pages.
#[test]
fn an_open_edge_is_called_by_any_name() {
    let (_upstream, edge) = closed(&["--open"]);
    assert_eq!(ask(&edge, "POST", "/v1/chat/completions", "sedge.lan", &[]).0, 200);
    let foreign = ["Origin: https://evil.example"];
    assert_eq!(
        ask(&edge, "POST", "/v1/chat/completions", "sedge.lan", &foreign),
        refused(403, ORIGIN_NOT_ALLOWED)
    );
}

/// A page cannot show a key of its own accord, so keys are protection enough, unless hosts were named.
#[test]
fn with_client_keys_hosts_and_origins_are_nobodys_business() {
    let key = format!("[[key]]\nname = \"one\"\nsha256 = \"{}\"", "a".repeat(64));
    let (_upstream, edge) = configured(&key);
    let ask = |host: &str| ask(&edge, "POST", "/v1/chat/completions", host, &["Origin: https://a.example"]);
    assert_eq!(ask("anything.example"), refused(401, "missing_api_key"));
    let (_upstream, edge) = configured(&format!("hosts = [\"sedge.internal\"]\n{key}"));
    let (status, code) = self::ask(&edge, "POST", "/v1/x", "other.example", &[]);
    assert_eq!((status, code.as_deref()), (421, Some(HOST_NOT_SERVED)));
}
