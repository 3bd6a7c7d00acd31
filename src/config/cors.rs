//! Which pages of other origins may read the answers (Fetch standard, 3.2, "CORS protocol").

use std::time::Duration;

use super::document::{Table, Value};
use super::units::duration;
use crate::proto::http1::fields::is_token;

/// How long a browser may remember what it was told, if nothing else is said.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(600);

/// The longest origin: a host name has 253 bytes, and extensions have names of their own.
const ORIGIN_MAX_BYTES: usize = 512;

/// The longest name of a field that is allowed.
const FIELD_NAME_MAX_BYTES: usize = 128;

/// What is said to browsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cors {
    /// The origins, as browsers send them; `None` is every one.
    pub(crate) origins: Option<Vec<String>>,
    /// Whether cookies and the browser's own credentials may come along. Never with every origin.
    pub(crate) credentials: bool,
    /// The request fields that pages may set, as a list in one value; `None` is every one they ask for.
    pub(crate) allow_headers: Option<String>,
    /// How long a browser need not ask again.
    pub(crate) max_age: Duration,
}

impl Cors {
    /// Whether pages of `origin` may read the answers.
    pub(crate) fn admits(&self, origin: &[u8]) -> bool {
        match &self.origins {
            None => true,
            Some(origins) => origins.iter().any(|known| known.as_bytes() == origin),
        }
    }

    /// From `[cors]`; what cannot be read is reported.
    pub(crate) fn read(table: &Table<'_>) -> Cors {
        let advice = "name those whose pages may read the answers, as in origins = [\"https://app.example\"]";
        let origins = table.require("origins", advice, origins).unwrap_or_default();
        let credentials = table.get("credentials", Value::boolean).unwrap_or_default();
        let allow_headers = table.get("allow_headers", |value| Ok(value.each(field_name).join(", ")));
        let max_age = table.get("max_age", duration).unwrap_or(DEFAULT_MAX_AGE);
        table.finish(|_| None);
        let any = origins.iter().any(|origin| origin == "*");
        if any && origins.len() > 1 {
            table.fault("origins", "has others beside \"*\", which is every one; keep the one or the others");
        }
        if any && credentials {
            table.fault(
                "credentials",
                "cannot be for every origin: any page could act for whoever opens it; name the origins",
            );
        }
        Cors { origins: (!any).then_some(origins), credentials, allow_headers, max_age }
    }
}

fn origins(value: &Value<'_>) -> Result<Vec<String>, String> {
    match value.items()[..] {
        [] => Err("is an empty list, which admits no page; leave [cors] out".to_owned()),
        _ => Ok(value.each(origin)),
    }
}

/// An origin, or `*`.
fn origin(value: &Value<'_>) -> Result<String, String> {
    match value.string()? {
        "*" => Ok("*".to_owned()),
        text => check_origin(text).map(|()| text.to_owned()),
    }
}

