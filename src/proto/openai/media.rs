//! Images, sounds and documents in a JSON body, which stand there in base64: they are no text, and what they cost has nothing to do
//! with how many characters they have. They are estimated by what they are:
//!
//! | in base64 | tokens |
//! | --- | --- |
//! | an image | 1,600 |
//! | a sound | one for 1,000 bytes (16 kHz of 16 bits: 32 in a second) |
//! | a film | two for 1,000 bytes |
//! | a document | 2,000 for each 50,000 bytes, about a page |
//!
//! never more than as text. What it is, is said by the text before it (`data:image/png;base64,`, `"media_type":"image/png"`,
//! `input_audio`) or by its first bytes; what says neither counts as text.
//!
//! A long run of the letters of base64 is found without looking at most of a text: where one of [`RUN_BYTES`] letters ended, its last
//! would have to be one of them, and so on backwards, and in a text the first space ends the search.

/// Shorter runs count as text: a token or a picture of a few dots. No text has a word of this length.
const RUN_BYTES: usize = 1024;

/// What is kept of the text before a run.
const BEFORE_BYTES: usize = 96;

/// What is kept of its beginning: enough to know a container of sounds from one of images.
const HEAD_BYTES: usize = 24;

const IMAGE_TOKENS: u64 = 1600;
const SOUND_BYTES_A_TOKEN: u64 = 1000;
const FILM_BYTES_A_TOKEN: u64 = 500;
const PAGE_TOKENS: u64 = 2000;
const PAGE_BYTES: u64 = 50_000;

/// Characters of text that make a token.
const TEXT_BYTES_A_TOKEN: u64 = 4;

/// What is neither text nor free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Image,
    Sound,
    Film,
    Document,
}

/// Base64 in a body that is looked through in pieces.
#[derive(Debug, Default)]
pub(crate) struct Media {
    /// Letters of the run that is being read; 0 outside of one. It may turn out to be short.
    run: u64,
    /// What stands before it, and its first letters.
    before: Vec<u8>,
    head: Vec<u8>,
    /// The end of the pieces before this one.
    recent: Vec<u8>,
    /// Letters of runs that are no text.
    bytes: u64,
    tokens: u64,
}

impl Media {
    /// Looks at the next bytes of the body.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.look(piece);
        self.recent = last(&self.recent, piece);
    }

    fn look(&mut self, piece: &[u8]) {
        let mut at = 0;
        while at < piece.len() {
            if self.run > 0 {
                let rest = &piece[at..];
                let end = rest.iter().position(|&byte| !is_letter(byte));
                self.go_on(&rest[..end.unwrap_or(rest.len())]);
                let Some(end) = end else { return };
                self.end();
                at += end;
                continue;
            }
            let window = &piece[at..piece.len().min(at + RUN_BYTES)];
            let stranger = window.iter().rposition(|&byte| !is_letter(byte));
            let begins = at + stranger.map_or(0, |stranger| stranger + 1);
            if stranger.is_none() || window.len() < RUN_BYTES {
                // A run, or what may become one in the next piece.
                self.before = last(&self.recent, &piece[..begins]);
                self.head.clear();
                self.go_on(&piece[begins..at + window.len()]);
                at += window.len();
            } else {
                at = begins;
            }
        }
    }

    /// The letters that are no text, and the tokens that they are estimated at.
    pub(crate) fn finish(mut self) -> (u64, u64) {
        self.end();
        (self.bytes, self.tokens)
    }

    fn go_on(&mut self, letters: &[u8]) {
        let missing = HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend(letters.iter().filter(|&&byte| byte != b'\\').take(missing));
        self.run += letters.len() as u64;
    }

    fn end(&mut self) {
        let letters = std::mem::take(&mut self.run);
        if letters < RUN_BYTES as u64 {
            return;
        }
        let Some(kind) = kind(&self.before, &self.head) else { return };
        let bytes = letters / 4 * 3;
        let tokens = match kind {
            Kind::Image => IMAGE_TOKENS,
            Kind::Sound => bytes.div_ceil(SOUND_BYTES_A_TOKEN),
            Kind::Film => bytes.div_ceil(FILM_BYTES_A_TOKEN),
            Kind::Document => bytes.div_ceil(PAGE_BYTES).saturating_mul(PAGE_TOKENS),
        };
        self.bytes += letters;
        self.tokens += tokens.min(letters.div_ceil(TEXT_BYTES_A_TOKEN));
    }
}

/// The last bytes of both, one behind the other.
fn last(before: &[u8], text: &[u8]) -> Vec<u8> {
    let text = &text[text.len().saturating_sub(BEFORE_BYTES)..];
    let before = &before[(before.len() + text.len()).saturating_sub(BEFORE_BYTES).min(before.len())..];
    [before, text].concat()
}

