//! The keys by which a whole JSON document tells of tokens, of why it ended and of an error, found in one pass.
//!
//! Three searches for three keys would read the document three times. Its colons are few, and 64 bytes that have none take one branch.

use wide::u8x16;

use crate::proto::dialect::Api;

/// The bytes that are looked at together.
const CHUNK_BYTES: usize = 64;

/// How the keys that tell something end: usage, type, reason, error, status.
const LAST: [u32; 5] = [last(b"ge\""), last(b"pe\""), last(b"on\""), last(b"or\""), last(b"us\"")];

const fn last(bytes: &[u8; 3]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

#[inline]
fn found(part: &[u8; 16]) -> u8x16 {
    u8x16::new(*part).simd_eq(u8x16::splat(b':'))
}

/// Keys that a document has, at any depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The first that may tell of usage or of a reason to end begins here or later.
    pub(crate) first: Option<usize>,
    /// One says that something failed, if it is a member of the document itself.
    pub(crate) may_fail: bool,
}

impl Keys {
    /// Those of `document`, which an endpoint of `api` gave.
    pub(crate) fn of(document: &[u8], api: Api) -> Keys {
        let mut keys = Keys::default();
        let (chunks, rest) = document.as_chunks();
        let mut base = 0;
        for chunk in chunks {
            keys.take(document, base, chunk, api);
            base += CHUNK_BYTES;
        }
        let mut chunk = [b' '; CHUNK_BYTES];
        chunk[..rest.len()].copy_from_slice(rest);
        keys.take(document, base, &chunk, api);
        keys
    }

    /// Takes the keys whose colons stand in `chunk`, which begins at `base`.
    #[inline]
    fn take(&mut self, document: &[u8], base: usize, chunk: &[u8; CHUNK_BYTES], api: Api) {
        let (parts, _) = chunk.as_chunks();
        if (found(&parts[0]) | found(&parts[1]) | found(&parts[2]) | found(&parts[3])).to_bitmask() != 0 {
            self.note_all(document, base, parts, api);
        }
    }

    // Apart from the loop over chunks, which keeps its few registers so.
    #[inline(never)]
    fn note_all(&mut self, document: &[u8], base: usize, parts: &[[u8; 16]], api: Api) {
        for (at, part) in parts.iter().enumerate() {
            let mut colons = found(part).to_bitmask();
            while colons != 0 {
                let colon = base + at * 16 + colons.trailing_zeros() as usize;
                colons &= colons - 1;
                let Some(&[first, second, third]) = document[..colon].last_chunk() else { continue };
                let last = u32::from_be_bytes([0, first, second, third]);
                // Few keys end like one of these; a space is looked behind.
                if LAST.contains(&last) || third <= b' ' {
                    self.note(document, colon, api);
                }
            }
        }
    }

    /// Looks at what stands before the colon at `colon`.
    #[inline(never)]
    fn note(&mut self, document: &[u8], colon: usize, api: Api) {
        let before = document[..colon].trim_ascii_end();
        let is = |key: &[u8]| before.ends_with(key);
        let means = |value: &[u8]| document[colon + 1..].trim_ascii_start().starts_with(value);
        if is(b"\"usage\"") || is(b"eason\"") {
            // The longest is `finish_reason`; whoever looks for a key from here on finds it.
            self.first.get_or_insert(before.len().saturating_sub(16));
        } else if is(b"\"error\"") {
            self.may_fail = true;
        } else if is(b"\"type\"") {
            self.may_fail |= means(b"\"error\"") || means(b"\"response.failed\"");
        } else if is(b"\"status\"") && api == Api::Responses {
            self.may_fail |= means(b"\"failed\"");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_found_wherever_it_stands() {
        for before in 0..140 {
            let x = "x".repeat(before);
            let of =
                |member: &str| Keys::of(format!("{{\"{x}\":\"a:b\",{member}}}").as_bytes(), Api::Responses);
            for member in ["\"usage\":{}", "\"finish_reason\": 1", "\"finishReason\" : 1", "\"usage\"\n:{}"] {
                let first = of(member).first.unwrap();
                assert!((first..first + 20).contains(&(before + 10)), "{member} behind {before}: {first}");
            }
            for member in [
                "\"error\":{}",
                "\"error\" :1",
                "\"type\": \"error\"",
                "\"type\":\"response.failed\"",
                "\"status\": \"failed\"",
            ] {
                assert!(of(member).may_fail, "{member} behind {before}");
            }
            let text = "\"a\":\"\\\"usage\\\": \\\"error\\\": error\",\"b\":\"error\",\"type\":\"errors\",\"status\":\"ok\",\"usages\":1,\"xusage\":2";
            assert_eq!(of(text), Keys::default(), "behind {before}");
        }
        assert!(!Keys::of(b"{\"status\":\"failed\"}", Api::Chat).may_fail);
    }

    proptest! {
        /// What the members of a document tell is never passed over.
        #[test]
        fn no_error_is_passed_over(
            members in prop::collection::vec(
                ("\"(error|type|status|a)\"[ \n]{0,2}:[ \n]{0,2}", "null|1|\"(error|response.failed)?\"|\\{\"error\":1\\}|\\[\\]"),
                0..20,
            ),
        ) {
            let members: Vec<_> = members.iter().map(|(key, value)| format!("{key}{value}")).collect();
            let document = format!("{{{}}}", members.join(", "));
            let told = crate::proto::json::members::is_error(document.as_bytes());
            prop_assert!(!told || Keys::of(document.as_bytes(), Api::Other).may_fail, "{}", document);
        }
    }
}
