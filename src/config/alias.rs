//! Models by other names: one name, or a pattern whose match is carried over (`"openai/*" = "*"`).

use std::borrow::Cow;
use std::cmp::Reverse;

use super::document::Value;
use crate::proto::openai::MAX_MODEL_BYTES;

/// A model's other name, or a pattern of such names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    /// What clients call it; a `*` stands for any text.
    pub(crate) from: String,
    /// What the upstream calls it; a `*` stands for the same text again.
    pub(crate) to: String,
}

impl Alias {
    /// Whether it stands for many names.
    pub(crate) fn is_pattern(&self) -> bool {
        self.from.contains('*')
    }

    /// What the upstream calls `model`, if this is an alias of it.
    pub(crate) fn resolve(&self, model: &str) -> Option<Cow<'_, str>> {
        let Some((before, behind)) = self.from.split_once('*') else {
            return (self.from == model).then_some(Cow::Borrowed(&self.to[..]));
        };
        let matched = model.strip_prefix(before)?.strip_suffix(behind)?;
        // A model has a name: `openai/` alone is none of OpenAI's.
        let to = carried(&self.to, matched);
        (!matched.is_empty()).then_some(to)
    }

    /// What clients call the upstream's `model`, if this pattern is an alias of it.
    pub(crate) fn offers(&self, model: &str) -> Option<String> {
        let (before, behind) = self.to.split_once('*')?;
        let matched = model.strip_prefix(before)?.strip_suffix(behind)?;
        (!matched.is_empty()).then(|| carried(&self.from, matched).into_owned())
    }

    /// The order in which aliases are tried: names before patterns, and of patterns the one with more text beside its star, then
    /// the one with more before it.
    fn order(&self) -> (bool, Reverse<usize>, Reverse<usize>) {
        let before = self.from.find('*').unwrap_or_default();
        (self.is_pattern(), Reverse(self.from.len()), Reverse(before))
    }
}

/// `pattern` with `matched` in the place of its star, if it has one.
fn carried<'a>(pattern: &'a str, matched: &str) -> Cow<'a, str> {
    match pattern.split_once('*') {
        Some((before, behind)) => Cow::Owned([before, matched, behind].concat()),
        None => Cow::Borrowed(pattern),
    }
}

/// A route's `aliases`, in the order in which they are tried.
pub(crate) fn aliases(value: &Value<'_>) -> Result<Vec<Alias>, String> {
    let mut aliases = Vec::new();
    for (from, to) in value.entries()? {
        if to.is_table() {
            to.fault("is a table: a name with a point in it must be put in quotes");
            continue;
        }
        let stars = |name: &str| name.matches('*').count();
        match to.name(MAX_MODEL_BYTES) {
            Ok(_) if from.is_empty() || from.len() > MAX_MODEL_BYTES => {
                to.fault(format!("has a name that no model can have: from 1 to {MAX_MODEL_BYTES} bytes"));
            }
            Ok(name) if stars(from) > 1 || stars(&name) > 1 => {
                to.fault("has more than one *, and it could not be told which text belongs where; one on each side is understood");
            }
            Ok(name) if stars(&name) > stars(from) => {
                to.fault(format!(
                    "leads to {name:?}, but there is no * on the left whose text could stand for the one on the right"
                ));
            }
            Ok(to) => aliases.push(Alias { from: from.to_owned(), to }),
            Err(what) => to.fault(what),
        }
    }
    // Stable, and the entries come in the order of their names: the same file always means the same.
    aliases.sort_by_key(Alias::order);
    Ok(aliases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(from: &str, to: &str) -> Alias {
        Alias { from: from.to_owned(), to: to.to_owned() }
    }

    #[test]
    fn a_stars_text_is_carried_over() {
        for (from, to, model, expected) in [
            ("fast", "llama", "fast", Some("llama")),
            ("fast", "llama", "faster", None),
            ("openai/*", "*", "openai/gpt-4o", Some("gpt-4o")),
            ("openai/*", "*", "openai/", None),
            ("openai/*", "*", "gpt-4o", None),
            ("gpt-*", "azure-gpt-*", "gpt-4o", Some("azure-gpt-4o")),
            ("gpt-*", "gpt-4o", "gpt-3.5", Some("gpt-4o")),
            ("*-latest", "*", "claude-latest", Some("claude")),
            ("a*a", "*", "aa", None),
            ("a*a", "*", "a", None),
            ("a*a", "*", "aba", Some("b")),
            ("*", "openrouter/*", "x", Some("openrouter/x")),
        ] {
            assert_eq!(alias(from, to).resolve(model).as_deref(), expected, "{from} = {to}: {model}");
        }
    }

    #[test]
    fn a_pattern_offers_what_the_upstream_has() {
        assert_eq!(alias("openai/*", "*").offers("gpt-4o").as_deref(), Some("openai/gpt-4o"));
        assert_eq!(alias("gpt-*", "azure-gpt-*").offers("azure-gpt-4o").as_deref(), Some("gpt-4o"));
        assert_eq!(alias("gpt-*", "azure-gpt-*").offers("gpt-4o"), None);
        assert_eq!(alias("gpt-*", "gpt-4o").offers("gpt-4o"), None);
    }

    #[test]
    fn the_most_specific_is_tried_first() {
        let mut aliases: Vec<_> =
            ["*", "*-b", "a-*", "a-*-b", "a", "long-name"].map(|from| alias(from, "x")).into();
        aliases.sort_by_key(Alias::order);
        let order: Vec<_> = aliases.iter().map(|alias| &alias.from[..]).collect();
        assert_eq!(order, ["long-name", "a", "a-*-b", "a-*", "*-b", "*"]);
    }
}