/// Whether it may stand within base64, of both alphabets, as JSON writes it: a slash may be escaped, and a line's end.
#[inline]
fn is_letter(byte: u8) -> bool {
    const LETTERS: [bool; 256] = {
        let mut table = [false; 256];
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\";
        let mut at = 0;
        while at < letters.len() {
            table[letters[at] as usize] = true;
            at += 1;
        }
        table
    };
    LETTERS[usize::from(byte)]
}

fn kind(before: &[u8], head: &[u8]) -> Option<Kind> {
    // Of containers the name stands behind the length.
    let names = |at: usize, name: &[u8]| head.get(at..at + name.len()) == Some(name);
    let begins = |magic: &[&[u8]]| magic.iter().any(|magic| head.starts_with(magic));
    if begins(&[b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"SUkqA", b"TU0AK"])
        || begins(&[b"UklGR"]) && names(11, b"XRUJQ")
    {
        return Some(Kind::Image);
    }
    if begins(&[b"UklGR"]) && names(11, b"XQVZF")
        || begins(&[b"SUQz", b"//s", b"//M", b"//I", b"T2dnUw", b"ZkxhQ"])
    {
        return Some(Kind::Sound);
    }
    if begins(&[b"JVBERi0", b"UEsDB"]) {
        return Some(Kind::Document);
    }
    let says = |word: &[u8]| memchr::memmem::find(before, word).is_some();
    if says(b"image") {
        Some(Kind::Image)
    } else if says(b"audio") {
        Some(Kind::Sound)
    } else if says(b"video") {
        Some(Kind::Film)
    } else if says(b"application/pdf") || says(b"document") || says(b"file_data") {
        Some(Kind::Document)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(pieces: &[&[u8]]) -> (u64, u64) {
        let mut media = Media::default();
        pieces.iter().for_each(|piece| media.feed(piece));
        media.finish()
    }

    /// So many letters, of which these are the first.
    fn letters(head: &str, count: usize) -> String {
        let all = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        head.chars().chain(all.chars().cycle()).take(count).collect()
    }

    #[test]
    fn base64_is_estimated_as_what_it_is() {
        for (before, head, count, tokens) in [
            ("{\"url\":\"data:image/png;base64,", "iVBORw0KGgo", 400_000, 1600),
            ("{\"url\":\"data:image/x-new;base64,", "AAAA", 400_000, 1600),
            ("{\"data\":\"", "/9j/4AAQ", 400_000, 1600),
            ("\"media_type\":\"image/new\",\"data\":\"", "AAAA", 400_000, 1600),
            ("{\"data\":\"", "UklGRiQAAABXRUJQ", 400_000, 1600),
            ("{\"data\":\"", "UklGRiQAAABXQVZF", 400_000, 300),
            ("{\"input_audio\":{\"data\":\"", "AAAA", 400_000, 300),
            ("\"media_type\":\"application/pdf\",\"data\":\"", "AAAA", 400_000, 12_000),
            ("{\"data\":\"", "JVBERi0xLjcK", 2000, 500),
            ("{\"url\":\"data:image/png;base64,", "iVBORw0KGgo", 2000, 500),
            ("{\"url\":\"data:video/mp4;base64,", "AAAA", 400_000, 600),
        ] {
            let body = format!("some text {before}{}\"}} more", letters(head, count));
            assert_eq!(counted(&[body.as_bytes()]), (count as u64, tokens), "{before}{head}");
            for size in [1, 7, 1000, 5000] {
                let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
                assert_eq!(counted(&pieces), (count as u64, tokens), "{before}{head} in pieces of {size}");
            }
        }
        // Escaped as some serialisers do.
        let body = format!("\"data\":\"{}\"", letters("/9j/", 4000).replace('/', "\\/"));
        assert_eq!(counted(&[body.as_bytes()]), (4064, 1016));
    }

    #[test]
    fn text_is_text() {
        let words = "the quick brown fox, jumps over; a lazy dog. ".repeat(1000);
        for text in [
            words.clone(),
            letters("", 5000),
            format!("\"data:image/png;base64,{}\"", letters("iVBORw0KGgo", RUN_BYTES - 1)),
            format!("about an image: {}", words.replace(' ', ",")),
            "{}".to_owned(),
        ] {
            assert_eq!(counted(&[text.as_bytes()]), (0, 0), "{}", &text[..40.min(text.len())]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// By trying every byte.
        #[test]
        fn runs_are_found_wherever_they_are_cut(
            lengths in prop::collection::vec((0usize..3000, prop::sample::select(vec!["\"", " ", ":\"", "\", \"x\""])), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let body: String = lengths.iter().map(|(length, other)| letters("/9j/", *length) + other).collect();
            let expected: u64 = body.split(|byte| !is_letter(byte as u8)).map(|run| run.len() as u64).filter(|&run| run >= RUN_BYTES as u64).sum();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            at.extend([0, body.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &body.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(counted(&pieces).0, expected);
            prop_assert_eq!(counted(&body.as_bytes().chunks(1).collect::<Vec<_>>()), counted(&[body.as_bytes()]));
        }
    }
}
