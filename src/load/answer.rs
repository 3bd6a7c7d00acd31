//! One answer, read and checked: bytes in, what they meant out. No socket, no clock.
//!
//! ```text
//! Head ──1xx──> Head        Body ──its framing's end──> Ended
//!   └──final head──> Body ────────────────────────────────^  (no body)
//! ```
//!
//! The first fault is the one that counts. After one that leaves the framing intact (a status, an error event, an event that
//! is not JSON) the body is read on to its end, so that the connection can be kept as any client would keep it.

use super::failure::{Failure, Kind};
use super::verify::{StreamCheck, WHOLE_BYTES_MAX, check_json};
use crate::proto::http1::body::BodyDecoder;
use crate::proto::http1::response::{self, ResponseBody};

/// Interim heads before the final one.
const INTERIM_MAX: u32 = 16;

/// What is kept of a body that is read only to tell of it.
const EXAMPLE_BYTES_MAX: usize = 1024;

/// What the last bytes brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    /// Bytes of a body that was without fault until then.
    pub(crate) payload: bool,
    /// Events they completed.
    pub(crate) events: u32,
    /// The answer is over: [`Answer::verdict`] tells how it went.
    pub(crate) ended: bool,
}

/// An answer that arrives.
pub(crate) struct Answer {
    streamed: bool,
    state: State,
    /// The head so far; later the answer itself, where it is not checked as it passes.
    held: Vec<u8>,
    interim: u32,
    check: StreamCheck,
    fault: Option<Failure>,
    keep_alive: bool,
    begun: bool,
}

enum State {
    Head { searched: usize },
    Body { decoder: BodyDecoder, by_close: bool },
    Ended,
}

impl Answer {
    /// An answer to a request that asked for a stream, or not.
    pub(crate) fn new(streamed: bool) -> Answer {
        Answer {
            streamed,
            state: State::Head { searched: 0 },
            held: Vec::new(),
            interim: 0,
            check: StreamCheck::default(),
            fault: None,
            keep_alive: false,
            begun: false,
        }
    }

    /// Takes what was read. An error is final, and the connection is of no use any more.
    pub(crate) fn feed(&mut self, bytes: &mut [u8]) -> Result<Brought, Failure> {
        self.begun |= !bytes.is_empty();
        match self.state {
            State::Head { .. } => {
                self.held.extend_from_slice(bytes);
                let Some(mut after) = self.head()? else { return Ok(Brought::default()) };
                self.body(&mut after)
            }
            State::Body { .. } => self.body(bytes),
            State::Ended => Ok(Brought { ended: true, ..Brought::default() }),
        }
    }

    /// The connection has ended, by the peer's close or by an error. Only a body that ends by close ends well so.
    pub(crate) fn closed(&mut self, by_error: bool) -> Result<(), Failure> {
        match self.state {
            State::Body { by_close: true, .. } if !by_error => self.state = State::Ended,
            State::Ended => {}
            _ if self.fault.is_some() => {}
            _ if !self.begun => {
                return Err(Failure::new(Kind::NoResponse, "the connection ended without an answer"));
            }
            _ => return Err(CUT),
        }
        self.verdict()
    }

    /// How the answer went, once it has ended.
    pub(crate) fn verdict(&mut self) -> Result<(), Failure> {
        match self.fault.take() {
            Some(Failure { kind: kind @ Kind::Status(_), .. }) => Err(Failure::of_bytes(kind, &self.held)),
            Some(fault) => Err(fault),
            None if self.streamed => self.check.end(),
            None => check_json(&self.held),
        }
    }

    /// Whether the connection can carry another request.
    pub(crate) fn keep_alive(&self) -> bool {
        self.keep_alive && matches!(self.state, State::Ended)
    }

