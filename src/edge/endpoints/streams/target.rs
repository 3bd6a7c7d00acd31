//! What a request for streams asks for: the name in its path, and the parameters of its query.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::streams::NAME_BYTES_MAX;
use crate::subscriptions::RESERVED;

/// Where streams are.
pub(crate) const ROOT: &str = "/v1/stream";

/// Where answers of the Responses API are asked for again.
pub(crate) const ANSWERS: &str = "/v1/responses/";

/// The most streams that one connection may follow: each is looked at whenever one of them has something new.
pub(crate) const NAMES_MAX: usize = 64;

/// Whether a path is one of theirs.
pub(crate) fn is_of_streams(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The name that a path leads to.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn name(path: &str) -> Result<String, &'static str> {
    let encoded = path.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    let name = percent_decode_str(encoded).decode_utf8().map_err(|_| "A stream's name is UTF-8.")?;
    checked(name.into_owned())
}

/// A name, if it is one.
fn checked(name: String) -> Result<String, &'static str> {
    match () {
        () if name.is_empty() => Err("The stream's name is missing: /v1/stream/NAME."),
        () if name.len() > NAME_BYTES_MAX => Err("A stream's name has at most 512 bytes."),
        () if name.split('/').next() == Some(RESERVED) => {
            Err("A stream's name does not begin with `__ds`: what is there controls streams.")
        }
        () if name.chars().any(char::is_control) => Err("A stream's name has no control characters."),
        () if name.split('/').any(|part| part == "." || part == "..") => {
            Err("No part of a stream's name is `.` or `..`.")
        }
        () => Ok(name),
    }
}

/// The parameters of a read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// `offset`.
    pub(crate) offset: Option<String>,
    /// `live`.
    pub(crate) live: Option<String>,
    /// `cursor`.
    pub(crate) cursor: Option<String>,
    /// The last event that was seen, in any spelling of `last_event_id` that polyfills have.
    pub(crate) last_event_id: Option<String>,
    /// `wait`: for a stream that is not there yet.
    pub(crate) wait: bool,
    /// `starting_after`: the number of the last event of an answer that was seen.
    pub(crate) starting_after: Option<u64>,
    /// Each `name`.
    pub(crate) names: Vec<String>,
}

/// The parameters that stand behind the path.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn query(target: &str) -> Result<Query, &'static str> {
    let mut query = Query::default();
    let Some((_, text)) = target.split_once('?') else { return Ok(query) };
    for pair in text.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or("The query is not UTF-8.")?;
        let key = decode(key).ok_or("The query is not UTF-8.")?;
        if is_last_event_id(&key) {
            // One that a page has made its URL with stands there beside the newer one of what resumes for it.
            if !value.is_empty() {
                query.last_event_id = Some(value);
            }
            continue;
        }
        let place = match &*key {
            "offset" => &mut query.offset,
            "live" => &mut query.live,
            "cursor" => &mut query.cursor,
            "wait" => {
                query.wait = !matches!(&*value, "0" | "false");
                continue;
            }
            "starting_after" => {
                query.starting_after =
                    Some(value.parse().map_err(|_| "`starting_after` is no whole number.")?);
                continue;
            }
            "name" => {
                if query.names.len() == NAMES_MAX {
                    return Err("One connection follows at most 64 streams.");
                }
                query.names.push(checked(value)?);
                continue;
            }
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err("A parameter of the query is given twice.");
        }
    }
    Ok(query)
}

/// Whether a parameter says what a browser says as `Last-Event-ID`: `lastEventId`, `last_event_id`, `Last-Event-ID` and the like.
fn is_last_event_id(key: &str) -> bool {
    let letters =
        key.bytes().filter(|byte| !matches!(byte, b'-' | b'_')).map(|byte| byte.to_ascii_lowercase());
    letters.eq(*b"lasteventid")
}

fn decode(text: &str) -> Option<String> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_stay_below_the_root() {
        assert_eq!(name("/v1/stream/a/b%20c").as_deref(), Ok("a/b c"));
        assert_eq!(name("/v1/stream/%C3%A4").as_deref(), Ok("\u{e4}"));
        let long = format!("/v1/stream/{}", "a".repeat(513));
        for wrong in [
            "/v1/stream",
            "/v1/stream/",
            "/v1/stream/a/../b",
            "/v1/stream/%2e%2e",
            "/v1/stream/a%00",
            "/v1/stream/%5F%5Fds/x",
            "/v1/stream/%ff",
            &long,
        ] {
            assert!(name(wrong).is_err(), "{wrong:.30}");
        }
        assert!(
            is_of_streams("/v1/stream") && is_of_streams("/v1/stream/a") && !is_of_streams("/v1/streams")
        );
    }

    #[test]
    fn parameters_are_decoded_and_stand_once() {
        let read =
            query("/v1/stream?name=a&name=b%26c&offset=-1&live=sse&x=y&last_event_id").expect("a query");
        assert_eq!(read.names, ["a", "b&c"]);
        assert_eq!(read.offset.as_deref(), Some("-1"));
        assert_eq!(read.last_event_id, None);
        for key in
            ["lastEventId", "last_event_id", "Last-Event-ID", "last-event-id", "lastEventID", "LASTEVENTID"]
        {
            let read = query(&format!("/v1/stream/a?last_event_id=old&{key}=new&{key}=")).expect("a query");
            assert_eq!(read.last_event_id.as_deref(), Some("new"), "{key}");
        }
        assert!(query("/v1/stream/a?offset=1&offset=2").is_err());
        assert!(query("/v1/stream/a?offset=%ff").is_err());
        assert_eq!(query("/v1/stream/a"), Ok(Query::default()));
    }
}
