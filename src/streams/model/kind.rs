//! What a stream holds: its content type, and what follows from it.

/// How the bytes of a stream are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `application/json`: messages.
    Json,
    /// `text/*`: bytes that an event stream can carry as they are.
    Text,
    /// Anything else: an event stream carries them in base64.
    Binary,
}

/// What is assumed of a stream of which nothing is said (PROTOCOL.md, section 5.1).
pub(crate) const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// The longest content type that is kept, in bytes.
pub(crate) const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// A content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    text: Box<str>,
    /// What follows from it.
    pub(crate) form: Form,
}

impl Kind {
    /// A content type as it was sent; `None` if it is none.
    pub(crate) fn new(text: &str) -> Option<Kind> {
        let text = text.trim();
        let (main, sub) = essence(text).split_once('/')?;
        if !is_token(main) || !is_token(sub) || text.len() > CONTENT_TYPE_BYTES_MAX || !is_visible(text) {
            return None;
        }
        let form = match () {
            () if essence(text).eq_ignore_ascii_case("application/json") => Form::Json,
            () if main.eq_ignore_ascii_case("text") => Form::Text,
            () => Form::Binary,
        };
        Some(Kind { text: text.into(), form })
    }

    /// As it was sent.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `text` names the same type; parameters such as a charset do not make another one.
    pub(crate) fn is(&self, text: &str) -> bool {
        essence(&self.text).eq_ignore_ascii_case(essence(text))
    }
}

fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

/// A word of a media type (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_token)
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_from_the_type() {
        for (text, form) in [
            ("application/json", Form::Json),
            ("Application/JSON; charset=utf-8", Form::Json),
            ("text/event-stream", Form::Text),
            ("application/x-ndjson", Form::Binary),
        ] {
            assert_eq!(Kind::new(text).map(|kind| kind.form), Some(form), "{text}");
        }
        for none in ["", "json", "/", "a/", "text/plain\r\nx: y", "text/\u{e4}"] {
            assert_eq!(Kind::new(none), None, "{none}");
        }
    }

    #[test]
    fn parameters_make_no_other_type() {
        let kind = Kind::new("text/plain; charset=utf-8").expect("a type");
        assert!(kind.is("TEXT/plain"));
        assert!(!kind.is("text/html"));
    }
}
