//! The bytes of a request: the same for all users, made once.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Content, LoadArgs};
use crate::config::UpstreamUrl;
use crate::proto::http1::fields::{write_field, write_number};

/// The longest body that is sent.
pub(crate) const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What stands for the base's path if it has none.
const API_PREFIX: &str = "/v1";

/// Fields that frame a message or belong to the connection: they are ours to write.
const RESERVED: [&str; 7] =
    ["connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"];

/// A request, ready to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Its bytes, head and body.
    pub(crate) wire: Vec<u8>,
    /// Its path.
    pub(crate) path: String,
    /// Whether it asks for a stream.
    pub(crate) streamed: bool,
}

impl Request {
    /// Makes the request that `args` describes. `authority` is the value of `Host`.
    pub(crate) fn new(args: &LoadArgs, authority: &str) -> Result<Request, String> {
        let (body, endpoint, streamed) = match &args.content {
            Content::Chat { model, prompt, stream } => {
                let message = serde_json::json!([{"role": "user", "content": prompt}]);
                let body = serde_json::json!({"model": model, "stream": stream, "messages": message});
                (body.to_string().into_bytes(), "/chat/completions", *stream)
            }
            Content::File(path) => {
                let body = read(path)?;
                let (endpoint, streamed) =
                    understand(&body).map_err(|what| format!("{}: {what}", path.display()))?;
                (body, endpoint, streamed)
            }
        };
        let path = path(&args.url, endpoint);
        let mut wire = format!("POST {path} HTTP/1.1\r\n").into_bytes();
        let accept = if streamed { "text/event-stream" } else { "application/json" };
        let key = args.key.as_ref().map(|key| format!("Bearer {}", key.expose()));
        let usual = [
            ("Host", Some(authority)),
            ("Content-Type", Some("application/json")),
            ("Accept", Some(accept)),
            ("User-Agent", Some(concat!("sedge-load/", env!("CARGO_PKG_VERSION")))),
            ("Authorization", key.as_deref()),
        ];
        let is_given = |name: &str| args.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let usual = usual.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in usual.filter(|(name, _)| !is_given(name)) {
            write_field(&mut wire, name, value.as_bytes());
        }
        for (name, value) in &args.headers {
            write_field(&mut wire, name, value.as_bytes());
        }
        write_number(&mut wire, "Content-Length", body.len() as u64);
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(&body);
        Ok(Request { wire, path, streamed })
    }
}

/// Reads `name: value` as curl's `-H` takes it. What is refused is not repeated: it may hold a key.
pub(crate) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("has no colon; write \"name: value\"")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("does not begin with a field's name; write \"name: value\"".into());
    }
    let value = value.trim_matches([' ', '\t']);
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(format!("the value of {name} has a control character in it"));
    }
    if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Err(format!("{name} is written by sedge itself"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn path(url: &UpstreamUrl, endpoint: &str) -> String {
    let base = if url.path.is_empty() { API_PREFIX } else { &url.path };
    format!("{base}{endpoint}")
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let length = std::fs::metadata(path).map_err(told)?.len();
    if length > BODY_BYTES_MAX {
        return Err(format!("{}: is longer than 64 MiB", path.display()));
    }
    std::fs::read(path).map_err(told)
}

/// Which endpoint a body is for, by the one key that only its requests have, and whether it asks for a stream.
fn understand(body: &[u8]) -> Result<(&'static str, bool), String> {
    #[derive(Deserialize)]
    struct Body {
        stream: Option<bool>,
        messages: Option<IgnoredAny>,
        input: Option<IgnoredAny>,
        prompt: Option<IgnoredAny>,
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("is no request: {error}"))?;
    let endpoint = match (body.messages, body.input, body.prompt) {
        (Some(_), _, _) => "/chat/completions",
        (_, Some(_), _) => "/responses",
        (_, _, Some(_)) => "/completions",
        _ => return Err("is no request: it has neither \"messages\", \"input\" nor \"prompt\"".into()),
    };
    Ok((endpoint, body.stream == Some(true)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Secret;
    use crate::load::Load;

    fn args(url: &str) -> LoadArgs {
        LoadArgs {
            url: UpstreamUrl::parse(url).unwrap(),
            load: Load::Users(vec![1]),
            duration: Duration::from_secs(1),
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(1),
            threads: None,
            content: Content::Chat { model: "m".into(), prompt: "say \"hi\"".into(), stream: true },
            headers: Vec::new(),
            key: Some(Secret::new("sk-1").unwrap()),
            json: None,
            svg: None,
            ca: Vec::new(),
        }
    }

    #[test]
    fn it_is_a_request_that_we_would_accept() {
        let mut args = args("http://h:1");
        args.headers = vec![("x-sim-events".into(), "3".into()), ("accept".into(), "*/*".into())];
        let request = Request::new(&args, "h:1").unwrap();
        let end = request.wire.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = crate::proto::http1::request::parse(&request.wire[..end]).unwrap();
        assert_eq!(head.field("host"), Some(&b"h:1"[..]));
        assert_eq!(head.field("authorization"), Some(&b"Bearer sk-1"[..]));
        assert_eq!(head.field("x-sim-events"), Some(&b"3"[..]));
        assert_eq!(head.field("accept"), Some(&b"*/*"[..]));
        let body: serde_json::Value = serde_json::from_slice(&request.wire[end..]).unwrap();
        assert_eq!(body["messages"][0]["content"], "say \"hi\"");
        assert_eq!((&body["stream"], &body["model"]), (&true.into(), &"m".into()));
        let length = head.field("content-length").unwrap();
        assert_eq!(length, (request.wire.len() - end).to_string().as_bytes());
    }

    #[test]
    fn the_api_is_found_with_and_without_its_path() {
        for (url, path) in [
            ("http://h", "/v1/chat/completions"),
            ("http://h/v1/", "/v1/chat/completions"),
            ("http://h/api/v2", "/api/v2/chat/completions"),
        ] {
            assert_eq!(Request::new(&args(url), "h").unwrap().path, path);
        }
    }

    #[test]
    fn a_body_tells_where_it_belongs() {
        assert_eq!(understand(br#"{"messages":[],"stream":true}"#), Ok(("/chat/completions", true)));
        assert_eq!(understand(br#"{"input":"x","stream":false}"#), Ok(("/responses", false)));
        assert_eq!(understand(br#"{"prompt":"x"}"#), Ok(("/completions", false)));
        for body in [&b"{}"[..], b"[]", b"", br#"{"messages":[],"stream":"yes"}"#] {
            assert!(understand(body).unwrap_err().starts_with("is no request"));
        }
    }

    #[test]
    fn headers_are_read_as_curl_reads_them() {
        assert_eq!(parse_header("x-a: b: c "), Ok(("x-a".into(), "b: c".into())));
        assert_eq!(parse_header("x-a:"), Ok(("x-a".into(), "".into())));
        for (text, why) in [
            ("x-a", "no colon"),
            (": b", "name"),
            ("x a: b", "name"),
            ("x: a\r\ny: b", "control character"),
            ("Content-Length: 3", "written by sedge"),
        ] {
            assert!(parse_header(text).unwrap_err().contains(why), "{text:?}");
        }
        assert!(!parse_header("authorization Bearer sk-1").unwrap_err().contains("sk-1"));
    }
}
