//! Who may come in, what of a client goes on to an upstream, what pages of other origins may read, and what the log keeps
//! to itself.

mod support;

use ring::digest::{SHA256, digest};
use rustix::process::Signal;
use support::edge::{command, scratch};
use support::{Edge, End, Head, STREAM_BODY, Upstream, Wire, answer, error_code, get, nobody, post, relayed};

const CLIENT_KEY: &str = "sk-client-secret";
const UPSTREAM_KEY: &str = "sk-upstream-secret";

fn sha256(secret: &str) -> String {
    digest(&SHA256, secret.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn upstream(url: &str) -> String {
    format!("[[upstream]]\nname = \"u\"\nurl = \"{url}\"\n")
}

/// A client key is asked for; `more` belongs to the upstream.
fn with_key(url: &str, more: &str) -> String {
    format!("{}{more}\n[[key]]\nname = \"one\"\nsha256 = \"{}\"\n", upstream(url), sha256(CLIENT_KEY))
}

/// A file with an upstream's key, as it stands in a configuration.
fn key_file() -> String {
    let path = scratch("upstream.key");
    std::fs::write(&path, format!("{UPSTREAM_KEY}\n")).expect("write");
    format!("key = \"file:{}\"", path.display())
}

/// The request as the upstream saw it, and the answer's head as the client saw it.
fn through(edge: &Edge, upstream: &Upstream, request: &[u8], reply: &[u8]) -> (Head, Head) {
    let (mut client, mut peer, seen, _) = relayed(edge, upstream, request);
    peer.send(reply);
    (seen, client.read_answer().0)
}

fn ok() -> Vec<u8> {
    answer("200 OK", &["Content-Type: application/json"], "{}")
}

/// The line of the log with this path.
fn logged(edge: &Edge, path: &str) -> serde_json::Value {
    let line = edge.stdout().wait_for(path);
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Nothing that the edge has said holds any of these.
fn assert_unsaid(edge: &Edge, secrets: &[&str]) {
    let said = [edge.stdout().all().concat(), edge.stderr().all().concat(), edge.metrics()].concat();
    for secret in secrets {
        assert!(!said.contains(secret), "{secret} was said: {said}");
    }
}

#[test]
fn without_a_known_key_nobody_comes_in() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&with_key(&upstream.url(), ""));
    for (fields, code) in [
        (&[][..], "missing_api_key"),
        (&["Authorization: Basic eDp5"], "missing_api_key"),
        (&["Authorization: Bearer sk-other-secret"], "invalid_api_key"),
        (&["x-api-key: sk-other-secret"], "invalid_api_key"),
        (&["api-key: sk-other-secret"], "invalid_api_key"),
        (&["Authorization: Bearer sk-other-secret", "x-api-key: sk-client-secret"], "invalid_api_key"),
    ] {
        let (head, body) = edge.ask(&post("/v1/chat/completions", fields, STREAM_BODY));
        assert_eq!((head.status(), head.get("www-authenticate")), (401, Some("Bearer")), "{fields:?}");
        assert_eq!(error_code(&body.bytes()), code, "{fields:?}");
        assert!(!body.text().contains("secret"), "{}", body.text());
        assert!(head.has("x-request-id"), "{head:?}");
    }
    let line = logged(&edge, "/v1/chat/completions");
    assert_eq!((&line["status"], &line["outcome"]), (&401.into(), &"refused".into()));
    assert_unsaid(&edge, &["sk-other", "sk-client", &sha256(CLIENT_KEY)]);
    // What people look at needs no key, and has none to give away.
    for path in ["/", "/livez", "/readyz"] {
        assert_eq!(edge.ask(&get(path, &[])).0.status(), 200, "{path}");
    }
}

/// A client that is still sending when it is refused must find the refusal, not a reset: its SDK would take that for a broken
/// network and send it all again.
#[test]
fn a_refusal_in_the_middle_of_an_upload_arrives() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&with_key(&upstream.url(), ""));
    let body = " ".repeat(10 * 1024 * 1024);
    for fields in [&[][..], &["Expect: 100-continue"]] {
        let mut client = edge.connect();
        client.send(post("/v1/embeddings", fields, &body));
        let (head, body) = client.read_answer();
        assert_eq!((head.status(), head.get("connection")), (401, Some("close")));
        assert_eq!(error_code(&body.bytes()), "missing_api_key");
        assert_eq!(client.wait_closed(), End::Closed);
    }
}

