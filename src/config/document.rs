//! TOML with positions, walked by hand: so every problem has its line, and one problem does not hide the next.
//!
//! A [`Table`] is asked for its keys one by one. What was asked for is what it may hold: [`Table::finish`] reports the rest,
//! so there is no list of keys beside the code that reads them.

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Origin, Problem};
use super::file::outside;
use super::{Env, did_you_mean};

/// Variables are replaced nowhere: which secrets a file asks for must be seen in it.
const NO_VARIABLES: &str = "has ${...} in it, and variables are not replaced here; write the value out. Keys and tokens are written \"env:NAME\"; \
     SEDGE_LISTEN, SEDGE_CONFIG and OPENAI_BASE_URL are read from the environment";

/// A file that is being read, and what was found wrong with it.
pub(crate) struct Document<'a> {
    /// Its name, as the user gave it.
    pub(crate) file: &'a str,
    /// Where its relative paths begin.
    pub(crate) directory: &'a Path,
    /// The environment, for `env:` values.
    pub(crate) env: Env<'a>,
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

/// One table of it.
pub(crate) struct Table<'a> {
    document: &'a Document<'a>,
    entries: &'a DeTable<'a>,
    /// What its keys are called from outside: `""`, `"[tls] "`, `"[[route]] timeouts."`.
    prefix: String,
    at: usize,
    asked: RefCell<Vec<&'static str>>,
    refused: RefCell<Vec<&'static str>>,
    sound: Cell<bool>,
}

/// One value of it.
pub(crate) struct Value<'a> {
    document: &'a Document<'a>,
    value: &'a DeValue<'a>,
    key: String,
    at: usize,
}

impl<'a> Document<'a> {
    pub(crate) fn new(file: &'a str, directory: &'a Path, text: &'a str, env: Env<'a>) -> Document<'a> {
        Document { file, directory, env, text, problems: RefCell::default() }
    }

    /// The table of all tables. A text that is no TOML has none, for what a parser makes of the rest is a guess.
    pub(crate) fn parse(&self) -> Option<Spanned<DeTable<'a>>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        if let (Some(other), false) = (other_format(self.text), errors.is_empty()) {
            let what = format!("this is {other}, and the configuration is TOML: listen = \"127.0.0.1:8080\"");
            self.report(self.origin(0, "").problem(what));
            return None;
        }
        let mut line = None;
        for error in &errors {
            let at = error.span().map_or(self.text.len(), |span| span.start);
            let origin = self.origin(at, "");
            // What is told of a line after its first fault follows from that.
            if origin.line != line {
                let quotes =
                    if error.message().contains("invalid float") { "; a text stands in quotes" } else { "" };
                line = origin.line;
                self.report(origin.problem(format!("{}{quotes}", error.message())));
            }
            // Up to the end of the file all is part of a bracket that is not closed.
            if error.message().contains("array") || error.message().contains("inline table") {
                break;
            }
        }
        errors.is_empty().then_some(table)
    }

    pub(crate) fn root(&'a self, table: &'a Spanned<DeTable<'a>>) -> Table<'a> {
        Table::new(self, table.get_ref(), String::new(), 0)
    }

    pub(crate) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn origin(&self, at: usize, key: &str) -> Origin {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        Origin { file: Some(self.file.to_owned()), line: Some(line), key: key.to_owned() }
    }
}

