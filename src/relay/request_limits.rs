//! A request before the limits: its key's, its route's when it is known what it asks for, an upstream's whenever one is
//! about to be asked, and the books closed at its end.
//!
//! A request that is refused is refused before an upstream is asked, and takes nothing anywhere. An upstream that has nothing
//! left is passed over as if it were not there; only where that leaves nobody is it the client's 429.

use std::rc::Rc;
use std::sync::Arc;

use super::context::Core;
use super::exchange::Exchange;
use super::finish::error_response::Failure;
use super::request_record::Ledger;
use super::response_head::Learnt;
use crate::admission::api_key::Holder;
use crate::admission::meter::{Exhausted, Limit, Limited};
use crate::admission::rate::Nanos;
use crate::admission::rate_fields;
use crate::admission::reservation::{Estimate, Pass};
use crate::config::Route;
use crate::proto::http1::request::RequestBody;
use crate::proto::http1::response::ResponseHead;
use crate::proto::openai::{ApiError, Peek, PeekState};
use crate::telemetry::Outcome;
use crate::upstream::target::Target;

impl Exchange<'_> {
    /// Whether the key may ask this, and whether it and the route at `index` have anything left.
    pub(crate) fn admit(&mut self, index: usize) -> Result<(), Failure> {
        let holder = self.request.holder().cloned();
        if let Some(holder) = &holder {
            self.check_model(holder)?;
        }
        let key = holder.as_ref().and_then(|holder| holder.limited.as_ref());
        let settings = Arc::clone(&self.settings);
        let limits = [key, settings.route_limit(index)];
        if limits.iter().all(Option::is_none) {
            if !settings.upstream_limits.is_empty() {
                // Now, while all of the body is here: each upstream that may be asked has its look at it.
                self.pass_mut();
            }
            return Ok(());
        }
        let estimate = self.estimate();
        for limited in limits.into_iter().flatten() {
            self.check_most(estimate, limited)?;
        }
        let now = now_ns(self.core);
        let account = self.request.account_mut();
        let pass = account.pass.get_or_insert_default();
        let charged = pass.charge(estimate, now);
        let route = settings.route_limit(index);
        let entered = charged.and_then(|()| route.map_or(Ok(()), |route| pass.enter(route, now)));
        match entered {
            Ok(()) => {
                account.fields = pass.fields(now).map(Vec::into_boxed_slice);
                Ok(())
            }
            Err(exhausted) => {
                let others: Vec<_> = limits.into_iter().flatten().collect();
                Err(account.refuse(&exhausted, &others, now).into())
            }
        }
    }

    /// Takes the key's seat, before anything of the request is waited for.
    pub(crate) fn enter_key(&mut self) -> Result<(), Failure> {
        let Some(limited) = self.request.holder().and_then(|holder| holder.limited.clone()) else {
            return Ok(());
        };
        let now = now_ns(self.core);
        let account = self.request.account_mut();
        let pass = account.pass.get_or_insert_default();
        pass.begin(&limited, now).map_err(|exhausted| account.refuse(&exhausted, &[], now).into())
    }

    fn check_model(&mut self, holder: &Holder) -> Result<(), Failure> {
        let model = self.ledger.model.as_deref();
        let allowed = match model {
            Some(model) => holder.may_ask(model),
            None => !holder.is_restricted() || !self.has_body(),
        };
        if allowed {
            return Ok(());
        }
        let error = ApiError::model_not_allowed(&holder.name, model);
        self.note_refused(holder.limited.as_deref(), Limit::Models);
        Err(error.into())
    }

    /// Whether it asks for no more than `limited` lets one request have.
    fn check_most(&mut self, estimate: Estimate, limited: &Limited) -> Result<(), Failure> {
        let Some(max) = limited.quota.max_tokens else { return Ok(()) };
        let of = || format!("{} `{}`", limited.scope.label(), limited.name);
        let error = match estimate.exceeds(&limited.quota) {
            Some(asked) => {
                let field = self.upload.peek().map_or("max_tokens", Peek::max_tokens_field);
                ApiError::max_tokens_too_large(field, asked, estimate.answers, max, &of())
            }
            // What cannot be read here may well be read by the upstream.
            None if self.is_hidden() => ApiError::limits_need_json(&of()),
            None => return Ok(()),
        };
        self.note_refused(Some(limited), Limit::MaxTokens);
        Err(error.into())
    }

    /// Whether it may ask for something that nobody here can see.
    fn is_hidden(&self) -> bool {
        let seen = self.upload.peek().is_some_and(|peek| peek.state() == PeekState::Done && !peek.is_form());
        !seen && self.has_body() && generates(self.request.path())
    }

    fn has_body(&self) -> bool {
        !matches!(self.request.body, RequestBody::None | RequestBody::Length(0))
    }

    /// Where an upstream tells of its rates in `head`, the client is told of ours that are tighter, and of no others.
    pub(crate) fn tell_tighter(&mut self, head: &ResponseHead<'_>, learnt: &mut Learnt) {
        let now = now_ns(self.core);
        let Some(account) = self.request.account().filter(|account| account.fields.is_some()) else { return };
        if !rate_fields::tells(head) {
            return;
        }
        let ours = account.pass.as_ref().map_or([None; 2], |pass| pass.standings(now));
        let (replaced, lines) = rate_fields::tighter(head, ours);
        learnt.replaced = replaced;
        self.request.account_mut().fields = (!lines.is_empty()).then(|| lines.into_boxed_slice());
    }

    /// Whether the upstream at `index` has anything left for this request.
    pub(crate) fn may_ask(&self, index: usize) -> bool {
        let Some(limited) = self.settings.upstream_limit(index) else { return true };
        self.kept_out(limited).is_none()
    }

    /// Whether the route at `index` has, for a request that falls back to it.
    pub(crate) fn may_fall_back(&self, index: usize) -> bool {
        let Some(limited) = self.settings.route_limit(index) else { return true };
        self.kept_out(limited).is_none()
    }

    /// The request has fallen back to the route at `index`.
    pub(crate) fn enter_route(&mut self, index: usize) -> Result<(), Failure> {
        let settings = Arc::clone(&self.settings);
        let Some(limited) = settings.route_limit(index) else { return Ok(()) };
        let now = now_ns(self.core);
        self.pass_mut()
            .enter(limited, now)
            .map_err(|exhausted| self.request.account_mut().refuse(&exhausted, &[], now).into())
    }

    /// The upstream at `index` is to be asked. It has been chosen among those that have something left, but another core may have
    /// been faster.
    pub(crate) fn enter_upstream(&mut self, index: usize, route: &Route) -> Result<(), Failure> {
        if self.try_upstream(index) { Ok(()) } else { Err(self.exhausted(route)) }
    }

    /// None of the upstreams of `route` has anything left: the client is told of the one that it has to wait for least.
    pub(crate) fn exhausted(&mut self, route: &Route) -> Failure {
        let settings = Arc::clone(&self.settings);
        let all = route.upstreams.iter().filter(|member| member.weight > 0);
        let all = all.filter_map(|member| settings.upstream_limit(member.index));
        let soonest = all.filter_map(|limited| self.kept_out(limited)).min_by_key(|exhausted| exhausted.wait);
        if let Some(Exhausted { limit: Limit::MaxTokens, limited, .. }) = &soonest {
            let estimate = self.pass_mut().estimate();
            if let Err(failure) = self.check_most(estimate, limited) {
                return failure;
            }
        }
        match soonest {
            Some(exhausted) => {
                let now = now_ns(self.core);
                self.request.account_mut().refuse(&exhausted, &[], now).into()
            }
            // One has become free between the two looks.
            None => ApiError::overloaded().into(),
        }
    }

    /// Likewise, and whether it may be.
    pub(crate) fn try_upstream(&mut self, index: usize) -> bool {
        let settings = Arc::clone(&self.settings);
        let Some(limited) = settings.upstream_limit(index) else { return true };
        let now = now_ns(self.core);
        self.is_within(limited) && self.pass_mut().ask(index, limited, now).is_ok()
    }

    /// An attempt has failed, and the next is nobody's yet.
    pub(crate) fn leave_upstreams(&mut self) {
        let core = Rc::clone(self.core);
        if let Some(pass) = self.taken() {
            pass.leave(None, 0, now_ns(&core));
        }
    }

    /// Of two that were asked, the one at `target` has won. The other has read the prompt.
    pub(crate) fn leave_others(&mut self, target: &Arc<Target>) {
        let (settings, core) = (Arc::clone(&self.settings), Rc::clone(self.core));
        let Some(pass) = self.taken().filter(|pass| pass.asks_several()) else { return };
        let winner = settings.targets.iter().position(|other| Arc::ptr_eq(other, target));
        pass.leave(winner, pass.estimate().prompt, now_ns(&core));
    }

    /// It is over: what was guessed is set right.
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        let Some(prompt) = self.taken().map(|pass| pass.estimate().prompt) else { return };
        let now = now_ns(self.core);
        if outcome == Outcome::Refused && self.ledger.attempts == 0 {
            return self.pass_mut().undo(now);
        }
        let used = used(&self.ledger, outcome, prompt);
        self.pass_mut().settle(used, now);
    }

    /// What keeps it out of an upstream.
    fn kept_out(&self, limited: &Arc<Limited>) -> Option<Exhausted> {
        if !self.is_within(limited) {
            return Some(Exhausted {
                limited: Arc::clone(limited),
                limit: Limit::MaxTokens,
                wait: Nanos::MAX,
            });
        }
        let now = now_ns(self.core);
        match self.request.account().and_then(|account| account.pass.as_ref()) {
            Some(pass) => pass.is_kept_out(limited, now),
            None => Pass::new(self.estimate()).is_kept_out(limited, now),
        }
    }

    fn is_within(&self, limited: &Limited) -> bool {
        let pass = self.request.account().and_then(|account| account.pass.as_ref());
        let estimate = pass.map_or_else(|| self.estimate(), Pass::estimate);
        limited.quota.max_tokens.is_none() || estimate.exceeds(&limited.quota).is_none() && !self.is_hidden()
    }

    fn pass_mut(&mut self) -> &mut Pass {
        let estimate = if self.taken().is_none() { self.estimate() } else { Estimate::default() };
        self.request.account_mut().pass.get_or_insert_with(|| Pass::new(estimate))
    }

    /// What was taken, if anything was. Asking does not make an account.
    fn taken(&mut self) -> Option<&mut Pass> {
        self.request.account()?.pass.as_ref()?;
        self.request.account_mut().pass.as_mut()
    }

    /// What the request will use. Where the rest of a large body is still to come, its declared length counts and what it asks
    /// for is not known yet.
    fn estimate(&self) -> Estimate {
        let Some(peek) = self.upload.peek().filter(|peek| !peek.is_form()) else {
            return Estimate::default();
        };
        let bytes = self.body_bytes();
        let path = self.request.path();
        let prompts = if says_many(path) { peek.prompts() } else { 1 };
        let answers = peek.choices().saturating_mul(prompts);
        let media = if self.upload.decides().tokens { self.upload.media() } else { (0, 0) };
        Estimate { answers, ..Estimate::of_json(bytes, media, peek.max_tokens(), generates(path)) }
    }

    /// The length of the body, as far as it is known.
    pub(crate) fn body_bytes(&self) -> u64 {
        match self.request.body {
            RequestBody::Length(length) => length,
            RequestBody::Chunked | RequestBody::None => self.upload.received,
        }
    }

    fn note_refused(&mut self, limited: Option<&Limited>, limit: Limit) {
        if let Some(limited) = limited {
            self.request.account_mut().note_refused(limited, limit);
        }
    }
}

/// Whether tokens are generated there.
fn generates(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    ["/completions", "/responses", "/messages"].iter().any(|end| path.ends_with(end))
}

/// Whether an endpoint answers several prompts at once: text completions do.
fn says_many(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    path.ends_with("/completions") && !path.ends_with("/chat/completions")
}

fn now_ns(core: &Core) -> Nanos {
    core.shard.clock.micros() * 1000
}

/// The tokens that a request has used: as its answer says, else what can be told of it. An answer that was an error has used
/// none; one that broke off without a word has used its prompt and, as each event of a stream brings a token, its events.
fn used(ledger: &Ledger, outcome: Outcome, prompt: u64) -> u64 {
    let begun = ledger.first_byte.is_some() && ledger.status < 400;
    let cancelled = outcome == Outcome::ClientGone && ledger.attempts > 0;
    match ledger.tokens() {
        Some(tokens) => tokens,
        None if begun => prompt.saturating_add(ledger.events),
        None if cancelled => prompt,
        None => 0,
    }
}
