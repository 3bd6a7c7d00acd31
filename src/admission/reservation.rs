//! A request's way through the limits: what it is taken for when it comes, what was taken for it, and what is settled when it
//! is over.
//!
//! ```text
//!  head ──► key: a seat ── body, estimate ──► key: tokens; route: all ──► each upstream that is asked ──► ends: settled
//!            │ exhausted                          │ exhausted                 │ exhausted: another
//!            ▼                                    ▼                           ▼ none left
//!           429 ◄─────────────────────────────────┴───────────────────────────┘
//! ```
//!
//! A key's seat is taken before the body has arrived: a client that sends slowly holds memory, and is held to its limits meanwhile.
//!
//! Whatever ends a request without that last step (its task is dropped) leaves its estimate charged and gives its seats back.

use std::sync::Arc;

use super::meter::{Exhausted, Limit, Limited, Taken};
use super::rate::{Nanos, Standing};
use super::rate_fields::{self, Standings};
use crate::config::Quota;
use crate::proto::http1::fields::write_number;
use crate::proto::openai::ApiError;

/// Bytes of a JSON request that make a token: English text has about four, and what stands around it has no meaning.
const BYTES_A_TOKEN: u64 = 4;

/// What a request will use, as far as is known when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// Tokens of the prompt.
    pub(crate) prompt: u64,
    /// The most tokens that the request wants of each answer, if it says so.
    pub(crate) most: Option<u64>,
    /// How many answers it wants: `n` or `best_of` for each of its prompts.
    pub(crate) answers: u64,
    /// The answer is made of tokens.
    pub(crate) generates: bool,
}

impl Default for Estimate {
    fn default() -> Estimate {
        Estimate { prompt: 0, most: None, answers: 1, generates: false }
    }
}

impl Estimate {
    /// Of a JSON body with so many bytes, for one answer. Of `media`, the letters are no text, and the tokens are estimated.
    pub(crate) fn of_json(bytes: u64, media: (u64, u64), most: Option<u64>, generates: bool) -> Estimate {
        let text = bytes.saturating_sub(media.0).div_ceil(BYTES_A_TOKEN);
        Estimate { prompt: text.saturating_add(media.1), most, generates, ..Estimate::default() }
    }

    /// Tokens that are charged where these limits hold.
    fn tokens(self, quota: &Quota) -> u64 {
        let assumed = || quota.assumed_tokens.min(quota.max_tokens.unwrap_or(u64::MAX));
        let answer = self.most.unwrap_or_else(|| if self.generates { assumed() } else { 0 });
        self.prompt.saturating_add(answer.saturating_mul(self.answers))
    }

    /// What it asks for of each answer, if all of them together are more than these limits let one request have.
    pub(crate) fn exceeds(self, quota: &Quota) -> Option<u64> {
        let (asked, max) = (self.most?, quota.max_tokens?);
        (asked.saturating_mul(self.answers) > max).then_some(asked)
    }
}

/// What was taken for a request.
#[derive(Default)]
pub(crate) struct Pass {
    estimate: Estimate,
    taken: Vec<Taken>,
    /// Of the upstreams that are being asked, by their index: two at most, where one is asked beside a slow one.
    asked: Vec<(usize, Taken)>,
}

impl Pass {
    /// For a request that has been let in nowhere yet.
    pub(crate) fn new(estimate: Estimate) -> Pass {
        Pass { estimate, ..Pass::default() }
    }

    /// Lets it in at `limited`, before it is known what it asks for.
    pub(crate) fn begin(&mut self, limited: &Arc<Limited>, now: Nanos) -> Result<(), Exhausted> {
        self.taken.push(limited.enter(now)?);
        Ok(())
    }

    /// It is known what it asks for: that is charged where it has been let in, or it has been let in nowhere.
    pub(crate) fn charge(&mut self, estimate: Estimate, now: Nanos) -> Result<(), Exhausted> {
        self.estimate = estimate;
        for taken in &mut self.taken {
            let tokens = estimate.tokens(&taken.limited().quota);
            if let Err(exhausted) = taken.charge(tokens, now) {
                self.undo(now);
                return Err(exhausted);
            }
        }
        Ok(())
    }

    /// It is refused: it was let in nowhere.
    pub(crate) fn undo(&mut self, now: Nanos) {
        self.taken.drain(..).for_each(|taken| taken.undo(now));
    }

