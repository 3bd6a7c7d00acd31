//! What the simulator has to say: a few sentences about water and what grows in it, as often as needed, in tokens that look
//! like a model's: words with the space before them.

const OPENING: &str = "You asked:";

const BODY: &str = " A stream never asks how long it will be. It starts somewhere high up, between stones, and goes on, one \
small piece after the other, until there is no more of it. Sedges grow along its edge: triangular stems, roots that hold the \
bank together, leaves that bend when the water rises and stand up again when it falls. Nothing passes them unnoticed, and \
nothing is held back. Where a stream breaks off, the sedge does not pretend that it has reached the sea.";

/// Characters of a prompt that are repeated in the answer.
const ECHO_CHARS_MAX: usize = 80;

/// The tokens of an answer.
pub struct Text {
    tokens: Vec<String>,
    opening: usize,
}

impl Text {
    /// For a prompt.
    pub fn about(prompt: &str) -> Text {
        let asked: String =
            prompt.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ECHO_CHARS_MAX).collect();
        let mut tokens = Vec::new();
        if !asked.trim().is_empty() {
            tokens.extend(words(&format!("{OPENING} \"{}\"", asked.trim())));
        }
        let opening = tokens.len();
        tokens.extend(words(BODY));
        Text { tokens, opening }
    }

    /// The token at `index`: the prompt comes once, the rest over and over.
    pub fn token(&self, index: u64) -> &str {
        let (opening, all) = (self.opening as u64, self.tokens.len() as u64);
        let at = if index < all { index } else { opening + (index - opening) % (all - opening) };
        &self.tokens[at as usize]
    }

    /// The content of a chunk: a token, or exactly `bytes` bytes made of tokens.
    pub fn content(&self, index: u64, bytes: Option<u64>) -> String {
        let Some(bytes) = bytes else { return self.token(index).to_owned() };
        let mut content = String::with_capacity(bytes as usize);
        for token in (index..).map(|index| self.token(index)) {
            for c in token.chars() {
                if content.len() + c.len_utf8() > bytes as usize {
                    // What is left is shorter than the next character.
                    content.extend(std::iter::repeat_n('.', bytes as usize - content.len()));
                    return content;
                }
                content.push(c);
            }
        }
        content
    }
}

/// About as many tokens as a tokenizer would make of a text.
pub fn count(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// A name that follows from what was asked, as FNV-1a has it.
pub fn name(of: &[u8]) -> String {
    let hash = of.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn words(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (index, word) in text.split(' ').enumerate() {
        if !word.is_empty() {
            all.push(if index == 0 { word.to_owned() } else { format!(" {word}") });
        }
    }
    all
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
    fn chunks_have_the_size_that_was_asked_for() {
        let text = Text::about("é");
        for bytes in [0, 1, 17, 1000] {
            assert_eq!(text.content(3, Some(bytes)).len() as u64, bytes);
        }
    }
}
