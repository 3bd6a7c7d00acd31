//! Writing events. What is written here parses to the same event in every client: fields that cannot carry their value
//! are refused, never mended, for a line break inside an id would be a way to forge fields.

use std::fmt;
use std::io::Write;

use memchr::{memchr2, memchr3};

/// One comment line, and *no* blank line after it.
///
/// A blank line would end a block, and some clients take any block for an event: openai-python, once it has seen an
/// `id`, parses even one without data as JSON and fails.
pub const HEARTBEAT: &[u8] = b":\n";

/// A field's value that no line of an event stream can carry. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field: `event` or `id`.
    pub(crate) field: &'static str,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an event's `{}` cannot hold a line break or NUL: remove it, or put it into the data",
            self.field
        )
    }
}

impl std::error::Error for FieldError {}

/// Appends one whole event, blank line included. `data` becomes one `data` field for each of its lines, whether they
/// end with CRLF, LF or CR; a client joins them with LF.
///
/// `retry` goes into the same block as the data and not into one of its own, which some clients take for an event.
///
/// # Errors
///
/// If `event` or `id` contains CR, LF or NUL (a client ignores an id with NUL, WHATWG HTML 9.2.6). `out` is untouched then.
pub fn write_event(
    out: &mut Vec<u8>,
    event: Option<&str>,
    id: Option<&str>,
    retry_ms: Option<u32>,
    data: &[u8],
) -> Result<(), FieldError> {
    for (field, value) in [("event", event), ("id", id)] {
        if value.is_some_and(|value| memchr3(b'\r', b'\n', 0, value.as_bytes()).is_some()) {
            return Err(FieldError { field });
        }
    }
    if let Some(retry_ms) = retry_ms {
        // Writing into a Vec cannot fail.
        let _ = writeln!(out, "retry: {retry_ms}");
    }
    for (field, value) in [("event", event), ("id", id)] {
        if let Some(value) = value {
            write_line(out, field.as_bytes(), value.as_bytes());
        }
    }
    let mut rest = data;
    while let Some(end) = memchr2(b'\r', b'\n', rest) {
        write_line(out, b"data", &rest[..end]);
        let crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(crlf)..];
    }
    write_line(out, b"data", rest);
    out.push(b'\n');
    Ok(())
}

/// The space after the colon is always there: a client strips exactly one, so values that begin with a space survive.
fn write_line(out: &mut Vec<u8>, field: &[u8], value: &[u8]) {
    out.extend_from_slice(field);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.push(b'\n');
}