impl<'a> Table<'a> {
    fn new(document: &'a Document<'a>, entries: &'a DeTable<'a>, prefix: String, at: usize) -> Table<'a> {
        let (asked, refused) = (RefCell::default(), RefCell::default());
        Table { document, entries, prefix, at, asked, refused, sound: Cell::new(true) }
    }

    /// The value of `key`, if it is there.
    pub(crate) fn value(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().push(key);
        self.find(key)
    }

    /// What `read` makes of the value of `key`; a failure is reported.
    pub(crate) fn get<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let read = read(&value).map_err(|what| value.fault(what)).ok();
        self.sound.set(self.sound.get() && read.is_some());
        read
    }

    /// Likewise, to take the place of a default.
    pub(crate) fn set<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T, String>,
        place: &mut T,
    ) {
        if let Some(value) = self.get(key, read) {
            *place = value;
        }
    }

    /// Likewise, of a key that must be there; `advice` says what to write.
    pub(crate) fn require<T>(
        &self,
        key: &'static str,
        advice: &str,
        read: impl FnOnce(&Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        if self.find(key).is_none() {
            self.fault(key, format!("is missing; {advice}"));
        }
        self.get(key, read)
    }

    /// Reports `key` if it is there: it is one that a user may look for here, and `what` tells where it is.
    pub(crate) fn refuse(&self, key: &'static str, what: &str) {
        self.refused.borrow_mut().push(key);
        if let Some(value) = self.find(key) {
            value.fault(what);
        }
    }

    /// The table below `key`, whose keys are called `name` with it, e.g. `"[tls] "`.
    pub(crate) fn table(&self, key: &'static str, name: &str) -> Option<Table<'a>> {
        self.get(key, |value| value.table(name))
    }

    /// The tables of `[[key]]`.
    pub(crate) fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        let name = format!("[[{key}]] ");
        let Some(value) = self.value(key) else { return Vec::new() };
        match value.value {
            DeValue::Array(_) => {}
            // It is read all the same: what refers to it is not wrong, too.
            _ => value
                .fault(format!("must be written with two brackets, [[{key}]], because there may be several")),
        }
        let tables = value
            .items()
            .into_iter()
            .filter_map(|item| item.table(&name).map_err(|what| item.fault(what)).ok());
        tables.collect()
    }

    /// Where `key` is, or would be.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        let at = self.find(key).map_or(self.at, |value| value.at);
        self.document.origin(at, &format!("{}{key}", self.prefix))
    }

    /// Reports what is wrong with `key`.
    pub(crate) fn fault(&self, key: &str, what: impl Into<String>) {
        self.sound.set(false);
        self.document.report(self.origin(key).problem(what));
    }

    /// Whether all that was asked for could be read.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound.get()
    }

    /// Reports every key that was not asked for, with what may have been meant. `elsewhere` says where it belongs, if the
    /// key is known but not here.
    pub(crate) fn finish(&self, elsewhere: impl Fn(&str) -> Option<String>) {
        let (asked, refused) = (self.asked.borrow(), self.refused.borrow());
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) || refused.contains(&name) {
                continue;
            }
            let top = || outside(name).filter(|_| !self.prefix.is_empty());
            let advice = match (did_you_mean(name, asked.iter().copied()), elsewhere(name).or_else(top)) {
                (_, Some(place)) => format!("; {place}"),
                (near, None) if near.is_empty() => format!("; there are {}", listed(&asked)),
                (near, None) => near,
            };
            self.fault(name, format!("there is no such key{advice}"));
        }
    }

    fn find(&self, key: &str) -> Option<Value<'a>> {
        let (name, value) = self.entries.get_key_value(key)?;
        let key = format!("{}{key}", self.prefix);
        Some(Value { document: self.document, value: value.get_ref(), key, at: name.span().start })
    }
}

impl<'a> Value<'a> {
    /// Reports what is wrong with it.
    pub(crate) fn fault(&self, what: impl Into<String>) {
        self.document.report(self.origin().problem(what));
    }

    pub(crate) fn origin(&self) -> Origin {
        self.document.origin(self.at, &self.key)
    }

    /// The document that it is part of.
    pub(crate) fn document(&self) -> &'a Document<'a> {
        self.document
    }

