//! One request over one connection: sent and read at the same time, since a server may answer, and close, before it has
//! read it all.

use std::task::{Context, Poll, ready};

use super::answer::{Answer, Brought};
use super::failure::Failure;
use super::worker::Worker;
use crate::runtime::clock::Micros;
use crate::runtime::net::stream::Stream;

/// How a request went, and its connection if it can carry another.
pub(crate) type Over = (Result<(), Failure>, Option<Stream>);

/// A request under way.
pub(crate) struct Exchange<'a> {
    worker: &'a Worker,
    stream: Stream,
    answer: Answer,
    sent: usize,
    flushed: bool,
    /// Since when its times count.
    from: Micros,
    measured: bool,
    body_seen: bool,
    last_event: Option<Micros>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(worker: &'a Worker, stream: Stream, from: Micros, measured: bool) -> Exchange<'a> {
        Exchange {
            worker,
            stream,
            answer: Answer::new(worker.streamed()),
            sent: 0,
            flushed: false,
            from,
            measured,
            body_seen: false,
            last_event: None,
        }
    }

    /// Runs it to its end.
    pub(crate) async fn run(mut self) -> Over {
        let verdict = std::future::poll_fn(|cx| self.poll(cx)).await;
        let is_reusable = self.answer.keep_alive() && self.sent == self.worker.wire().len();
        (verdict, is_reusable.then_some(self.stream))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.send(cx);
        // Filled and used up within this call: connections that wait hold no buffer.
        let mut block = self.worker.block();
        loop {
            let count = match ready!(self.stream.poll_read(cx, &mut block)) {
                Ok(0) => return Poll::Ready(self.answer.closed(false)),
                Ok(count) => count,
                Err(_) => return Poll::Ready(self.answer.closed(true)),
            };
            let brought = self.answer.feed(&mut block[..count])?;
            self.note(brought);
            if brought.ended {
                return Poll::Ready(self.answer.verdict());
            }
        }
    }

    /// Sends as much as the socket takes. What became of a connection that takes no more is told by reading it.
    fn send(&mut self, cx: &mut Context<'_>) {
        let wire = self.worker.wire();
        while self.sent < wire.len() {
            match self.stream.poll_write(cx, &wire[self.sent..]) {
                Poll::Ready(Ok(count @ 1..)) => self.sent += count,
                Poll::Ready(_) | Poll::Pending => return,
            }
        }
        if !self.flushed {
            self.flushed = self.stream.poll_flush(cx).is_ready();
        }
    }

    fn note(&mut self, brought: Brought) {
        let now = self.worker.now();
        let events = u64::from(brought.events);
        let within = self.worker.window().contains(now);
        let mut tally = self.worker.tally();
        if self.measured && brought.payload && !self.body_seen {
            tally.first_byte.record(now.saturating_sub(self.from));
        }
        self.body_seen |= brought.payload;
        if events == 0 {
            return;
        }
        self.worker.live.add_events(events);
        if within {
            tally.events_within += events;
        }
        // Streams may be longer than a step: then those that were begun before it tell of the time between their events.
        if self.measured || within {
            if let Some(last) = self.last_event {
                tally.between.record(now.saturating_sub(last));
            }
            // The others came with the first one.
            tally.between.record_many(0, events - 1);
        }
        self.last_event = Some(now);
    }
}
