//! Facts that a response tells by the way: tokens used, why it ended, whether it is an error, whether its last event has come. They
//! are seen while the bytes pass, in pieces as they come, as server-sent events or plain JSON.
//!
//! Nothing is parsed but the one small object after `"usage":`. Its key is found as a plain substring: quotes inside a
//! JSON string are escaped, so these bytes can only be a key (or a string of the same text, which no colon follows).
//! An error is a member of the document itself, which takes more than a substring: see [`Faults`] and [`Members`]. They read only
//! pieces in which the bytes of such a key stand. Almost every piece has none of the keys with a value; the cost is one pass by
//! vectors then, and no memory: 245 instructions for an event of OpenAI's of 220 bytes (callgrind, x86-64; 560 with two substring
//! searches).

use std::sync::LazyLock;

use super::faults::{Faults, ends_event, may_be_error};
use super::keys::Keys;
use super::usage::{Capture, Usage};
use crate::proto::dialect::Api;
use crate::proto::json::key::Key;
use crate::proto::json::members::{Found, Members};

/// The longest reason that has a name here is `model_context_window_exceeded`, which its first bytes tell.
const REASON_MAX_BYTES: usize = 14;

/// How an event begins that has a name.
const NAMED: &[u8] = b"event:";

static USAGE: LazyLock<Key> = LazyLock::new(|| Key::new(b"\"usage\":"));
/// Ends OpenAI's `finish_reason` and Anthropic's `stop_reason`.
static REASON: LazyLock<Key> = LazyLock::new(|| Key::new(b"_reason\":"));
/// Ends Gemini's `finishReason` and `blockReason`.
static GEMINI_REASON: LazyLock<Key> = LazyLock::new(|| Key::new(b"Reason\":"));

/// Why an answer ended; the same few labels for every dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinishReason {
    /// The model was done.
    Stop,
    /// A limit of tokens was reached.
    Length,
    /// The model wants a tool called.
    ToolCalls,
    /// A filter, or the model itself, refused.
    ContentFilter,
    /// A reason that has no label here.
    Other,
}

impl FinishReason {
    /// OpenAI's word for it, fit for a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::ContentFilter => "content_filter",
            FinishReason::Other => "other",
        }
    }

    /// `word` is cut off after [`REASON_MAX_BYTES`].
    fn from_word(word: &[u8]) -> FinishReason {
        match word {
            b"stop" | b"end_turn" | b"stop_sequence" | b"eos" | b"STOP" => FinishReason::Stop,
            b"length" | b"max_tokens" | b"model_context_" | b"MAX_TOKENS" => FinishReason::Length,
            b"tool_calls" | b"function_call" | b"tool_use" => FinishReason::ToolCalls,
            b"content_filter" | b"refusal" | b"SAFETY" | b"PROHIBITED_CON" => FinishReason::ContentFilter,
            _ => FinishReason::Other,
        }
    }
}

/// Watches a response pass.
#[derive(Debug, Default)]
pub struct Sideband {
    usage_at: UsageAt,
    reason_at: ReasonAt,
    form: Form,
    api: Api,
    reason: [u8; REASON_MAX_BYTES],
    finish: Option<FinishReason>,
    found: Found,
    /// An event has begun, and may be an error.
    is_open: bool,
    capture: Option<Box<Capture>>,
    watch: Option<Box<Watch>>,
}

const _: () = assert!(size_of::<Sideband>() <= 48);

/// How the payload is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    /// As events, unless it begins like JSON: some servers send an error as it is and call it a stream.
    #[default]
    Unsettled,
    /// As events.
    Events,
    /// As events that have their type in their data, and mostly as their name as well: a server names all of its events or none, so a
    /// piece that begins with a name has nothing here that [`crate::proto::sse::Scanner`] does not see.
    Typed,
    /// As JSON.
    Json,
}

/// A reader of the pieces that have to be read.
#[derive(Debug)]
enum Watch {
    Events(Faults),
    Json(Members),
}

impl Sideband {
    /// Watches events of `api`.
    pub(crate) fn events(api: Api) -> Sideband {
        Sideband { api, ..Sideband::default() }
    }

    /// Watches a JSON document of `api`.
    pub(crate) fn json(api: Api) -> Sideband {
        Sideband { api, form: Form::Json, ..Sideband::default() }
    }

    /// Looks at the next bytes of the payload, transfer framing removed.
    #[inline]
    pub fn feed(&mut self, piece: &[u8]) {
        let is_usual = match self.form {
            Form::Events => true,
            Form::Typed => piece.starts_with(NAMED),
            Form::Json => false,
            Form::Unsettled => self.settle(piece),
        };
        if is_usual && !self.is_open && self.between_keys() && !may_tell(piece) {
            return;
        }
        self.feed_closely(piece);
    }

