//! The one spelling of a request's path. It decides what a request is (relayed or not, which route, which endpoint), and it is what
//! the upstream receives: a path that two readers could take for two places would lead around a route's `paths`, or out of `/v1/`
//! with the upstream's key.
//!
//! | in the path | what becomes of it |
//! | --- | --- |
//! | a percent-encoded letter, digit, `-`, `.`, `_`, `~`, `:` or `@` | decoded: it means the same (RFC 3986, 6.2.2.2) |
//! | an empty segment (`//`) | removed, as most servers do |
//! | a segment `.` or `..`, plain, encoded, or with parameters (`..;x`) | 400 |
//! | `\` | 400: some servers take it for `/`, others do not |
//! | `%2F`, `%5C` | likewise 400 where the path of a relayed request decides something: a route's `paths`, a key's rights, a limit. Elsewhere they pass as they are, as they may in the names of streams and models |
//! | a `%` without two hexadecimal digits | 400 |
//!
//! The query stays as it came. So does the name of a stream, which no upstream sees and which is decoded once, here: addresses are
//! signed as they are written.

use crate::proto::http1::Reject;

const DOT_SEGMENT: Reject =
    bad("the path has a segment `.` or `..`, plain or percent-encoded; send the path that it leads to");
const SEPARATOR: Reject = bad(
    "the path has a backslash or an encoded slash (%2F, %5C), which not every server reads as the same path",
);
const ESCAPE: Reject =
    bad("the path has a `%` without two hexadecimal digits after it; a `%` itself is written %25");

/// Names with slashes in them stand behind these: of streams, which are read here, and of models, which SDKs encode whole.
const NAMES: [&str; 2] = [STREAMS, "/v1/models/"];

/// Below it requests are relayed; an encoded slash up to here would lead around that.
const RELAYED: &str = "/v1/";

/// From here on a path is the name of a stream.
const STREAMS: &str = "/v1/stream/";

const fn bad(message: &'static str) -> Reject {
    Reject { status: 400, code: "invalid_request", message }
}

/// The canonical form of a request target, if it differs from `target`. An encoded slash is refused where something is decided by the
/// path of a relayed request, which is asked for only where there is one.
///
/// # Errors
/// If the path could be read in two ways.
pub(crate) fn canonical(target: &str, decides: impl FnOnce() -> bool) -> Result<Option<String>, Reject> {
    if matches!(target, "/v1/chat/completions" | "/v1/responses" | "/v1/messages" | "/v1/embeddings") {
        // Nearly every request, for one comparison.
        return Ok(None);
    }
    let path = &target.as_bytes()[..memchr::memchr(b'?', target.as_bytes()).unwrap_or(target.len())];
    // Few paths have any of this: looked for without a way out of the middle, as in a head's lines.
    let odd = path.iter().fold(0, |odd, &byte| odd | u8::from((byte == b'%') | (byte == b'\\')));
    let pairs = path.iter().zip(path.get(1..).unwrap_or_default());
    let odd = pairs
        .fold(odd, |odd, (&one, &next)| odd | u8::from((one == b'/') & ((next == b'/') | (next == b'.'))));
    if odd == 0 { Ok(None) } else { rewrite(target, path.len(), decides) }
}