#[test]
fn a_known_key_opens_and_goes_no_further() {
    let upstream = Upstream::listen();
    for (more, expected) in [(String::new(), None), (key_file(), Some("Bearer sk-upstream-secret"))] {
        let edge = Edge::configured(&with_key(&upstream.url(), &more));
        for field in [
            "Authorization: Bearer sk-client-secret",
            "authorization: bEARER  sk-client-secret",
            "X-Api-Key: sk-client-secret",
            "api-key: sk-client-secret",
        ] {
            let request = post("/v1/embeddings", &[field, "X-Stays: yes"], "{}");
            let (seen, head) = through(&edge, &upstream, &request, &ok());
            assert_eq!(head.status(), 200, "{field}");
            assert_eq!(seen.get("authorization"), expected, "{field}");
            assert_eq!(seen.get("x-stays"), Some("yes"));
            assert!(!format!("{seen:?}").contains(CLIENT_KEY), "{seen:?}");
            assert!(!format!("{head:?}").contains(UPSTREAM_KEY), "{head:?}");
        }
        assert_eq!(logged(&edge, "/v1/embeddings")["status"], 200);
        assert_unsaid(&edge, &[CLIENT_KEY, UPSTREAM_KEY]);
    }
}

/// Without keys of its own the edge is no door: what a client says who it is, is for the upstream, unless that has a key.
#[test]
fn an_upstreams_own_key_takes_the_place_of_the_clients() {
    let listening = Upstream::listen();
    let fields = ["Authorization: Bearer sk-theirs", "x-api-key: sk-theirs", "Api-Key: sk-theirs"];
    let request = post("/v1/embeddings", &fields, "{}");
    let plain = Edge::configured(&upstream(&listening.url()));
    let (seen, _) = through(&plain, &listening, &request, &ok());
    assert_eq!(seen.get("authorization"), Some("Bearer sk-theirs"));
    assert_eq!((seen.get("x-api-key"), seen.get("api-key")), (Some("sk-theirs"), Some("sk-theirs")));
    let keyed = Edge::configured(&format!("{}{}\n", upstream(&listening.url()), key_file()));
    let (seen, _) = through(&keyed, &listening, &request, &ok());
    assert_eq!(seen.get("authorization"), Some("Bearer sk-upstream-secret"));
    assert!(!seen.has("x-api-key") && !seen.has("api-key"), "{seen:?}");
    assert_eq!(logged(&keyed, "/v1/embeddings")["status"], 200);
    assert_unsaid(&keyed, &["sk-theirs", UPSTREAM_KEY]);
}

#[test]
fn an_upstreams_key_is_in_no_error() {
    let closed = nobody();
    let edge = Edge::configured(&format!("{}{}\n", upstream(&format!("http://{closed}")), key_file()));
    let (head, body) = edge.ask(&get("/v1/models", &[]));
    assert_eq!((head.status(), error_code(&body.bytes())), (502, "upstream_connect_failed".to_owned()));
    assert!(!body.text().contains(UPSTREAM_KEY) && !format!("{head:?}").contains(UPSTREAM_KEY));
    assert_eq!(logged(&edge, "/v1/models")["status"], 502);
    assert_unsaid(&edge, &[UPSTREAM_KEY]);
}

#[test]
fn keys_come_from_a_file_and_change_with_a_reload() {
    let upstream = Upstream::serve(|_, _| ok());
    let file = scratch("clients");
    let toml = format!("{}[[key]]\nfile = \"{}\"\n", self::upstream(&upstream.url()), file.display());
    std::fs::write(&file, format!("# teams\nred: {}\n", sha256("sk-red"))).expect("write");
    let edge = Edge::configured(&toml);
    let status =
        |key: &str| edge.ask(&get("/v1/models", &[&format!("Authorization: Bearer {key}")])).0.status();
    assert_eq!((status("sk-red"), status("sk-blue")), (200, 401));
    std::fs::write(&file, format!("blue: {}\n", sha256("sk-blue"))).expect("write");
    edge.signal(Signal::HUP);
    edge.stderr().wait_for("reloaded");
    assert_eq!((status("sk-red"), status("sk-blue")), (401, 200));
}

fn with_token(more: &str) -> Edge {
    let file = scratch("admin.token");
    std::fs::write(&file, "admin-secret\n").expect("write");
    Edge::configured(&format!("admin_token = \"file:{}\"\n{more}", file.display()))
}

fn ask_admin(edge: &Edge, path: &str, fields: &[&str]) -> (Head, String) {
    let mut client = Wire::connect(edge.admin());
    client.send(get(path, fields));
    let (head, body) = client.read_answer();
    (head, body.text())
}

