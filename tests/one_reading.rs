//! A request is routed, limited and charged by the same reading of it that its upstream has. Bodies that Python, Go and others read
//! differently went through the limits as one request and to the upstream as another: `max_to<KELVIN SIGN>ens` is `max_tokens` to
//! Go, `Model` is `model` to it, `?model=` comes before the body to LiteLLM, UTF-16 is JSON to Python, and `n` multiplies whatever
//! `max_tokens` allows. They are refused where a decision rests on them, and pass as they are where none does.

mod support;

use ring::digest::{SHA256, digest};
use support::limits::{REMAINING, ok, route, status};
use support::{Edge, Upstream, answer, error_code, get};

const CHAT: &str = "/v1/chat/completions";

/// A `POST` with these lines in its head.
fn request(path: &str, fields: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut wire = format!("POST {path} HTTP/1.1\r\nHost: edge.test\r\n").into_bytes();
    fields.iter().for_each(|field| wire.extend([field.as_bytes(), b"\r\n"].concat()));
    wire.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
    wire.extend_from_slice(body);
    wire
}

const JSON: &str = "Content-Type: application/json";

fn json(body: impl AsRef<[u8]>) -> Vec<u8> {
    request(CHAT, &[JSON], body)
}

/// Two routes, so that the model decides.
fn routed(url: &str) -> String {
    format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{url}\"\n\n[[route]]\nname = \"small\"\nmodels = [\"small-*\"]\n\n\
         [[route]]\nname = \"large\"\nmodels = [\"large\"]\nmax_body = 1000\nfallback = \"small\"\n"
    )
}

#[track_caller]
fn refused(edge: &Edge, request: &[u8], param: &str) {
    let shown = String::from_utf8_lossy(request).into_owned();
    let (head, body) = edge.ask(request);
    assert_eq!(head.status(), 400, "{shown}\n{}", body.text());
    error_code(&body.bytes());
    let error: serde_json::Value = serde_json::from_slice(&body.bytes()).expect("JSON");
    assert_eq!(error["error"]["param"], param, "{shown}\n{error}");
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn utf32(text: &str) -> Vec<u8> {
    text.chars().flat_map(|letter| (letter as u32).to_be_bytes()).collect()
}

#[test]
fn a_model_that_readers_take_differently_decides_nothing() {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let edge = Edge::configured(&routed(&upstream.url()));
    for body in [
        r#"{"model":"small-1","model":"large"}"#,
        r#"{"model":"small-1","mod\u0065l":"large"}"#,
        r#"{"model":"small-1","Model":"large"}"#,
        r#"{"MODEL":"large"}"#,
        r#"{"model":["large"]}"#,
        r#"{"model":7}"#,
    ] {
        refused(&edge, &json(body), "model");
    }
    let small = r#"{"model":"small-1"}"#;
    for query in
        ["?model=large", "?mod%65l=large", "?Model=small-1", "?model=small-1&model=large", "?a;model=large"]
    {
        refused(&edge, &request(&format!("{CHAT}{query}"), &[JSON], small), "model");
    }
    refused(&edge, &get("/v1/realtime?model=small-1&model=large", &[]), "model");
    for types in [
        &[JSON, "Content-Type: multipart/form-data; boundary=b"][..],
        &[JSON, JSON],
        &["Content-Type: application/json; charset=utf-16"],
        &["Content-Type: multipart/form-data; boundary=b, application/json"],
    ] {
        refused(&edge, &request(CHAT, types, small), "content-type");
    }
    assert_eq!(upstream.requests().len(), 0);
    // One reading alone: each of them is relayed.
    for (path, body) in [
        (CHAT, r#"{"mod\u0065l":"small-1","models":[],"xmodel":1}"#),
        (CHAT, r#"{"messages":[{"model":"large","model":"x"}],"model":"small-1"}"#),
        ("/v1/chat/completions?model=small%2D1", small),
        ("/v1/chat/completions?model=small-1", "{}"),
    ] {
        assert_eq!(status(&edge, &request(path, &[JSON], body)), 200, "{path} {body}");
    }
    assert_eq!(status(&edge, &get("/v1/realtime?model=small-1", &[])), 200);
}

/// What Python's `json` reads: the last `model`, spelt exactly so.
fn by_python<'a>(fields: &[(&str, &'a str)]) -> Option<&'a str> {
    let exact = |key: &str| key == "model" || key == "mod\\u0065l";
    fields.iter().rev().find(|(key, _)| exact(key)).and_then(|(_, value)| text(value))
}

