//! A second reader of chunked bodies: the grammar of RFC 9112, 7.1 line by line over a complete buffer, written for
//! obviousness and without knowledge of the decoder it is compared with. Also used by the fuzz targets.

/// What a buffer is.
#[derive(Debug)]
pub(crate) enum Reading {
    /// A complete body: payload, and where it ends.
    Ended(Vec<u8>, usize),
    /// The start of one, as far as its complete lines tell.
    Incomplete,
    /// Not a chunked body.
    Malformed,
}

/// Reads a chunked body from the start of `bytes`. Knows no bounds on extensions and trailers.
pub(crate) fn read(bytes: &[u8]) -> Reading {
    let mut payload = Vec::new();
    let mut rest = bytes;
    loop {
        let Some((line, after)) = split_line(rest) else { return Reading::Incomplete };
        let Some(size) = size_of_line(line) else { return Reading::Malformed };
        rest = after;
        if size == 0 {
            break;
        }
        if rest.len() < size + 2 {
            let spoilt = rest.len() > size && rest[size] != b'\r';
            return if spoilt { Reading::Malformed } else { Reading::Incomplete };
        }
        if &rest[size..size + 2] != b"\r\n" {
            return Reading::Malformed;
        }
        payload.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
    loop {
        let Some((line, after)) = split_line(rest) else { return Reading::Incomplete };
        rest = after;
        match line {
            b"\r" => return Reading::Ended(payload, bytes.len() - rest.len()),
            line if is_trailer(line) => {}
            _ => return Reading::Malformed,
        }
    }
}

/// A line up to its LF, its CR still there.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let lf = bytes.iter().position(|&b| b == b'\n')?;
    Some((&bytes[..lf], &bytes[lf + 1..]))
}

fn size_of_line(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\r")?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, mut extensions) = line.split_at(digits);
    if digits > 16 {
        return None;
    }
    while !extensions.is_empty() {
        extensions = extension(extensions)?;
    }
    let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
    (size < 1 << 60).then_some(size as usize)
}

/// What follows one `BWS ";" BWS name [ BWS "=" BWS value ]`.
fn extension(text: &[u8]) -> Option<&[u8]> {
    let text = token(skip_space(skip_space(text).strip_prefix(b";")?))?;
    match skip_space(text).strip_prefix(b"=") {
        None => Some(text),
        Some(value) => match skip_space(value).strip_prefix(b"\"") {
            None => token(skip_space(value)),
            Some(quoted) => after_quote(quoted),
        },
    }
}

fn skip_space(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count()..]
}

fn token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|&&b| is_token_byte(b)).count();
    (length > 0).then(|| &text[length..])
}

fn after_quote(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', escaped, rest @ ..] if is_text(*escaped) => rest,
            [b'\\', ..] => return None,
            [plain, rest @ ..] if is_text(*plain) => rest,
            _ => return None,
        };
    }
}

fn is_trailer(line: &[u8]) -> bool {
    let Some(line) = line.strip_suffix(b"\r") else { return false };
    let Some(colon) = line.iter().position(|&b| b == b':') else { return false };
    token(&line[..colon]).is_some_and(<[u8]>::is_empty) && line[colon..].iter().all(|&b| is_text(b))
}

fn is_text(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
