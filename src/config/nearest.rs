//! What was probably meant.

/// The longest word that is compared: no name here is longer, and the time is the square of it.
const WORD_MAX_CHARS: usize = 64;

/// The one of `known` that `word` is most likely a slip of, if it is one of any.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = plain(word);
    if plain.len() > WORD_MAX_CHARS {
        return None;
    }
    let distance = |name: &&str| distance(&plain, &self::plain(name));
    let best = known.into_iter().map(|name| (distance(&name), name)).min_by_key(|(distance, _)| *distance);
    let slips = (plain.len() / 3).clamp(1, 3);
    best.filter(|(distance, _)| *distance <= slips).map(|(_, name)| name)
}

/// The end of a sentence that offers the nearest name.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// Without what is easily mixed up and says nothing: case, and `-` for `_`.
fn plain(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// How many letters must be put in, left out, changed or swapped with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let changed = above[j] + usize::from(a[i] != b[j]);
            let mut least = changed.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen() {
        let known = ["listen", "admin", "workers", "first_byte", "idle", "name"];
        for (word, meant) in [
            ("lisen", "listen"),
            ("lsiten", "listen"),
            ("Workers", "workers"),
            ("first-byte", "first_byte"),
            ("firstbyte", "first_byte"),
            ("idel", "idle"),
        ] {
            assert_eq!(nearest(word, known), Some(meant), "{word}");
        }
    }

    #[test]
    fn other_words_are_no_slips() {
        let known = ["listen", "admin", "idle"];
        for word in ["", "upstream", "x", "unrelated", &"l".repeat(10_000)] {
            assert_eq!(nearest(word, known), None, "{word}");
        }
    }

    #[test]
    fn distances_are_symmetric_and_count_slips() {
        let slips_between = |a: &str, b: &str| distance(&plain(a), &plain(b));
        for (a, b, slips) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("openai", "opnai", 1)]
        {
            assert_eq!((slips_between(a, b), slips_between(b, a)), (slips, slips), "{a} {b}");
        }
    }
}
