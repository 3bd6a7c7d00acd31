//! Fields of a head: which of them end at this hop, and how they are written out again.

use std::ops::Range;

use super::line;

/// A field as it stands in a head's buffer. The name is a token, the value carries no control byte but HTAB and no
/// whitespace at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name, in the sender's case.
    pub name: &'b str,
    /// The value, not necessarily UTF-8.
    pub value: &'b [u8],
}

impl Field<'_> {
    /// Whether the field is called `name`, whatever the case.
    #[inline]
    pub(crate) fn is(&self, name: &str) -> bool {
        is_called(self.name, name)
    }
}

/// Whether `name`, which is a token, is `known`, one of ours, whatever the case of either.
///
/// Names of ours are letters, digits, hyphens and underscores. No other byte of a token differs from one of those in the bit alone that
/// makes letters small, so that bit is ignored in all of them, eight bytes at a time.
#[allow(
    clippy::inline_always,
    reason = "measured: with the length of `known` at hand it is a few compares, and a loop otherwise"
)]
#[inline(always)]
pub(crate) fn is_called(name: &str, known: &str) -> bool {
    const SMALL: u64 = 0x2020_2020_2020_2020;
    debug_assert!(
        known.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        "{known:?}"
    );
    let (name, known) = (name.as_bytes(), known.as_bytes());
    if name.len() != known.len() {
        return false;
    }
    let (chunks, rest) = name.as_chunks::<8>();
    let (known_chunks, known_rest) = known.as_chunks::<8>();
    let same = |(one, other): (&[u8; 8], &[u8; 8])| {
        (u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other)) & !SMALL == 0
    };
    chunks.iter().zip(known_chunks).all(same)
        && rest.iter().zip(known_rest).all(|(one, other)| (one ^ other) & !0x20 == 0)
}

/// The value of the first field called `name`.
pub(crate) fn find<'b>(fields: &[Field<'b>], name: &str) -> Option<&'b [u8]> {
    fields.iter().find(|field| field.is(name)).map(|field| field.value)
}

/// Whether `bytes` are a token (RFC 9110, 5.6.2): what names of fields and methods are.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| line::is_token_byte(byte))
}

/// Whether `name` says through which proxies a request came, and for whom: a claim that only a proxy can make. Underscores
/// count as hyphens, since many servers make them the same.
pub(crate) fn is_of_a_proxy(name: &str) -> bool {
    const FAMILY: &[u8] = b"x-forwarded-";
    let same = |name: &[u8], known: &[u8]| {
        let like =
            |(&one, &other): (&u8, &u8)| one.eq_ignore_ascii_case(&other) || (one == b'_' && other == b'-');
        name.len() == known.len() && name.iter().zip(known).all(like)
    };
    let name = name.as_bytes();
    match name[0] | 0x20 {
        b'f' => same(name, b"forwarded"),
        b'x' => same(name, b"x-real-ip") || name.len() > FAMILY.len() && same(&name[..FAMILY.len()], FAMILY),
        _ => false,
    }
}

/// Whether `name` is of this hop alone, whatever `Connection` says (RFC 9110, 7.6.1): such a field is never forwarded.
#[inline]
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    let is = |known: &str| is_called(name, known);
    match name.len() {
        2 => is("te"),
        7 => is("trailer") || is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        14 => is("http2-settings"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        18 => is("proxy-authenticate"),
        19 => is("proxy-authorization"),
        _ => false,
    }
}

/// Fields that say whose a message is, where it goes and what its body is. A `Connection` that nominates one of them
/// is an attempt to have it dropped on the way (RFC 9110, 7.6.1 forbids the sender to), so it is not obeyed.
fn is_protected(name: &str) -> bool {
    let protected: &[&str] = match name.len() {
        4 => &["host"],
        6 => &["cookie"],
        7 => &["api-key"],
        9 => &["x-api-key"],
        12 => &["content-type"],
        13 => &["authorization"],
        14 => &["content-length", "x-goog-api-key"],
        16 => &["content-encoding"],
        25 => &["ocp-apim-subscription-key"],
        _ => return false,
    };
    protected.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// What the `Connection` fields of a head ask for. Nearly always nothing but `close` or `keep-alive`, and then asking
/// whether a field was nominated costs one test.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectionTokens {
    /// `close` was among the options.
    pub(crate) close: bool,
    /// `keep-alive` was among the options.
    pub(crate) keep_alive: bool,
    /// How many other options there were: each may be the name of a field.
    pub(crate) others: u16,
}

impl ConnectionTokens {
    /// Takes in one `Connection` value.
    pub(crate) fn read(&mut self, value: &[u8]) {
        for option in elements(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if !option.is_empty() {
                self.others = self.others.saturating_add(1);
            }
        }
    }

