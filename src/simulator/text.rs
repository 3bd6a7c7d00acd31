//! What the simulator has to say: a few sentences about water and what grows in it, as often as needed, in tokens that look
//! like a model's: words with the space before them.

use std::borrow::Cow;
use std::sync::LazyLock;

const OPENING: &str = "You asked:";

const BODY: &str = " A stream never asks how long it will be. It starts somewhere high up, between stones, and goes on, one \
small piece after the other, until there is no more of it. Sedges grow along its edge: triangular stems, roots that hold the \
bank together, leaves that bend when the water rises and stand up again when it falls. Nothing passes them unnoticed, and \
nothing is held back. Where a stream breaks off, the sedge does not pretend that it has reached the sea.";

/// The tokens of [`BODY`].
static TOKENS: LazyLock<Vec<&str>> = LazyLock::new(|| tokens(BODY));

/// [`BODY`] twice: wherever one begins in it, a body's length of text follows in one piece.
static TWICE: LazyLock<String> = LazyLock::new(|| BODY.repeat(2));

/// Characters of a prompt that are repeated in the answer.
const ECHO_CHARS_MAX: usize = 80;

/// An answer: the prompt once, then the body over and over.
pub(crate) struct Text {
    opening: String,
    /// Tokens of the opening.
    opening_tokens: u64,
}

impl Text {
    /// For a prompt.
    pub(crate) fn about(prompt: &str) -> Text {
        let asked: String =
            prompt.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ECHO_CHARS_MAX).collect();
        let opening = match asked.trim() {
            "" => String::new(),
            asked => format!("{OPENING} \"{asked}\""),
        };
        let opening_tokens = if opening.is_empty() { 0 } else { tokens(&opening).len() as u64 };
        Text { opening, opening_tokens }
    }

    /// The token at `index`.
    pub(crate) fn token(&self, index: u64) -> &str {
        match index.checked_sub(self.opening_tokens) {
            None => tokens(&self.opening)[index as usize],
            Some(index) => TOKENS[(index % TOKENS.len() as u64) as usize],
        }
    }

    /// The content of a chunk: a token, or exactly `bytes` bytes that go on where those of the chunk before ended. They are
    /// cut anywhere, so every character of them is one byte long.
    pub(crate) fn content(&self, index: u64, bytes: Option<u64>) -> Cow<'_, str> {
        let Some(bytes) = bytes else { return Cow::Borrowed(self.token(index)) };
        // Both have bounds that keep their product far below 2^64.
        let (start, bytes) = (index * bytes, bytes as usize);
        let opening = self.opening.len() as u64;
        if start >= opening && bytes <= BODY.len() {
            let at = ((start - opening) % BODY.len() as u64) as usize;
            return Cow::Borrowed(&TWICE[at..at + bytes]);
        }
        let mut content = String::with_capacity(bytes);
        if start < opening {
            let one_byte = self.opening.bytes().map(|byte| if byte.is_ascii() { byte.into() } else { '?' });
            content.extend(one_byte.skip(start as usize).take(bytes));
        }
        while content.len() < bytes {
            let at = ((start + content.len() as u64 - opening) % BODY.len() as u64) as usize;
            let piece = &BODY[at..];
            content.push_str(&piece[..piece.len().min(bytes - content.len())]);
        }
        Cow::Owned(content)
    }
}

/// About as many tokens as a tokenizer would make of a text.
pub(crate) fn count(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// A name that follows from what was asked, as FNV-1a has it.
pub(crate) fn name(of: &[u8]) -> String {
    let hash = of.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// A text at the spaces in it, each with what follows it.
fn tokens(text: &str) -> Vec<&str> {
    let starts = text.match_indices(' ').map(|(at, _)| at).filter(|&at| at > 0);
    let ends = starts.clone().chain([text.len()]);
    std::iter::once(0).chain(starts).zip(ends).map(|(start, end)| &text[start..end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_comes_once_and_the_text_goes_on() {
        let text = Text::about("What is\na river?");
        let said: String = (0..400).map(|index| text.token(index)).collect();
        assert!(said.starts_with("You asked: \"What is a river?\" A stream"));
        assert_eq!(said.matches("river").count(), 1);
        assert!(said.matches("A stream never").count() >= 2);
    }

    #[test]
    fn chunks_have_the_size_that_was_asked_for_and_read_on() {
        for prompt in ["é", "", "a \"b\"", "\n"] {
            let text = Text::about(prompt);
            let all: String = (0..100).map(|index| text.content(index, Some(17))).collect();
            assert_eq!(all.len(), 1700);
            for bytes in [1, 5, 170, 1700] {
                let same = (0..1700 / bytes).map(|index| text.content(index, Some(bytes)));
                assert!(same.clone().all(|content| content.len() as u64 == bytes));
                assert_eq!(same.collect::<String>(), all, "{bytes}");
            }
            assert_eq!(text.content(3, Some(0)), "");
        }
        assert!(Text::about("é").content(0, Some(40)).starts_with("You asked: \"??\" A stream never"));
    }
}
