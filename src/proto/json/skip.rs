//! JSON values that nobody asked about, passed over 64 bytes at a time (RFC 8259).
//!
//! Nearly all of a request's body is one: the messages. For each 64 bytes four words say where its quotes, backslashes and brackets
//! stand, and what is within a string follows from the quotes by a few operations on the whole word, as in Langdale and Lemire,
//! "Parsing Gigabytes of JSON per Second" (2019), 3.1. What one string or bracket after the other would cost, all of them cost
//! together; a string without either is left to `memchr`.
//!
//! What is skipped is not checked: brackets are counted and not matched, and outside of a string a backslash means nothing.

use memchr::memchr2;
use wide::u8x16;

/// Deeper nesting than this is refused: no real request has it.
const MAX_DEPTH: u32 = 1 << 31;

/// The bytes that are looked at together.
const CHUNK_BYTES: usize = 64;

/// A value that is being skipped, of which some may still be to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    /// Brackets that are open; 0 in a string that is itself the value.
    depth: u32,
    /// In a string.
    within: bool,
    /// In a string, behind a backslash that counts.
    escaped: bool,
}

/// What a piece brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// All of it belongs to the value.
    More,
    /// The value ends before this index of the piece.
    Ended(usize),
    /// It is nested too deep.
    TooDeep,
}

impl Skip {
    /// A string, behind its opening quote.
    pub(crate) const STRING: Skip = Skip { depth: 0, within: true, escaped: false };

    /// An object or an array, behind its opening bracket.
    pub(crate) const NESTED: Skip = Skip { depth: 1, within: false, escaped: false };

    /// Goes on with the next bytes of the value.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Skipped {
        let mut at = 0;
        while at < piece.len() {
            let rest = &piece[at..];
            let (chunk, length) = match rest.first_chunk() {
                Some(chunk) => (*chunk, CHUNK_BYTES),
                None => {
                    // A space means nothing, wherever it stands.
                    let mut chunk = [b' '; CHUNK_BYTES];
                    chunk[..rest.len()].copy_from_slice(rest);
                    (chunk, rest.len())
                }
            };
            let marks = Marks::of(&chunk);
            match self.take(&marks, &chunk, length) {
                Skipped::More => at += length,
                Skipped::Ended(end) => return Skipped::Ended(at + end),
                Skipped::TooDeep => return Skipped::TooDeep,
            }
            if self.within && marks.quotes | marks.backslashes == 0 {
                let rest = piece.get(at..).unwrap_or_default();
                at += memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            }
        }
        Skipped::More
    }

    /// Takes the first `length` bytes of `chunk`, behind which there are spaces alone.
    fn take(&mut self, marks: &Marks, chunk: &[u8; CHUNK_BYTES], length: usize) -> Skipped {
        let (escaped, carried) = escaped(marks.backslashes, self.escaped);
        let quotes = marks.quotes & !escaped;
        let strings = parity(quotes) ^ if self.within { u64::MAX } else { 0 };
        if marks.backslashes & !strings != 0 {
            // Not JSON; what it means is not for a whole chunk to say.
            return self.by_byte(&chunk[..length]);
        }
        if self.depth == 0 {
            if quotes != 0 {
                return Skipped::Ended(quotes.trailing_zeros() as usize + 1);
            }
        } else {
            let closes = marks.closes & !strings;
            let mut brackets = marks.opens & !strings | closes;
            while brackets != 0 {
                let bracket = brackets & brackets.wrapping_neg();
                if !self.nest(closes & bracket == 0) {
                    return Skipped::TooDeep;
                }
                if self.depth == 0 {
                    return Skipped::Ended(bracket.trailing_zeros() as usize + 1);
                }
                brackets ^= bracket;
            }
        }
        self.within = strings >> (length - 1) & 1 == 1;
        self.escaped = if length == CHUNK_BYTES { carried } else { escaped >> length & 1 == 1 };
        Skipped::More
    }

    /// The same, by the letter.
    fn by_byte(&mut self, bytes: &[u8]) -> Skipped {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.within => self.escaped = true,
                b'"' => {
                    self.within = !self.within;
                    if self.depth == 0 {
                        return Skipped::Ended(at + 1);
                    }
                }
                b'{' | b'[' | b'}' | b']' if !self.within => {
                    if !self.nest(matches!(byte, b'{' | b'[')) {
                        return Skipped::TooDeep;
                    }
                    if self.depth == 0 {
                        return Skipped::Ended(at + 1);
                    }
                }
                _ => {}
            }
        }
        Skipped::More
    }

    /// One bracket further in or out. `false` if that is too far.
    fn nest(&mut self, is_open: bool) -> bool {
        if is_open && self.depth == MAX_DEPTH {
            return false;
        }
        self.depth = if is_open { self.depth + 1 } else { self.depth - 1 };
        true
    }
}

