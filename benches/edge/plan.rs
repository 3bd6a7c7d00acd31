//! What a load asks for, and what is answered to it.

/// What is asked, and what is answered.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// An event stream; one JSON document otherwise.
    pub stream: bool,
    /// Events of a stream.
    pub events: usize,
    /// Bytes of an event, or of the document.
    pub bytes: usize,
    /// Bytes of a request's body.
    pub request: usize,
    /// When the events are sent.
    pub pace: Pace,
}

/// When the events of a stream are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// All of them when it is asked, each in a write of its own.
    AtOnce,
    /// When [`Load::emit`](super::load::Load::emit) says so.
    Told,
    /// As many as the socket takes.
    Flood,
}
