//! Patterns with `*`, for models and paths.

use std::fmt;

use super::document::Value;
use crate::proto::openai::MAX_MODEL_BYTES;

/// A pattern in which each `*` stands for any text, even none; all else stands for itself, and case matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(String);

impl Glob {
    /// Every text is a pattern.
    pub(crate) fn new(pattern: impl Into<String>) -> Glob {
        Glob(pattern.into())
    }

    /// A pattern as a user has written it.
    ///
    /// # Errors
    /// If it is a regular expression, which would match nothing here.
    pub(crate) fn parse(pattern: String) -> Result<Glob, String> {
        if !is_regex(&pattern) {
            return Ok(Glob(pattern));
        }
        let plain = pattern.trim_start_matches('^').trim_end_matches('$');
        let plain = plain.replace(".*", "*").replace(".+", "*").replace("\\.", ".");
        let advice = match is_regex(&plain) {
            true => "write each text as an item of its own".to_owned(),
            false => format!("write {plain:?}"),
        };
        Err(format!(
            "{pattern:?} is a regular expression; in a pattern * stands for any text, and nothing else does: {advice}"
        ))
    }

    /// Whether every text matches.
    pub(crate) fn is_any(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether `text` matches. Taking the first place at which each piece between two stars is found leaves the most room for
    /// the pieces after it, so no place is ever tried twice: the time is linear in both.
    pub(crate) fn matches(&self, text: &str) -> bool {
        if self.0 == "*" {
            return true;
        }
        let Some((head, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(text) = text.strip_prefix(head) else { return false };
        let Some(mut text) = text.strip_suffix(tail) else { return false };
        for piece in middle.split('*') {
            match text.find(piece) {
                Some(at) => text = &text[at + piece.len()..],
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a pattern is meant as a regular expression. `gpt-4.*` may be either, and is taken as a pattern.
pub(crate) fn is_regex(pattern: &str) -> bool {
    pattern.contains(['^', '$', '(', ')', '|', '[', ']', '{', '}', '?', '\\'])
        || pattern.contains(".+")
        || pattern.starts_with(".*")
}

/// Patterns of models; where there are none, `empty` says what that means and what to do.
pub(crate) fn models(value: &Value<'_>, empty: &str) -> Result<Vec<Glob>, String> {
    match value.items().is_empty() {
        true => Err(empty.to_owned()),
        false => Ok(value.each(|item| item.name(MAX_MODEL_BYTES).and_then(Glob::parse))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by trying everything.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| by_definition(rest, &text[at..])),
            Some((byte, rest)) => {
                text.split_first().is_some_and(|(first, text)| first == byte && by_definition(rest, text))
            }
        }
    }

    #[test]
    fn stars_stand_for_any_text_wherever_they_are() {
        for (pattern, text) in [
            ("gpt-*", "gpt-4o"),
            ("gpt-*", "gpt-"),
            ("*", ""),
            ("*", "gpt-4o"),
            ("**", "x"),
            ("*-mini", "gpt-4o-mini"),
            ("gpt-*-mini", "gpt-4o-mini"),
            ("*4*mini*", "gpt-4o-mini-2024"),
            ("gpt-4o", "gpt-4o"),
            ("a*a", "aa"),
            ("*ü*", "grün"),
        ] {
            assert!(Glob::new(pattern).matches(text), "{pattern} {text}");
        }
    }

    #[test]
    fn all_else_stands_for_itself() {
        for (pattern, text) in [
            ("gpt-*", "GPT-4o"),
            ("gpt-*", "my-gpt-4o"),
            ("gpt-4o", "gpt-4o-mini"),
            ("*-mini", "gpt-4o-mini-2024"),
            ("a*a", "a"),
            ("", "x"),
            ("gpt-?", "gpt-4"),
            ("gpt.4", "gpt-4"),
        ] {
            assert!(!Glob::new(pattern).matches(text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_made_to_backtrack_is_answered_all_the_same() {
        let pattern = Glob::new("*a".repeat(2000) + "*b");
        assert!(!pattern.matches(&"a".repeat(100_000)));
    }

    #[test]
    fn a_regular_expression_is_told() {
        for (regex, advice) in [
            ("^gpt-.*$", "write \"gpt-*\""),
            (".*", "write \"*\""),
            ("gpt-4\\.1", "write \"gpt-4.1\""),
            ("gpt-.+", "write \"gpt-*\""),
            ("(a|b)", "as an item of its own"),
            ("gpt-[45]", "as an item of its own"),
        ] {
            let error = Glob::parse(regex.to_owned()).unwrap_err();
            assert!(error.contains("is a regular expression") && error.contains(advice), "{error}");
        }
        for pattern in ["gpt-4.*", "*", "meta-llama/Llama-3.1-8B:free", "ft:gpt-4o:acme::x", "@cf/meta/*"] {
            assert_eq!(Glob::parse(pattern.to_owned()), Ok(Glob::new(pattern)));
        }
    }

    #[test]
    fn only_stars_are_any() {
        assert!(Glob::new("*").is_any() && Glob::new("**").is_any());
        assert!(!Glob::new("").is_any() && !Glob::new("a*").is_any());
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(Glob::new(&*pattern).matches(&text), by_definition(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
