//! How a response can end, and how an upstream breaks off.

use crate::downstream::deadlines::Timeout;
use crate::proto::openai::ApiError;

/// How a response ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// With its body complete, and all of it written.
    Finished,
    /// The upstream broke off.
    Cut(Cut),
    /// The durable stream that it was written to has been deleted.
    Deleted,
    /// The durable stream that it was written to has been closed by a client.
    Stopped,
    /// Not at all: the client does not read, and gets the rest from the durable stream.
    Behind,
    /// The client left.
    Gone,
    /// A limit passed.
    Timeout(Timeout),
}

/// How an upstream broke off.
#[derive(Debug)]
pub(crate) enum Cut {
    /// It closed the connection before the end of the body.
    Closed,
    /// It ended the body of a stream that has not said that it is over.
    Unfinished,
    /// It reset the connection, or the network did.
    Reset,
    /// Its framing broke.
    Malformed(&'static str),
}

impl Cut {
    /// The error that its client is told.
    pub(crate) fn error(&self) -> ApiError {
        match self {
            Cut::Closed | Cut::Reset => ApiError::upstream_closed(),
            Cut::Unfinished => ApiError::upstream_unfinished(),
            Cut::Malformed(why) => ApiError::upstream_invalid_response(why),
        }
    }
}
