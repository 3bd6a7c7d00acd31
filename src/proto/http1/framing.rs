//! How long a body is, as its head says: `Content-Length` and `Transfer-Encoding` (RFC 9112, 6).
//!
//! A message that gives two answers, or one that two readers might read differently, is refused, although the RFC
//! would let it be repaired: request smuggling lives on such repairs.

use super::fields::elements;
use super::{Reject, Version, line};

const BOTH: Reject = Reject::bad("the message has both Content-Length and Transfer-Encoding");
const LENGTH_REPEATED: Reject = Reject::bad("the message has more than one Content-Length");
const LENGTH_INVALID: Reject = Reject::bad("Content-Length is not a decimal number below 2^63");
const CODING_REPEATED: Reject = Reject::bad("the message has more than one Transfer-Encoding");
const CODING_INVALID: Reject = Reject::bad("Transfer-Encoding is not exactly `chunked`");
const CODING_IN_HTTP10: Reject = Reject::bad("Transfer-Encoding does not exist in HTTP/1.0");
const CODING_UNKNOWN: Reject =
    Reject::new(501, "not_implemented", "the only transfer coding understood here is `chunked`");

/// The framing fields of a head as they are come across.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framing {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
}

impl Framing {
    pub(crate) fn content_length(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.length.is_some() {
            return Err(LENGTH_REPEATED);
        }
        if value.is_empty() {
            return Err(LENGTH_INVALID);
        }
        let mut length: u64 = 0;
        for &b in value {
            if !b.is_ascii_digit() {
                return Err(LENGTH_INVALID);
            }
            let longer = length.checked_mul(10).and_then(|n| n.checked_add(u64::from(b - b'0')));
            length = longer.filter(|&n| n < 1 << 63).ok_or(LENGTH_INVALID)?;
        }
        self.length = Some(length);
        Ok(())
    }

    pub(crate) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.chunked {
            return Err(CODING_REPEATED);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(if is_other_coding_then_chunked(value) { CODING_UNKNOWN } else { CODING_INVALID });
        }
        self.chunked = true;
        Ok(())
    }

    /// To be asked when all fields were seen.
    pub(crate) fn check(&self, version: Version) -> Result<(), Reject> {
        match (self.chunked, self.length, version) {
            (true, Some(_), _) => Err(BOTH),
            (true, None, Version::Http10) => Err(CODING_IN_HTTP10),
            _ => Ok(()),
        }
    }
}

/// Whether the codings are well-formed with `chunked` once and last: understood, but not done here.
fn is_other_coding_then_chunked(value: &[u8]) -> bool {
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let plain = |coding: &[u8]| !coding.is_empty() && coding.iter().all(|&b| line::is_token_byte(b));
    elements(value).all(plain)
        && elements(value).last().is_some_and(chunked)
        && elements(value).filter(|coding| chunked(coding)).count() == 1
}
