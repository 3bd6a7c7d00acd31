//! A request's `Content-Type`: how those who answer its path read the body, and where they would disagree.

use memchr::memchr;

/// How a body may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaType {
    /// As JSON.
    Json,
    /// As JSON, maybe: it has no type, or the one that curl gives it (`-d`).
    Unlabelled,
    /// As the parts of a form.
    Form,
    /// As bytes.
    Opaque,
    /// Readers disagree: there are two types, or its encoding is not built on ASCII.
    Ambiguous,
}

/// Endpoints whose body is JSON and names a model: OpenAI's, Anthropic's messages, and those that open servers have beside them.
const JSON_ENDPOINTS: [&str; 12] = [
    "/chat/completions",
    "/completions",
    "/responses",
    "/embeddings",
    "/moderations",
    "/images/generations",
    "/audio/speech",
    "/messages",
    "/messages/count_tokens",
    "/rerank",
    "/score",
    "/complete",
];

/// Ends of paths where forms carry files and name no model.
const FORMS_WITHOUT_MODEL: [&str; 5] = ["/files", "/uploads", "/parts", "/content", "/skills"];

impl MediaType {
    /// By the value of the one `Content-Type`.
    pub(crate) fn of(value: &[u8]) -> MediaType {
        // As nearly everyone writes it.
        if value == b"application/json" {
            return MediaType::Json;
        }
        if value.contains(&b',') || !is_plain(value) {
            return MediaType::Ambiguous;
        }
        let essence = essence(value);
        if is_json(value) {
            MediaType::Json
        } else if essence.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/")) {
            MediaType::Form
        } else if essence.is_empty() || essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            MediaType::Unlabelled
        } else {
            MediaType::Opaque
        }
    }
}

/// Whether those who answer `path` read the body as JSON whatever it says to be, unless it is a form: an upstream that does so must
/// not be reached around a route.
pub(crate) fn reads_json(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    JSON_ENDPOINTS.iter().any(|end| path.ends_with(end))
}

/// Whether a form that is sent to `path` may name a model: audio and images do.
pub(crate) fn reads_form(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    !FORMS_WITHOUT_MODEL.iter().any(|end| path.ends_with(end))
}

/// A media type without its parameters.
pub(crate) fn essence(value: &[u8]) -> &[u8] {
    value[..memchr(b';', value).unwrap_or(value.len())].trim_ascii()
}

/// `application/json`, or a type built on it (`application/vnd.x+json`).
pub(crate) fn is_json(value: &[u8]) -> bool {
    // As nearly everyone writes it.
    if value == b"application/json" {
        return true;
    }
    let essence = essence(value);
    essence.eq_ignore_ascii_case(b"application/json")
        || essence.len() > 5 && essence[essence.len() - 5..].eq_ignore_ascii_case(b"+json")
}

/// Whether in every `charset` that it names ASCII stands for itself: then all that decides is read alike.
fn is_plain(value: &[u8]) -> bool {
    value.split(|&byte| byte == b';').skip(1).all(|parameter| {
        let mut parts = parameter.splitn(2, |&byte| byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let charset = parts.next().unwrap_or_default().trim_ascii();
        let charset = charset.strip_prefix(b"\"").and_then(|c| c.strip_suffix(b"\"")).unwrap_or(charset);
        !name.eq_ignore_ascii_case(b"charset")
            || [&b"utf-8"[..], b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"latin1", b"windows-1252", b""]
                .iter()
                .any(|known| charset.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_those_behind_would() {
        for (value, kind) in [
            ("application/json", MediaType::Json),
            ("Application/JSON ; charset=\"UTF-8\"", MediaType::Json),
            ("application/vnd.x+json", MediaType::Json),
            ("application/json; charset=ISO-8859-1", MediaType::Json),
            ("application/json; charset=utf-16", MediaType::Ambiguous),
            ("application/json; charset=utf-7; charset=utf-8", MediaType::Ambiguous),
            ("application/json, multipart/form-data; boundary=x", MediaType::Ambiguous),
            ("multipart/form-data; boundary=x", MediaType::Form),
            ("application/x-www-form-urlencoded", MediaType::Unlabelled),
            ("text/plain", MediaType::Opaque),
            ("", MediaType::Unlabelled),
            ("application/octet-stream", MediaType::Opaque),
            ("audio/wav", MediaType::Opaque),
        ] {
            assert_eq!(MediaType::of(value.as_bytes()), kind, "{value}");
        }
    }

    #[test]
    fn paths_are_read_with_and_without_a_slash_at_their_end() {
        assert!(reads_json("/v1/chat/completions") && reads_json("/v1/chat/completions//"));
        assert!(!reads_json("/v1/audio/transcriptions"));
    }
}