/// Whether browsers send an origin like this (Fetch standard, "serialising a request origin"): they are compared byte by
/// byte, so that one written in another way would never match.
fn check_origin(text: &str) -> Result<(), String> {
    if text.len() > ORIGIN_MAX_BYTES {
        return Err(format!("is longer than {ORIGIN_MAX_BYTES} bytes"));
    }
    if text == "null" {
        return Err(
            "\"null\" is what every sandboxed page is called; name the origins, or write \"*\"".to_owned()
        );
    }
    let Some((scheme, authority)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return Err(format!("{text:?} has no scheme; write an origin, as in \"https://app.example\""));
    };
    if authority.contains('*') {
        return Err(format!("{text:?} has a * in it; origins are written out, or \"*\" alone is every one"));
    }
    let host = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if host.len() != authority.len() {
        return Err(format!("{text:?} is more than an origin; write \"{scheme}://{host}\""));
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("{text:?} is sent in lower case; write {:?}", text.to_ascii_lowercase()));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_plain) {
        return Err(format!(
            "{text:?} has no host that a browser would send; an international one is sent as xn--..."
        ));
    }
    let default = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return Ok(()),
    };
    match host.strip_suffix(default) {
        Some(host) => Err(format!("{text:?} is sent without its port; write \"{scheme}://{host}\"")),
        None => Ok(()),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn field_name(value: &Value<'_>) -> Result<String, String> {
    let name = value.name(FIELD_NAME_MAX_BYTES)?;
    if name == "*" {
        return Err("\"*\" would not stand for Authorization; leave allow_headers out to allow every field"
            .to_owned());
    }
    match is_token(name.as_bytes()) {
        true => Ok(name),
        false => Err(format!("{name:?} is not the name of a field")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ServeArgs;
    use crate::config::tests::{Place, loaded};

    #[test]
    fn it_is_off_unless_set() {
        assert_eq!(loaded("").cors, None);
    }

    #[test]
    fn exact_origins_are_admitted() {
        let cors =
            loaded("[cors]\norigins = [\"https://app.example\", \"http://localhost:3000\"]").cors.unwrap();
        assert!(cors.admits(b"https://app.example") && cors.admits(b"http://localhost:3000"));
        for other in
            ["http://app.example", "https://app.example.evil", "https://app.example:8443", "null", ""]
        {
            assert!(!cors.admits(other.as_bytes()), "{other}");
        }
        assert_eq!((cors.credentials, cors.allow_headers, cors.max_age), (false, None, DEFAULT_MAX_AGE));
    }

    #[test]
    fn a_star_admits_all() {
        let text = "[cors]\norigins = \"*\"\nallow_headers = [\"authorization\", \"x-a\"]\nmax_age = \"1h\"";
        let cors = loaded(text).cors.unwrap();
        assert!(cors.admits(b"null") && cors.admits(b"https://anything.example"));
        assert_eq!(cors.allow_headers.as_deref(), Some("authorization, x-a"));
        assert_eq!(cors.max_age.as_secs(), 3600);
    }

    #[test]
    fn problems_are_told_by_line() {
        for (text, expected) in [
            ("", "1: [cors] origins: is missing; name those"),
            ("origins = []", "2: [cors] origins: is an empty list"),
            (
                "origins = [\n\"https://a.example\",\n\"b.example\"]",
                "4: [cors] origins: \"b.example\" has no scheme",
            ),
            ("origins = [\"*\", \"https://a.example\"]", "2: [cors] origins: has others beside \"*\""),
            ("origins = \"*\"\ncredentials = true", "3: [cors] credentials: cannot be for every origin"),
            (
                "origins = \"*\"\nallow_headers = [\"a b\"]",
                "3: [cors] allow_headers: \"a b\" is not the name",
            ),
            ("origins = \"*\"\nallow_headers = \"*\"", "3: [cors] allow_headers: \"*\" would not stand"),
            ("origins = \"*\"\nmax_age = 60", "3: [cors] max_age: has no unit"),
            (
                "origins = \"*\"\norigin = 1",
                "3: [cors] origin: there is no such key; did you mean \"origins\"?",
            ),
        ] {
            let errors = Place::new(&format!("[cors]\n{text}")).load(&ServeArgs::default(), &[]).unwrap_err();
            assert!(errors.starts_with(&format!("sedge.toml:{expected}")), "{text}: {errors}");
            assert_eq!(errors.lines().count(), 1, "{text}: {errors}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_told() {
        for (text, advice) in [
            ("app.example", "has no scheme"),
            ("null", "every sandboxed page"),
            ("https://app.example/", "write \"https://app.example\""),
            ("https://app.example/chat?x", "write \"https://app.example\""),
            ("https://*.example", "origins are written out"),
            ("https://App.example", "write \"https://app.example\""),
            ("https://app.example:443", "write \"https://app.example\""),
            ("http://app.example:80", "write \"http://app.example\""),
            ("https://", "no host"),
            ("https://user@app.example", "no host"),
            ("https://bücher.example", "xn--"),
        ] {
            let error = check_origin(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
        for text in ["https://[::1]:8443", "chrome-extension://abcdef", "tauri://localhost", "https://a.b:80"]
        {
            assert_eq!(check_origin(text), Ok(()), "{text}");
        }
    }
}
