//! Why a request about a subscription is refused: the protocol's codes, in the shape that all errors made here have.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Value, json};

use super::SUBSCRIPTIONS_MAX;

/// What went wrong, by the protocol's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Code {
    /// The request's body does not say what it has to.
    InvalidRequest,
    /// There is no such subscription, or none any more.
    NotFound,
    /// It belongs to another key.
    OfAnotherKey,
    /// There is one with this id and another configuration.
    AlreadyExists,
    /// The webhook's URL leads where none may.
    WebhookUrlRejected,
    /// A bound was reached.
    LimitReached,
    /// No memory is left for what is asked for.
    NoMemory,
    /// There is no token, or none of this subscription.
    TokenInvalid,
    /// The token's time is over.
    TokenExpired,
    /// The wake is not the current one.
    Fenced,
    /// Another worker holds the lease.
    AlreadyClaimed,
    /// There is nothing to claim.
    NoPendingWork,
    /// An acknowledged offset is not one the cursor can move to.
    InvalidOffset,
}

impl Code {
    /// As it stands in the body.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Code::InvalidRequest => "INVALID_REQUEST",
            Code::NotFound => "SUBSCRIPTION_NOT_FOUND",
            Code::OfAnotherKey => "SUBSCRIPTION_OF_ANOTHER_KEY",
            Code::AlreadyExists => "SUBSCRIPTION_ALREADY_EXISTS",
            Code::WebhookUrlRejected => "WEBHOOK_URL_REJECTED",
            Code::LimitReached => "SUBSCRIPTION_LIMIT_REACHED",
            // As of all that streams have no room for.
            Code::NoMemory => "streams_full",
            Code::TokenInvalid => "TOKEN_INVALID",
            Code::TokenExpired => "TOKEN_EXPIRED",
            Code::Fenced => "FENCED",
            Code::AlreadyClaimed => "ALREADY_CLAIMED",
            Code::NoPendingWork => "NO_PENDING_WORK",
            Code::InvalidOffset => "INVALID_OFFSET",
        }
    }

    /// The HTTP status.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Code::InvalidRequest | Code::WebhookUrlRejected => 400,
            Code::TokenInvalid | Code::TokenExpired => 401,
            Code::OfAnotherKey => 403,
            Code::NotFound => 404,
            Code::AlreadyExists
            | Code::Fenced
            | Code::AlreadyClaimed
            | Code::NoPendingWork
            | Code::InvalidOffset => 409,
            Code::LimitReached => 429,
            Code::NoMemory => 503,
        }
    }

    const fn kind(self) -> &'static str {
        match self.status() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            503 => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What went wrong.
    pub(crate) code: Code,
    /// What happened and what to do.
    pub(crate) message: Cow<'static, str>,
    /// The field of the request that is to blame.
    pub(crate) param: Option<&'static str>,
    /// Who holds the lease, and of which generation.
    holder: Option<(String, u64)>,
}

impl Refusal {
    /// A refusal that no field is to blame for.
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, message: message.into(), param: None, holder: None }
    }

    /// A body that does not say what it has to: `param` is the field, `what` goes on from its name.
    pub(crate) fn field(param: &'static str, what: impl fmt::Display) -> Refusal {
        let message = format!("`{param}` {what}.");
        Refusal { param: Some(param), ..Refusal::new(Code::InvalidRequest, message) }
    }

    #[must_use]
    pub(crate) fn with_code(self, code: Code) -> Refusal {
        Refusal { code, ..self }
    }

    /// Another worker holds the lease.
    pub(crate) fn already_claimed(holder: &str, generation: u64) -> Refusal {
        let message = format!(
            "The worker `{holder}` holds the lease. Wait for the next wake event: one is written when work is left."
        );
        let holder = Some((holder.to_owned(), generation));
        Refusal { holder, ..Refusal::new(Code::AlreadyClaimed, message) }
    }

    /// No subscription has this id.
    pub(crate) fn not_found() -> Refusal {
        Refusal::new(Code::NotFound, "There is no subscription with this id. Create it with PUT.")
    }

    /// It belongs to another key.
    pub(crate) fn of_another_key() -> Refusal {
        Refusal::new(Code::OfAnotherKey, "The subscription belongs to another key. Take another id.")
    }

    /// There are as many as there may be.
    pub(crate) fn full() -> Refusal {
        Refusal::new(
            Code::LimitReached,
            format!("There are {SUBSCRIPTIONS_MAX} subscriptions already. Delete one that is not needed."),
        )
    }

    /// The wake is over.
    pub(crate) fn fenced() -> Refusal {
        Refusal::new(
            Code::Fenced,
            "This wake is not the current one: its lease has ended or its work was finished. Drop what it brought; the work comes again with a newer wake.",
        )
    }

    /// The answer's body, `application/json`.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut error = json!({
            "message": self.message,
            "type": self.code.kind(),
            "param": self.param,
            "code": self.code.as_str(),
        });
        if let (Some((holder, generation)), Value::Object(error)) = (&self.holder, &mut error) {
            error.insert("current_holder".into(), Value::from(holder.as_str()));
            error.insert("generation".into(), Value::from(*generation));
        }
        json!({ "error": error }).to_string().into_bytes()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_shape_of_all_errors_and_the_protocols_fields() {
        assert_eq!(
            String::from_utf8(Refusal::field("pattern", "must be a string").body()).unwrap(),
            r#"{"error":{"message":"`pattern` must be a string.","type":"invalid_request_error","param":"pattern","code":"INVALID_REQUEST"}}"#
        );
        let body: Value = serde_json::from_slice(&Refusal::already_claimed("w-2", 7).body()).unwrap();
        assert_eq!(body["error"]["code"], "ALREADY_CLAIMED");
        assert_eq!(body["error"]["current_holder"], "w-2");
        assert_eq!(body["error"]["generation"], 7);
    }
}