    /// Lets it in at `limited`, or nowhere.
    pub(crate) fn enter(&mut self, limited: &Arc<Limited>, now: Nanos) -> Result<(), Exhausted> {
        match limited.take(self.estimate.tokens(&limited.quota), now) {
            Ok(taken) => {
                self.taken.push(taken);
                Ok(())
            }
            Err(exhausted) => {
                self.undo(now);
                Err(exhausted)
            }
        }
    }

    /// What would keep it out of an upstream.
    pub(crate) fn is_kept_out(&self, limited: &Arc<Limited>, now: Nanos) -> Option<Exhausted> {
        limited.exhausted(self.estimate.tokens(&limited.quota), now)
    }

    /// The upstream at `index` is asked.
    pub(crate) fn ask(&mut self, index: usize, limited: &Arc<Limited>, now: Nanos) -> Result<(), Exhausted> {
        let taken = limited.take(self.estimate.tokens(&limited.quota), now)?;
        self.asked.push((index, taken));
        Ok(())
    }

    /// Those upstreams that are being asked are left, all but `stays`, and have used so many tokens each.
    pub(crate) fn leave(&mut self, stays: Option<usize>, used: u64, now: Nanos) {
        let (stay, left) = self.asked.drain(..).partition(|(index, _)| Some(*index) == stays);
        self.asked = stay;
        left.into_iter().for_each(|(_, taken): (_, Taken)| taken.settle(used, now));
    }

    /// Whether more than one upstream is being asked.
    pub(crate) fn asks_several(&self) -> bool {
        self.asked.len() > 1
    }

    /// It is over, and has used so many tokens.
    pub(crate) fn settle(&mut self, used: u64, now: Nanos) {
        let asked = self.asked.drain(..).map(|(_, taken)| taken);
        self.taken.drain(..).chain(asked).for_each(|taken| taken.settle(used, now));
    }

    /// What it is taken for.
    pub(crate) fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// The fields that tell a client what is left, as lines; none where nothing is limited by the minute. Upstreams' limits are
    /// not the client's business.
    pub(crate) fn fields(&self, now: Nanos) -> Option<Vec<u8>> {
        let standings = self.standings(now);
        standings.iter().any(Option::is_some).then(|| rate_fields::lines(standings))
    }

    /// How much is left of the requests and of the tokens where least is.
    pub(crate) fn standings(&self, now: Nanos) -> Standings {
        let all = || self.taken.iter().map(Taken::limited);
        let requests = all().filter_map(|limited| limited.requests_standing(now)).min_by(scarcer);
        let tokens = all().filter_map(|limited| limited.tokens_standing(now)).min_by(scarcer);
        [requests, tokens]
    }
}

/// What is told to a client whose request was refused: the error, and its fields as lines. Both of the rates are always told,
/// since clients read all six fields; `others` are the request's other limits.
pub(crate) fn refusal(exhausted: &Exhausted, others: &[&Arc<Limited>], now: Nanos) -> (ApiError, Vec<u8>) {
    let Exhausted { limited, limit, wait } = exhausted;
    let all = || std::iter::once(limited).chain(others.iter().copied());
    let scarcest =
        |own: Option<Standing>, all: &mut dyn Iterator<Item = Standing>| own.or_else(|| all.min_by(scarcer));
    let requests = match limit {
        Limit::Requests => limited.requests_standing(now),
        Limit::Streams => limited.streams_standing(),
        _ => None,
    };
    let tokens = if *limit == Limit::Tokens { limited.tokens_standing(now) } else { None };
    let requests = scarcest(requests, &mut all().filter_map(|limited| limited.requests_standing(now)));
    let tokens = scarcest(tokens, &mut all().filter_map(|limited| limited.tokens_standing(now)));
    let mut fields = Vec::with_capacity(320);
    let (seconds, ms) = (wait.div_ceil(1_000_000_000).max(1), wait.div_ceil(1_000_000).max(1));
    write_number(&mut fields, "retry-after", seconds);
    write_number(&mut fields, "retry-after-ms", ms);
    fields.extend(rate_fields::lines([requests, tokens]));
    let (kind, on, most) = match limit {
        Limit::Tokens => ("tokens", "tokens per min (TPM)", limited.quota.tokens_per_minute),
        Limit::Streams => ("requests", "requests at once", limited.quota.streams),
        _ => ("requests", "requests per min (RPM)", limited.quota.requests_per_minute),
    };
    let what =
        format!("{} `{}` on {on}: Limit {}", limited.scope.label(), limited.name, most.unwrap_or_default());
    (ApiError::rate_limited(kind, &what, std::time::Duration::from_millis(ms)), fields)
}

