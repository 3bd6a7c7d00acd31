//! A model that is named in a form decides as one in JSON does. `/v1/audio/transcriptions` and `/v1/images/edits` got 404 "Paths
//! below /v1/ are relayed" where no route takes every model, went to the wrong upstream where one does, under the wrong name where
//! there is an alias, and were refused to every key that has `models`.

mod support;

use ring::digest::{SHA256, digest};
use support::{Edge, LAST_CHUNK, Upstream, answer, chunk, config, error_code, post};

const BOUNDARY: &str = "----formdata-undici-0123456789";

const MIB: usize = 1 << 20;

fn field(name: &str, value: &str) -> String {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {name}\r\n\r\n{value}\r\n")
}

fn file(bytes: usize) -> String {
    let sound: String = (0..bytes / 8).map(|n| format!("{n:06}\r\n")).collect();
    let head =
        "Content-Disposition: form-data; name=\"file\"; filename=\"model.wav\"\r\nContent-Type: audio/wav";
    format!("--{BOUNDARY}\r\n{head}\r\n\r\n{sound}\r\n")
}

fn form(parts: &[&str]) -> String {
    parts.concat() + &format!("--{BOUNDARY}--\r\n")
}

fn request(path: &str, fields: &[&str], body: &str) -> Vec<u8> {
    let kind = format!("Content-Type: multipart/form-data; boundary={BOUNDARY}");
    let mut wire = format!("POST {path} HTTP/1.1\r\nHost: e\r\n");
    fields.iter().chain([&&*kind]).for_each(|field| wire += &format!("{field}\r\n"));
    format!("{wire}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn in_chunks(path: &str, body: &str) -> Vec<u8> {
    let kind = format!("Content-Type: multipart/form-data; boundary={BOUNDARY}");
    let head = format!("POST {path} HTTP/1.1\r\nHost: e\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunks = body.as_bytes().chunks(1009).flat_map(chunk);
    head.into_bytes().into_iter().chain(chunks).chain(LAST_CHUNK.iter().copied()).collect()
}

/// Says its name, and gives the body back.
fn echo(name: &'static str) -> support::upstream::Served {
    Upstream::serve(move |_, body| answer("200 OK", &[&format!("X-Who: {name}")], body.bytes()))
}

const PATHS: [&str; 4] =
    ["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations"];

#[test]
fn a_form_goes_where_its_model_is_wherever_that_stands() {
    let (one, two) = (echo("one"), echo("two"));
    let edge = Edge::configured(&config::routes(&[("whisper-*", &one.url()), ("gpt-*", &two.url())]));
    for path in PATHS {
        for (model, who) in [("whisper-1", "one"), ("gpt-image-1", "two")] {
            let model = field("name=\"model\"", model);
            for body in [
                form(&[&model, &file(100)]),
                form(&[&file(200_000), &model]),
                form(&[&model, &file(200_000)]),
            ] {
                for wire in [request(path, &[], &body), in_chunks(path, &body)] {
                    let (head, got) = edge.ask(&wire);
                    assert_eq!(
                        (head.status(), head.get("x-who")),
                        (200, Some(who)),
                        "{path}: {}",
                        got.text()
                    );
                    assert!(got.text() == body, "not as it was sent");
                }
            }
        }
    }
    let line = edge.stdout().wait_for("\"model\":\"gpt-image-1\"");
    assert!(line.contains("\"path\":\"/v1/audio/transcriptions\""), "{line}");
    // Without a model there is no such route, and that is what is said.
    let (head, body) = edge.ask(&request(PATHS[0], &[], &form(&[&file(100)])));
    assert_eq!((head.status(), error_code(&body.bytes()).as_str()), (404, "route_not_found"));
    assert!(body.text().contains("names no model"), "{}", body.text());
}

#[test]
fn an_alias_holds_in_a_form() {
    let upstream = echo("u");
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{}\"\n\n[[route]]\naliases = {{ \"openai/*\" = \"*\", hear = \"whisper-large-v3\" }}\n",
        upstream.url()
    ));
    for (asked, heard) in
        [("openai/whisper-1", "whisper-1"), ("hear", "whisper-large-v3"), ("other", "other")]
    {
        for large in [100, 200_000] {
            let body = |model: &str| {
                form(&[&file(large), &field("name=\"model\"", model), &field("name=\"x\"", "y")])
            };
            for wire in [request(PATHS[0], &[], &body(asked)), in_chunks(PATHS[0], &body(asked))] {
                let (head, got) = edge.ask(&wire);
                assert_eq!(head.status(), 200, "{}", got.text());
                assert!(got.text() == body(heard), "{asked}");
            }
        }
    }
}

#[test]
fn a_keys_models_hold_in_a_form() {
    let upstream = echo("u");
    let sha256: String = digest(&SHA256, b"sk").as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let edge = Edge::configured(&format!(
        "[[upstream]]\nname = \"u\"\nurl = \"{}\"\n\n[[key]]\nname = \"team\"\nsha256 = \"{sha256}\"\nmodels = [\"whisper-*\"]\n",
        upstream.url()
    ));
    for (model, status) in [("whisper-1", 200), ("gpt-4o-transcribe", 403)] {
        let body = form(&[&file(50_000), &field("name=\"model\"", model)]);
        let (head, got) = edge.ask(&request(PATHS[0], &["Authorization: Bearer sk"], &body));
        assert_eq!(head.status(), status, "{}", got.text());
    }
    let (head, _) = edge.ask(&request(PATHS[0], &["Authorization: Bearer sk"], &form(&[&file(100)])));
    assert_eq!(head.status(), 403);
}

