//! Paths of streams as subscriptions name them: relative to the streams' root, without slashes at the ends.

use std::fmt;

/// The longest path, in bytes.
pub(crate) const PATH_BYTES_MAX: usize = 512;

/// The first segment of paths that are no streams but control them.
pub(crate) const RESERVED: &str = "__ds";

/// Why a text is no path of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadPath {
    /// Nothing is left of it without its slashes.
    Empty,
    /// It is longer than [`PATH_BYTES_MAX`].
    TooLong,
    /// It has a control character.
    Control,
    /// Its first segment is [`RESERVED`].
    Reserved,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadPath::Empty => {
                f.write_str("is empty; name a stream by its path below the streams' root, as in `events/a`")
            }
            BadPath::TooLong => write!(f, "is longer than {PATH_BYTES_MAX} bytes"),
            BadPath::Control => f.write_str("has a control character"),
            BadPath::Reserved => {
                write!(f, "begins with `{RESERVED}`, which is reserved and holds no streams")
            }
        }
    }
}

impl std::error::Error for BadPath {}

/// The one spelling of a path: no slash at its ends.
///
/// # Errors
/// If it cannot be the path of a stream.
pub(crate) fn normalize(text: &str) -> Result<String, BadPath> {
    if text.len() > PATH_BYTES_MAX {
        return Err(BadPath::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(BadPath::Control);
    }
    match text.trim_matches('/') {
        "" => Err(BadPath::Empty),
        path if is_reserved(path) => Err(BadPath::Reserved),
        path => Ok(path.to_owned()),
    }
}

/// Whether a path is not one of a stream, but of what controls them.
pub(crate) fn is_reserved(path: &str) -> bool {
    path.split('/').next() == Some(RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        for text in ["events/a", "/events/a", "events/a/", "//events/a//"] {
            assert_eq!(normalize(text).as_deref(), Ok("events/a"), "{text}");
        }
    }

    #[test]
    fn what_is_no_path_is_told() {
        for (text, bad) in [
            ("", BadPath::Empty),
            ("///", BadPath::Empty),
            ("a\nb", BadPath::Control),
            ("__ds/subscriptions/x", BadPath::Reserved),
            ("/__ds", BadPath::Reserved),
        ] {
            assert_eq!(normalize(text), Err(bad), "{text:?}");
        }
        assert_eq!(normalize(&"a".repeat(PATH_BYTES_MAX + 1)), Err(BadPath::TooLong));
        // Doubled inside, a slash is part of the name: a stream may be called so.
        assert_eq!(normalize("a//b").as_deref(), Ok("a//b"));
        assert_eq!(normalize("__dsx").as_deref(), Ok("__dsx"));
        assert!(is_reserved("__ds/jwks.json") && !is_reserved("a/__ds"));
    }
}
