//! Writing TOML, as far as it is needed: strings, and tables in one line.

use std::fmt::Write;

/// A basic string.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // Writing into a string cannot fail.
            c if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An array of strings.
pub(crate) fn strings<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    format!("[{}]", texts.into_iter().map(|text| string(text)).collect::<Vec<_>>().join(", "))
}

/// `key = { a = 1, b = 2 }`, or nothing if nothing is in it.
pub(crate) fn inline(key: &str, members: &[(&str, Option<u64>)]) -> String {
    let members: Vec<String> =
        members.iter().filter_map(|(name, value)| value.map(|value| format!("{name} = {value}"))).collect();
    if members.is_empty() { String::new() } else { format!("{key} = {{ {} }}\n", members.join(", ")) }
}
