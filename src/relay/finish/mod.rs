//! How an answer ends, once its head has been passed on: what the client is told, what it comes to in the books, and which of the
//! two connections can be used again.

pub(crate) mod drain_response;
pub(crate) mod durable_id;
pub(crate) mod durable_response;
pub(crate) mod error_response;

use super::exchange::{After, Answer, Exchange};
use super::pump::{Download, Ending};
use super::request_record::outcome_of;
use crate::downstream::deadlines::Timeout;
use crate::runtime::clock::Millis;
use crate::telemetry::Outcome;

/// An answer whose end is not told yet.
pub(crate) type Open = Box<(Box<Answer>, Ending)>;

impl Exchange<'_> {
    /// How nearly every answer ends: whole, and with nothing left to be told or waited for. Any other is handed back.
    pub(crate) fn finished(&mut self, answer: Box<Answer>, ending: Ending) -> Result<(Outcome, After), Open> {
        if !matches!(ending, Ending::Finished) || answer.download.tee.is_some() || self.left {
            return Err(Box::new((answer, ending)));
        }
        self.ledger.answer(&answer.download);
        let (outcome, after) = self.whole(&answer);
        self.put_back(answer, outcome);
        Ok((outcome, after))
    }

    /// Tells the client how it ended, and keeps what can be used again.
    pub(crate) async fn finish(&mut self, open: Open) -> (Outcome, After) {
        let (mut answer, ending) = *open;
        let (outcome, after) = match answer.download.tee {
            Some(_) => Box::pin(self.end_kept(&mut answer, ending)).await,
            None => self.end(&mut answer, ending).await,
        };
        self.put_back(answer, outcome);
        (outcome, after)
    }

    /// Whoever was asked is told how it ended, and its connection is kept if it can be used again.
    fn put_back(&mut self, answer: Box<Answer>, outcome: Outcome) {
        let Answer { download, reusable, keep_alive, .. } = *answer;
        let (mut call, stream) = download.into_reusable();
        self.conclude(&mut call, outcome);
        if let Some(stream) = stream.filter(|_| reusable && self.upload.reached()) {
            let keep_alive = keep_alive.map(Millis::from);
            self.core.pool.put(call.target(), stream, self.core.shard.clock.millis(), keep_alive);
        }
    }

    /// What a whole answer comes to.
    fn whole(&self, answer: &Answer) -> (Outcome, After) {
        let outcome = outcome_as_told(&answer.download);
        let complete = self.upload.sent && self.upload.ended;
        (outcome, if answer.keep && complete { After::Next } else { After::Close })
    }

    /// Tells the client of the end, or reads on for nobody.
    pub(crate) async fn end(&mut self, answer: &mut Answer, ending: Ending) -> (Outcome, After) {
        let Answer { download, limits, .. } = answer;
        self.ledger.answer(download);
        let gone = matches!(ending, Ending::Gone);
        if self.left || gone && limits.read_on > 0 && self.upload.sent && !download.terminal() {
            match ending {
                Ending::Gone => drop(self.read_on(download, limits).await),
                // All of it came at once, and was written before anyone looked whether somebody is there.
                Ending::Finished => self.core.metrics.answers_drained.inc(),
                Ending::Cut(_) | Ending::Timeout(_) | Ending::Deleted | Ending::Stopped | Ending::Behind => {}
            }
            return (Outcome::ClientGone, After::Abort);
        }
        match ending {
            Ending::Finished => self.whole(answer),
            // The stream has said that it is over. Whatever came between it and its last chunk, nothing is missing; and a last
            // chunk that was not sent is not made up.
            Ending::Gone | Ending::Cut(_) | Ending::Timeout(_) if download.terminal() => {
                (outcome_as_told(download), After::Close)
            }
            Ending::Gone | Ending::Deleted | Ending::Stopped | Ending::Behind => {
                (Outcome::ClientGone, After::Abort)
            }
            Ending::Cut(cut) => self.part(download, &cut.error(), Outcome::UpstreamCut).await,
            Ending::Timeout(Timeout::ClientStall) => (Outcome::ClientStalled, After::Abort),
            Ending::Timeout(timeout) => {
                let error = self.timeout_error(timeout);
                self.part(download, &error, outcome_of(timeout)).await
            }
        }
    }
}

/// What a response comes to that is whole, or that has said itself that it is over.
pub(crate) fn outcome_as_told(download: &Download) -> Outcome {
    if download.look_at().error_seen() { Outcome::UpstreamError } else { Outcome::Finished }
}
