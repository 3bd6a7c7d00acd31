//! The upstreams' health, for `GET /metrics`.

use std::sync::Arc;

use super::breaker::State;
use super::concurrency_limiter::Shed;
use super::health::{Health, Opened};
use crate::runtime::clock::Millis;
use crate::telemetry::Page;
use crate::upstream::target::Target;

/// Appends what is known of the upstreams that are configured.
pub(crate) fn render(targets: &[Arc<Target>], now: Millis, out: &mut String) {
    let mut page = Page::new(out);
    let mut each = |name: &str, kind: &str, help: &str, read: &dyn Fn(&Health) -> u64| {
        page.family(name, kind, help);
        for target in targets {
            page.labelled(name, &[("upstream", &target.name)], read(&target.health));
        }
    };
    each(
        "sedge_upstream_in_flight",
        "gauge",
        "Requests to an upstream that are not over.",
        &Health::in_flight,
    );
    each(
        "sedge_upstream_parked_total",
        "counter",
        "Times that an upstream asked to be left alone by Retry-After, and was.",
        &Health::parked,
    );
    let name = "sedge_upstream_state";
    page.family(name, "gauge", "Whether an upstream's breaker is in this state (1) or not (0).");
    for target in targets {
        let now = target.health.state(now);
        for state in State::ALL {
            page.labelled(
                name,
                &[("upstream", &target.name), ("state", state.label())],
                (state == now).into(),
            );
        }
    }
    let limited = || targets.iter().filter_map(|target| Some((target, target.concurrency.as_ref()?)));
    let name = "sedge_upstream_concurrency_limit";
    page.family(name, "gauge", "Requests at a time that an upstream is asked, where that is limited.");
    for (target, rules) in limited() {
        let (limit, _) = target.health.turnstile.read(rules);
        page.labelled(name, &[("upstream", &target.name)], limit.into());
    }
    let name = "sedge_upstream_queue";
    page.family(name, "gauge", "Requests that wait for a place at such an upstream.");
    for (target, rules) in limited() {
        let (_, waiting) = target.health.turnstile.read(rules);
        page.labelled(name, &[("upstream", &target.name)], waiting as u64);
    }
    let name = "sedge_upstream_shed_total";
    page.family(name, "counter", "Requests that found no place, nor one in the queue, or waited too long.");
    for (target, _) in limited() {
        for reason in Shed::ALL {
            let labels = [("upstream", &target.name[..]), ("reason", reason.label())];
            page.labelled(name, &labels, target.health.turnstile.shed(reason));
        }
    }
    let name = "sedge_upstream_probes_total";
    page.family(name, "counter", "Active probes of an upstream.");
    for target in targets.iter().filter(|target| target.probe.is_some()) {
        let [failed, ok] = target.health.checks();
        for (result, count) in [("ok", ok), ("failed", failed)] {
            page.labelled(name, &[("upstream", &target.name), ("result", result)], count);
        }
    }
    let name = "sedge_upstream_model_lists_total";
    page.family(name, "counter", "Answers to GET /v1/models with an upstream's own list, and without.");
    for target in targets {
        let [without, with] = target.health.models.counts();
        for (result, count) in [("ok", with), ("missing", without)] {
            page.labelled(name, &[("upstream", &target.name), ("result", result)], count);
        }
    }
    let name = "sedge_upstream_opens_total";
    page.family(name, "counter", "Times that an upstream's breaker has opened.");
    for target in targets {
        for reason in Opened::ALL {
            let labels = [("upstream", &target.name[..]), ("reason", reason.label())];
            page.labelled(name, &labels, target.health.opened(reason));
        }
    }
}