    /// Reads the head off what is held. Gives back what follows it.
    fn head(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let State::Head { searched } = &mut self.state else { return Ok(None) };
            let Some(end) = response::find_head_end(&self.held, *searched).map_err(invalid_head)? else {
                *searched = self.held.len();
                return Ok(None);
            };
            let head = response::parse(&self.held[..end], false).map_err(invalid_head)?;
            if (100..200).contains(&head.status) && head.status != 101 && self.interim < INTERIM_MAX {
                self.interim += 1;
                self.held.drain(..end);
                self.state = State::Head { searched: 0 };
                continue;
            }
            self.keep_alive = head.keep_alive;
            if !(200..300).contains(&head.status) {
                self.fault = Some(Failure::new(Kind::Status(head.status), ""));
            } else if self.streamed && !head.field("content-type").is_some_and(is_event_stream) {
                let given = head.field("content-type").unwrap_or(b"no Content-Type");
                self.fault = Some(Failure::of_bytes(Kind::NotAStream, given));
            }
            let by_close = head.body == ResponseBody::Close;
            self.state = State::Body { decoder: head.body.into(), by_close };
            let after = self.held.split_off(end);
            self.held = Vec::new();
            return Ok(Some(after));
        }
    }

    fn body(&mut self, bytes: &mut [u8]) -> Result<Brought, Failure> {
        let State::Body { decoder, .. } = &mut self.state else { return Ok(Brought::default()) };
        let decoded = match decoder.decode_in_place(bytes) {
            Ok(decoded) => decoded,
            Err(error) if self.fault.is_none() => {
                return Err(Failure::new(Kind::InvalidFraming, error.message()));
            }
            Err(_) => return Err(self.verdict().err().unwrap_or(CUT)),
        };
        let payload = &bytes[..decoded.payload];
        let (mut events, is_well) = (0, self.fault.is_none());
        if !is_well {
            let room = EXAMPLE_BYTES_MAX.saturating_sub(self.held.len());
            self.held.extend_from_slice(&payload[..payload.len().min(room)]);
        } else if self.streamed {
            self.fault = self.check.feed(payload, &mut events).err();
        } else if self.held.len() + payload.len() > WHOLE_BYTES_MAX {
            return Err(Failure::new(Kind::TooLarge, "the answer is longer than 64 MiB"));
        } else {
            self.held.extend_from_slice(payload);
        }
        if decoded.ended {
            // Bytes beyond the end belong to no request: whoever sends them cannot be trusted with another.
            self.keep_alive &= decoded.consumed == bytes.len();
            self.state = State::Ended;
        }
        Ok(Brought { payload: !payload.is_empty() && is_well, events, ended: decoded.ended })
    }
}

const CUT: Failure = Failure::new(Kind::Cut, "the connection ended within the answer");

fn invalid_head(reject: crate::proto::http1::Reject) -> Failure {
    Failure::new(Kind::InvalidHead, reject.message)
}

