//! A client's request head: found, checked, and laid open for the rest of the house.
//!
//! [`HeadScanner`] says where a head ends; [`parse`] reads a complete one. What `parse` returns can be sent on: one
//! Host at most, one framing at most, no byte that any reader takes for the end of a line.

use super::fields::{self, ConnectionTokens, Field};
use super::framing::Framing;
use super::line::{self, Text};
use super::{Reject, Version, target};

pub use super::scan::HeadScanner;

/// The longest request line, without its CRLF.
pub const REQUEST_LINE_BYTES: usize = 8192;
/// The longest method; the longest registered one has 17.
pub const METHOD_BYTES: usize = 32;
/// The longest field line, without its CRLF.
pub const FIELD_LINE_BYTES: usize = 8190;
/// The longest field section, from the first field to the closing empty line.
pub const FIELD_SECTION_BYTES: usize = 32_768;
/// The most fields in a head.
pub const FIELD_COUNT: usize = 100;
/// The most options in `Connection` beside `close` and `keep-alive`: each is sought among all fields.
pub const CONNECTION_OPTIONS: u16 = 32;

/// How many fields are made room for at first: an SDK sends about 17, a browser about 20.
const USUAL_FIELDS: usize = 24;

pub(super) const TARGET_TOO_LONG: Reject =
    Reject::new(414, "uri_too_long", "the request line is longer than 8192 bytes");
pub(super) const FIELDS_TOO_LARGE: Reject = Reject::new(
    431,
    "headers_too_large",
    "a field line is longer than 8190 bytes, or all together than 32768",
);
pub(super) const TOO_MANY_FIELDS: Reject =
    Reject::new(431, "headers_too_large", "the request has more than 100 fields");
pub(super) const METHOD_TOO_LONG: Reject =
    Reject::new(501, "not_implemented", "the request's method is longer than 32 bytes");
const REQUEST_LINE: Reject =
    Reject::bad("the request line is not a method, a target and a version with one space between each");
const VERSION: Reject =
    Reject::new(505, "http_version_not_supported", "only HTTP/1.1 and HTTP/1.0 are spoken here");
const METHOD: Reject = Reject::new(405, "method_not_allowed", "CONNECT and TRACE are not served here");
const HOST_REPEATED: Reject = Reject::bad("the request has more than one Host");
const HOST_MISSING: Reject = Reject::bad("the request has no Host, or an empty one");
const HOST_INVALID: Reject = Reject::bad("Host is not a host name or address with an optional port");
const HOST_DIFFERS: Reject = Reject::bad("Host is not the authority of the request target");
const LOOK_ALIKE: Reject =
    Reject::bad("a field is called like Content-Length or Transfer-Encoding but for an underscore");
const EXPECTATION: Reject =
    Reject::new(417, "expectation_failed", "the only expectation met here is `100-continue`");
const OPTIONS_TOO_MANY: Reject = Reject::bad("Connection has more than 32 options");

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// Neither framing field was sent: there is no body.
    None,
    /// `Content-Length`, 0 included.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A request head that passed every check.
#[derive(Clone, Debug)]
pub struct RequestHead<'b> {
    /// Any token but CONNECT and TRACE.
    pub method: &'b str,
    /// Path and query, or `*`: an absolute target is reduced to them.
    pub target: &'b str,
    /// The sender's version.
    pub version: Version,
    /// All fields in order, those of this hop included.
    pub fields: Vec<Field<'b>>,
    /// How long the body is.
    pub body: RequestBody,
    /// Whether the sender means to send another request after this one (RFC 9112, 9.3).
    pub keep_alive: bool,
    /// Whether the sender waits for a 100 before it sends the body (RFC 9110, 10.1.1).
    pub expect_continue: bool,
    /// What `Connection` said.
    pub connection: ConnectionTokens,
}

impl<'b> RequestHead<'b> {
    /// The value of the first field called `name`.
    pub fn field(&self, name: &str) -> Option<&'b [u8]> {
        fields::find(&self.fields, name)
    }

    /// The fields to send to an upstream: the end-to-end ones without Host, which names the upstream there.
    pub fn forwarded(&self) -> impl Iterator<Item = Field<'b>> {
        fields::end_to_end(&self.fields, self.connection).filter(|field| !field.is("host"))
    }
}

/// Reads a complete head, as [`HeadScanner::scan`] has measured it.
pub fn parse(head: &[u8]) -> Result<RequestHead<'_>, Reject> {
    let start = if head.starts_with(b"\r\n") { 2 } else { 0 };
    let line = request_line(head, start)?;
    if matches!(line.method, "CONNECT" | "TRACE") {
        return Err(METHOD);
    }
    let target = target::read(line.method, line.target)?;

    let text = Text::new(head);
    let mut list = Vec::with_capacity(USUAL_FIELDS);
    let mut seen = Seen::default();
    let mut at = line.next;
    loop {
        if let Some([b'\r', b'\n']) = head.get(at..at + 2) {
            at += 2;
            break;
        }
        let field = read_field(head, text, at, line.next)?;
        if list.len() == FIELD_COUNT {
            return Err(TOO_MANY_FIELDS);
        }
        at = field.1;
        seen.look_at(field.0)?;
        list.push(field.0);
    }
    if at - line.next > FIELD_SECTION_BYTES {
        return Err(FIELDS_TOO_LARGE);
    }
    debug_assert_eq!(at, head.len(), "a head is parsed alone");

    seen.framing.check(line.version)?;
    check_host(seen.host, line.version, target.authority)?;
    let body = match (seen.framing.chunked, seen.framing.length) {
        (true, _) => RequestBody::Chunked,
        (false, Some(length)) => RequestBody::Length(length),
        (false, None) => RequestBody::None,
    };
    let connection = seen.connection;
    Ok(RequestHead {
        method: line.method,
        target: target.origin,
        version: line.version,
        fields: list,
        body,
        keep_alive: !connection.close && (line.version == Version::Http11 || connection.keep_alive),
        expect_continue: seen.expect_continue
            && line.version == Version::Http11
            && !matches!(body, RequestBody::None | RequestBody::Length(0)),
        connection,
    })
}

