//! Everything that has limits, by its name; and what is told of it to whoever scrapes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::meter::{Limit, Limited, Meter, Scope};
use super::rate::Nanos;
use crate::config::Quota;
use crate::telemetry::Page;

/// Names that are told apart in metrics. Those beyond it, in the order of their names, are summed as `other`.
const NAMES_SHOWN: usize = 1000;

/// All meters. A reload of the configuration goes on with the meters of the names that stay, and forgets the others'.
#[derive(Debug, Default)]
pub struct Meters(Mutex<HashMap<(Scope, String), Arc<Meter>>>);

impl Meters {
    /// What has been used under this name so far.
    pub(crate) fn of(&self, scope: Scope, name: &str) -> Arc<Meter> {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(meters.entry((scope, name.to_owned())).or_default())
    }

    /// Whoever has such limits, if there are any.
    pub(crate) fn limited(&self, scope: Scope, name: &str, quota: &Quota) -> Option<Arc<Limited>> {
        (!quota.is_unlimited()).then(|| Limited::new(scope, name, quota, self.of(scope, name)))
    }

    /// Forgets all but those that are limited now.
    pub(crate) fn keep<'a>(&self, limited: impl Iterator<Item = &'a Arc<Limited>>) {
        let kept: HashMap<_, _> = limited
            .map(|limited| ((limited.scope, limited.name.clone()), Arc::clone(limited.meter())))
            .collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

/// Appends what is left and what was refused.
pub(crate) fn render<'a>(all: impl Iterator<Item = &'a Arc<Limited>>, now: Nanos, out: &mut String) {
    // Keys of the same name share a meter.
    let all: BTreeMap<(Scope, &str), &Arc<Limited>> =
        all.map(|limited| ((limited.scope, &limited.name[..]), limited)).collect();
    if all.is_empty() {
        return;
    }
    let mut page = Page::new(out);
    let name = "sedge_limit_remaining";
    page.family(name, "gauge", "What could come in now, by whose limit it is.");
    for ((scope, of), limited) in all.iter().take(NAMES_SHOWN) {
        let standings = [
            (Limit::Requests, limited.requests_standing(now)),
            (Limit::Tokens, limited.tokens_standing(now)),
            (Limit::Streams, limited.streams_standing()),
        ];
        for (limit, standing) in standings {
            if let Some(standing) = standing {
                page.labelled(name, &labels(*scope, of, limit), standing.remaining);
            }
        }
    }
    let name = "sedge_limit_refused_total";
    page.family(name, "counter", "Requests refused for a limit, by whose it is.");
    let mut others: BTreeMap<(Scope, &str), u64> = BTreeMap::new();
    for (place, ((scope, of), limited)) in all.iter().enumerate() {
        for limit in Limit::ALL {
            match limited.refused(limit) {
                0 => {}
                refused if place < NAMES_SHOWN => page.labelled(name, &labels(*scope, of, limit), refused),
                refused => *others.entry((*scope, limit.label())).or_default() += refused,
            }
        }
    }
    for ((scope, limit), refused) in others {
        page.labelled(name, &[("scope", scope.label()), ("name", "other"), ("limit", limit)], refused);
    }
}

fn labels(scope: Scope, name: &str, limit: Limit) -> [(&'static str, &str); 3] {
    [("scope", scope.label()), ("name", name), ("limit", limit.label())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_goes_on_and_what_goes_is_forgotten() {
        let meters = Meters::default();
        let quota = Quota { requests_per_minute: Some(1), ..Quota::default() };
        assert!(meters.limited(Scope::Route, "chat", &Quota::default()).is_none());
        let chat = meters.limited(Scope::Route, "chat", &quota).unwrap();
        let other = meters.limited(Scope::Key, "chat", &quota).unwrap();
        assert!(!other.shares_meter(chat.meter()));
        meters.keep([&chat].into_iter());
        assert!(meters.limited(Scope::Route, "chat", &quota).unwrap().shares_meter(chat.meter()));
        assert!(!meters.limited(Scope::Key, "chat", &quota).unwrap().shares_meter(other.meter()));
    }

    #[test]
    fn what_is_left_and_refused_is_shown() {
        let meters = Meters::default();
        let quota = Quota { requests_per_minute: Some(2), streams: Some(5), ..Quota::default() };
        let key = meters.limited(Scope::Key, "a \"team\"", &quota).unwrap();
        let _under_way = key.take(0, 1).unwrap();
        key.count_refused(Limit::MaxTokens);
        let mut out = String::new();
        render([&key].into_iter(), 1, &mut out);
        for line in [
            "sedge_limit_remaining{scope=\"key\",name=\"a \\\"team\\\"\",limit=\"requests\"} 1",
            "sedge_limit_remaining{scope=\"key\",name=\"a \\\"team\\\"\",limit=\"streams\"} 4",
            "sedge_limit_refused_total{scope=\"key\",name=\"a \\\"team\\\"\",limit=\"max_tokens\"} 1",
        ] {
            assert!(out.lines().any(|other| other == line), "{line} in\n{out}");
        }
        let mut none = String::new();
        render(std::iter::empty(), 1, &mut none);
        assert!(none.is_empty());
    }
}
