//! The decisions about a request that rest on its body.

use std::ops::BitOr;

use super::Request;
use crate::admission::api_key::Holder;
use crate::config::Config;
use crate::proto::openai::{Doubt, Peek, Reason, Subject};
use crate::relay::settings::Settings;

/// The decisions that rest on a request's body. What one rests on has to be found, and readers must not disagree about it;
/// whatever none rests on passes as it is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Decides {
    /// Its model decides where it goes, or whether it may.
    pub(crate) model: bool,
    /// So does whether it asks for a stream.
    pub(crate) stream: bool,
    /// The number of tokens that it asks for is limited or charged: all of the body must be seen.
    pub(crate) tokens: bool,
}

impl Decides {
    /// Nothing rests on the body.
    pub(crate) const NOTHING: Decides = Decides { model: false, stream: false, tokens: false };

    /// What the routes and upstreams decide by.
    pub(crate) fn by_routes(config: &Config) -> Decides {
        Decides {
            model: config.decides_by_model(),
            stream: config.decides_by_stream(),
            tokens: config.limits_tokens(),
        }
    }

    /// What is decided by the body of `request`, by the routes and by its key.
    pub(crate) fn of(request: &Request, settings: &Settings) -> Decides {
        match request.holder() {
            Some(holder) => settings.decides | Decides::by_key(holder),
            None => settings.decides,
        }
    }

    fn by_key(holder: &Holder) -> Decides {
        Decides { model: holder.is_restricted(), stream: false, tokens: holder.limits_tokens() }
    }

    /// Whether anything rests on the body.
    pub(crate) fn any(self) -> bool {
        self != Decides::NOTHING
    }

    /// Reads the body of `request` for it, where it can be read: JSON always, which is for the log as well, and forms where the
    /// decisions rest on something in them.
    pub(crate) fn peek(self, request: &Request) -> Option<Box<Peek>> {
        if request.encoded {
            None
        } else if request.may_be_json() {
            Some(Box::default())
        } else if (self.model || self.stream) && request.may_be_form() {
            Peek::of_form(request.field_value("content-type")?).map(Box::new)
        } else {
            None
        }
    }

    /// A field that one of the decisions rests on and that readers may take differently.
    pub(crate) fn doubt(self, peek: &Peek) -> Option<Doubt> {
        let about = |is_decisive: bool, subject| if is_decisive { peek.doubt(subject) } else { None };
        let twice = |doubt: &Doubt| self.stream || doubt.reason == Reason::Repeated;
        about(self.model, Subject::Model)
            .or_else(|| about(self.tokens, Subject::Tokens))
            // Where a body is looked into at all, it is told whether it asks for a stream.
            .or_else(|| about(self.any(), Subject::Stream).filter(twice))
    }
}

impl BitOr for Decides {
    type Output = Decides;

    fn bitor(self, other: Decides) -> Decides {
        Decides {
            model: self.model | other.model,
            stream: self.stream | other.stream,
            tokens: self.tokens | other.tokens,
        }
    }
}