#[test]
fn the_metrics_need_the_token_where_there_is_one() {
    let edge = with_token("");
    for fields in [&[][..], &["Authorization: Bearer admin-secre"], &["x-api-key: admin-secret"]] {
        let (head, body) = ask_admin(&edge, "/metrics", fields);
        assert_eq!((head.status(), head.get("www-authenticate")), (401, Some("Bearer")), "{fields:?}");
        assert!(!body.contains("sedge_") && !body.contains("secret"), "{body}");
    }
    let (head, body) = ask_admin(&edge, "/metrics", &["Authorization: Bearer admin-secret"]);
    assert!(head.status() == 200 && body.contains("\nsedge_") && !body.contains("secret"), "{body}");
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(ask_admin(&edge, path, &[]).0.status(), 200, "{path}");
    }
}

#[test]
fn an_admin_listener_beyond_loopback_without_a_token_is_refused() {
    let output = command().args(["--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"]).output().expect("run");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("--admin: 0.0.0.0:0 can be reached") && said.contains("admin_token"), "{said}");
}

const ORIGIN: &str = "Origin: https://app.example";
const ALLOWED: &str = "access-control-allow-origin";

fn with_cors(url: &str, lines: &str) -> Edge {
    Edge::configured(&format!("{}[cors]\n{lines}\n", with_key(url, "")))
}

/// Google's SDKs show a key in `x-goog-api-key` or `?key=`, Azure's gateways in fields and parameters of their own. All of these went on
/// to an upstream beside the key that is configured for it: a client's key for this server, or for another vendor.
#[test]
fn no_key_of_a_client_goes_on_beside_a_key_of_the_house() {
    const THEIRS: [&str; 7] = [
        "Authorization: Bearer sk-client-secret",
        "x-api-key: sk-theirs",
        "api-key: sk-theirs",
        "x-goog-api-key: sk-theirs",
        "X_Goog_Api_Key: sk-theirs",
        "Ocp-Apim-Subscription-Key: sk-theirs",
        "Cookie: session=sk-theirs",
    ];
    let path = "/v1/models?alt=sse&key=sk-theirs&api_key=sk-theirs&api-key=sk-theirs&access_token=sk-theirs&k%65y=sk-theirs&b";
    let upstream = Upstream::listen();
    for (config, authorization) in [
        (format!("{}{}\n", upstream_table(&upstream), key_file()), Some("Bearer sk-upstream-secret")),
        (with_key(&upstream.url(), ""), None),
        (with_key(&upstream.url(), &key_file()), Some("Bearer sk-upstream-secret")),
    ] {
        let edge = Edge::configured(&config);
        let (seen, _) = through(&edge, &upstream, &get(path, &THEIRS), &ok());
        assert_eq!(seen.get("authorization"), authorization, "{config}");
        assert_eq!(seen.start, "GET /v1/models?alt=sse&b HTTP/1.1", "{config}");
        assert!(!format!("{seen:?}").contains("sk-theirs"), "{seen:?}");
        assert_unsaid(&edge, &["sk-theirs", "alt=sse"]);
    }
    // Where this server has no key and knows none, they are the upstream's business.
    let edge = Edge::to(&upstream);
    let (seen, _) = through(&edge, &upstream, &get(path, &THEIRS), &ok());
    assert_eq!(seen.start, format!("GET {path} HTTP/1.1"));
    assert_eq!(seen.get("cookie"), Some("session=sk-theirs"));
    assert_eq!(seen.all("x-goog-api-key"), ["sk-theirs", "sk-theirs"]);
}

/// Google's SDKs have no other way to show one.
#[test]
fn a_client_key_may_come_as_googles_sdks_send_it() {
    let upstream = Upstream::listen();
    let edge = Edge::configured(&with_key(&upstream.url(), ""));
    let (seen, head) =
        through(&edge, &upstream, &get("/v1/models", &["x-goog-api-key: sk-client-secret"]), &ok());
    assert!(head.status() == 200 && !seen.has("x-goog-api-key"), "{seen:?}");
    let (head, _) = edge.ask(&get("/v1/models?key=sk-client-secret", &[]));
    assert_eq!(head.status(), 401, "a key in an address ends in logs");
}

fn upstream_table(upstream: &Upstream) -> String {
    self::upstream(&upstream.url())
}

