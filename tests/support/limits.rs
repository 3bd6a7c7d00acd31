//! What is limited, as a client and an operator see it.

use super::{Edge, Head, answer};

/// The counter of requests that were refused for a limit.
pub const REFUSED: &str = "sedge_limit_refused_total";

/// The gauge of what is left of a limit.
pub const REMAINING: &str = "sedge_limit_remaining";

/// The status of the answer to a request.
pub fn status(edge: &Edge, request: &[u8]) -> u16 {
    edge.ask(request).0.status()
}

/// An answer that has used seven tokens.
pub fn ok(fields: &[&str]) -> Vec<u8> {
    let fields = [&["Content-Type: application/json"], fields].concat();
    answer("200 OK", &fields, r#"{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#)
}

/// The number in a field of an answer.
pub fn number(head: &Head, name: &str) -> u64 {
    head.get(name).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {head:?}"))
}

/// An upstream, and a route with these lines.
pub fn route(url: &str, route: &str) -> String {
    format!("[[upstream]]\nname = \"u\"\nurl = \"{url}\"\n\n[[route]]\nname = \"r\"\n{route}\n")
}