    /// A string in which somebody may expect variables to be replaced.
    pub(crate) fn plain(&self) -> Result<&'a str, String> {
        match self.string()? {
            text if refers_to_a_variable(text) => Err(NO_VARIABLES.to_owned()),
            text => Ok(text),
        }
    }

    pub(crate) fn string(&self) -> Result<&'a str, String> {
        match self.value {
            DeValue::String(text) => Ok(text),
            _ => Err(self.wrong_type("a string in quotes")),
        }
    }

    /// A string with something in it, which can be printed on one line.
    pub(crate) fn name(&self, max_bytes: usize) -> Result<String, String> {
        match self.string()? {
            "" => Err("is empty".to_owned()),
            name if name.len() > max_bytes => Err(format!("is longer than {max_bytes} bytes")),
            name if name.chars().any(char::is_control) => Err("has control characters in it".to_owned()),
            name if refers_to_a_variable(name) => Err(NO_VARIABLES.to_owned()),
            name => Ok(name.to_owned()),
        }
    }

    /// A path; a relative one begins where the file is.
    pub(crate) fn path(&self) -> Result<PathBuf, String> {
        match self.string()? {
            "" => Err("is empty; give the path of a file".to_owned()),
            path if refers_to_a_variable(path) => Err(NO_VARIABLES.to_owned()),
            path => Ok(self.document.directory.join(path)),
        }
    }

    pub(crate) fn boolean(&self) -> Result<bool, String> {
        match self.value {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    pub(crate) fn integer(&self, range: RangeInclusive<u64>) -> Result<u64, String> {
        let DeValue::Integer(digits) = self.value else { return Err(self.wrong_type("a whole number")) };
        let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| match *range.end() {
            u64::MAX => format!("must be {} at least, not {digits}", range.start()),
            end => format!("must be from {} to {end}, not {digits}", range.start()),
        })
    }

    pub(crate) fn is_integer(&self) -> bool {
        matches!(self.value, DeValue::Integer(_))
    }

    pub(crate) fn table(&self, name: &str) -> Result<Table<'a>, String> {
        match self.value {
            DeValue::Table(entries) => Ok(Table::new(self.document, entries, name.to_owned(), self.at)),
            _ => Err(self.wrong_type("a table")),
        }
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// The items of an array, each on its own line; of anything else, that itself.
    pub(crate) fn items(&self) -> Vec<Value<'a>> {
        let item =
            |value: &'a DeValue<'a>, at| Value { document: self.document, value, key: self.key.clone(), at };
        match self.value {
            DeValue::Array(items) => {
                items.iter().map(|value| item(value.get_ref(), value.span().start)).collect()
            }
            value => vec![item(value, self.at)],
        }
    }

    /// What `read` makes of each item; failures are reported.
    pub(crate) fn each<T>(&self, read: impl Fn(&Value<'a>) -> Result<T, String>) -> Vec<T> {
        self.items().iter().filter_map(|item| read(item).map_err(|what| item.fault(what)).ok()).collect()
    }

    /// The entries of a table whose keys are the user's own.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Value<'a>)>, String> {
        let DeValue::Table(entries) = self.value else { return Err(self.wrong_type("a table")) };
        let entry = |(key, value): (&'a Spanned<_>, &'a Spanned<_>)| self.entry(key, value);
        Ok(entries.iter().map(entry).collect())
    }

    fn entry(
        &self,
        key: &'a Spanned<std::borrow::Cow<'a, str>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> (&'a str, Value<'a>) {
        let (document, name) = (self.document, key.get_ref().as_ref());
        let value = Value {
            document,
            value: value.get_ref(),
            key: format!("{}.{name}", self.key),
            at: key.span().start,
        };
        (name, value)
    }

    fn wrong_type(&self, expected: &str) -> String {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        format!("must be {expected}, not {found}")
    }
}

/// What a text is in place of TOML, if that can be told from how it begins.
fn other_format(text: &str) -> Option<&'static str> {
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let first = text.lines().map(str::trim).find(is_code)?;
    let is_key =
        |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    match first.split_once(':') {
        _ if first.starts_with('{') => Some("JSON"),
        _ if first == "---" => Some("YAML"),
        Some((key, value)) if is_key(key) && (value.is_empty() || value.starts_with(' ')) => Some("YAML"),
        _ => None,
    }
}

/// A text that refers to a variable, as shells and other programs would replace it.
fn refers_to_a_variable(text: &str) -> bool {
    text.split_once("${").is_some_and(|(_, rest)| rest.contains('}'))
}

/// `names`, as they stand in a sentence.
fn listed(names: &[&str]) -> String {
    match names {
        [] => "none here".to_owned(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