#[test]
fn pages_of_other_origins_are_nobodys_business_by_default() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let reply = answer("200 OK", &["Access-Control-Allow-Origin: https://theirs.example"], "{}");
    let (seen, head) = through(&edge, &upstream, &get("/v1/models", &[ORIGIN]), &reply);
    assert_eq!(seen.get("origin"), Some("https://app.example"));
    assert_eq!(head.get(ALLOWED), Some("https://theirs.example"));
    assert!(!head.has("vary"), "{head:?}");
    // A preflight is a request like any other.
    let fields = [ORIGIN, "Access-Control-Request-Method: POST"];
    let preflight = [b"OPTIONS".to_vec(), get("/v1/models", &fields)[3..].to_vec()].concat();
    let (seen, head) = through(&edge, &upstream, &preflight, &answer("418 I'm a teapot", &[], ""));
    assert!(seen.start.starts_with("OPTIONS ") && head.status() == 418, "{seen:?}");
}

#[test]
fn a_preflight_is_answered_before_keys_and_without_an_upstream() {
    let upstream = Upstream::serve(|_, _| ok());
    let edge = with_cors(&upstream.url(), "origins = [\"https://app.example\"]\nmax_age = \"2m\"");
    let ask = |path: &str, origin: &str| {
        let fields = [
            origin,
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization, content-type, x-stainless-os",
        ];
        let mut client = edge.connect();
        client.send([b"OPTIONS".to_vec(), get(path, &fields)[3..].to_vec()].concat());
        // The connection goes on behind an answer that has no body.
        client.send(get("/livez", &[]));
        let (head, _) = client.read_answer();
        assert_eq!(client.read_answer().0.status(), 200);
        head
    };
    let head = ask("/v1/chat/completions", ORIGIN);
    assert_eq!(head.start, "HTTP/1.1 204 No Content");
    assert_eq!(head.get(ALLOWED), Some("https://app.example"));
    assert_eq!(head.get("access-control-allow-methods"), Some("POST"));
    let asked = "authorization, content-type, x-stainless-os";
    assert_eq!(head.get("access-control-allow-headers"), Some(asked));
    assert_eq!(head.get("access-control-max-age"), Some("120"));
    assert!(head.get("vary").expect("Vary").starts_with("Origin, "), "{head:?}");
    assert!(!head.has("content-length") && !head.has("content-type"), "{head:?}");
    assert!(!head.has("access-control-allow-credentials"), "{head:?}");

    let other = ask("/v1/chat/completions", "Origin: https://app.example.evil");
    assert!(other.status() == 204 && !other.has(ALLOWED), "{other:?}");
    assert_eq!(ask("/elsewhere", ORIGIN).status(), 404);
    assert!(upstream.requests().is_empty());
}

#[test]
fn every_answer_tells_who_may_read_it() {
    let upstream = Upstream::listen();
    let edge = with_cors(&upstream.url(), "origins = [\"https://app.example\"]");
    let key = "Authorization: Bearer sk-client-secret";
    let reply = answer(
        "200 OK",
        &[
            "Vary: Accept-Encoding",
            "Access-Control-Allow-Origin: *",
            "access-control-allow-credentials: true",
            "Access-Control-Expose-Headers: x-theirs",
        ],
        "{}",
    );
    let (_, head) = through(&edge, &upstream, &get("/v1/models", &[key, ORIGIN]), &reply);
    assert_eq!(head.get(ALLOWED), Some("https://app.example"));
    let exposed = head.get("access-control-expose-headers").expect("a list");
    assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{exposed}");
    assert!(!head.has("access-control-allow-credentials"), "{head:?}");
    assert_eq!(head.all("vary"), ["Accept-Encoding", "Origin"]);

    let (_, head) = through(&edge, &upstream, &get("/v1/models", &[key, "Origin: null"]), &reply);
    assert!(!head.has(ALLOWED) && head.all("vary").contains(&"Origin"), "{head:?}");
    let (_, head) = through(&edge, &upstream, &get("/v1/models", &[key]), &reply);
    assert_eq!((head.get(ALLOWED), head.all("vary")), (Some("*"), vec!["Accept-Encoding"]));

    // A stream, and errors made here: a page that may not read an error sees a network that is broken.
    let (mut client, mut peer, ..) =
        relayed(&edge, &upstream, &post("/v1/chat/completions", &[key, ORIGIN], STREAM_BODY));
    peer.send(support::SSE_HEAD);
    assert_eq!(client.read_head().get(ALLOWED), Some("https://app.example"));
    for request in [get("/v1/models", &[ORIGIN]), get("/nowhere", &[key, ORIGIN])] {
        let (head, body) = edge.ask(&request);
        error_code(&body.bytes());
        assert_eq!(head.get(ALLOWED), Some("https://app.example"), "{head:?}");
    }
}

