//! Patterns over the paths of streams, segment by segment (PROTOCOL.md, section 6.2).
//!
//! A pattern is matched by running all ways to match it at once: one bit for each place in it, moved on by each segment of the
//! path. So nothing is tried twice, and a match costs at most as many comparisons as the path has segments times
//! [`SEGMENTS_MAX`], whatever the pattern.

use std::fmt;

use super::path::{self, BadPath};

/// The most segments of a pattern: its places, and the end, are bits of one word.
pub(crate) const SEGMENTS_MAX: usize = 32;

/// The most wildcards among them.
pub(crate) const WILDCARDS_MAX: usize = 8;

/// A pattern: `*` stands for one segment, `**` for any number of them, even none; every other segment stands for itself.
///
/// A star inside a segment is refused: the protocol gives it no meaning, and whoever writes `user-*` means something.
#[derive(Clone, Debug)]
pub(crate) struct Glob {
    text: String,
    /// Each literal once, with the places where it stands.
    literals: Box<[(Box<str>, u64)]>,
    /// Where `*` stands.
    one: u64,
    /// Where `**` stands; never two in a row, for one says the same.
    any: u64,
    /// The bit behind the last place.
    end: u64,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadGlob {
    /// It is not a path.
    Path(BadPath),
    /// A segment has a star beside something else.
    Star(String),
    /// It has more than [`SEGMENTS_MAX`] segments.
    Segments(usize),
    /// It has more than [`WILDCARDS_MAX`] wildcards.
    Wildcards(usize),
}

impl fmt::Display for BadGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadGlob::Path(bad) => write!(f, "{bad}"),
            BadGlob::Star(segment) => write!(
                f,
                "has the segment `{segment}`: a `*` or `**` is a segment of its own, as in `events/*` or `events/**`"
            ),
            BadGlob::Segments(count) => {
                write!(
                    f,
                    "has {count} segments and may have {SEGMENTS_MAX}: end it with `**` where it is deeper"
                )
            }
            BadGlob::Wildcards(count) => {
                write!(f, "has {count} wildcards (`*`, `**`) and may have {WILDCARDS_MAX}")
            }
        }
    }
}

impl std::error::Error for BadGlob {}

impl PartialEq for Glob {
    fn eq(&self, other: &Glob) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

impl Glob {
    /// Reads a pattern. Slashes at its ends mean nothing.
    ///
    /// # Errors
    /// If it is empty, too long, of the reserved namespace, has a star inside a segment, or too many segments or wildcards.
    pub(crate) fn parse(text: &str) -> Result<Glob, BadGlob> {
        let text = path::normalize(text).map_err(BadGlob::Path)?;
        let is_wild = |segment: &&str| matches!(*segment, "*" | "**");
        if let Some(segment) = text.split('/').find(|segment| segment.contains('*') && !is_wild(segment)) {
            return Err(BadGlob::Star(segment.to_owned()));
        }
        let segments = text.split('/').count();
        if segments > SEGMENTS_MAX {
            return Err(BadGlob::Segments(segments));
        }
        let wildcards = text.split('/').filter(is_wild).count();
        if wildcards > WILDCARDS_MAX {
            return Err(BadGlob::Wildcards(wildcards));
        }
        Ok(Glob::compile(text))
    }

    /// Reads one that was accepted before, by a version that may have had other bounds.
    pub(crate) fn restore(text: &str) -> Option<Glob> {
        (text.split('/').count() < u64::BITS as usize).then(|| Glob::compile(text.to_owned()))
    }

    fn compile(text: String) -> Glob {
        let (mut one, mut any, mut end) = (0, 0, 1);
        let mut literals: Vec<(Box<str>, u64)> = Vec::new();
        for segment in text.split('/') {
            match segment {
                "**" if any & end >> 1 != 0 => continue,
                "**" => any |= end,
                "*" => one |= end,
                name => match literals.iter_mut().find(|(literal, _)| &**literal == name) {
                    Some((_, places)) => *places |= end,
                    None => literals.push((name.into(), end)),
                },
            }
            end <<= 1;
        }
        Glob { text, literals: literals.into(), one, any, end }
    }

    /// As it is written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The segment that every path which matches begins with; none if the pattern begins with a wildcard.
    pub(crate) fn first(&self) -> Option<&str> {
        self.text.split('/').next().filter(|first| !matches!(*first, "*" | "**"))
    }

    /// Whether `path` matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.run(path, |_| {})
    }

    /// The same; `compared` is called for each comparison of two segments.
    fn run(&self, path: &str, mut compared: impl FnMut(&str)) -> bool {
        // `**` may stand for nothing.
        let skip = |places: u64| places | (places & self.any) << 1;
        let mut places = skip(1);
        for segment in path.split('/') {
            let mut here = self.one;
            for (literal, where_it_stands) in &self.literals {
                if places & where_it_stands != 0 {
                    compared(literal);
                    if &**literal == segment {
                        here |= where_it_stands;
                        break;
                    }
                }
            }
            places = skip((places & here) << 1 | places & self.any);
            if places == 0 {
                return false;
            }
        }
        places & self.end != 0
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
            ("a/**/**/**/b", "a/b"),
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
    fn a_pattern_has_so_many_segments_and_wildcards_and_no_more() {
        assert!(matches(&["a"; SEGMENTS_MAX].join("/"), &["a"; SEGMENTS_MAX].join("/")));
        assert!(matches(&["*"; WILDCARDS_MAX].join("/"), &["a"; WILDCARDS_MAX].join("/")));
        assert_eq!(Glob::parse(&["a"; SEGMENTS_MAX + 1].join("/")), Err(BadGlob::Segments(SEGMENTS_MAX + 1)));
        assert_eq!(
            Glob::parse(&["**"; WILDCARDS_MAX + 1].join("/")),
            Err(BadGlob::Wildcards(WILDCARDS_MAX + 1))
        );
    }

    /// The story: `**/a/a/.../b` over 4,000 streams kept a core for 6.9 s, because for each segment of a path the whole pattern
    /// behind its last `**` was tried again. Counted, not timed: what may be compared is what both lengths allow.
    #[test]
    fn a_pattern_made_to_backtrack_compares_no_more_than_any_other() {
        let path = ["a"; path::PATH_BYTES_MAX / 2].join("/");
        let many_a = format!("**/{}/b", ["a"; SEGMENTS_MAX - 2].join("/"));
        let letters: Vec<String> = (0..SEGMENTS_MAX - 8).map(|n| format!("x{n}")).collect();
        let spread = format!("**/a/**/a/**/a/**/{}", letters.join("/"));
        for pattern in [many_a, spread, "**/a/".repeat(WILDCARDS_MAX) + "b"] {
            let (glob, mut steps) = (Glob::parse(&pattern).unwrap(), 0);
            assert!(!glob.run(&path, |_| steps += 1));
            assert!(steps <= path.split('/').count() * glob.literals.len(), "{pattern}: {steps}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "(a|b|\\*|\\*\\*)(/(a|b|\\*|\\*\\*)){0,6}", path in "(a|b)(/(a|b)){0,8}") {
            let expected = by_definition(&pattern.split('/').collect::<Vec<_>>(), &path.split('/').collect::<Vec<_>>());
            prop_assert_eq!(matches(&pattern, &path), expected);
        }
    }
}