fn is_event_stream(value: &[u8]) -> bool {
    let essence = value.split(|&byte| byte == b';').next().unwrap_or(value);
    essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";

    fn chunked(events: &[&str]) -> String {
        let chunks: String = events.iter().map(|event| format!("{:x}\r\n{event}\r\n", event.len())).collect();
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    }

    fn by_close(body: &str) -> String {
        format!("{HEAD}\r\n{body}")
    }

    fn with_length(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// The answer as it is judged when it comes in pieces of `size` and the connection ends after it; with the events that
    /// were seen, and whether the connection could have been kept.
    fn read(streamed: bool, wire: &str, size: usize) -> (Result<(), Failure>, u32, bool) {
        let mut answer = Answer::new(streamed);
        let mut events = 0;
        for piece in wire.as_bytes().chunks(size) {
            match answer.feed(&mut piece.to_vec()) {
                Ok(brought) => {
                    events += brought.events;
                    if brought.ended {
                        return (answer.verdict(), events, answer.keep_alive());
                    }
                }
                Err(failure) => return (Err(failure), events, false),
            }
        }
        (answer.closed(false), events, answer.keep_alive())
    }

    fn judged(streamed: bool, wire: &str) -> (Result<(), Kind>, u32, bool) {
        let of = |size| {
            let (verdict, events, keep_alive) = read(streamed, wire, size);
            (verdict.map_err(|failure| failure.kind), events, keep_alive)
        };
        let whole = of(wire.len().max(1));
        assert_eq!(of(1), whole, "byte by byte: {wire:?}");
        assert_eq!(of(7), whole, "in pieces of 7: {wire:?}");
        whole
    }

    #[test]
    fn a_whole_stream_is_complete_and_its_connection_kept() {
        let wire = chunked(&["data: {}\n\n", "data: {}\n\ndata: [DO", "NE]\n\n"]);
        assert_eq!(judged(true, &wire), (Ok(()), 3, true));
        let interim = format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{wire}");
        assert_eq!(judged(true, &interim), (Ok(()), 3, true));
        assert_eq!(judged(true, &by_close("data: [DONE]\n\n")), (Ok(()), 1, false));
    }

    #[test]
    fn no_stream_that_is_cut_anywhere_is_complete() {
        let wire = chunked(&["data: {\"a\":[1]}\n\n", "data: [DONE]\n\n"]);
        assert_eq!(judged(true, "").0, Err(Kind::NoResponse));
        for length in 1..wire.len() {
            assert_eq!(judged(true, &wire[..length]).0, Err(Kind::Cut), "after {length} bytes");
        }
    }

    #[test]
    fn an_end_that_http_allows_is_no_end_of_a_stream() {
        assert_eq!(judged(true, &chunked(&["data: {}\n\n"])).0, Err(Kind::Unfinished));
        assert_eq!(judged(true, &chunked(&[])).0, Err(Kind::Unfinished));
        assert_eq!(judged(true, &by_close("data: {}\n\n")).0, Err(Kind::Unfinished));
    }

    #[test]
    fn a_body_that_ends_by_close_is_cut_by_a_reset() {
        let mut answer = Answer::new(true);
        let mut wire = by_close("data: [DONE]\n\n").into_bytes();
        assert!(!answer.feed(&mut wire).unwrap().ended);
        assert_eq!(answer.closed(true).unwrap_err().kind, Kind::Cut);
    }

    #[test]
    fn the_first_fault_counts_and_keeps_the_connection_if_it_can() {
        let failed = chunked(&["data: {}\n\n", "data: {\"error\":{}}\n\n"]);
        assert_eq!(judged(true, &failed), (Err(Kind::ErrorEvent), 1, true));
        assert_eq!(judged(true, &failed[..failed.len() - 5]).0, Err(Kind::ErrorEvent));
        assert_eq!(
            judged(true, &chunked(&["data: {\n\n", "data: [DONE]\n\n"])),
            (Err(Kind::NotJson), 0, true)
        );
        let refused = with_length("429 Too Many Requests", "{\"error\":{}}");
        assert_eq!(judged(true, &refused), (Err(Kind::Status(429)), 0, true));
        assert_eq!(read(true, &refused, 5).0.unwrap_err().detail, "{\"error\":{}}");
        let other = with_length("200 OK\r\nContent-Type: application/json", "{}");
        assert_eq!(judged(true, &other), (Err(Kind::NotAStream), 0, true));
        assert_eq!(read(true, &other, 5).0.unwrap_err().detail, "application/json");
    }

    #[test]
    fn an_answer_that_is_no_stream_is_json() {
        let of = |body: &str| judged(false, &with_length("200 OK\r\nContent-Type: application/json", body));
        assert_eq!(of("{\"a\": 1}"), (Ok(()), 0, true));
        assert_eq!(of("{\"a\": 1"), (Err(Kind::NotJson), 0, true));
        assert_eq!(of("data: [DONE]\n\n"), (Err(Kind::NotJson), 0, true));
        assert_eq!(judged(false, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}").0, Err(Kind::Cut));
    }

    #[test]
    fn what_is_no_http_is_told_apart() {
        assert_eq!(judged(true, "SSH-2.0-x\r\n\r\n").0, Err(Kind::InvalidHead));
        assert_eq!(judged(true, "HTTP/1.1 101 Switching Protocols\r\n\r\n").0, Err(Kind::Status(101)));
        let broken = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nxyz\r\n");
        assert_eq!(judged(true, &broken).0, Err(Kind::InvalidFraming));
        let again = format!("{}HTTP/1.1 200 OK\r\n", with_length("200 OK", "{}"));
        assert!(!read(false, &again, again.len()).2, "a connection with unasked bytes is not kept");
    }
}