#[test]
fn a_star_stands_for_every_origin_and_for_no_credentials() {
    let upstream = Upstream::listen();
    let edge = with_cors(&upstream.url(), "origins = [\"*\"]");
    let fields = ["Authorization: Bearer sk-client-secret", "Origin: https://any.example"];
    let reply = answer("200 OK", &["Access-Control-Allow-Credentials: true"], "{}");
    let (_, head) = through(&edge, &upstream, &get("/v1/models", &fields), &reply);
    assert_eq!(head.get(ALLOWED), Some("*"));
    assert!(!head.has("access-control-allow-credentials") && !head.has("vary"), "{head:?}");
}

const CLAIMS: [&str; 6] = [
    "X-Forwarded-For: 192.0.2.1, 198.51.100.7",
    "X-Forwarded-For: 10.0.0.9",
    "Forwarded: for=192.0.2.1",
    "X-Real-IP: 192.0.2.1",
    "X-Forwarded-Host: evil.example",
    "X_Forwarded_Proto: https",
];

#[test]
fn what_a_stranger_says_of_its_address_is_dropped() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let (seen, _) = through(&edge, &upstream, &get("/v1/models", &CLAIMS), &ok());
    let told = format!("{seen:?}").to_ascii_lowercase();
    assert!(!told.contains("forwarded") && !told.contains("x-real-ip"), "{seen:?}");
    assert_eq!(logged(&edge, "/v1/models")["client"], "127.0.0.1");
}

#[test]
fn a_trusted_proxy_is_believed_as_far_as_its_proxies_go() {
    let upstream = Upstream::listen();
    let trusted = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n";
    let edge = Edge::configured(&format!("{trusted}{}", self::upstream(&upstream.url())));
    let (seen, _) = through(&edge, &upstream, &get("/v1/models", &CLAIMS), &ok());
    assert_eq!(seen.all("x-forwarded-for"), ["192.0.2.1, 198.51.100.7", "10.0.0.9"]);
    assert!(seen.has("forwarded") && seen.has("x-real-ip"), "{seen:?}");
    assert_eq!(logged(&edge, "/v1/models")["client"], "198.51.100.7");
}

#[test]
fn nothing_breaks_out_of_a_line_of_the_log() {
    let upstream = Upstream::listen();
    let edge = Edge::to(&upstream);
    let id = "X-Request-Id: a\"b\\u001b[31m\tc";
    let body = r#"{"model":"m\u001b[2J\n\u0000\"}","messages":[]}"#;
    let reply = answer("200 OK", &["x-request-id: up\tstream\"id"], "{}");
    let path = "/v1/x%0a%1b%5b31m%00\"?secret=%0a";
    let (seen, _) = through(&edge, &upstream, &post(path, &[id], body), &reply);
    let made = seen.get("x-request-id").expect("an id");
    assert!(made.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{made}");
    let line = edge.stdout().wait_for("/v1/x");
    assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line:?}");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["path"], "/v1/x%0a%1b%5b31m%00\"");
    assert_eq!(line["request_id"], made);
    assert_eq!(line["model"], "m\u{1b}[2J\n\0\"}");
    assert_eq!(line["upstream_request_id"], "up\tstream\"id");
}

/// To follow it would be to let an upstream's answer choose whom the edge asks, with the client's body and key.
/// Whoever chooses the name of an upstream must not reach what this machine tells only itself. These names need no DNS: a
/// resolver takes them for numbers.
#[test]
fn a_name_that_leads_to_the_metadata_service_is_not_dialed() {
    for name in ["0xa9fea9fe", "2852039166", "169.254.43518"] {
        let edge = Edge::start(&["--upstream", &format!("http://{name}/latest")]);
        let (head, body) = edge.ask(&get("/v1/meta-data", &[]));
        assert_eq!(head.status(), 502, "{}", body.text());
        assert!(body.text().contains("link-local"), "{}", body.text());
    }
}

#[test]
fn a_redirect_is_passed_on_and_not_followed() {
    let (upstream, elsewhere) = (Upstream::listen(), Upstream::serve(|_, _| ok()));
    let edge = Edge::to(&upstream);
    for status in ["302 Found", "307 Temporary Redirect"] {
        let location = format!("Location: {}/v1/models", elsewhere.url());
        let (_, head) = through(&edge, &upstream, &get("/v1/models", &[]), &answer(status, &[&location], ""));
        assert_eq!(head.start, format!("HTTP/1.1 {status}"));
        assert_eq!(head.get("location"), location.strip_prefix("Location: "));
    }
    assert!(elsewhere.requests().is_empty());
}
