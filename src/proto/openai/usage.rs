//! The `usage` object of an answer: taken as it passes, and read when it is whole.

use memchr::memchr;
use serde::Deserialize;

use crate::proto::json::text::STRUCTURAL;

/// The largest `usage` object that is read; a larger one is passed over.
pub(crate) const USAGE_MAX_BYTES: usize = 2048;

/// What most of them fit into.
const USUAL_BYTES: usize = 256;

/// The tokens an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of the request: `prompt_tokens` or `input_tokens`.
    pub(crate) prompt: u64,
    /// Of the answer: `completion_tokens` or `output_tokens`.
    pub(crate) completion: u64,
    /// `total_tokens`, or else the sum of both.
    pub(crate) total: u64,
}

/// A `usage` object on its way, and what the last one said.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    text: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
    usage: Option<Usage>,
}

impl Capture {
    /// After the opening brace.
    pub(crate) fn start(&mut self) {
        self.text.clear();
        self.text.reserve(USUAL_BYTES);
        self.text.push(b'{');
        (self.depth, self.in_string, self.escaped) = (1, false, false);
    }

    /// Takes what is the object's of `piece`: how many bytes, and whether it ends with them, or is too long.
    pub(crate) fn take(&mut self, piece: &[u8]) -> (usize, bool) {
        let piece = &piece[..piece.len().min(USAGE_MAX_BYTES - self.text.len())];
        let last = self.end(piece);
        let taken = last.map_or(piece.len(), |last| last + 1);
        self.text.extend_from_slice(&piece[..taken]);
        if last.is_some() {
            self.read();
        }
        (taken, last.is_some() || self.text.len() == USAGE_MAX_BYTES)
    }

    /// Where in `piece` the object ends, if it does.
    fn end(&mut self, piece: &[u8]) -> Option<usize> {
        if let Some(end) = self.flat_end(piece) {
            return Some(end);
        }
        let mut at = 0;
        while at < piece.len() {
            if std::mem::take(&mut self.escaped) {
                at += 1;
                continue;
            }
            // Most bytes say nothing of where it ends, and are passed by without a look at what was before them.
            let rest = &piece[at..];
            let sign = match self.in_string {
                true => rest.iter().position(|byte| matches!(byte, b'"' | b'\\')),
                false => rest.iter().position(|byte| STRUCTURAL[usize::from(*byte)]),
            };
            at += sign?;
            match piece[at] {
                b'"' => self.in_string = !self.in_string,
                b'\\' => self.escaped = true,
                b'{' | b'[' => self.depth += 1,
                _ => self.depth -= 1,
            }
            if self.depth == 0 {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// The same for an object with nothing nested in it and nothing escaped, as most servers write it, of which nothing but its
    /// brace was seen before `piece`: there the first closing brace that no string holds is the end.
    fn flat_end(&self, piece: &[u8]) -> Option<usize> {
        let end = memchr(b'}', piece).filter(|_| self.text.len() == 1)?;
        // Without a way out of the middle it is a few vector instructions for 16 bytes.
        let look = |(quotes, flat): (u8, bool), &byte: &u8| {
            let nests = (byte == b'{') | (byte == b'[') | (byte == b']') | (byte == b'\\');
            (quotes ^ u8::from(byte == b'"'), flat & !nests)
        };
        let (quotes, flat) = piece[..end].iter().fold((0, true), look);
        (flat && quotes == 0).then_some(end)
    }

    /// What the last whole object said, with what it left out as those before it said.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// An object that is no usage (or not JSON) changes nothing.
    fn read(&mut self) {
        // Looked through once for all, and not for each of its keys.
        let Ok(text) = str::from_utf8(&self.text) else { return };
        let Ok(counts) = serde_json::from_str::<Counts>(text) else { return };
        let (prompt, completion) =
            (counts.prompt_tokens.or(counts.input_tokens), counts.completion_tokens.or(counts.output_tokens));
        if prompt.is_none() && completion.is_none() && counts.total_tokens.is_none() {
            return;
        }
        let before = self.usage.unwrap_or_default();
        let prompt = prompt.unwrap_or(before.prompt);
        let completion = completion.unwrap_or(before.completion);
        let total = counts.total_tokens.unwrap_or(prompt.saturating_add(completion));
        self.usage = Some(Usage { prompt, completion, total });
    }
}

#[derive(Deserialize)]
struct Counts {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
}