#[test]
fn a_form_that_readers_take_differently_decides_nothing() {
    let (one, two) = (echo("one"), echo("two"));
    let edge = Edge::configured(&config::routes(&[("a", &one.url()), ("*", &two.url())]));
    let a = field("name=\"model\"", "a");
    for body in [
        form(&[&a, &field("name=\"model\"", "b")]),
        form(&[&a, &field("name=\"Model\"", "b")]),
        form(&[&field("name=\"model\"; filename=\"x\"", "a")]),
        form(&[&field("name=\"x\"; name*=utf-8''model", "a")]),
        form(&[&field("name=\"mod%65l\"", "a")]),
        form(&[
            &a,
            &field(
                "name=\"x\"",
                &format!("\n--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nb"),
            ),
        ]),
        form(&[&a]).replace("\r\n", "\n"),
        format!("ignored by some\r\n{}", form(&[&a])),
        a.clone(),
        "{\"model\":\"a\"}".to_owned(),
    ] {
        for wire in [request(PATHS[0], &[], &body), in_chunks(PATHS[0], &body)] {
            let (head, got) = edge.ask(&wire);
            assert_eq!(head.status(), 400, "{body}: {}", got.text());
            let error: serde_json::Value = serde_json::from_slice(&got.bytes()).expect("JSON");
            assert_eq!(error["error"]["param"], "model", "{body}");
        }
    }
    for kind in ["multipart/form-data", "multipart/form-data; boundary=x; boundary=y"] {
        let wire = format!(
            "POST {} HTTP/1.1\r\nHost: e\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n\r\n{{}}",
            PATHS[0]
        );
        let (head, got) = edge.ask(wire.as_bytes());
        assert_eq!((head.status(), error_code(&got.bytes()).as_str()), (400, "ambiguous_field"), "{kind}");
    }
    let gzip = request(PATHS[0], &["Content-Encoding: gzip"], "\x1f\x02");
    assert_eq!(edge.ask(&gzip).0.status(), 415);
    // Where there is no file, some read fields as curl sends them.
    let fields = "POST /v1/images/variations HTTP/1.1\r\nHost: e\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 11\r\n\r\nx=y&model=b";
    assert_eq!(edge.ask(fields.as_bytes()).0.status(), 415);
    assert!(one.requests().is_empty() && two.requests().is_empty());
}

/// An upload is not held whole for a model that may never come; and one that names none is not held at all.
#[test]
fn a_large_upload_is_streamed_and_its_model_is_looked_for_so_far() {
    let (one, files) = (echo("one"), Upstream::listen());
    let edge = Edge::configured(&format!(
        "{}[limits]\nmax_model_peek = \"256KiB\"\n",
        config::routes(&[("whisper-*", &one.url()), ("*", &files.url())])
    ));
    let model = field("name=\"model\"", "whisper-1");
    let (head, got) = edge.ask(&request(PATHS[0], &[], &form(&[&model, &file(2 * MIB)])));
    assert_eq!((head.status(), head.get("x-who")), (200, Some("one")), "{}", got.text());
    let mut client = edge.connect();
    let late = request(PATHS[0], &[], &form(&[&file(2 * MIB), &model]));
    let mut other = client.stream().try_clone().expect("clone");
    std::thread::spawn(move || std::io::Write::write_all(&mut other, &late));
    let (head, got) = client.read_answer();
    assert_eq!((head.status(), error_code(&got.bytes()).as_str()), (413, "model_not_found_in_time"));
    // The beginning of a file is at its upstream before its end is sent.
    let body = form(&[&file(2 * MIB), &field("name=\"purpose\"", "assistants")]);
    let wire = request("/v1/files", &[], &body);
    let (first, rest) = wire.split_at(wire.len() - MIB);
    let mut client = edge.connect();
    client.send(&first[..200_000]);
    let mut peer = files.accept();
    let head = peer.read_head();
    peer.read_exact(100_000);
    let (more, rest) = (first[200_000..].to_vec(), rest.to_vec());
    let mut other = client.stream().try_clone().expect("clone");
    std::thread::spawn(move || std::io::Write::write_all(&mut other, &[more, rest].concat()));
    let length: usize = head.get("content-length").and_then(|n| n.parse().ok()).expect("a length");
    assert_eq!(length, body.len());
    peer.read_exact(length - 100_000);
    peer.send(answer("200 OK", &[], "stored"));
    assert_eq!(client.read_answer().1.text(), "stored");
}

/// Where nothing rests on it a form is nobody's business.
#[test]
fn a_form_that_decides_nothing_passes_as_it_is() {
    let upstream = echo("u");
    let edge = Edge::start(&["--upstream", &upstream.url()]);
    let a = field("name=\"model\"", "a");
    for body in [form(&[&a, &a]), form(&[&a]).replace("\r\n", "\n"), "nonsense".to_owned()] {
        let (head, got) = edge.ask(&request(PATHS[0], &[], &body));
        assert_eq!((head.status(), got.text()), (200, body));
    }
    // JSON beside it is read as ever.
    assert_eq!(edge.ask(&post("/v1/audio/speech", &[], "{\"model\":\"a\"}")).0.status(), 200);
}
