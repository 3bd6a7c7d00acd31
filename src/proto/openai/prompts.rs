//! The number of prompts in a list that arrives in pieces: strings or lists of tokens each. A list of numbers is the tokens of one.

use crate::proto::json::skip::{Skip, Skipped};

/// A list of prompts that is being read, behind its opening bracket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prompts {
    count: u64,
    /// The prompt that is being read.
    prompt: Option<Skip>,
}

impl Prompts {
    /// Goes on with the next bytes of the list.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Skipped {
        let mut at = 0;
        while at < piece.len() {
            if let Some(prompt) = &mut self.prompt {
                match prompt.feed(&piece[at..]) {
                    Skipped::Ended(end) => {
                        self.prompt = None;
                        at += end;
                    }
                    other => return other,
                }
                continue;
            }
            let prompt = match piece[at] {
                b'"' => Some(Skip::STRING),
                b'[' | b'{' => Some(Skip::NESTED),
                b']' => return Skipped::Ended(at + 1),
                _ => None,
            };
            self.count += u64::from(prompt.is_some());
            self.prompt = prompt;
            at += 1;
        }
        Skipped::More
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
