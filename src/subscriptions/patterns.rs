//! Which subscriptions want a path, by their patterns, without a look at each of them.
//!
//! Equal patterns are matched once, and those that begin with a segment only against paths that begin with it. A new stream so
//! costs what its own subscriptions do, and those whose patterns begin with a wildcard.

use std::collections::HashMap;
use std::sync::Arc;

use super::glob::Glob;

/// The patterns of all subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    by_first: HashMap<Box<str>, Vec<Pattern>>,
    /// Those that begin with a wildcard.
    wild: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    glob: Glob,
    ids: Vec<Arc<str>>,
}

impl Patterns {
    /// The subscription `id` wants what matches `glob`.
    pub(crate) fn add(&mut self, glob: &Glob, id: &Arc<str>) {
        let all = match glob.first() {
            Some(first) => self.by_first.entry(first.into()).or_default(),
            None => &mut self.wild,
        };
        match all.iter_mut().find(|pattern| pattern.glob == *glob) {
            Some(pattern) => pattern.ids.push(Arc::clone(id)),
            None => all.push(Pattern { glob: glob.clone(), ids: vec![Arc::clone(id)] }),
        }
    }

    /// It wants it no more.
    pub(crate) fn remove(&mut self, glob: &Glob, id: &str) {
        let first = glob.first();
        let all = match first {
            Some(first) => self.by_first.get_mut(first),
            None => Some(&mut self.wild),
        };
        let Some(all) = all else { return };
        if let Some(at) = all.iter().position(|pattern| pattern.glob == *glob) {
            all[at].ids.retain(|other| **other != *id);
            if all[at].ids.is_empty() {
                all.swap_remove(at);
            }
        }
        if let Some(first) = first.filter(|_| all.is_empty()) {
            self.by_first.remove(first);
        }
    }

    /// The subscriptions that want `path`.
    pub(crate) fn matching(&self, path: &str) -> Vec<Arc<str>> {
        let first = path.split('/').next().unwrap_or_default();
        let named = self.by_first.get(first).into_iter().flatten();
        let matching = named.chain(&self.wild).filter(|pattern| pattern.glob.matches(path));
        matching.flat_map(|pattern| pattern.ids.iter().cloned()).collect()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.wild.is_empty() && self.by_first.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_left_of_what_was_removed() {
        let mut patterns = Patterns::default();
        let all = [("a/*", "1"), ("a/*", "2"), ("a/b", "3"), ("**", "4"), ("*/b", "5")]
            .map(|(glob, id)| (Glob::parse(glob).unwrap(), Arc::<str>::from(id)));
        all.iter().for_each(|(glob, id)| patterns.add(glob, id));
        assert_eq!(patterns.by_first["a"].len(), 2, "equal ones are one");
        all.iter().for_each(|(glob, id)| patterns.remove(glob, id));
        assert!(patterns.is_empty());
    }

    proptest! {
        #[test]
        fn finds_what_each_pattern_finds_alone(
            patterns in proptest::collection::vec("(a|b|\\*|\\*\\*)(/(a|b|\\*|\\*\\*)){0,3}", 0..12),
            removed in proptest::collection::vec(any::<bool>(), 12),
            path in "(a|b)(/(a|b)){0,4}",
        ) {
            let mut all = Patterns::default();
            let globs: Vec<(Glob, Arc<str>)> = patterns
                .iter()
                .enumerate()
                .map(|(n, text)| (Glob::parse(text).unwrap(), n.to_string().into()))
                .collect();
            globs.iter().for_each(|(glob, id)| all.add(glob, id));
            let mut expected = Vec::new();
            for ((glob, id), removed) in globs.iter().zip(removed) {
                if removed {
                    all.remove(glob, id);
                } else if glob.matches(&path) {
                    expected.push(Arc::clone(id));
                }
            }
            let mut found = all.matching(&path);
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