/// Where the bytes that matter stand in a chunk: a bit for each, the first byte's the lowest.
struct Marks {
    quotes: u64,
    backslashes: u64,
    /// `{` and `[`.
    opens: u64,
    /// `}` and `]`.
    closes: u64,
}

impl Marks {
    #[inline]
    fn of(chunk: &[u8; CHUNK_BYTES]) -> Marks {
        let mut marks = Marks { quotes: 0, backslashes: 0, opens: 0, closes: 0 };
        for (part, bytes) in chunk.as_chunks().0.iter().enumerate() {
            let bytes = u8x16::new(*bytes);
            // The two brackets of a kind differ in this bit alone, and no other byte becomes one of them without it.
            let merged = bytes & u8x16::splat(!0x20);
            let found =
                |bytes: u8x16, byte| u64::from(bytes.simd_eq(u8x16::splat(byte)).to_bitmask()) << (part * 16);
            marks.quotes |= found(bytes, b'"');
            marks.backslashes |= found(bytes, b'\\');
            marks.opens |= found(merged, b'[');
            marks.closes |= found(merged, b']');
        }
        marks
    }
}

/// The bytes that are escaped and no backslash themselves, and whether the one behind the chunk is escaped: those behind a run of
/// backslashes of odd length. Adding a run's first bit to it carries to the bit behind it, and the run is odd if that one and the
/// first are not both even or both odd. `first` says that the first byte is escaped.
#[inline]
fn escaped(backslashes: u64, first: bool) -> (u64, bool) {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let slashes = backslashes & !u64::from(first);
    if slashes == 0 {
        return (u64::from(first), false);
    }
    let starts = slashes & !(slashes << 1);
    let (behind_even, _) = slashes.overflowing_add(starts & EVEN);
    let (behind_odd, is_odd_at_end) = slashes.overflowing_add(starts & !EVEN);
    let behind = behind_even & !EVEN | behind_odd & EVEN;
    (behind & !slashes | u64::from(first), is_odd_at_end)
}

/// Of each bit, whether the number of bits up to it is odd.
#[inline]
fn parity(mut bits: u64) -> u64 {
    if bits != 0 {
        for shift in [1, 2, 4, 8, 16, 32] {
            bits ^= bits << shift;
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn chunks_say_what_bytes_say_wherever_it_is_cut(
            bytes in prop::collection::vec(prop::sample::select(&b"aaa\"\"\\\\{[]}\x02\x7b\xfd;="[..]), 0..300),
            quiet in 0usize..200,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            is_string in any::<bool>(),
            depth in 1u32..40,
        ) {
            let bytes = [&vec![b'a'; quiet][..], &bytes].concat();
            let first = if is_string { Skip::STRING } else { Skip { depth, ..Skip::NESTED } };
            let (mut letters, mut chunks) = (first, first);
            let said = letters.by_byte(&bytes);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut start, mut came) = (0, Skipped::More);
            for cut in cuts {
                came = match chunks.feed(&bytes[start..cut]) {
                    Skipped::Ended(end) => Skipped::Ended(start + end),
                    came => came,
                };
                start = cut;
                if came != Skipped::More {
                    break;
                }
            }
            prop_assert_eq!(came, said);
            if said == Skipped::More {
                prop_assert_eq!(chunks, letters);
            }
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_said_to_be() {
        for bytes in [&b"["[..], b"\\["] {
            let mut skip = Skip { depth: MAX_DEPTH, ..Skip::NESTED };
            assert_eq!(skip.feed(bytes), Skipped::TooDeep);
        }
    }
}
