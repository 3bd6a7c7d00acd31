//! What a batch asks for, read from its body. The bodies of its requests are not read: they are sent on as they are.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::PATH;
use crate::edge::path;
use crate::proto::openai::ApiError;

/// Requests of a batch.
pub(crate) const REQUESTS_MAX: usize = 256;

/// Requests of a batch that can be asked to run at once.
pub(crate) const CONCURRENCY_MAX: usize = 64;

/// So many run at once where nothing else is said.
const CONCURRENCY: usize = 8;

/// The longest `custom_id`.
const CUSTOM_ID_BYTES_MAX: usize = 512;

/// The longest `url`.
const URL_BYTES_MAX: usize = 2048;

/// Where a request goes that does not say so.
const URL: &str = "/v1/chat/completions";

/// A batch.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Its requests, one at least.
    pub(crate) lines: Vec<Line<'a>>,
    /// How many run at once.
    pub(crate) concurrency: usize,
    /// The first with content wins, and the others are cancelled.
    pub(crate) first: bool,
    /// How long it may take.
    pub(crate) timeout_ms: Option<u32>,
}

/// One request of it: a line of a batch file, as OpenAI's Batch API has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line<'a> {
    /// The client's word for it.
    pub(crate) custom_id: Option<String>,
    method: Option<String>,
    url: Option<String>,
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole<'a> {
    #[serde(borrow)]
    requests: Lines<'a>,
    concurrency: Option<usize>,
    first: Option<bool>,
    timeout_ms: Option<u32>,
}

impl<'a> Plan<'a> {
    /// From a batch's body: an object, or its `requests` alone.
    pub(crate) fn read(body: &'a [u8]) -> Result<Plan<'a>, ApiError> {
        let whole = match body.trim_ascii_start().first() {
            Some(b'[') => serde_json::from_slice(body).map(|requests| Whole {
                requests,
                concurrency: None,
                first: None,
                timeout_ms: None,
            }),
            _ => serde_json::from_slice(body),
        };
        let whole = whole.map_err(|error| invalid(format!("The batch cannot be read: {error}.")))?;
        let lines = whole.requests.0;
        if lines.is_empty() {
            return Err(invalid("The batch has no requests. Put one at least into `requests`.".to_owned()));
        }
        for (index, line) in lines.iter().enumerate() {
            line.check().map_err(|what| invalid(format!("Request {index} of the batch: {what}.")))?;
        }
        const AT_ONCE: RangeInclusive<usize> = 1..=CONCURRENCY_MAX;
        let concurrency = whole.concurrency.unwrap_or(CONCURRENCY);
        if !AT_ONCE.contains(&concurrency) {
            return Err(invalid(format!(
                "`concurrency` must be from 1 to {CONCURRENCY_MAX}, not {concurrency}."
            ))
            .with_param("concurrency"));
        }
        if whole.timeout_ms == Some(0) {
            return Err(invalid("`timeout_ms` must be 1 at least.".to_owned()).with_param("timeout_ms"));
        }
        Ok(Plan { lines, concurrency, first: whole.first.unwrap_or(false), timeout_ms: whole.timeout_ms })
    }
}

impl Line<'_> {
    /// Where it goes.
    pub(crate) fn url(&self) -> &str {
        self.url.as_deref().unwrap_or(URL)
    }

    /// Its body, as it came.
    pub(crate) fn body(&self) -> &[u8] {
        self.body.get().as_bytes()
    }

    fn check(&self) -> Result<(), String> {
        let url = self.url();
        if self.method.as_deref().is_some_and(|method| method != "POST") {
            return Err("`method` must be POST".to_owned());
        }
        // It becomes part of a head: nothing in it may end its line, or its word.
        if !url.starts_with('/')
            || !url.bytes().all(|byte| byte.is_ascii_graphic())
            || url.len() > URL_BYTES_MAX
        {
            return Err(format!(
                "`url` must be a path such as {URL}, of at most {URL_BYTES_MAX} printable ASCII characters"
            ));
        }
        let canonical =
            path::canonical(url, || true).map_err(|reject| format!("`url`: {}", reject.message))?;
        let url = canonical.as_deref().unwrap_or(url);
        if url.split('?').next() == Some(PATH) {
            return Err("`url` must not be another batch".to_owned());
        }
        if !self.body.get().starts_with('{') {
            return Err("`body` must be an object".to_owned());
        }
        if self.custom_id.as_ref().is_some_and(|id| id.len() > CUSTOM_ID_BYTES_MAX) {
            return Err(format!("`custom_id` is longer than {CUSTOM_ID_BYTES_MAX} bytes"));
        }
        Ok(())
    }
}

