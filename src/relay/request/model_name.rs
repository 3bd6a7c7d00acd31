//! The model that a request names outside of its body. In its query some upstreams (LiteLLM, realtime APIs) read it, and rather than
//! the body's; in its path it stands behind `/v1/models/`.

use std::fmt::Write;
use std::ops::Range;

use crate::proto::openai::{ApiError, MAX_MODEL_BYTES};

/// What a model's own address begins with.
const MODELS: &str = "/v1/models/";

/// The one `model` in the query of `target`: its value, and where that stands.
///
/// # Errors
/// If readers may disagree about it: there are two, some would take another spelling or separator for it, or it is no text.
pub(crate) fn in_query(target: &str) -> Result<Option<(String, Range<usize>)>, ApiError> {
    let Some((path, query)) = target.split_once('?') else { return Ok(None) };
    let mut found = None;
    let mut at = path.len() + 1;
    for parameter in query.split_inclusive(['&', ';', '?']) {
        let start = at;
        at += parameter.len();
        let parameter = parameter.trim_end_matches(['&', ';', '?']);
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        // As nearly all are written, it cannot be called so.
        if key.len() < 5 || !form_decoded(key).is_some_and(|key| key.trim().eq_ignore_ascii_case("model")) {
            continue;
        }
        // Some take a semicolon for a separator, and some do not; some drop white space, or do not mind case.
        if found.is_some() || key != "model" || query.contains(';') {
            return Err(ambiguous());
        }
        let place = start + key.len() + 1;
        let name = form_decoded(value).filter(|name| name.len() <= MAX_MODEL_BYTES).ok_or_else(ambiguous)?;
        found = Some((name, place.min(start + parameter.len())..start + parameter.len()));
    }
    // An empty one names nothing.
    Ok(found.filter(|(value, _)| !value.is_empty()))
}

/// Whether `body` begins with URL-encoded fields, one of which is a model. Some read a form so where it carries no file.
pub(crate) fn is_in_fields(body: &[u8]) -> bool {
    let fields = String::from_utf8_lossy(body);
    !matches!(in_query(&format!("?{fields}")), Ok(None))
}

/// The model whose address `path` is, or is below: all behind `/v1/models/`, since names have slashes. And where that stands.
///
/// # Errors
/// If it is no text, or too long for a name.
pub(crate) fn in_path(path: &str) -> Result<Option<(String, Range<usize>)>, ApiError> {
    let Some(name) = path.strip_prefix(MODELS).filter(|name| !name.is_empty()) else { return Ok(None) };
    let model = decoded(name, false).filter(|model| model.len() <= MAX_MODEL_BYTES).ok_or_else(|| {
        let message = "The path names a model that is no text, or too long for a name.";
        ApiError::new(400, "ambiguous_field", message).with_param("model")
    })?;
    Ok(Some((model, MODELS.len()..path.len())))
}

/// `target` with `name` in the place of the model's name.
pub(crate) fn renamed(target: &str, place: Range<usize>, name: &str) -> String {
    let mut renamed = target[..place.start].to_owned();
    for byte in name.bytes() {
        // RFC 3986, 3.4; what separates parameters or is decoded otherwise is not left as it is.
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' => {
                renamed.push(char::from(byte));
            }
            other => drop(write!(renamed, "%{other:02X}")),
        }
    }
    renamed.push_str(&target[place.end..]);
    renamed
}

/// The two names differ.
pub(crate) fn differs() -> ApiError {
    let message = "The request names two models, in its path, its query or its body, and readers disagree which one counts. Name one.";
    ApiError::new(400, "ambiguous_field", message).with_param("model")
}

fn ambiguous() -> ApiError {
    let message =
        "The query names a `model` in a form that readers take differently. Write `model=NAME` once.";
    ApiError::new(400, "ambiguous_field", message).with_param("model")
}

/// Text as forms have it.
fn form_decoded(text: &str) -> Option<String> {
    decoded(text, true)
}

/// Percent-encoded text; in forms a plus sign is a space.
fn decoded(text: &str, is_form: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.first_chunk().filter(|_| first == b'%');
        let digit = |digit: u8| char::from(digit).to_digit(16);
        match digits.and_then(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)) {
            Some(byte) => {
                bytes.push(byte as u8);
                rest = &behind[2..];
            }
            None => {
                bytes.push(if first == b'+' && is_form { b' ' } else { first });
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_where_it_is_unmistakable() {
        for (target, expected) in [
            ("/v1/realtime", None),
            ("/v1/realtime?x=model&models=a&mode=b", None),
            ("/v1/realtime?model=", None),
            ("/v1/realtime?model", None),
            ("/v1/realtime?a=b&model=gpt%2D4o&c", Some("gpt-4o")),
            ("/v1/realtime?model=a+b", Some("a b")),
            ("/v1/realtime?model=50%", Some("50%")),
        ] {
            let found = in_query(target).unwrap();
            assert_eq!(found.as_ref().map(|(name, _)| &name[..]), expected, "{target}");
            if let Some((_, place)) = found {
                let other = renamed(target, place, "ü &/1");
                assert_eq!(in_query(&other).unwrap().unwrap().0, "ü &/1", "{other}");
            }
        }
    }

    #[test]
    fn fields_of_a_body_name_it() {
        assert!(is_in_fields(b"a=b&model=c") && is_in_fields(b"mod%65l=c") && is_in_fields(b"Model=c"));
        assert!(!is_in_fields(b"plain text") && !is_in_fields(b"models=a&x=model") && !is_in_fields(b"\xFF"));
    }

    #[test]
    fn a_models_address_names_it() {
        for (path, expected) in [
            ("/v1/models", None),
            ("/v1/models/", None),
            ("/v1/models/gpt-4o", Some("gpt-4o")),
            ("/v1/models/meta-llama/Llama-3", Some("meta-llama/Llama-3")),
            ("/v1/models/meta-llama%2FLlama+3", Some("meta-llama/Llama+3")),
            ("/v1/modelsx/a", None),
        ] {
            let found = in_path(path).unwrap();
            assert_eq!(found.map(|(name, _)| name).as_deref(), expected, "{path}");
        }
        assert_eq!(in_path("/v1/models/%FF").unwrap_err().status, 400);
    }

    #[test]
    fn what_readers_take_differently_is_refused() {
        for target in [
            "/v1/x?model=a&model=a",
            "/v1/x?model=a&mod%65l=b",
            "/v1/x?Model=a",
            "/v1/x?mode%6C=a",
            "/v1/x?a=b;model=c",
            "/v1/x?model=a;b=c",
            "/v1/x?%20model=a",
            "/v1/x??model=a&model=b",
            "/v1/x?model=%FF",
        ] {
            let error = in_query(target).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some("model")), "{target}");
        }
    }
}
