//! Where a request is directed: its target and its Host (RFC 9112, 3.2).

use std::borrow::Cow;

use super::Reject;

pub(crate) const TARGET_BYTES: Reject =
    Reject::bad("the request target contains a control, non-ASCII or `#` character; percent-encode it");
const TARGET_FORM: Reject =
    Reject::bad("the request target is neither a path, nor an http or https URL, nor `*` with OPTIONS");
const USERINFO: Reject =
    Reject::bad("the request target contains user information; send an Authorization field");
const AUTHORITY: Reject = Reject::bad("the request target's authority is not a valid host");

/// A request target, reduced to what an origin server is sent.
pub(crate) struct Target<'b> {
    /// Path and query, or `*`.
    pub(crate) origin: Cow<'b, str>,
    /// The authority, if the target was in absolute form.
    pub(crate) authority: Option<&'b str>,
}

/// Reads a request target: origin form, absolute form of http or https, or `*` with OPTIONS. CONNECT, whose target is
/// an authority, is not for here.
pub(crate) fn read<'b>(method: &str, target: &'b str) -> Result<Target<'b>, Reject> {
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(TARGET_BYTES);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(Target { origin: target.into(), authority: None });
    }
    absolute(target)
}

#[cold]
fn absolute(target: &str) -> Result<Target<'_>, Reject> {
    let (scheme, rest) = target.split_once("://").ok_or(TARGET_FORM)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(TARGET_FORM);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(USERINFO);
    }
    if !is_host(authority.as_bytes()) {
        return Err(AUTHORITY);
    }
    // Without a path the query follows the authority; the path is `/` then (RFC 9110, 4.2.3).
    let origin = match path.starts_with('/') {
        true => path.into(),
        false => format!("/{path}").into(),
    };
    Ok(Target { origin, authority: Some(authority) })
}

/// Whether `value` is `uri-host [":" port]` with a host in it, as http has it (RFC 9110, 4.2.1 and 7.2; RFC 3986, 3.2.2). A comma, which RFC 3986
/// allows in a name, is not taken: it is what two joined Host fields look like.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let (host, port) = if value.first() == Some(&b'[') {
        let Some(end) = value.iter().position(|&b| b == b']') else { return false };
        let (literal, port) = value.split_at(end + 1);
        (is_ip_literal(&literal[1..end]), port)
    } else {
        let end = value.iter().position(|&b| b == b':').unwrap_or(value.len());
        let (name, port) = value.split_at(end);
        (!name.is_empty() && is_reg_name(name), port)
    };
    host && match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn is_reg_name(mut name: &[u8]) -> bool {
    while let Some((&b, rest)) = name.split_first() {
        name = match (b, rest) {
            (b'%', [high, low, rest @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            _ if NAME_BYTES[usize::from(b)] => rest,
            _ => return false,
        };
    }
    true
}

fn is_ip_literal(literal: &[u8]) -> bool {
    match literal {
        [b'v' | b'V', future @ ..] => {
            let Some(dot) = future.iter().position(|&b| b == b'.') else { return false };
            let (version, address) = (&future[..dot], &future[dot + 1..]);
            !version.is_empty()
                && version.iter().all(u8::is_ascii_hexdigit)
                && !address.is_empty()
                && address.iter().all(|&b| b == b':' || is_name_byte(b))
        }
        address => {
            !address.is_empty() && address.iter().all(|&b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        }
    }
}

/// [`is_name_byte`] of each byte: a host is looked through with every request.
static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_name_byte(byte as u8);
        byte += 1;
    }
    table
};

const fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
        )
}