/// Which of two leaves less.
fn scarcer(one: &Standing, other: &Standing) -> std::cmp::Ordering {
    one.remaining.cmp(&other.remaining)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::meter::Scope;
    use crate::admission::rate::MINUTE_NS;

    const NOW: Nanos = MINUTE_NS;

    fn limited(scope: Scope, quota: Quota) -> Arc<Limited> {
        Limited::new(scope, "team", &quota, Arc::default())
    }

    fn rpm(limit: u64) -> Quota {
        Quota { requests_per_minute: Some(limit), ..Quota::default() }
    }

    #[test]
    fn an_answer_that_is_not_limited_is_assumed() {
        let quota = Quota { assumed_tokens: 500, ..Quota::default() };
        let capped = Quota { max_tokens: Some(100), assumed_tokens: 500, ..Quota::default() };
        let silent = Estimate::of_json(9, (0, 0), None, true);
        assert_eq!(Estimate::of_json(4009, (4000, 7), None, false).tokens(&quota), 10);
        assert_eq!((silent.tokens(&quota), silent.tokens(&capped)), (503, 103));
        assert_eq!(Estimate { most: Some(7), ..silent }.tokens(&quota), 10);
        assert_eq!(Estimate { generates: false, ..silent }.tokens(&quota), 3);
        assert_eq!(Estimate::of_json(0, (0, 0), Some(u64::MAX), true).tokens(&quota), u64::MAX);
        assert_eq!(Estimate::of_json(0, (0, 0), Some(101), true).exceeds(&capped), Some(101));
        assert_eq!(silent.exceeds(&capped), None);
    }

    #[test]
    fn what_one_limit_refuses_the_others_do_not_charge() {
        let (key, route) = (limited(Scope::Key, rpm(9)), limited(Scope::Route, rpm(1)));
        let mut first = Pass::new(Estimate::default());
        first.enter(&key, NOW).unwrap();
        first.enter(&route, NOW).unwrap();
        let mut second = Pass::new(Estimate::default());
        second.enter(&key, NOW).unwrap();
        assert_eq!(second.enter(&route, NOW).unwrap_err().limit, Limit::Requests);
        assert_eq!(key.requests_standing(NOW).unwrap().remaining, 8);
    }

    #[test]
    fn an_upstream_that_did_not_answer_gets_its_tokens_back() {
        let quota = Quota { tokens_per_minute: Some(1000), streams: Some(1), ..Quota::default() };
        let (one, two) = (limited(Scope::Upstream, quota.clone()), limited(Scope::Upstream, quota));
        let mut pass = Pass::new(Estimate { prompt: 600, ..Estimate::default() });
        pass.ask(0, &one, NOW).unwrap();
        assert!(pass.is_kept_out(&one, NOW).is_some());
        pass.ask(1, &two, NOW).unwrap();
        pass.leave(Some(1), 0, NOW);
        assert_eq!(one.tokens_standing(NOW).unwrap().remaining, 1000);
        assert!(pass.is_kept_out(&one, NOW).is_none());
        pass.settle(100, NOW);
        assert_eq!(two.tokens_standing(NOW).unwrap().remaining, 900);
        assert_eq!(two.streams_standing().unwrap().remaining, 1);
    }

    #[test]
    fn a_refusal_tells_all_that_sdks_read() {
        let key = limited(Scope::Key, rpm(2));
        let _taken = [key.take(0, NOW), key.take(0, NOW)];
        let exhausted = key.take(0, NOW + 1).err().unwrap();
        let (error, fields) = refusal(&exhausted, &[], NOW);
        assert_eq!(
            String::from_utf8(fields).unwrap(),
            "retry-after: 30\r\nretry-after-ms: 30000\r\n\
             x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1m0s\r\n\
             x-ratelimit-limit-tokens: 9007199254740991\r\nx-ratelimit-remaining-tokens: 9007199254740991\r\n\
             x-ratelimit-reset-tokens: 0s\r\n"
        );
        assert_eq!(
            (error.status, error.kind, error.code, &*error.message),
            (
                429,
                "requests",
                Some("rate_limit_exceeded"),
                "Rate limit reached for key `team` on requests per min (RPM): Limit 2. Please try again in 30 s."
            )
        );
    }
}
