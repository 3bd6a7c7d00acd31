//! An upstream's response head: found, checked, and laid open. As strict as the request side, since a response that
//! two readers read differently poisons the connection that the next client's answer comes over.
//!
//! Any `Err` from here is one thing to the caller: the upstream's answer cannot be trusted, so 502 and close.

use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::ParserConfig;
use memchr::memchr;

use super::fields::{self, ConnectionTokens, Field};
use super::framing::Framing;
use super::{Reject, Version, line};

/// The longest response head.
pub(crate) const HEAD_BYTES: usize = 65_536;
/// The most fields in a response head.
pub const FIELD_COUNT: usize = 128;
/// The most options in `Connection` beside `close` and `keep-alive`: each is sought among all fields.
pub(crate) const CONNECTION_OPTIONS: u16 = 32;

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
    /// The bytes they stand in.
    pub(crate) bytes: &'b [u8],
    /// How long the body is.
    pub body: ResponseBody,
    /// Whether the connection can carry another request once the body has ended.
    pub(crate) keep_alive: bool,
    /// What `Connection` said.
    pub(crate) connection: ConnectionTokens,
    /// `Content-Length` as sent: to be told to a HEAD, whose answer has no body.
    pub(crate) content_length: Option<u64>,
}

impl<'b> ResponseHead<'b> {
    /// The value of the first field called `name`.
    pub(crate) fn field(&self, name: &str) -> Option<&'b [u8]> {
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

/// A head that passed every check, apart from the bytes it stands in: those go their way, and are handed in again when its
/// fields are of use. It is checked once, however often it is looked at.
#[derive(Clone, Debug)]
pub struct CheckedHead {
    /// 100 to 999.
    pub(crate) status: u16,
    version: Version,
    body: ResponseBody,
    keep_alive: bool,
    connection: ConnectionTokens,
    content_length: Option<u64>,
    reason: Place,
    /// Where names and values stand.
    fields: Vec<(Place, Place)>,
}

/// A place in a head, of which [`HEAD_BYTES`] is the longest.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    start: u32,
    end: u32,
}

impl Place {
    /// Where `part` stands in `head`, which it is cut out of.
    fn of(part: &[u8], head: &[u8]) -> Place {
        let start = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
        debug_assert!(part.is_empty() || start + part.len() <= head.len(), "it is no part of the head");
        Place { start: start as u32, end: (start + part.len()) as u32 }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl CheckedHead {
    /// The head, laid open. `head` are the bytes that were checked.
    pub fn over<'b>(&self, head: &'b [u8]) -> ResponseHead<'b> {
        // Nearly always all of it is text; what is not has values that are not, since names are tokens.
        let whole = str::from_utf8(head);
        let text = |place: Place| match whole {
            Ok(whole) => whole.get(place.range()).unwrap_or_default(),
            Err(_) => str::from_utf8(&head[place.range()]).unwrap_or_default(),
        };
        let field = |&(name, value): &(Place, Place)| Field { name: text(name), value: &head[value.range()] };
        ResponseHead {
            status: self.status,
            reason: text(self.reason),
            version: self.version,
            fields: self.fields.iter().map(field).collect(),
            bytes: head,
            body: self.body,
            keep_alive: self.keep_alive,
            connection: self.connection,
            content_length: self.content_length,
        }
    }
}

/// Reads a complete head, as [`find_head_end`] has measured it. `to_head` says that the request was a HEAD, whose
/// response has no body whatever its fields say.
pub fn parse(head: &[u8], to_head: bool) -> Result<ResponseHead<'_>, Reject> {
    check(head, to_head).map(|checked| checked.over(head))
}

/// The same, for a head whose bytes have a way to go before it is read.
pub(crate) fn check(head: &[u8], to_head: bool) -> Result<CheckedHead, Reject> {
    read(head, to_head).map_err(|reject| bad(reject.message))
}

fn read(head: &[u8], to_head: bool) -> Result<CheckedHead, Reject> {
    let mut storage = [const { MaybeUninit::uninit() }; FIELD_COUNT];
    let mut split = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut split, head, &mut storage);
    let (Ok(httparse::Status::Complete(length)), Some(status), Some(minor)) =
        (parsed, split.code, split.version)
    else {
        return Err(why_refused(head));
    };
    // httparse skips empty lines before the status line, and takes codes below 100.
    if !head.starts_with(b"HTTP/") || status < 100 || length != head.len() {
        return Err(STATUS_LINE);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let reason = split.reason.filter(|reason| !reason.is_empty());
    let reason = reason.map_or(Place::default(), |reason| Place::of(reason.as_bytes(), head));
    let mut list = Vec::with_capacity(split.headers.len());
    let mut framing = Framing::default();
    let mut connection = ConnectionTokens::default();
    for header in split.headers.iter() {
        let field = Field { name: header.name, value: header.value.trim_ascii() };
        match field.name.len() {
            10 if field.is("connection") => connection.read(field.value),
            14 if field.is("content-length") => framing.content_length(field.value)?,
            17 if field.is("transfer-encoding") => framing.transfer_encoding(field.value)?,
            _ => {}
        }
        list.push((Place::of(field.name.as_bytes(), head), Place::of(field.value, head)));
    }
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
    Ok(CheckedHead {
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

/// Why httparse refused a head, in words.
#[cold]
fn why_refused(head: &[u8]) -> Reject {
    let mut at = match memchr(b'\n', head) {
        Some(lf) => lf + 1,
        None => return STATUS_LINE,
    };
    for _ in 0..=FIELD_COUNT {
        if head.get(at..at + 2) == Some(b"\r\n") {
            return STATUS_LINE;
        }
        match line::field(head, at) {
            Ok(next) => at = next,
            Err(reject) => return reject,
        }
    }
    TOO_MANY_FIELDS
}
