//! A client's request head: found, checked, and laid open for the rest of the house.
//!
//! [`HeadScanner`] says where a head ends; [`parse`] reads a complete one. What `parse` returns can be sent on: one
//! Host at most, one framing at most, no byte that any reader takes for the end of a line.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::fields::{self, ConnectionTokens, Field};
use super::framing::Framing;
pub use super::scan::HeadScanner;
use super::{Reject, Version, line, target};

/// The longest request line, without its CRLF.
pub(crate) const REQUEST_LINE_BYTES: usize = 8192;
/// The longest method; the longest registered one has 17.
pub(crate) const METHOD_BYTES: usize = 32;
/// The longest field line, without its CRLF.
pub(crate) const FIELD_LINE_BYTES: usize = 8190;
/// The longest field section, from the first field to the closing empty line.
pub(crate) const FIELD_SECTION_BYTES: usize = 32_768;
/// The most fields in a head.
pub const FIELD_COUNT: usize = 100;
/// The most options in `Connection` beside `close` and `keep-alive`: each is sought among all fields.
pub(crate) const CONNECTION_OPTIONS: u16 = 32;
/// What lets a client go on that waits before it sends its body (RFC 9110, 10.1.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

pub(crate) const TARGET_TOO_LONG: Reject =
    Reject::new(414, "uri_too_long", "the request line is longer than 8192 bytes");
pub(crate) const FIELDS_TOO_LARGE: Reject = Reject::new(
    431,
    "headers_too_large",
    "a field line is longer than 8190 bytes, or all together than 32768",
);
pub(crate) const TOO_MANY_FIELDS: Reject =
    Reject::new(431, "headers_too_large", "the request has more than 100 fields");
pub(crate) const METHOD_TOO_LONG: Reject =
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
    pub target: Cow<'b, str>,
    /// The sender's version.
    pub version: Version,
    /// The value of `Host`; none only in HTTP/1.0.
    pub(crate) host: Option<&'b [u8]>,
    /// The value of `Origin`: the site of the page that sent the request.
    pub(crate) origin: Option<&'b [u8]>,
    /// The value of `Sec-Fetch-Site`: how that site is related to this one.
    pub(crate) fetch_site: Option<&'b [u8]>,
    /// All fields in order, those of this hop included.
    pub fields: Vec<Field<'b>>,
    /// The bytes they stand in.
    pub(crate) bytes: &'b [u8],
    /// How long the body is.
    pub body: RequestBody,
    /// Whether the sender means to send another request after this one (RFC 9112, 9.3).
    pub keep_alive: bool,
    /// Whether the sender waits for a 100 before it sends the body (RFC 9110, 10.1.1).
    pub(crate) expect_continue: bool,
    /// What `Connection` said.
    pub(crate) connection: ConnectionTokens,
}

impl<'b> RequestHead<'b> {
    /// The value of the first field called `name`.
    pub(crate) fn field(&self, name: &str) -> Option<&'b [u8]> {
        fields::find(&self.fields, name)
    }

    /// The fields to send to an upstream: the end-to-end ones without Host, which names the upstream there.
    pub fn forwarded(&self) -> impl Iterator<Item = Field<'b>> {
        fields::end_to_end(&self.fields, self.connection).filter(|field| !field.is("host"))
    }
}

/// Reads a complete head, as [`HeadScanner::scan`] has measured it. httparse splits it; what httparse lets pass and RFC 9112
/// leaves to a hardened reader is refused on top.
pub fn parse(head: &[u8]) -> Result<RequestHead<'_>, Reject> {
    let start = if head.starts_with(b"\r\n") { 2 } else { 0 };
    let head = &head[start..];
    let mut storage = [const { MaybeUninit::uninit() }; FIELD_COUNT];
    let mut split = httparse::Request::new(&mut []);
    let status = split.parse_with_uninit_headers(head, &mut storage);
    let (Ok(httparse::Status::Complete(length)), Some(method), Some(target), Some(minor)) =
        (status, split.method, split.path, split.version)
    else {
        return Err(why_refused(head));
    };
    // It ends a head at LF LF, too.
    if length != head.len() {
        return Err(why_refused(head));
    }
    check_lines(head)?;
    if method.len() > METHOD_BYTES {
        return Err(METHOD_TOO_LONG);
    }
    if matches!(method, "CONNECT" | "TRACE") {
        return Err(METHOD);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let target = target::read(method, target)?;

    let mut list = Vec::with_capacity(split.headers.len());
    let mut seen = Seen::default();
    for header in split.headers.iter() {
        let field = Field { name: header.name, value: header.value.trim_ascii() };
        seen.look_at(field)?;
        list.push(field);
    }
    seen.framing.check(version)?;
    check_host(seen.host, version, target.authority)?;
    let body = match (seen.framing.chunked, seen.framing.length) {
        (true, _) => RequestBody::Chunked,
        (false, Some(length)) => RequestBody::Length(length),
        (false, None) => RequestBody::None,
    };
    let connection = seen.connection;
    Ok(RequestHead {
        method,
        target: target.origin,
        version,
        host: seen.host.filter(|host| !host.is_empty()),
        origin: seen.origin,
        fetch_site: seen.fetch_site,
        fields: list,
        bytes: head,
        body,
        keep_alive: !connection.close && (version == Version::Http11 || connection.keep_alive),
        expect_continue: seen.expect_continue
            && version == Version::Http11
            && !matches!(body, RequestBody::None | RequestBody::Length(0)),
        connection,
    })
}

