//! What is wrong with a configuration, told so that it can be put right.

use std::fmt;

/// Where a setting comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub(crate) struct Origin {
    /// The file, if it is in one.
    pub(crate) file: Option<String>,
    /// The line, from 1, if it is on one.
    pub(crate) line: Option<usize>,
    /// The key with its table, the option or the variable; empty if it is none of these.
    pub(crate) key: String,
}

/// One problem: where it is, what is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub(crate) struct Problem {
    /// Where.
    pub(crate) origin: Origin,
    /// What is wrong, and what to do.
    pub(crate) what: String,
}

/// All the problems of a configuration, by file and line; never none. Its `Display` is one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl Origin {
    /// An option or a variable.
    pub(crate) fn of(key: &str) -> Origin {
        Origin { key: key.to_owned(), ..Origin::default() }
    }

    /// A whole file.
    pub(crate) fn file(file: &str) -> Origin {
        Origin { file: Some(file.to_owned()), ..Origin::default() }
    }

    /// What is wrong with it.
    pub(crate) fn problem(&self, what: impl Into<String>) -> Problem {
        Problem { origin: self.clone(), what: what.into() }
    }
}

impl ConfigErrors {
    /// Of one problem or more. The same one is told once.
    pub(crate) fn new(mut problems: Vec<Problem>) -> ConfigErrors {
        debug_assert!(!problems.is_empty());
        problems.sort();
        problems.dedup();
        ConfigErrors(problems)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { file, line, key } = &self.origin;
        if let Some(file) = file {
            write!(f, "{file}:")?;
            if let Some(line) = line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        match &key[..] {
            "" => f.write_str(&self.what),
            key => write!(f, "{key}: {}", self.what),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
