//! A JSON key, searched for as plain bytes in what passes in pieces.

use memchr::memmem::Finder;

/// A key as a substring that may be split between pieces. Its first byte must not occur again before its last, so that
/// a failed match can only start anew after the bytes that matched.
pub(super) struct Key {
    needle: &'static [u8],
    finder: Finder<'static>,
}

impl Key {
    /// # Panics
    ///
    /// If the key could overlap itself.
    pub(super) fn new(needle: &'static [u8]) -> Key {
        assert!(!needle[1..needle.len() - 1].contains(&needle[0]), "a key that could overlap itself");
        Key { needle, finder: Finder::new(needle) }
    }

    /// The index in `piece` after the key's last byte. If there is none, `matched` says how much of it ended the piece.
    #[inline]
    pub(super) fn find(&self, matched: &mut u8, piece: &[u8]) -> Option<usize> {
        if *matched > 0 { self.find_rest(matched, piece) } else { self.find_whole(matched, piece) }
    }

    #[inline]
    fn find_whole(&self, matched: &mut u8, piece: &[u8]) -> Option<usize> {
        match self.finder.find(piece) {
            Some(at) => Some(at + self.needle.len()),
            None => {
                // Most pieces end with an event, and no key holds a line break.
                if piece.last().is_some_and(|&last| last != b'\n') {
                    let most = self.needle.len() - 1;
                    let kept = (1..=most).rev().find(|&len| piece.ends_with(&self.needle[..len]));
                    *matched = kept.unwrap_or(0) as u8;
                }
                None
            }
        }
    }

    #[cold]
    fn find_rest(&self, matched: &mut u8, piece: &[u8]) -> Option<usize> {
        let wanted = &self.needle[usize::from(*matched)..];
        let same = wanted.iter().zip(piece).take_while(|(a, b)| a == b).count();
        if same == wanted.len() {
            *matched = 0;
            return Some(same);
        }
        if same == piece.len() {
            *matched += same as u8;
            return None;
        }
        *matched = 0;
        self.find_whole(matched, &piece[same..]).map(|end| end + same)
    }
}