    /// Looks at the whole payload at once, where it is known that this is all.
    pub(crate) fn feed_whole(&mut self, piece: &[u8]) {
        if self.form != Form::Json || self.watch.is_some() || !self.between_keys() {
            return self.feed(piece);
        }
        let keys = Keys::of(piece, self.api);
        if let Some(first) = keys.first {
            self.feed_usage(&piece[first..]);
            self.feed_reason(&piece[first..]);
        }
        if keys.may_fail {
            self.feed_json(piece);
        }
    }

    /// The tokens used, as the answer last told. What a later `usage` leaves out stays as an earlier one said
    /// (Anthropic tells input and output apart).
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.capture.as_deref().and_then(Capture::usage)
    }

    /// Why the answer ended, as it last told. A reason without a label does not replace one with a label: some upstreams
    /// repeat theirs in their own words beside it.
    pub(crate) fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Whether it told of an error: an event did, or the document does. A named event `error` is for [`crate::proto::sse::Scanner`] to see.
    pub(crate) fn error_seen(&self) -> bool {
        match self.watch.as_deref() {
            Some(Watch::Json(members)) => {
                let found = members.found();
                found.error || found.failed && self.api == Api::Responses
            }
            _ => self.found.error,
        }
    }

    /// Whether an event has come that is the last of such a stream by the type in its data, or, where there is none, by a reason
    /// to end (Gemini). Other marks of the end are for [`crate::proto::sse::Scanner`] to see.
    pub(crate) fn terminal(&self) -> bool {
        self.found.terminal || self.finish.is_some() && self.api == Api::Gemini
    }

    /// Whether what was called a stream was a JSON document, and has come to its end.
    pub(crate) fn is_document(&self) -> bool {
        matches!(self.watch.as_deref(), Some(Watch::Json(members)) if members.is_complete())
    }

    /// Whether a JSON document has not ended in the middle of a value.
    pub(crate) fn is_complete(&self) -> bool {
        !matches!(self.watch.as_deref(), Some(Watch::Json(members)) if !members.is_complete())
    }

    /// Whether no part of a key or value was left over from the piece before.
    #[inline]
    fn between_keys(&self) -> bool {
        matches!((self.usage_at, self.reason_at), (UsageAt::Key { matched: 0 }, ReasonAt::Key { matched: 0 }))
    }

    #[inline(never)]
    fn feed_closely(&mut self, piece: &[u8]) {
        self.feed_usage(piece);
        self.feed_reason(piece);
        match self.form {
            Form::Json => self.feed_json(piece),
            Form::Events | Form::Typed => self.feed_events(piece),
            Form::Unsettled => {}
        }
    }

    /// Takes the first byte that is no space for what it begins; says whether the piece is like most.
    #[cold]
    fn settle(&mut self, piece: &[u8]) -> bool {
        self.form = match piece.iter().find(|byte| !is_space(**byte)) {
            None => Form::Unsettled,
            Some(b'{' | b'[') => Form::Json,
            Some(_) if matches!(self.api, Api::Responses | Api::Messages) => Form::Typed,
            Some(_) => Form::Events,
        };
        self.form == Form::Events || self.form == Form::Typed && piece.starts_with(NAMED)
    }

    fn feed_events(&mut self, piece: &[u8]) {
        let by_type = self.form == Form::Typed && !piece.starts_with(NAMED);
        if !self.is_open && !by_type && ends_event(piece) && !may_be_error(piece) {
            return;
        }
        let watch = self.watch.get_or_insert_with(|| Box::new(Watch::Events(Faults::default())));
        if let Watch::Events(faults) = &mut **watch {
            let told = faults.feed(piece);
            self.found.error |= told.error;
            self.found.terminal |= told.terminal;
            self.is_open = !faults.is_closed();
        }
    }

    fn feed_json(&mut self, piece: &[u8]) {
        let watch = self.watch.get_or_insert_with(|| Box::new(Watch::Json(Members::default())));
        if let Watch::Json(members) = &mut **watch {
            members.feed(piece);
        }
    }

    #[inline(never)]
    fn feed_usage(&mut self, mut rest: &[u8]) {
        while let Some((&byte, tail)) = rest.split_first() {
            match self.usage_at {
                UsageAt::Key { ref mut matched } => {
                    let Some(end) = USAGE.find(matched, rest) else { return };
                    self.usage_at = UsageAt::Object;
                    rest = &rest[end..];
                    continue;
                }
                UsageAt::Object if is_space(byte) => {}
                UsageAt::Object if byte == b'{' => {
                    self.capture.get_or_insert_default().start();
                    self.usage_at = UsageAt::Inside;
                }
                UsageAt::Object => {
                    self.usage_at = UsageAt::default();
                    continue;
                }
                UsageAt::Inside => {
                    let (taken, over) = self.capture.get_or_insert_default().take(rest);
                    if over {
                        self.usage_at = UsageAt::default();
                    }
                    rest = &rest[taken..];
                    continue;
                }
            }
            rest = tail;
        }
    }

    #[inline(never)]
    fn feed_reason(&mut self, mut rest: &[u8]) {
        while let Some((&byte, tail)) = rest.split_first() {
            match self.reason_at {
                ReasonAt::Key { ref mut matched } => {
                    let key = if self.api == Api::Gemini { &GEMINI_REASON } else { &REASON };
                    let Some(end) = key.find(matched, rest) else { return };
                    self.reason_at = ReasonAt::Value;
                    rest = &rest[end..];
                    continue;
                }
                ReasonAt::Value if is_space(byte) => {}
                ReasonAt::Value if byte == b'"' => self.reason_at = ReasonAt::Word { len: 0 },
                ReasonAt::Value => {
                    self.reason_at = ReasonAt::default();
                    continue;
                }
                ReasonAt::Word { len } if byte == b'"' => {
                    let reason = FinishReason::from_word(&self.reason[..usize::from(len)]);
                    // An empty one stands in every event of some servers.
                    if len > 0 && (reason != FinishReason::Other || self.finish.is_none()) {
                        self.finish = Some(reason);
                    }
                    self.reason_at = ReasonAt::default();
                }
                ReasonAt::Word { ref mut len } => {
                    if let Some(slot) = self.reason.get_mut(usize::from(*len)) {
                        *slot = byte;
                        *len += 1;
                    }
                }
            }
            rest = tail;
        }
    }
}

