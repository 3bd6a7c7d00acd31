//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): a client's `traceparent` is continued with a span of our
//! own, or a trace is begun. What does not parse is as good as absent, and then `tracestate` must not be passed on either
//! ("Processing Model", step 3); so is a `traceparent` sent twice, which only the reader of the head can see.

use super::ids::{Ids, write_hex};

/// The length of a version 00 `traceparent`: `00-` 32 digits `-` 16 digits `-` 2 digits.
pub(crate) const TRACEPARENT_BYTES: usize = 55;

/// The caller may have recorded the trace ("trace-flags", sampled).
pub(crate) const SAMPLED: u8 = 0x01;

/// The flags that have a meaning: sampled, and random-trace-id of Level 2. All others must be sent as zero.
const KNOWN_FLAGS: u8 = 0x03;

/// One span within a trace: what a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// The trace, the same for all who take part in a request.
    pub(crate) trace_id: [u8; 16],
    /// The span of whoever sends this context; the parent of the receiver's span.
    pub(crate) parent_id: [u8; 8],
    /// [`SAMPLED`] and others.
    pub(crate) flags: u8,
}

impl TraceContext {
    /// Begins a trace.
    pub(crate) fn begin(ids: &mut Ids) -> TraceContext {
        TraceContext { trace_id: ids.bytes16(), parent_id: ids.bytes8(), flags: SAMPLED }
    }

    /// Parses the value of a `traceparent` header. `None` means: treat it as absent.
    pub(crate) fn parse(value: &[u8]) -> Option<TraceContext> {
        let (head, rest) = value.split_at_checked(TRACEPARENT_BYTES)?;
        let [version] = hex(&head[..2])?;
        match version {
            0 if !rest.is_empty() => return None,
            // Later versions may append fields, each after a dash ("Versioning of traceparent").
            1..=254 if !rest.is_empty() && rest[0] != b'-' => return None,
            255 => return None,
            _ => {}
        }
        if head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
            return None;
        }
        let trace_id = hex(&head[3..35])?;
        let parent_id = hex(&head[36..52])?;
        let [flags] = hex(&head[53..])?;
        if trace_id == [0; 16] || parent_id == [0; 8] {
            return None;
        }
        Some(TraceContext { trace_id, parent_id, flags: flags & KNOWN_FLAGS })
    }

    /// The same trace with a new span: what is sent to the upstream.
    pub(crate) fn child(&self, ids: &mut Ids) -> TraceContext {
        TraceContext { parent_id: ids.bytes8(), ..*self }
    }

    /// The trace's id in lowercase hexadecimal digits, for the log.
    pub(crate) fn trace_id_hex(&self) -> [u8; 32] {
        let mut digits = [0; 32];
        write_hex(&self.trace_id, &mut digits);
        digits
    }

    /// The value of a `traceparent` header, version 00.
    pub(crate) fn traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut value = [b'-'; TRACEPARENT_BYTES];
        write_hex(&[0], &mut value[..2]);
        write_hex(&self.trace_id, &mut value[3..35]);
        write_hex(&self.parent_id, &mut value[36..52]);
        write_hex(&[self.flags], &mut value[53..]);
        value
    }
}

/// Reads `N` bytes from `2 * N` lowercase hexadecimal digits; the specification allows no uppercase.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(value: &str) -> Option<TraceContext> {
        TraceContext::parse(value.as_bytes())
    }

    #[test]
    fn a_valid_context_is_read_and_written_alike() {
        let context = parse(VALID).unwrap();
        assert_eq!(context.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(context.parent_id[7], 0x31);
        assert_eq!(context.flags, SAMPLED);
        assert_eq!(&context.trace_id_hex(), b"0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.traceparent(), VALID.as_bytes());
    }

    #[test]
    fn what_does_not_parse_is_absent() {
        let long = format!("{VALID}-");
        let upper = VALID.to_uppercase();
        let cases = [
            "",
            "00",
            &VALID[..54],
            &long,
            &upper,
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319cab7ad6b7169203331--01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
        ];
        for case in cases {
            assert_eq!(parse(case), None, "{case:?}");
        }
    }

    #[test]
    fn a_later_version_is_read_by_its_first_four_fields_and_sent_as_ours() {
        let tail = &VALID[2..];
        for value in [format!("cc{tail}"), format!("01{tail}-what-the-future-brings")] {
            assert_eq!(parse(&value).unwrap().traceparent(), VALID.as_bytes());
        }
    }

    #[test]
    fn unknown_flags_are_not_passed_on() {
        let context = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff").unwrap();
        assert_eq!(context.flags, 0x03);
    }

    #[test]
    fn a_child_shares_the_trace_and_the_flags_but_not_the_span() {
        let mut ids = Ids::from_seed([7; 32]);
        let parent = parse(VALID).unwrap();
        let child = parent.child(&mut ids);
        assert_eq!((child.trace_id, child.flags), (parent.trace_id, parent.flags));
        assert_ne!(child.parent_id, parent.parent_id);
    }

    #[test]
    fn a_trace_begun_here_is_valid_and_sampled() {
        let mut ids = Ids::from_seed([7; 32]);
        let begun = TraceContext::begin(&mut ids);
        assert_eq!(begun.flags, SAMPLED);
        assert_eq!(TraceContext::parse(&begun.traceparent()), Some(begun));
        assert_ne!(TraceContext::begin(&mut ids).trace_id, begun.trace_id);
    }
}