#[inline]
fn read_field<'b>(
    head: &'b [u8],
    text: Text<'b>,
    at: usize,
    section_start: usize,
) -> Result<(Field<'b>, usize), Reject> {
    let found = line::field(head, at)?;
    if found.next - at > FIELD_LINE_BYTES + 2 || found.next - section_start > FIELD_SECTION_BYTES {
        return Err(FIELDS_TOO_LARGE);
    }
    let name = text.token(at, found.name_end)?;
    Ok((Field { name, value: &head[found.value_start..found.value_end] }, found.next))
}

/// What the fields say about the request itself, gathered as they pass.
#[derive(Default)]
struct Seen<'b> {
    framing: Framing,
    host: Option<&'b [u8]>,
    connection: ConnectionTokens,
    expect_continue: bool,
}

impl<'b> Seen<'b> {
    /// Length and first letter tell nearly all names apart, so few are compared.
    #[inline]
    fn look_at(&mut self, field: Field<'b>) -> Result<(), Reject> {
        let Some(first) = field.name.bytes().next() else { return Ok(()) };
        match (field.name.len(), first | 0x20) {
            (4, b'h') if field.is("host") => self.host(field.value)?,
            (6, b'e') if field.is("expect") => self.expect(field.value)?,
            (10, b'c') if field.is("connection") => {
                self.connection.read(field.value);
                if self.connection.others > CONNECTION_OPTIONS {
                    return Err(OPTIONS_TOO_MANY);
                }
            }
            (14, b'c') if field.is("content-length") => self.framing.content_length(field.value)?,
            (17, b't') if field.is("transfer-encoding") => self.framing.transfer_encoding(field.value)?,
            (14, b'c') if field.is("content_length") => return Err(LOOK_ALIKE),
            (17, b't') if field.is("transfer_encoding") => return Err(LOOK_ALIKE),
            _ => {}
        }
        Ok(())
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.expect_continue || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(EXPECTATION);
        }
        self.expect_continue = true;
        Ok(())
    }

    fn host(&mut self, value: &'b [u8]) -> Result<(), Reject> {
        match self.host.replace(value) {
            None => Ok(()),
            Some(_) => Err(HOST_REPEATED),
        }
    }
}

/// Exactly one valid Host (RFC 9112, 3.2), the same as the target's authority if it has one. Only HTTP/1.0 may do
/// without.
fn check_host(host: Option<&[u8]>, version: Version, authority: Option<&str>) -> Result<(), Reject> {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return if version == Version::Http10 { Ok(()) } else { Err(HOST_MISSING) };
    };
    if !target::is_host(host) {
        return Err(HOST_INVALID);
    }
    match authority {
        Some(authority) if !host.eq_ignore_ascii_case(authority.as_bytes()) => Err(HOST_DIFFERS),
        _ => Ok(()),
    }
}

/// The parts of a request line.
pub(super) struct RequestLine<'b> {
    method: &'b str,
    target: &'b str,
    version: Version,
    next: usize,
}

/// Reads the request line at `at` (RFC 9112, 3): single spaces, a token for a method, CRLF.
pub(super) fn request_line(buf: &[u8], at: usize) -> Result<RequestLine<'_>, Reject> {
    let end = line::text_end(buf, at);
    let next = line::crlf(buf, end)?;
    if end - at > REQUEST_LINE_BYTES {
        return Err(TARGET_TOO_LONG);
    }
    let method_end = line::token_end(buf, at);
    if method_end - at > METHOD_BYTES {
        return Err(METHOD_TOO_LONG);
    }
    if method_end == at || buf[method_end] != b' ' {
        return Err(REQUEST_LINE);
    }
    let rest = &buf[method_end + 1..end];
    let Some((target, [b' ', version @ ..])) = rest.split_at_checked(rest.len().saturating_sub(9)) else {
        return Err(REQUEST_LINE);
    };
    if target.is_empty() || memchr::memchr2(b' ', b'\t', target).is_some() {
        return Err(REQUEST_LINE);
    }
    Ok(RequestLine {
        method: std::str::from_utf8(&buf[at..method_end]).map_err(|_| REQUEST_LINE)?,
        target: std::str::from_utf8(target).map_err(|_| target::TARGET_BYTES)?,
        version: request_version(version)?,
        next,
    })
}

fn request_version(version: &[u8]) -> Result<Version, Reject> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(VERSION),
        _ => Err(REQUEST_LINE),
    }
}
