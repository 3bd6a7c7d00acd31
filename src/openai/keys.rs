//! The keys by which a whole JSON document tells of tokens, of why it ended and of an error, found in one pass.
//!
//! Three searches for three keys would read the document three times; its colons are few.

use memchr::memchr_iter;

use super::dialect::Api;
use super::sideband::is_space;

/// Keys that a document has, at any depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    /// The first that may tell of usage or of a reason to end begins here or later.
    pub(super) first: Option<usize>,
    /// One says that something failed, if it is a member of the document itself.
    pub(super) may_fail: bool,
}

impl Keys {
    /// Those of `document`, which an endpoint of `api` gave.
    pub(super) fn of(document: &[u8], api: Api) -> Keys {
        let mut keys = Keys::default();
        for colon in memchr_iter(b':', document) {
            // Few keys end like one of these; a space is looked behind.
            let last = document.get(colon.wrapping_sub(3)..colon).unwrap_or_default();
            if matches!(last, [b'g' | b'p', b'e', b'"'] | [b'o', b'n' | b'r', b'"'] | [b'u', b's', b'"'])
                || matches!(last, [.., b' ' | b'\t' | b'\n' | b'\r'])
            {
                keys.note(document, colon, api);
            }
        }
        keys
    }

    /// Looks at what stands before the colon at `colon`.
    #[inline(never)]
    fn note(&mut self, document: &[u8], colon: usize, api: Api) {
        let before = document[..colon].trim_ascii_end();
        let [.., last, b'"'] = before else { return };
        let tells = match last {
            b'e' if before.ends_with(b"\"usage\"") => true,
            b'n' => before.ends_with(b"eason\""),
            b'r' if before.ends_with(b"\"error\"") => {
                self.may_fail = true;
                false
            }
            b'e' if before.ends_with(b"\"type\"") => {
                let value = value(&document[colon + 1..]);
                self.may_fail |= value.starts_with(b"\"error\"") || value.starts_with(b"\"response.failed\"");
                false
            }
            b's' if api == Api::Responses && before.ends_with(b"\"status\"") => {
                self.may_fail |= value(&document[colon + 1..]).starts_with(b"\"failed\"");
                false
            }
            _ => false,
        };
        if tells && self.first.is_none() {
            // The longest is `finish_reason`; whoever looks for a key from here on finds it.
            self.first = Some(before.len().saturating_sub(16));
        }
    }
}

/// What follows a colon.
fn value(behind: &[u8]) -> &[u8] {
    let spaces = behind.iter().take_while(|byte| is_space(**byte)).count();
    &behind[spaces..]
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
            let told = super::super::members::is_error(document.as_bytes());
            prop_assert!(!told || Keys::of(document.as_bytes(), Api::Other).may_fail, "{}", document);
        }
    }
}
