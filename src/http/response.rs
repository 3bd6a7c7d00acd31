//! An upstream's response head: found, checked, and laid open. As strict as the request side, since a response that
//! two readers read differently poisons the connection that the next client's answer comes over.
//!
//! Any `Err` from here is one thing to the caller: the upstream's answer cannot be trusted, so 502 and close.

use memchr::memchr;

use super::fields::{self, ConnectionTokens, Field};
use super::framing::Framing;
use super::line::{self, Text};
use super::{Reject, Version};

/// The longest response head.
pub const HEAD_BYTES: usize = 65_536;
/// The most fields in a response head.
pub const FIELD_COUNT: usize = 128;
/// The most options in `Connection` beside `close` and `keep-alive`: each is sought among all fields.
pub const CONNECTION_OPTIONS: u16 = 32;

/// How many fields are made room for at first: hosted models' answers carry about 25.
const USUAL_FIELDS: usize = 32;

const TOO_LARGE: Reject = bad("the upstream's response head is longer than 65536 bytes");
const TOO_MANY_FIELDS: Reject = bad("the upstream's response has more than 128 fields");
const STATUS_LINE: Reject = bad("the upstream's response does not start with an HTTP/1.x status line");
const BARE_LF: Reject =
    bad("a line of the upstream's response head ends in a line feed without a carriage return");
const OPTIONS_TOO_MANY: Reject = bad("Connection in the upstream's response has more than 32 options");

const fn bad(message: &'static str) -> Reject {
    Reject::new(502, "upstream_invalid_response", message)
}

/// How long a response's body is (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// The status or the request's method rules a body out.
    None,
    /// `Content-Length`, 0 included.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// All that comes until the upstream closes.
    Close,
}

/// A response head that passed every check.
#[derive(Clone, Debug)]
pub struct ResponseHead<'b> {
    /// 100 to 999. Below 200 it is an interim head: another one follows, unless it is a 101.
    pub status: u16,
    /// The reason phrase; empty if there was none, or none in UTF-8.
    pub reason: &'b str,
    /// The upstream's version.
    pub version: Version,
    /// All fields in order, those of this hop included.
    pub fields: Vec<Field<'b>>,
    /// How long the body is.
    pub body: ResponseBody,
    /// Whether the connection can carry another request once the body has ended.
    pub keep_alive: bool,
    /// What `Connection` said.
    pub connection: ConnectionTokens,
    /// `Content-Length` as sent: to be told to a HEAD, whose answer has no body.
    pub content_length: Option<u64>,
}

impl<'b> ResponseHead<'b> {
    /// The value of the first field called `name`.
    pub fn field(&self, name: &str) -> Option<&'b [u8]> {
        fields::find(&self.fields, name)
    }

    /// The fields to send to the client.
    pub fn forwarded(&self) -> impl Iterator<Item = Field<'b>> {
        fields::end_to_end(&self.fields, self.connection)
    }
}

/// Finds where the head in `buf` ends. `from` is the length of `buf` at the call before, 0 at first.
pub fn find_head_end(buf: &[u8], from: usize) -> Result<Option<usize>, Reject> {
    // The empty line's first bytes may have been the last ones of the call before.
    let mut at = from.saturating_sub(3);
    let within = &buf[..buf.len().min(HEAD_BYTES)];
    while let Some(i) = within.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let lf = at + i;
        if lf == 0 || within[lf - 1] != b'\r' {
            return Err(BARE_LF);
        }
        if within[lf + 1..].starts_with(b"\r\n") {
            return Ok(Some(lf + 3));
        }
        at = lf + 1;
    }
    if buf.len() > HEAD_BYTES { Err(TOO_LARGE) } else { Ok(None) }
}

/// Reads a complete head, as [`find_head_end`] has measured it. `to_head` says that the request was a HEAD, whose
/// response has no body whatever its fields say.
pub fn parse(head: &[u8], to_head: bool) -> Result<ResponseHead<'_>, Reject> {
    read(head, to_head).map_err(|reject| bad(reject.message))
}

fn read(head: &[u8], to_head: bool) -> Result<ResponseHead<'_>, Reject> {
    let (version, status, reason, mut at) = status_line(head)?;
    let text = Text::new(head);
    let mut list = Vec::with_capacity(USUAL_FIELDS);
    let mut framing = Framing::default();
    let mut connection = ConnectionTokens::default();
    while head.get(at..at + 2) != Some(b"\r\n") {
        let found = line::field(head, at)?;
        if list.len() == FIELD_COUNT {
            return Err(TOO_MANY_FIELDS);
        }
        let name = text.token(at, found.name_end)?;
        let field = Field { name, value: &head[found.value_start..found.value_end] };
        match name.len() {
            10 if field.is("connection") => connection.read(field.value),
            14 if field.is("content-length") => framing.content_length(field.value)?,
            17 if field.is("transfer-encoding") => framing.transfer_encoding(field.value)?,
            _ => {}
        }
        list.push(field);
        at = found.next;
    }
    debug_assert_eq!(at + 2, head.len(), "a head is parsed alone");
    if connection.others > CONNECTION_OPTIONS {
        return Err(OPTIONS_TOO_MANY);
    }
    framing.check(version)?;

    let bodiless = status < 200 || status == 204 || status == 304;
    let body = match (framing.chunked, framing.length) {
        _ if bodiless || to_head => ResponseBody::None,
        (true, _) => ResponseBody::Chunked,
        (false, Some(length)) => ResponseBody::Length(length),
        (false, None) => ResponseBody::Close,
    };
    // RFC 9110, 8.6: neither may be there. Who sends it may well send the body, too.
    let suspect = (status < 200 || status == 204) && (framing.chunked || framing.length.unwrap_or(0) > 0);
    let persistent = !connection.close && (version == Version::Http11 || connection.keep_alive);
    Ok(ResponseHead {
        status,
        reason,
        version,
        fields: list,
        body,
        keep_alive: persistent && body != ResponseBody::Close && !suspect,
        connection,
        content_length: framing.length,
    })
}

/// Reads the status line (RFC 9112, 4). A missing reason is common, and so is the space before it missing with it.
fn status_line(head: &[u8]) -> Result<(Version, u16, &str, usize), Reject> {
    let end = line::text_end(head, 0);
    let next = line::crlf(head, end)?;
    let (version, rest) = head[..end].split_at_checked(9).ok_or(STATUS_LINE)?;
    let version = match version {
        b"HTTP/1.0 " => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9', b' '] => Version::Http11,
        _ => return Err(STATUS_LINE),
    };
    let (digits, reason) = rest.split_at_checked(3).ok_or(STATUS_LINE)?;
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return Err(STATUS_LINE);
    }
    let status = digits.iter().fold(0, |n, &b| n * 10 + u16::from(b - b'0'));
    let reason = match reason {
        [] => "",
        [b' ', reason @ ..] => std::str::from_utf8(reason).unwrap_or(""),
        _ => return Err(STATUS_LINE),
    };
    Ok((version, status, reason, next))
}