#[cold]
fn rewrite(
    target: &str,
    path_bytes: usize,
    decides: impl FnOnce() -> bool,
) -> Result<Option<String>, Reject> {
    let (path, query) = target.split_at(path_bytes);
    let mut out = String::with_capacity(target.len());
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let is_name = out.starts_with(STREAMS);
        let length = match first {
            '\\' => return Err(SEPARATOR),
            '%' => {
                let escaped = rest.get(1..3).and_then(byte).ok_or(ESCAPE)?;
                match char::from(escaped) {
                    plain if is_plain(escaped) && !is_name => out.push(plain),
                    _ => out.push_str(&rest[..3]),
                }
                3
            }
            '/' if out.ends_with('/') && !is_name => 1,
            other => {
                out.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    check(&out, decides)?;
    out.push_str(query);
    Ok((out != target).then_some(out))
}

/// Whether no segment of a path leads elsewhere.
fn check(path: &str, decides: impl FnOnce() -> bool) -> Result<(), Reject> {
    // Both digits as one case, so that they can be sought.
    let read = path.to_ascii_lowercase().replace("%5c", "%2f");
    let plain = read.replace("%2f", "/").replace("%2e", ".").replace("%3b", ";");
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if plain.split('/').any(is_dots) {
        return Err(DOT_SEGMENT);
    }
    let is_odd = read.contains("%2f") && !NAMES.iter().any(|names| path.starts_with(names));
    if is_odd && (!path.starts_with(RELAYED) || decides()) { Err(SEPARATOR) } else { Ok(()) }
}

/// The byte that two hexadecimal digits stand for.
fn byte(digits: &str) -> Option<u8> {
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

/// Whether a byte means the same with and without its escape in a path: those that nothing reserves, and two that segments may hold.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(target: &str) -> Result<String, Reject> {
        Ok(canonical(target, || true)?.unwrap_or_else(|| target.to_owned()))
    }

    #[test]
    fn a_plain_path_is_left_as_it_is() {
        for path in [
            "/",
            "*",
            "/v1",
            "/v1/chat/completions?x=%2e%2e/../..//\\%zz",
            "/v1beta/models/gemini-1.5-pro:generateContent",
            "/v1/files/a.b..c",
            "/v1/x%20y%00%c3%a9%3F",
            "/v1/models/meta%2FLlama",
            "/v1/stream/a//b%2Fc%7e%3A",
        ] {
            assert_eq!(canonical(path, || true), Ok(None), "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_passes_where_nothing_is_decided_by_the_path() {
        for path in ["/v1/files/a%2Fb/c?x", "/v1/a%5Cb"] {
            assert_eq!(
                (canonical(path, || false), canonical(path, || true)),
                (Ok(None), Err(SEPARATOR)),
                "{path}"
            );
        }
        for path in ["/v1%2Ffiles", "/x%2Fy"] {
            assert_eq!(canonical(path, || false), Err(SEPARATOR), "{path}");
        }
        assert_eq!(canonical("/v1/files/..%2F..", || false), Err(DOT_SEGMENT));
    }

    #[test]
    fn what_means_the_same_is_written_the_same() {
        for (path, canonical) in [
            ("/v1/%63hat/completion%73?a=%63", "/v1/chat/completions?a=%63"),
            ("/%76%31/models", "/v1/models"),
            ("//v1///chat//completions/", "/v1/chat/completions/"),
            ("/v1//stream//a", "/v1/stream//a"),
            ("/v1/models/M%3agenerateContent", "/v1/models/M:generateContent"),
            ("/v1/a%7Eb%2D", "/v1/a~b-"),
        ] {
            assert_eq!(read(path).as_deref(), Ok(canonical), "{path}");
        }
    }

    #[test]
    fn no_path_leads_out_of_itself() {
        for path in [
            "/v1/embeddings/../../internal/x",
            "/v1/embeddings/%2e%2e/%2E%2e/internal/x",
            "/v1/.%2e/x",
            "/v1/./chat",
            "/..",
            "/v1/..",
            "/v1/..;/x",
            "/v1/..%3Ba=b/x",
            "/v1/models/a%2f..%2f..%2Finternal",
            "/v1/models/%5c..%5C..",
            "/v1/stream/a/%2e",
            "//../x",
        ] {
            assert_eq!(read(path), Err(DOT_SEGMENT), "{path}");
        }
        for path in ["/v1/chat%2fcompletions", "/v1%2Fchat", "/v1/a%5Cb", "/v1\\..\\x", "/v1/stream/a\\b"] {
            assert_eq!(read(path), Err(SEPARATOR), "{path}");
        }
        for path in ["/v1/%", "/v1/%2", "/v1/%zz", "/v1/%+1"] {
            assert_eq!(read(path), Err(ESCAPE), "{path}");
        }
    }

    proptest! {
        /// However an upstream reads what it is sent, decoding once or not at all, it ends where the path says.
        #[test]
        fn a_canonical_path_is_its_own_and_stays_below_its_start(
            path in "/(v1|v1/models|v1/stream|x)?(/|%2[eEfF]|%5c|\\.|\\.\\.|;|a|%61|%7E|\\\\){0,8}",
        ) {
            let Ok(path) = read(&path) else { return Ok(()) };
            prop_assert_eq!(canonical(&path, || true), Ok(None));
            let decoded = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().replace('\\', "/");
            prop_assert!(!decoded.split('/').any(|part| part == "." || part == ".."), "{}", path);
        }
    }
}
