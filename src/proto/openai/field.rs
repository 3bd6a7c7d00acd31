//! The top-level fields of a request's body that a decision may rest on, and the other spellings that some readers take for them.
//!
//! Readers disagree about keys that differ in case alone: Python and JavaScript take `Model` for another key, Go's
//! `encoding/json` takes it for `model`, and so it does with letters whose case folds into ASCII (U+212A KELVIN SIGN is a `k`,
//! U+017F LONG S an `s`). .NET and Java fold the dotted and the dotless `i` as well. Each of them is recognised here.

/// The longest spelling of any of them, in bytes, with each letter folded to the longest that there is.
pub(crate) const MAX_KEY_BYTES: usize = 32;

/// A field that a decision may rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Model,
    Stream,
    /// What limits an answer's tokens, under the name at this index of [`NAMES`].
    MaxTokens(u8),
    /// How many answers are wanted.
    Choices,
    /// How many are made, of which the best are sent.
    BestOf,
    /// What a text completion begins with, once or several times.
    Prompt,
}

/// The fields' names, by [`Field::index`].
pub(crate) static NAMES: [&str; 11] = [
    "model",
    "stream",
    "n",
    "best_of",
    "prompt",
    // Of completions and of Anthropic's messages, chat completions, responses.
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    // Of llama.cpp, of TGI and of Anthropic's text completions.
    "n_predict",
    "max_new_tokens",
    "max_tokens_to_sample",
];

impl Field {
    /// Its place in [`NAMES`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Field::Model => 0,
            Field::Stream => 1,
            Field::Choices => 2,
            Field::BestOf => 3,
            Field::Prompt => 4,
            Field::MaxTokens(index) => index as usize,
        }
    }

    /// The field that `key` names, and whether it is spelt exactly so.
    #[inline]
    pub(crate) fn of(key: &[u8]) -> Option<(Field, bool)> {
        if !key.is_ascii() {
            return Field::folded(key);
        }
        // The length and the first letter leave one name at most.
        let field = match (key.len(), key.first()? | 0x20) {
            (1, b'n') => Field::Choices,
            (5, b'm') => Field::Model,
            (6, b's') => Field::Stream,
            (6, b'p') => Field::Prompt,
            (7, b'b') => Field::BestOf,
            (9, b'n') => Field::MaxTokens(8),
            (10, b'm') => Field::MaxTokens(5),
            (14, b'm') => Field::MaxTokens(9),
            (17, b'm') => Field::MaxTokens(7),
            (20, b'm') => Field::MaxTokens(10),
            (21, b'm') => Field::MaxTokens(6),
            _ => return None,
        };
        let name = NAMES[field.index()].as_bytes();
        match key == name {
            true => Some((field, true)),
            false => key.eq_ignore_ascii_case(name).then_some((field, false)),
        }
    }

    #[cold]
    fn folded(key: &[u8]) -> Option<(Field, bool)> {
        let mut folded = [0; MAX_KEY_BYTES];
        let mut length = 0;
        for letter in std::str::from_utf8(key).ok()?.chars() {
            *folded.get_mut(length)? = match letter {
                '\u{212A}' => b'k',
                '\u{17F}' => b's',
                '\u{130}' | '\u{131}' => b'i',
                letter => u8::try_from(letter).ok().filter(u8::is_ascii)?,
            };
            length += 1;
        }
        Field::of(&folded[..length]).map(|(field, _)| (field, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_found_by_its_length_and_first_letter() {
        for (index, name) in NAMES.iter().enumerate() {
            let (field, exact) = Field::of(name.as_bytes()).unwrap();
            assert_eq!((field.index(), exact), (index, true), "{name}");
            let (field, exact) = Field::of(name.to_uppercase().as_bytes()).unwrap();
            assert_eq!((field.index(), exact), (index, false), "{name}");
            for other in [format!("{name}_"), format!("x{name}"), name[1..].to_owned()] {
                assert!(Field::of(other.as_bytes()).is_none_or(|(field, _)| NAMES[field.index()] == other));
            }
        }
    }

    #[test]
    fn letters_that_fold_into_ascii_are_folded() {
        for (key, name) in [
            ("max_to\u{212A}ens", "max_tokens"),
            ("MAX_TO\u{212A}EN\u{17F}", "max_tokens"),
            ("\u{17F}tream", "stream"),
            ("be\u{17F}t_of", "best_of"),
            ("max_completion_to\u{212A}en\u{17F}", "max_completion_tokens"),
            ("max_complet\u{131}on_tokens", "max_completion_tokens"),
            ("n_pred\u{130}ct", "n_predict"),
        ] {
            let (field, exact) = Field::of(key.as_bytes()).unwrap_or_else(|| panic!("{key}"));
            assert_eq!((NAMES[field.index()], exact), (name, false), "{key}");
            assert!(key.len() <= MAX_KEY_BYTES);
        }
        // Letters that only look alike are folded by nobody.
        for key in ["m\u{43E}del", "\u{FF4D}odel", "mode\u{142}", "stre\u{E0}m"] {
            assert!(Field::of(key.as_bytes()).is_none(), "{key}");
        }
    }
}