    /// Whether `Connection` of the head `fields` nominates `name`, so that it ends at this hop.
    #[inline]
    pub(crate) fn nominates(&self, fields: &[Field<'_>], name: &str) -> bool {
        self.others > 0 && nominated(fields, name)
    }
}

#[cold]
fn nominated(fields: &[Field<'_>], name: &str) -> bool {
    let mut values = fields.iter().filter(|field| field.is("connection")).map(|field| field.value);
    values.any(|value| elements(value).any(|option| option.eq_ignore_ascii_case(name.as_bytes())))
        && !is_protected(name)
}

/// The elements of a comma-separated list, trimmed; empty ones are kept (RFC 9110, 5.6.1).
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii)
}

/// The fields to pass on: all but those of this hop, those that `Connection` nominates, and what the writer of the
/// new head states itself, `Content-Length` and `Expect`.
pub(crate) fn end_to_end<'s, 'b>(
    fields: &'s [Field<'b>],
    tokens: ConnectionTokens,
) -> impl Iterator<Item = Field<'b>> + 's {
    fields.iter().copied().filter(move |field| {
        !is_hop_by_hop(field.name)
            && !field.is("content-length")
            && !field.is("expect")
            && !tokens.nominates(fields, field.name)
    })
}

/// Appends `name: value` CRLF.
///
/// The name must be a token and the value free of control bytes, as those of a parsed head are.
#[inline]
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    debug_assert!(!name.is_empty() && name.bytes().all(line::is_token_byte), "not a field name: {name:?}");
    debug_assert!(line::text_end(value, 0) == value.len(), "control byte in the value of {name}");
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Copies fields of one head as lines. What the sender wrote as it would be written here, `name: value` CRLF, is copied as it
/// stands, and lines that follow each other in one piece: most of what SDKs send is passed on whole.
#[derive(Debug)]
pub(crate) struct Lines<'b> {
    head: &'b [u8],
    /// Lines to be copied.
    run: Range<usize>,
}

impl<'b> Lines<'b> {
    /// For fields that stand in `head`.
    pub(crate) fn of(head: &'b [u8]) -> Lines<'b> {
        Lines { head, run: 0..0 }
    }

    /// Appends a field, now or with the next ones.
    #[inline]
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, field: Field<'b>) {
        match self.line(field) {
            Some(line) if line.start == self.run.end => self.run.end = line.end,
            Some(line) => {
                self.flush(out);
                self.run = line;
            }
            None => {
                self.flush(out);
                write_field(out, field.name, field.value);
            }
        }
    }

    /// Appends what is still to be appended.
    #[inline]
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head[std::mem::take(&mut self.run)]);
    }

    /// Where the field's line stands, if it is written as we would.
    #[inline]
    fn line(&self, field: Field<'_>) -> Option<Range<usize>> {
        let start = field.name.as_ptr().addr().wrapping_sub(self.head.as_ptr().addr());
        let value = start.wrapping_add(field.name.len() + 2);
        let end = value.wrapping_add(field.value.len());
        let stands = field.value.as_ptr().addr().wrapping_sub(self.head.as_ptr().addr()) == value
            && self.head.get(value.wrapping_sub(2)..value) == Some(b": ")
            && self.head.get(end..end.wrapping_add(2)) == Some(b"\r\n");
        stands.then_some(start..end + 2)
    }
}

/// Appends `name: number` CRLF.
pub(crate) fn write_number(out: &mut Vec<u8>, name: &str, number: u64) {
    write_field(out, name, itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_what_their_fields_are_written_as(
            lines in prop::collection::vec(
                ("[A-Za-z-]{1,9}", " {0,2}", "[!-~]?[ -~]{0,6}", "[ \t]{0,1}", any::<bool>()), 0..9),
        ) {
            let mut head = String::from("GET / HTTP/1.1\r\n");
            let mut places = Vec::new();
            for (name, before, value, behind, is_kept) in &lines {
                let start = head.len();
                head += name;
                head.push(':');
                head += before;
                let from = head.len();
                head += value;
                places.push((start..start + name.len(), from..head.len(), *is_kept));
                head += behind;
                head += "\r\n";
            }
            let (mut copied, mut written) = (Vec::new(), Vec::new());
            let mut copies = Lines::of(head.as_bytes());
            for (name, value, _) in places.into_iter().filter(|(.., is_kept)| *is_kept) {
                let field = Field { name: &head[name], value: head[value].trim_ascii().as_bytes() };
                copies.push(&mut copied, field);
                write_field(&mut written, field.name, field.value);
            }
            copies.flush(&mut copied);
            prop_assert_eq!(copied, written);
        }

        #[test]
        fn a_name_is_called_what_it_is_called_in_any_case(
            known in "[a-z0-9_-]{1,20}",
            change in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            upper in any::<u32>(),
        ) {
            let mut name: Vec<u8> = known.bytes().enumerate()
                .map(|(at, byte)| if upper >> at & 1 == 1 { byte.to_ascii_uppercase() } else { byte })
                .collect();
            for (at, byte) in change {
                let at = at.index(name.len());
                // Whatever it is changed to, it stays a token.
                name[at] = if line::is_token_byte(byte) { byte } else { name[at] };
            }
            let name = std::str::from_utf8(&name).expect("tokens are ASCII");
            prop_assert_eq!(is_called(name, &known), name.eq_ignore_ascii_case(&known));
        }
    }
}
