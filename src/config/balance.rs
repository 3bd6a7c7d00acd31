//! How a route chooses among its upstreams, and what each is to it.

use super::document::Value;

/// The longest name of a field that can be named.
const FIELD_MAX_BYTES: usize = 128;

/// An upstream of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its index among the upstreams.
    pub(crate) index: usize,
    /// Its share, or how much it can carry; 0 is never asked.
    pub(crate) weight: u32,
    /// Those of a higher number are asked when none of a lower one can be.
    pub(crate) priority: u32,
}

impl Member {
    /// One like all others.
    pub(crate) const fn new(index: usize) -> Member {
        Member { index, weight: 1, priority: 0 }
    }
}

/// Who of those that can be asked is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Balance {
    /// Of two that chance names, the one that is likely to answer sooner.
    #[default]
    P2c,
    /// Chance, by weight.
    Weighted,
    /// The first in the order in which they are written.
    First,
    /// The same one for the same value of this field, in lower case, or where there is none for the same client.
    Sticky(Option<String>),
}

/// From a route's `balance`.
pub(crate) fn balance(value: &Value<'_>) -> Result<Balance, String> {
    if value.is_table() {
        let table = value.table("[[route]] balance.")?;
        let field = table
            .require("sticky", "name a field, as in { sticky = \"x-session-id\" }", |value| field(value));
        table.finish(|_| None);
        return Ok(Balance::Sticky(field));
    }
    match value.string()? {
        "p2c" => Ok(Balance::P2c),
        "weighted" => Ok(Balance::Weighted),
        "first" => Ok(Balance::First),
        "sticky" => Ok(Balance::Sticky(None)),
        other => Err(format!(
            "cannot be {other:?}; there are \"p2c\", \"weighted\", \"first\", \"sticky\" and {{ sticky = \"x-session-id\" }}"
        )),
    }
}

fn field(value: &Value<'_>) -> Result<String, String> {
    let name = value.name(FIELD_MAX_BYTES)?.to_ascii_lowercase();
    match &name[..] {
        "authorization" | "api-key" | "x-api-key" | "x-goog-api-key" | "ocp-apim-subscription-key" => {
            Err(format!("is {name:?}, which is what \"sticky\" alone goes by"))
        }
        _ if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') => {
            Ok(name)
        }
        _ => Err(format!("is {name:?}, which no field of a request is called")),
    }
}