/// At most [`REQUESTS_MAX`]: a body of the shortest ones would be millions.
#[derive(Debug)]
struct Lines<'a>(Vec<Line<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Lines<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counted<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Counted<'a> {
            type Value = Lines<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of requests")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Lines<'a>, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = items.next_element()? {
                    if lines.len() == REQUESTS_MAX {
                        return Err(de::Error::custom(format_args!("more than {REQUESTS_MAX} requests")));
                    }
                    lines.push(line);
                }
                Ok(Lines(lines))
            }
        }
        deserializer.deserialize_seq(Counted(std::marker::PhantomData))
    }
}

fn invalid(message: String) -> ApiError {
    ApiError::new(400, "invalid_batch", message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(body: &str) -> String {
        Plan::read(body.as_bytes()).map(|_| ()).unwrap_err().message.into_owned()
    }

    #[test]
    fn a_list_or_an_object_with_one() {
        let list = br#" [{"body": {"model":"m",  "x":1.0} }, {"custom_id":"b","method":"POST","url":"/v1/responses","body":{}}]"#;
        let plan = Plan::read(list).unwrap();
        assert_eq!((plan.lines.len(), plan.concurrency, plan.first, plan.timeout_ms), (2, 8, false, None));
        assert_eq!((plan.lines[0].url(), plan.lines[0].body()), (URL, &br#"{"model":"m",  "x":1.0}"#[..]));
        assert_eq!((plan.lines[1].url(), plan.lines[1].custom_id.as_deref()), ("/v1/responses", Some("b")));
        let object = br#"{"requests":[{"body":{}}],"concurrency":2,"first":true,"timeout_ms":500}"#;
        let plan = Plan::read(object).unwrap();
        assert_eq!((plan.concurrency, plan.first, plan.timeout_ms), (2, true, Some(500)));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (body, part) in [
            ("", "cannot be read"),
            ("[]", "no requests"),
            ("[{}]", "missing field `body`"),
            (r#"[{"body":{},"uri":"/"}]"#, "unknown field `uri`"),
            (r#"[{"body":[]}]"#, "Request 0 of the batch: `body` must be an object"),
            (r#"[{"body":{},"url":"/v1/x HTTP/1.1\r\nA: b"}]"#, "`url` must be a path"),
            (r#"[{"body":{},"url":"/v1/sedge/%62atch"}]"#, "`url` must not be another batch"),
            (r#"[{"body":{},"url":"//v1//sedge/batch?x"}]"#, "`url` must not be another batch"),
            (r#"[{"body":{},"url":"/v1/x/../../y"}]"#, "`url`: the path has a segment `.` or `..`"),
            (r#"[{"body":{},"url":"http://a/"}]"#, "`url` must be a path"),
            (r#"[{"body":{},"url":"/v1/sedge/batch?x"}]"#, "another batch"),
            (r#"[{"body":{}},{"body":{},"method":"GET"}]"#, "Request 1 of the batch: `method`"),
            (r#"{"requests":[{"body":{}}],"concurrency":65}"#, "from 1 to 64"),
            (r#"{"requests":[{"body":{}}],"timeout_ms":0}"#, "1 at least"),
            (r#"{"requests":5}"#, "a list of requests"),
        ] {
            let message = error(body);
            assert!(message.contains(part), "{body}: {message}");
        }
        let many = format!("[{}]", vec![r#"{"body":{}}"#; REQUESTS_MAX + 1].join(","));
        assert!(error(&many).contains("more than 256 requests"));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in "[\\[{](\"(requests|body|url)\":|[{}\\[\\],\"a1]){0,20}") {
            let _ = Plan::read(body.as_bytes());
        }
    }
}
