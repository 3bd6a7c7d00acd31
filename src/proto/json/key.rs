//! A JSON key, searched for as plain bytes in what passes in pieces.

use memchr::memmem::Finder;

/// Longer keys are not searched for here.
const KEY_MAX_BYTES: usize = 12;

/// A key as a substring that may be split between pieces.
pub(crate) struct Key {
    needle: &'static [u8],
    finder: Finder<'static>,
}

impl Key {
    /// # Panics
    ///
    /// If the key is empty or longer than [`KEY_MAX_BYTES`].
    pub(crate) fn new(needle: &'static [u8]) -> Key {
        assert!((1..=KEY_MAX_BYTES).contains(&needle.len()), "a key of {} bytes", needle.len());
        Key { needle, finder: Finder::new(needle) }
    }

    /// The index in `piece` after the key's last byte. If there is none, `matched` says how much of it ended the piece;
    /// it has to be handed in again with the next one.
    pub(crate) fn find(&self, matched: &mut u8, piece: &[u8]) -> Option<usize> {
        let before = usize::from(std::mem::take(matched));
        if before > 0 {
            // The bytes of the pieces before are the key's first ones: written down again, with as many new ones as a
            // key that began there can reach.
            let new = piece.len().min(self.needle.len() - 1);
            let mut buffer = [0; 2 * KEY_MAX_BYTES];
            buffer[..before].copy_from_slice(&self.needle[..before]);
            buffer[before..before + new].copy_from_slice(&piece[..new]);
            let joined = &buffer[..before + new];
            if let Some(at) = self.finder.find(joined) {
                return Some(at + self.needle.len() - before);
            }
            if new == piece.len() {
                *matched = self.begun(joined);
                return None;
            }
        }
        let found = self.finder.find(piece);
        if found.is_none() {
            *matched = self.begun(piece);
        }
        found.map(|at| at + self.needle.len())
    }

    /// How many of the key's first bytes end `bytes`.
    fn begun(&self, bytes: &[u8]) -> u8 {
        let tail = &bytes[bytes.len().saturating_sub(self.needle.len() - 1)..];
        // The longest is the one that begins first. A key has at most KEY_MAX_BYTES.
        let begins = |at: &usize| tail[*at] == self.needle[0] && self.needle.starts_with(&tail[*at..]);
        (0..tail.len()).find(begins).map_or(0, |at| tail.len() - at) as u8
    }
}
