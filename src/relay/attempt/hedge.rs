//! A second upstream, asked when the first takes longer than is usual: whoever says something first wins, and the other is
//! dropped at once, with its connection.
//!
//! ```text
//! OFF ── the route hedges ──► WAITING ── the delay is over ──► RUNNING ── it wins, or fails ──► OFF
//!                                │                               │
//!                                └── the first has answered ◄────┘
//! ```
//!
//! A hedge is one more request to somebody who may be slow because he is busy, so it is paid from the route's retry budget,
//! and none is sent where the budget or the time is used up, the body is not held whole, or there is nobody else. The delay
//! is kept to the wheel's tick of 50 ms.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::first_content_gate::{Held, Hold};
use super::retry::Why;
use super::selection::{verdict, why};
use crate::config::HedgeAfter;
use crate::relay::context::Core;
use crate::routing::call::{Call, Verdict};
use crate::runtime::block::Block;
use crate::runtime::clock::Millis;
use crate::runtime::net::stream::Stream;
use crate::telemetry::LabelId;
use crate::upstream::client::{Answered, Asking, Stop, connect_alone};
use crate::upstream::dial::Tried;
use crate::upstream::target::Target;

/// The answers of which the 95th percentile is taken.
const RECENT: usize = 128;

/// So many must be known before it says anything.
const RECENT_MIN: usize = 20;

/// How long the last responses of a route took to begin, on a core: streams to their first content, or anything else to its head.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    times: VecDeque<u32>,
}

impl Recent {
    /// An answer began after so many milliseconds.
    pub(crate) fn push(&mut self, ms: u32) {
        if self.times.len() == RECENT {
            self.times.pop_front();
        }
        self.times.push_back(ms);
    }

    /// What 95 of 100 of them did not exceed, in milliseconds; none while there are too few.
    pub(crate) fn p95(&self) -> Option<u32> {
        let mut times: Vec<u32> = self.times.iter().copied().collect();
        let place = (times.len() * 95).div_ceil(100).checked_sub(1).filter(|_| times.len() >= RECENT_MIN)?;
        Some(*times.select_nth_unstable(place).1)
    }
}

/// A second upstream's answer.
pub(crate) struct Rival {
    /// Whose it is.
    pub(crate) call: Call,
    /// Where it comes from.
    pub(crate) stream: Stream,
    /// Its beginning.
    pub(crate) answered: Answered,
}

impl Rival {
    /// Its answer is not one to pass on.
    pub(crate) fn lost(self, core: &Core) -> Missed {
        let Rival { mut call, answered, .. } = self;
        let label = call.target().label;
        let verdict = verdict(Ok(&answered)).unwrap_or(Verdict::ClientFault);
        call.end(verdict, core.shard.clock.micros(), core.chance());
        (label, why(Ok(&answered)).unwrap_or(Why::Closed))
    }
}

/// A second upstream that has none, by its label, and why.
pub(crate) type Missed = (LabelId, Why);

/// The second attempt beside a first.
pub(crate) enum Hedge {
    /// There is none, or none any more.
    Off,
    /// It is not time yet.
    Waiting(Pin<Box<dyn Future<Output = ()>>>),
    /// It has been sent.
    Running(Pin<Box<dyn Future<Output = Result<Rival, Missed>>>>),
}

/// What has become of it.
pub(crate) enum Hedged {
    /// It is time to send it.
    Due,
    /// It has an answer, or none.
    Done(Result<Box<Rival>, Missed>),
}

impl Hedge {
    /// As the route says.
    pub(crate) fn new(
        after: Option<HedgeAfter>,
        recent: impl FnOnce() -> Option<u32>,
        core: &Rc<Core>,
    ) -> Hedge {
        let after = match after {
            Some(HedgeAfter::Millis(ms)) => Some(ms),
            Some(HedgeAfter::P95) => recent(),
            None => None,
        };
        let Some(ms) = after else { return Hedge::Off };
        let core = Rc::clone(core);
        Hedge::Waiting(Box::pin(async move { core.shard.pause(Millis::from(ms)).await }))
    }

    /// Asks the one of `call` with `request`, which is head and body; `to_head` says that it is a HEAD.
    pub(crate) fn run(core: &Rc<Core>, call: Call, request: Block, (to_head, held): (bool, Held)) -> Hedge {
        Hedge::Running(Box::pin(ask(Rc::clone(core), call, request, (to_head, held))))
    }

    /// Whether a second upstream is being asked.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Hedge::Running(_))
    }

    /// Ready when there is something to do; it is off then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Hedged> {
        let done = match self {
            Hedge::Off => return Poll::Pending,
            Hedge::Waiting(pause) => pause.as_mut().poll(cx).map(|()| Hedged::Due),
            Hedge::Running(rival) => rival.as_mut().poll(cx).map(|rival| Hedged::Done(rival.map(Box::new))),
        };
        if done.is_ready() {
            *self = Hedge::Off;
        }
        done
    }
}

/// Asks, and tells the upstream's health if nothing comes of it.
async fn ask(core: Rc<Core>, mut call: Call, request: Block, how: (bool, Held)) -> Result<Rival, Missed> {
    match answer(&core, call.target(), request, how).await {
        Ok((stream, answered)) => Ok(Rival { call, stream, answered }),
        Err(stop) => {
            let label = call.target().label;
            let verdict = verdict(Err(&stop)).unwrap_or(Verdict::Failed);
            call.end(verdict, core.shard.clock.micros(), core.chance());
            Err((label, why(Err(&stop)).unwrap_or(Why::Closed)))
        }
    }
}

/// Up to the first content of a stream or the head of anything else. Its time is kept by the first attempt's limits.
async fn answer(
    core: &Rc<Core>,
    target: &Target,
    request: Block,
    (to_head, held): (bool, Held),
) -> Result<(Stream, Answered), Stop> {
    let connected = connect_alone(core, target, &Tried::default()).await.map_err(Stop::Dial)?;
    let mut asking = Asking::new(connected.stream, &request, 0);
    let answered = poll_fn(|cx| asking.poll_alone(cx, core, to_head)).await?;
    let mut stream = asking.stream;
    let answered = match Hold::begin(answered, held) {
        Ok(mut hold) => poll_fn(|cx| hold.poll(cx, &mut stream, core)).await?,
        Err(answered) => answered,
    };
    Ok((stream, answered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_of_the_last_answers() {
        let mut recent = Recent::default();
        (1..RECENT_MIN as u32).for_each(|ms| recent.push(ms));
        assert_eq!(recent.p95(), None);
        recent.push(1000);
        assert_eq!(recent.p95(), Some(19));
        (1..=100).for_each(|ms| recent.push(ms));
        (1..=RECENT as u32).for_each(|ms| recent.push(ms));
        assert_eq!(recent.p95(), Some(122));
    }
}