/// What Go's `encoding/json` reads into a string: the last that is called so in any case, except that `null` changes nothing.
fn by_go<'a>(fields: &[(&str, &'a str)]) -> Option<&'a str> {
    let folded = |key: &str| key.replace("\\u0065", "e").eq_ignore_ascii_case("model");
    fields
        .iter()
        .rev()
        .find(|(key, value)| folded(key) && *value != "null")
        .and_then(|(_, value)| text(value))
}

fn text(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// Each pair of spellings and values, against what two readers make of it: one that they take differently reaches nobody, and one
/// that they take alike and is relayed reaches the upstream of the model that both of them read.
#[test]
fn nothing_is_relayed_that_two_readers_take_differently() {
    let named = |name: &'static str| Upstream::serve(move |_, _| answer("200 OK", &[], name));
    let (small, large, none) = (named("small"), named("large"), named("none"));
    let edge = Edge::configured(&support::config::routes(&[
        ("small", &small.url()),
        ("large", &large.url()),
        ("*", &none.url()),
    ]));
    let spellings = ["model", "Model", "MODEL", "mod\\u0065l", "models"];
    let values = ["\"small\"", "\"large\"", "null", "7"];
    let fields: Vec<_> = spellings.iter().flat_map(|key| values.map(|value| (*key, value))).collect();
    let mut bodies: Vec<Vec<(&str, &str)>> = fields.iter().map(|field| vec![*field]).collect();
    bodies.extend(fields.iter().flat_map(|one| fields.iter().map(move |other| vec![*one, *other])));
    let (mut client, mut relayed) = (edge.connect(), 0);
    for body in bodies {
        let text: Vec<_> = body.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        client.send(json(format!("{{{}}}", text.join(","))));
        let (head, told) = client.read_answer();
        if head.status() == 200 {
            let read = by_python(&body);
            assert_eq!(read, by_go(&body), "{body:?}");
            assert_eq!(told.text(), read.unwrap_or("none"), "{body:?}");
            relayed += 1;
        } else {
            assert_eq!(head.status(), 400, "{body:?}: {}", told.text());
        }
    }
    // Each spelling that is right, alone, and with another key on either side of it.
    assert!(relayed >= 4 + 2 * 4 * 4 + 4 + 16, "{relayed}");
}

/// Python decodes JSON from UTF-16 and UTF-32 by itself, and drops a byte order mark. Nothing was seen in such a body that had no
/// type, so it went to the route of those without a model.
#[test]
fn json_that_is_not_plain_utf8_is_refused_where_it_decides() {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let edge = Edge::configured(&(routed(&upstream.url()) + "[[route]]\nname = \"rest\"\n"));
    let body = r#"{"model":"large"}"#;
    let marked = format!("\u{FEFF}{body}");
    let bodies =
        [marked.as_bytes().to_vec(), utf16(body), utf16(&marked), utf32(body), utf32(&marked), utf32(" {}")];
    for path in [CHAT, "/v1/unheard-of"] {
        for types in [&[][..], &[JSON], &["Content-Type: application/x-www-form-urlencoded"]] {
            for body in &bodies {
                let (head, answer) = edge.ask(&request(path, types, body));
                assert_eq!(head.status(), 400, "{path} {types:?} {body:?}");
                assert_eq!(error_code(&answer.bytes()), "invalid_json");
            }
        }
    }
    let gzip = [JSON, "Content-Encoding: gzip", "Content-Encoding: identity"];
    assert_eq!(status(&edge, &request(CHAT, &gzip, body)), 415);
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_number_of_tokens_that_readers_take_differently_is_refused_where_it_is_limited() {
    for limit in ["max_tokens = 100", "tokens_per_minute = 100000"] {
        let upstream = Upstream::serve(|_, _| ok(&[]));
        let edge = Edge::configured(&route(&upstream.url(), &format!("limits = {{ {limit} }}")));
        for (body, param) in [
            ("{\"max_to\u{212A}ens\":9}", "max_tokens"),
            ("{\"max_token\u{17F}\":9}", "max_tokens"),
            (r#"{"max_to\u212Aens":9}"#, "max_tokens"),
            (r#"{"Max_Tokens":9}"#, "max_tokens"),
            (r#"{"max_tokens":9,"max_tokens":null}"#, "max_tokens"),
            (r#"{"max_tokens":9,"MAX_TOKENS":99}"#, "max_tokens"),
            (r#"{"max_tokens":-1}"#, "max_tokens"),
            (r#"{"max_tokens":"9"}"#, "max_tokens"),
            (r#"{"max_tokens":{}}"#, "max_tokens"),
            (r#"{"max_tokens":Infinity}"#, "max_tokens"),
            (r#"{"n_predict":-1,"max_tokens":9}"#, "n_predict"),
            (r#"{"max_completion_tokens":true}"#, "max_completion_tokens"),
            (r#"{"max_output_tokens":9,"max_output_\u0074okens":9}"#, "max_output_tokens"),
            (r#"{"max_tokens":9,"n":"99"}"#, "n"),
            (r#"{"max_tokens":9,"N":99}"#, "n"),
            (r#"{"max_tokens":9,"n":-1}"#, "n"),
            (r#"{"max_tokens":9,"n":1,"n":99}"#, "n"),
            (r#"{"max_tokens":9,"best_of":[99]}"#, "best_of"),
        ] {
            refused(&edge, &json(body), param);
        }
        assert_eq!(upstream.requests().len(), 0);
        for body in [
            r#"{"max_tokens":9}"#,
            r#"{"max_tokens":9.0}"#,
            r#"{"max_tokens":1e1,"n":null}"#,
            r#"{"max_tokens":null,"n":2}"#,
            r#"{"max\u005ftokens":9,"n":2}"#,
            r#"{"messages":[{"max_tokens":-1,"n":"x","Max_Tokens":5}]}"#,
        ] {
            assert_eq!(status(&edge, &json(body)), 200, "{body}");
        }
    }
}

/// `n` was unlimited: with `max_tokens` of 100 and `n` of 128 a request got 12,800 tokens past a limit of 100.
#[test]
fn every_answer_counts() {
    let upstream = Upstream::serve(|_, _| ok(&[]));
    let edge = Edge::configured(&route(&upstream.url(), "limits = { max_tokens = 100 }"));
    for (path, body, fits) in [
        (CHAT, r#"{"max_tokens":50,"n":2}"#, true),
        (CHAT, r#"{"max_tokens":50,"n":3}"#, false),
        (CHAT, r#"{"max_tokens":1,"n":99999999999999999999}"#, false),
        (CHAT, r#"{"max_tokens":50,"prompt":["a","b","c"]}"#, true),
        ("/v1/completions", r#"{"max_tokens":50,"best_of":3,"n":1}"#, false),
        ("/v1/completions", r#"{"max_tokens":50,"prompt":["a","b"]}"#, true),
        ("/v1/completions", r#"{"max_tokens":50,"prompt":["a","b","c"]}"#, false),
        ("/v1/completions", r#"{"max_tokens":50,"prompt":[[1],[2],[3]]}"#, false),
        ("/v1/completions", r#"{"max_tokens":50,"prompt":[1,2,3]}"#, true),
        ("/v1/completions", r#"{"max_tokens":26,"prompt":["a","b"],"n":2}"#, false),
    ] {
        if fits {
            assert_eq!(status(&edge, &request(path, &[JSON], body)), 200, "{body}");
        } else {
            refused(&edge, &request(path, &[JSON], body), "max_tokens");
        }
    }
    // And each of them is charged.
    let silent = Upstream::listen();
    let edge = Edge::configured(&route(
        &silent.url(),
        "limits = { tokens_per_minute = 1000000, assumed_tokens = 1000 }",
    ));
    let (mut left, mut held) = (1_000_000.0, Vec::new());
    for (body, cost) in [(r#"{"n":100}"#, 100_000.0), (r#"{"n":3,"max_tokens":50000}"#, 150_000.0)] {
        let mut client = edge.connect();
        client.send(json(body));
        let mut peer = silent.accept();
        peer.read_head();
        let now = edge.metric(REMAINING, &["scope=\"route\"", "limit=\"tokens\""]);
        // What is earned meanwhile is less than a tenth.
        assert!(now <= left - 0.9 * cost, "{body}: {now} of {left}");
        left = now;
        held.push((client, peer));
    }
}

/// Where nothing rests on a body it is nobody's business: it reaches its upstream byte for byte.
#[test]
fn what_decides_nothing_passes_as_it_is() {
    let upstream = Upstream::serve(|_, body| answer("200 OK", &[], body.bytes()));
    let edge = Edge::start(&["--upstream", &upstream.url()]);
    for (path, types, body) in [
        (CHAT, &[JSON][..], br#"{"model":"a","Model":"b","max_tokens":-1,"n":"x","stream":1}"#.to_vec()),
        (CHAT, &[JSON], "{\"max_to\u{212A}ens\":9}".into()),
        (CHAT, &[JSON], utf16(r#"{"model":"a"}"#)),
        (CHAT, &[JSON, "Content-Type: text/plain"], b"\xEF\xBB\xBF{}".to_vec()),
        ("/v1/chat/completions?model=b&model=c", &[JSON], br#"{"model":"a"}"#.to_vec()),
    ] {
        let (head, echoed) = edge.ask(&request(path, types, &body));
        assert_eq!((head.status(), echoed.bytes()), (200, body), "{path}");
    }
    // A limit on tokens is no reason to look at the model, nor the other way round.
    let edge = Edge::configured(&route(&upstream.url(), "limits = { max_tokens = 100 }"));
    assert_eq!(status(&edge, &json(r#"{"model":"a","Model":"b","stream":"true"}"#)), 200);
    let edge = Edge::configured(&routed(&upstream.url()));
    assert_eq!(status(&edge, &json(r#"{"model":"small-1","max_tokens":-1,"N":2}"#)), 200);
}

/// A key that may ask some models asked others in the spelling of another reader.
#[test]
fn a_keys_models_hold_in_every_spelling() {
    let upstream = Upstream::serve(|_, _| answer("200 OK", &[], "{}"));
    let sha256: String = digest(&SHA256, b"sk").as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{}\"\n\n[[key]]\nname = \"team\"\nsha256 = \"{sha256}\"\nmodels = [\"small-*\"]\n",
        upstream.url()
    ));
    let ask =
        |path: &str, body: &str| status(&edge, &request(path, &[JSON, "Authorization: Bearer sk"], body));
    assert_eq!(ask(CHAT, r#"{"model":"small-1"}"#), 200);
    assert_eq!(ask(CHAT, r#"{"model":"small-1","Model":"large"}"#), 400);
    assert_eq!(ask("/v1/chat/completions?model=large", r#"{"model":"small-1"}"#), 400);
    assert_eq!(ask("/v1/chat/completions?model=large", "{}"), 403);
    assert_eq!(ask("/v1/chat/completions?model=small-1", "{}"), 200);
    assert_eq!(status(&edge, &get("/v1/realtime?model=large", &["Authorization: Bearer sk"])), 403);
    assert_eq!(upstream.requests().len(), 2);
}
