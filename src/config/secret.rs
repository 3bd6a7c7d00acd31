//! A value that is sent, and never shown.

use std::fmt;
use std::path::Path;

use super::document::Value;
use super::files::read_text;

/// The longest secret that is taken.
const SECRET_MAX_BYTES: usize = 8 * 1024;

/// An API key. It can be put into a header as it is (visible ASCII only), and neither `Debug` nor any error shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

/// Why a text is no secret. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum NotASecret {
    /// There is nothing in it.
    Empty,
    /// It has a space, a line break, a control character or something beyond ASCII in it.
    Unprintable,
    /// It is longer than any key.
    TooLong,
}

impl Secret {
    /// Takes `text` without the white space around it, which files end with.
    pub(crate) fn new(text: &str) -> Result<Secret, NotASecret> {
        let text = text.trim();
        match text {
            "" => Err(NotASecret::Empty),
            _ if text.len() > SECRET_MAX_BYTES => Err(NotASecret::TooLong),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Err(NotASecret::Unprintable),
            _ => Ok(Secret(text.to_owned())),
        }
    }

    /// The value, to be sent.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl fmt::Display for NotASecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotASecret::Empty => f.write_str("is empty"),
            NotASecret::Unprintable => {
                f.write_str("holds more than one key's worth: a space, a line break or a character that no header may carry")
            }
            NotASecret::TooLong => write!(f, "is longer than {SECRET_MAX_BYTES} bytes, so it is no key"),
        }
    }
}

impl std::error::Error for NotASecret {}

/// What `env:NAME` or `file:PATH` leads to. Anything else may be a secret, so it is not repeated.
pub(crate) fn secret(value: &Value<'_>) -> Result<Secret, String> {
    let text = value.string()?;
    if let Some(name) = text.strip_prefix("env:") {
        let found = (value.document().env)(name).filter(|found| !found.is_empty());
        let found = found.ok_or_else(|| format!("the environment variable {name} is not set, or empty"))?;
        let found = found.to_str().unwrap_or("\0");
        return Secret::new(found).map_err(|error| format!("the environment variable {name} {error}"));
    }
    if let Some(path) = text.strip_prefix("file:") {
        let path = value.document().directory.join(Path::new(path));
        return Secret::new(&read_text(&path)?).map_err(|error| format!("{} {error}", path.display()));
    }
    if let Some(name) = variable(text) {
        return Err(format!("is not replaced here; write \"env:{name}\""));
    }
    Err("must not stand in this file; write where it is, as \"env:NAME\" or \"file:/run/secrets/name\""
        .to_owned())
}

/// The variable that a text names as shells and LiteLLM would: `$NAME`, `${NAME}`, `os.environ/NAME`.
fn variable(text: &str) -> Option<&str> {
    let braced = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let name = braced.or_else(|| text.strip_prefix('$')).or_else(|| text.strip_prefix("os.environ/"))?;
    let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (!name.is_empty() && name.bytes().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_stand_in_a_header_is_taken() {
        assert_eq!(Secret::new(" sk-one\r\n").unwrap().expose(), "sk-one");
        assert_eq!(Secret::new(" \n"), Err(NotASecret::Empty));
        for wrong in ["a b", "a\nb", "a\r\nX-Evil: 1", "schlüssel", "a\0"] {
            assert_eq!(Secret::new(wrong), Err(NotASecret::Unprintable));
        }
        assert_eq!(Secret::new(&"k".repeat(SECRET_MAX_BYTES + 1)), Err(NotASecret::TooLong));
    }

    #[test]
    fn it_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::new("sk-one")), "Ok(Secret(***))");
    }
}