/// Whether [`USAGE`], [`REASON`] or `"error"` may stand in `piece` with a value other than `null`, or may begin at its end.
///
/// Three bytes tell of all of these keys: `a` (us*a*ge), `s` (rea*s*on) or `r` (er*r*or), four bytes on a colon, and then not
/// the `n` of the `null` that most events carry there. No other key of an ordinary event fits. Written so that the
/// compiler makes vectors of it: two substring searches over a short event cost more than twice as much.
#[inline]
fn may_tell(piece: &[u8]) -> bool {
    // A piece that ends with an event cannot end inside a key, nor inside a document.
    if !ends_event(piece) {
        return true;
    }
    // Most of what is so short is `[DONE]`.
    piece.len() >= LEAST_BYTES && may_hold_key(piece)
}

/// The same of whole events, or of whole documents. A key behind which there is a space before the colon is not found.
#[inline]
pub(crate) fn may_hold_key(piece: &[u8]) -> bool {
    let Some(last) = piece.len().checked_sub(BLOCK_BYTES) else { return true };
    let mut rest = piece;
    while let Some(block) = rest.first_chunk() {
        if block_may_tell(block) {
            return true;
        }
        rest = &rest[LANES..];
    }
    // The last block overlaps the one before, so that no bytes are left over.
    piece[last..].first_chunk().is_none_or(block_may_tell)
}

/// The shortest event with any of these keys is longer.
const LEAST_BYTES: usize = 16;
/// Candidates that are looked at in one step.
const LANES: usize = 32;
/// The candidates, and the five bytes behind the last.
const BLOCK_BYTES: usize = LANES + 5;

#[inline]
fn block_may_tell(block: &[u8; BLOCK_BYTES]) -> bool {
    let mut hit = false;
    for at in 0..LANES {
        // `r` and `s` differ in their lowest bit.
        let letter = (block[at] == b'a') | (block[at] | 1 == b's');
        hit |= letter & (block[at + 4] == b':') & (block[at + 5] != b'n');
    }
    hit
}

#[derive(Clone, Copy, Debug)]
enum UsageAt {
    /// Looking for the key; this many of its bytes ended the last piece.
    Key { matched: u8 },
    /// After the key: an object, or `null`.
    Object,
    /// In the object that is being captured.
    Inside,
}

impl Default for UsageAt {
    fn default() -> Self {
        UsageAt::Key { matched: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
enum ReasonAt {
    /// Looking for the key; this many of its bytes ended the last piece.
    Key { matched: u8 },
    /// After the key: a string, or `null`.
    Value,
    /// In the string, of which this many bytes were kept.
    Word { len: u8 },
}

impl Default for ReasonAt {
    fn default() -> Self {
        ReasonAt::Key { matched: 0 }
    }
}

pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
