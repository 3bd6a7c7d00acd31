//! An answer whose client has left, on a route that says `on_disconnect = "drain"`: the upstream is read to its end, and nothing
//! of it is kept, so that what it says of tokens is still counted. Without that the upstream is cancelled at once.
//!
//! It takes no longer than the route allows from the moment the client left, nor than the request as a whole, nor than
//! the upstream may be silent, nor than the process lives on. No other upstream is asked for a client that is not there.

use std::future::poll_fn;
use std::task::{Poll, ready};

use crate::config::Route;
use crate::downstream::outbox::Beat;
use crate::relay::exchange::{Exchange, Limits, millis};
use crate::relay::pump::{Download, Ending};
use crate::runtime::clock::Millis;

impl Exchange<'_> {
    /// The client has left while the upstream was asked; its answer is waited for, for a while.
    pub(crate) fn leave(&mut self, route: &Route) {
        self.limit_reading(route.read_on.map_or(0, millis));
    }

    /// Likewise, and the stream that keeps it is waited for by others: what limits it is the request's time.
    pub(crate) fn leave_to_stream(&mut self) {
        self.limit_reading(u32::MAX);
    }

    /// Reads what is left of the answer; whether it was whole.
    pub(crate) async fn read_on(&mut self, download: &mut Download, limits: &Limits) -> bool {
        let (client, core) = (self.client, self.core);
        client.set_beat(Beat::Hold);
        client.forget_pending();
        if !self.left {
            self.limit_reading(limits.read_on);
        }
        client.deadlines.streaming(core.shard.clock.millis(), limits.idle, 0);
        client.arm();
        let ending = poll_fn(|cx| {
            if client.poll_expired(cx).is_ready() {
                return Poll::Ready(None);
            }
            loop {
                if let Some(ending) = ready!(download.poll_unsent(cx, client, core)) {
                    return Poll::Ready(Some(ending));
                }
            }
        });
        let whole = matches!(ending.await, Some(Ending::Finished));
        if whole {
            core.metrics.answers_drained.inc();
        }
        self.ledger.usage(download);
        whole
    }

    fn limit_reading(&mut self, limit: u32) {
        self.left = true;
        self.core.metrics.answers_abandoned.inc();
        let at = self.core.shard.clock.millis() + Millis::from(limit);
        let until = Some(self.client.deadlines.until()).filter(|&until| until > 0);
        self.client.deadlines.total(until.map_or(at, |until| until.min(at)));
        self.client.arm();
    }
}