/// What httparse does not look at: that every line ends in CRLF, and how long the lines are. A head with a second empty line
/// before it, which httparse skips, has none here.
fn check_lines(head: &[u8]) -> Result<(), Reject> {
    // No line of a short head is too long, so that all there is to see is a line feed by itself: looked for without a way out of
    // the middle, it is a few vector instructions for 16 bytes.
    let pairs = head.iter().zip(&head[1..]);
    let bare = pairs.fold(0, |bare, (before, byte)| bare | u8::from((*byte == b'\n') & (*before != b'\r')));
    if head.len() <= FIELD_LINE_BYTES && bare == 0 && !matches!(head[0], b'\r' | b'\n') {
        return Ok(());
    }
    let mut start = 0;
    let mut section = None;
    for end in memchr::memchr_iter(b'\n', head) {
        let length = end.saturating_sub(start + 1);
        if end == start || head[end - 1] != b'\r' {
            return Err(line::BARE_LF);
        }
        match section {
            None if length == 0 => return Err(REQUEST_LINE),
            None if length > REQUEST_LINE_BYTES => return Err(TARGET_TOO_LONG),
            None => section = Some(end + 1),
            Some(_) if length > FIELD_LINE_BYTES => return Err(FIELDS_TOO_LARGE),
            Some(_) => {}
        }
        start = end + 1;
    }
    match section {
        Some(section) if start - section <= FIELD_SECTION_BYTES => Ok(()),
        Some(_) => Err(FIELDS_TOO_LARGE),
        None => Err(REQUEST_LINE),
    }
}

/// Why httparse refused a head, in words: the grammar that checks heads line by line as they arrive knows.
#[cold]
fn why_refused(head: &[u8]) -> Reject {
    let mut at = match request_line(head, 0) {
        Ok(next) => next,
        Err(reject) => return reject,
    };
    for _ in 0..=FIELD_COUNT {
        if head.get(at..at + 2) == Some(b"\r\n") {
            // Nothing is wrong with its lines, so it is the version: httparse knows no minor one above 1.
            return VERSION;
        }
        match line::field(head, at) {
            Ok(next) => at = next,
            Err(reject) => return reject,
        }
    }
    TOO_MANY_FIELDS
}

/// What the fields say about the request itself, gathered as they pass.
#[derive(Default)]
struct Seen<'b> {
    framing: Framing,
    host: Option<&'b [u8]>,
    origin: Option<&'b [u8]>,
    fetch_site: Option<&'b [u8]>,
    connection: ConnectionTokens,
    expect_continue: bool,
}

impl<'b> Seen<'b> {
    /// The length tells most names apart, so few are compared.
    #[inline]
    fn look_at(&mut self, field: Field<'b>) -> Result<(), Reject> {
        match field.name.len() {
            4 if field.is("host") => self.host(field.value)?,
            6 if field.is("expect") => {
                if self.expect_continue || !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(EXPECTATION);
                }
                self.expect_continue = true;
            }
            6 if field.is("origin") => self.origin = Some(field.value),
            10 if field.is("connection") => {
                self.connection.read(field.value);
                if self.connection.others > CONNECTION_OPTIONS {
                    return Err(OPTIONS_TOO_MANY);
                }
            }
            14 if field.is("content-length") => self.framing.content_length(field.value)?,
            17 if field.is("transfer-encoding") => self.framing.transfer_encoding(field.value)?,
            14 if field.is("sec-fetch-site") => self.fetch_site = Some(field.value),
            14 if field.is("content_length") => return Err(LOOK_ALIKE),
            17 if field.is("transfer_encoding") => return Err(LOOK_ALIKE),
            _ => {}
        }
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

/// Checks the request line at `at` (RFC 9112, 3): single spaces, a token for a method, CRLF. Returns where the next line starts.
pub(crate) fn request_line(buf: &[u8], at: usize) -> Result<usize, Reject> {
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
    request_version(version)?;
    Ok(next)
}

fn request_version(version: &[u8]) -> Result<(), Reject> {
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(VERSION),
        _ => Err(REQUEST_LINE),
    }
}
