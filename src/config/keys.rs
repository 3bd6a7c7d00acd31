//! Who may come in: names, the SHA-256 of each one's key, and what each may ask for.

use std::collections::HashMap;
use std::fmt;

use super::document::{Table, Value};
use super::error::{Origin, Problem};
use super::files::read_text;
use super::glob::{Glob, models};
use super::quota::Quota;
use super::upstream::NAME_MAX_BYTES;

/// The most keys there can be: each request's key is compared with all of them.
const KEYS_MAX: usize = 10_000;

/// How the hash of a key is made.
const HOW: &str = "64 hexadecimal digits, as printf %s \"$KEY\" | sha256sum prints them";

/// A client that may come in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ClientKey {
    /// What it is called in logs. May belong to several keys, so that one can take the place of another.
    pub(crate) name: String,
    /// The SHA-256 of its key.
    pub(crate) sha256: [u8; 32],
    /// The models that it may ask; empty is all.
    pub(crate) models: Vec<Glob>,
    /// How much it may ask. Keys of one name have it together.
    pub(crate) quota: Quota,
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The keys of all `[[key]]`; what cannot be read is given to `report`.
pub(crate) fn read(tables: &[Table<'_>], report: impl Fn(Problem)) -> Vec<ClientKey> {
    let mut keys: Vec<ClientKey> = Vec::new();
    for table in tables {
        for (key, origin) in read_one(table, &report) {
            if let Some(other) = keys.iter().find(|other| other.sha256 == key.sha256) {
                report(origin.problem(format!(
                    "{:?} has the same key as {:?}; each needs its own",
                    key.name, other.name
                )));
            }
            if let Some(other) = keys.iter().find(|other| other.name == key.name)
                && (&other.models, &other.quota) != (&key.models, &key.quota)
            {
                let what =
                    "has other models or limits than the key before it of that name; they have them together";
                report(origin.problem(format!("{:?} {what}", key.name)));
            }
            if keys.len() == KEYS_MAX {
                report(origin.problem(format!("there are more than {KEYS_MAX} keys")));
                return keys;
            }
            keys.push(key);
        }
    }
    keys
}

/// Bytes that the streams of each key may hold, by its name, where that is said.
pub(crate) fn quotas(keys: &[ClientKey]) -> HashMap<String, u64> {
    keys.iter().filter_map(|key| Some((key.name.clone(), key.quota.stream_bytes?))).collect()
}

fn read_one(table: &Table<'_>, report: &impl Fn(Problem)) -> Vec<(ClientKey, Origin)> {
    let name = table.get("name", |value| value.name(NAME_MAX_BYTES));
    let sha256 = table.get("sha256", |value| parse_hash(value.string()?));
    let file = table.get("file", Value::path);
    let models = table.get("models", |value| models(value, NO_MODELS)).unwrap_or_default();
    let quota = Quota::read(table, "[[key]] limits.");
    for secret in ["key", "value", "secret", "token"] {
        table.refuse(
            secret,
            "must not stand in this file; write its sha256 instead, so that this file opens nothing",
        );
    }
    table.finish(|_| None);
    if !table.is_sound() {
        return Vec::new();
    }
    let with = |name, sha256| ClientKey { name, sha256, models: models.clone(), quota: quota.clone() };
    match (sha256, file, name) {
        (Some(sha256), None, Some(name)) => vec![(with(name, sha256), table.origin("sha256"))],
        (None, Some(path), name) => match read_text(&path) {
            Ok(text) => {
                let lines = read_lines(&text, name.as_deref(), path.display().to_string(), report);
                lines.into_iter().map(|((name, sha256), origin)| (with(name, sha256), origin)).collect()
            }
            Err(what) => {
                table.fault("file", what);
                Vec::new()
            }
        },
        (Some(_), Some(_), _) => {
            table.fault("file", "stands beside sha256; keep one of them");
            Vec::new()
        }
        (Some(_), None, None) => {
            table.fault("name", "is missing; the log needs something to call this key");
            Vec::new()
        }
        (None, None, _) => {
            table.fault("sha256", format!("is missing, and so is file; write {HOW}"));
            Vec::new()
        }
    }
}

/// What is said of a key with no model at all.
const NO_MODELS: &str = "is an empty list, so the key opens nothing; leave it out to allow every model";

/// A key's name and hash.
type NamedHash = (String, [u8; 32]);

/// The lines of a file of keys: `name:hash` each, or the hash alone if the table has the name.
fn read_lines(
    text: &str,
    name: Option<&str>,
    file: String,
    report: &impl Fn(Problem),
) -> Vec<(NamedHash, Origin)> {
    let mut keys = Vec::new();
    let lines = text.lines().map(str::trim).enumerate();
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).peekable();
    if lines.peek().is_none() {
        report(Origin::file(&file).problem(format!("has no key in it; a line is name:hash, the hash {HOW}")));
    }
    for (index, line) in lines {
        let origin = Origin { line: Some(index + 1), ..Origin::file(&file) };
        match parse_line(line, name) {
            Ok(key) => keys.push((key, origin)),
            Err(what) => report(origin.problem(what)),
        }
    }
    keys
}

fn parse_line(line: &str, table_name: Option<&str>) -> Result<NamedHash, String> {
    let (name, hash) = match (line.rsplit_once(':'), table_name) {
        (Some((name, hash)), None) => (name.trim(), hash.trim()),
        (None, Some(name)) => (name, line),
        (None, None) => {
            return Err(
                "has no name; write name:hash, or a name in the [[key]] that names this file".to_owned()
            );
        }
        (Some(_), Some(_)) => {
            return Err("has its own name, so the [[key]] that names this file must not have one".to_owned());
        }
    };
    if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
        return Err(format!("has a name that is none: from 1 to {NAME_MAX_BYTES} bytes that can be printed"));
    }
    Ok((name.to_owned(), parse_hash(hash)?))
}

/// A hash from its digits. What is none may be a key itself, so it is not repeated.
fn parse_hash(text: &str) -> Result<[u8; 32], String> {
    let mut hash = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 2 * hash.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(format!("is not a SHA-256; write {HOW}"));
    }
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or_default() as u8;
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    Ok(hash)
}
