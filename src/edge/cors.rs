//! What browsers are told about pages of other origins (Fetch standard, 3.2, "CORS protocol").
//!
//! A page that may read an answer needs the word of the answer itself, so the fields made here go into every one: relayed,
//! made here, refused. The question that comes before it, the preflight, is asked by the browser and not by the page: it
//! carries no key, so it is answered before keys are looked at, and no upstream hears of it.

use crate::config::Cors;
use crate::proto::http1::fields::{is_token, write_field, write_number};
use crate::proto::http1::request::RequestHead;

/// The fields of an answer that a page may read beside the few that every page may: what SDKs and clients of streams look at.
const EXPOSED: &[u8] = b"x-request-id, retry-after, retry-after-ms, x-should-retry, openai-model, openai-organization, \
    openai-processing-ms, openai-version, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, \
    x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens, \
    stream-next-offset, stream-cursor, stream-up-to-date, stream-closed, stream-sse-data-encoding, stream-earliest-offset, \
    stream-ttl, stream-expires-at, producer-epoch, producer-seq, producer-expected-seq, producer-received-seq, etag, location";

/// What is said of one request.
pub(crate) struct Said {
    /// Lines for its answer.
    pub(crate) fields: Box<[u8]>,
    /// The request is a preflight: these fields are all there is to say.
    pub(crate) preflight: bool,
}

/// What is said of a request with this head; nothing if no page sent it.
pub(crate) fn answer(head: &RequestHead<'_>, cors: &Cors) -> Option<Said> {
    let origin = head.origin?;
    let method = head.field("access-control-request-method").filter(|_| head.method == "OPTIONS");
    let mut out = Vec::with_capacity(512);
    let vary: &[u8] = match (method, &cors.origins) {
        (Some(_), _) => b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        (None, Some(_)) => b"Origin",
        (None, None) => b"",
    };
    if !vary.is_empty() {
        write_field(&mut out, "Vary", vary);
    }
    if cors.admits(origin) {
        write_field(
            &mut out,
            "Access-Control-Allow-Origin",
            if cors.origins.is_some() { origin } else { b"*" },
        );
        if cors.credentials {
            write_field(&mut out, "Access-Control-Allow-Credentials", b"true");
        }
        match method {
            Some(method) => allow(&mut out, method, head.field("access-control-request-headers"), cors),
            None => write_field(&mut out, "Access-Control-Expose-Headers", EXPOSED),
        }
    }
    Some(Said { fields: out.into(), preflight: method.is_some() })
}

/// Every method is relayed, and so is every field: what was asked for is allowed, unless fewer fields were configured.
fn allow(out: &mut Vec<u8>, method: &[u8], asked: Option<&[u8]>, cors: &Cors) {
    if is_token(method) {
        write_field(out, "Access-Control-Allow-Methods", method);
    }
    match (&cors.allow_headers, asked) {
        (Some(fields), _) => write_field(out, "Access-Control-Allow-Headers", fields.as_bytes()),
        (None, Some(asked)) if asked.split(|&byte| byte == b',').all(|name| is_token(name.trim_ascii())) => {
            write_field(out, "Access-Control-Allow-Headers", asked);
        }
        (None, _) => {}
    }
    write_number(out, "Access-Control-Max-Age", cors.max_age.as_secs());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::http1::request::parse;

    fn cors(origins: Option<&[&str]>) -> Cors {
        let origins = origins.map(|origins| origins.iter().map(|&origin| origin.to_owned()).collect());
        Cors { origins, credentials: false, allow_headers: None, max_age: Duration::from_secs(60) }
    }

    fn said(method: &str, fields: &str, cors: &Cors) -> Option<(String, bool)> {
        let head = format!("{method} /v1/models HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let said = answer(&parse(head.as_bytes()).unwrap(), cors)?;
        Some((String::from_utf8(said.fields.into()).unwrap(), said.preflight))
    }

    const ORIGIN: &str = "Origin: https://a.example\r\n";
    const PREFLIGHT: &str = "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\
        Access-Control-Request-Headers: authorization,x-stainless-lang\r\n";

    #[test]
    fn who_names_no_origin_is_told_nothing() {
        assert_eq!(said("GET", "", &cors(None)), None);
        assert_eq!(said("OPTIONS", "Access-Control-Request-Method: GET\r\n", &cors(None)), None);
    }

    #[test]
    fn an_origin_is_named_or_not() {
        let (told, preflight) = said("GET", ORIGIN, &cors(Some(&["https://a.example"]))).unwrap();
        assert!(
            told.starts_with("Vary: Origin\r\nAccess-Control-Allow-Origin: https://a.example\r\n"),
            "{told}"
        );
        assert!(told.contains("Access-Control-Expose-Headers: x-request-id, ") && !preflight, "{told}");
        assert!(!told.contains("Credentials"), "{told}");
        let other = said("GET", ORIGIN, &cors(Some(&["https://b.example"]))).unwrap();
        assert_eq!(other, ("Vary: Origin\r\n".to_owned(), false));
        let (any, _) = said("GET", ORIGIN, &cors(None)).unwrap();
        assert!(any.starts_with("Access-Control-Allow-Origin: *\r\n") && !any.contains("Vary"), "{any}");
    }

    #[test]
    fn credentials_are_allowed_where_that_was_said() {
        let cors = Cors { credentials: true, ..cors(Some(&["https://a.example"])) };
        let (told, _) = said("GET", ORIGIN, &cors).unwrap();
        assert!(told.contains("Access-Control-Allow-Credentials: true\r\n"), "{told}");
    }

    #[test]
    fn a_preflight_is_allowed_what_it_asks_for() {
        let (told, preflight) = said("OPTIONS", PREFLIGHT, &cors(None)).unwrap();
        assert_eq!(
            told,
            "Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n\
             Access-Control-Allow-Origin: *\r\n\
             Access-Control-Allow-Methods: POST\r\n\
             Access-Control-Allow-Headers: authorization,x-stainless-lang\r\n\
             Access-Control-Max-Age: 60\r\n"
        );
        assert!(preflight);
        let few = Cors { allow_headers: Some("authorization".to_owned()), ..cors(None) };
        let (told, _) = said("OPTIONS", PREFLIGHT, &few).unwrap();
        assert!(told.contains("Access-Control-Allow-Headers: authorization\r\n"), "{told}");
        assert!(!said("OPTIONS", ORIGIN, &cors(None)).unwrap().1, "an OPTIONS of the page's own");
        assert!(!said("POST", PREFLIGHT, &cors(None)).unwrap().1, "no preflight is a POST");
    }

    #[test]
    fn what_is_no_name_is_not_repeated() {
        let fields = "Origin: https://a.example\r\nAccess-Control-Request-Method: P OST\r\n\
            Access-Control-Request-Headers: a b, <script>\r\n";
        let (told, _) = said("OPTIONS", fields, &cors(None)).unwrap();
        assert!(!told.contains("Allow-Methods") && !told.contains("Allow-Headers"), "{told}");
    }

    #[test]
    fn an_origin_that_is_not_admitted_learns_nothing_from_a_preflight() {
        let (told, preflight) = said("OPTIONS", PREFLIGHT, &cors(Some(&["https://b.example"]))).unwrap();
        assert!(preflight && told.starts_with("Vary: ") && told.lines().count() == 1, "{told}");
    }
}
