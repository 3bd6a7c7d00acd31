//! Patterns over the paths of streams, segment by segment (PROTOCOL.md, section 6.2).

use std::fmt;

use super::path::{self, BadPath};

/// A pattern: `*` stands for one segment, `**` for any number of them, even none; every other segment stands for itself.
///
/// A star inside a segment is refused: the protocol gives it no meaning, and whoever writes `user-*` means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadGlob {
    /// It is not a path.
    Path(BadPath),
    /// A segment has a star beside something else.
    Star(String),
}

impl fmt::Display for BadGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadGlob::Path(bad) => write!(f, "{bad}"),
            BadGlob::Star(segment) => write!(
                f,
                "has the segment `{segment}`: a `*` or `**` is a segment of its own, as in `events/*` or `events/**`"
            ),
        }
    }
}

impl std::error::Error for BadGlob {}

impl Glob {
    /// Reads a pattern. Slashes at its ends mean nothing.
    ///
    /// # Errors
    /// If it is empty, too long, of the reserved namespace, or has a star inside a segment.
    pub fn parse(text: &str) -> Result<Glob, BadGlob> {
        let text = path::normalize(text).map_err(BadGlob::Path)?;
        match text.split('/').find(|segment| segment.contains('*') && !matches!(*segment, "*" | "**")) {
            Some(segment) => Err(BadGlob::Star(segment.to_owned())),
            None => Ok(Glob(text)),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` matches. Only the last `**` is ever tried again, one segment further: what stood before it has room
    /// enough wherever it was found first. So the time is the product of the two lengths at worst.
    pub fn matches(&self, path: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.split('/'), path.split('/'));
        // Right after the last `**`: the pattern there, and what is left of the path if it stands for one segment more.
        let mut retry: Option<(std::str::Split<'_, char>, std::str::Split<'_, char>)> = None;
        loop {
            let mut after = rest.clone();
            match (pattern.next(), after.next()) {
                (Some("**"), _) => retry = Some((pattern.clone(), rest.clone())),
                (None, None) => return true,
                (Some(segment), Some(name)) if segment == "*" || segment == name => rest = after,
                _ => {
                    let Some((from, at)) = &mut retry else { return false };
                    if at.next().is_none() {
                        return false;
                    }
                    (pattern, rest) = (from.clone(), at.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(path)
    }

    /// The definition, by trying everything.
    fn by_definition(pattern: &[&str], path: &[&str]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((&"**", rest)) => (0..=path.len()).any(|at| by_definition(rest, &path[at..])),
            Some((segment, rest)) => path.split_first().is_some_and(|(name, path)| {
                (*segment == "*" || segment == name) && by_definition(rest, path)
            }),
        }
    }

    #[test]
    fn one_star_is_one_segment_and_two_are_any_number() {
        for (pattern, path) in [
            ("events/*", "events/a"),
            ("*", "events"),
            ("**", "events"),
            ("**", "a/b/c"),
            ("events/**", "events"),
            ("events/**", "events/a/b"),
            ("**/done", "done"),
            ("**/done", "a/b/done"),
            ("a/**/b/*", "a/b/c"),
            ("a/**/b/*", "a/x/b/y/b/c"),
            ("/events/*/", "events/a"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("events/*", "events"),
            ("events/*", "events/a/b"),
            ("events/*", "other/a"),
            ("*", "a/b"),
            ("**/done", "a/done/b"),
            ("a/**/b", "b"),
            ("Events/*", "events/a"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_star_inside_a_segment_is_refused() {
        for pattern in ["user-*", "a/***", "a/*b/c"] {
            assert!(matches!(Glob::parse(pattern), Err(BadGlob::Star(_))), "{pattern}");
        }
        assert!(matches!(Glob::parse("//"), Err(BadGlob::Path(_))));
    }

    #[test]
    fn a_pattern_made_to_backtrack_is_answered_all_the_same() {
        let pattern = "**/a/".repeat(100) + "b";
        assert!(!matches(&pattern, &["a"; 5000].join("/")));
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "(a|b|\\*|\\*\\*)(/(a|b|\\*|\\*\\*)){0,6}", path in "(a|b)(/(a|b)){0,8}") {
            let expected = by_definition(&pattern.split('/').collect::<Vec<_>>(), &path.split('/').collect::<Vec<_>>());
            prop_assert_eq!(matches(&pattern, &path), expected);
        }
    }
}
