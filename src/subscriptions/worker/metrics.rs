//! Subscriptions and their webhooks, for `GET /metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Desk;
use crate::subscriptions::Delivered;
use crate::telemetry::Page;

/// Webhooks by what came of them. Rare enough to be counted in one place for all cores.
#[derive(Debug, Default)]
pub(crate) struct Webhooks([AtomicU64; 3]);

const OUTCOMES: [(Delivered, &str); 3] =
    [(Delivered::Done, "done"), (Delivered::Accepted, "accepted"), (Delivered::Failed, "failed")];

impl Webhooks {
    pub(crate) fn count(&self, outcome: Delivered) {
        for (counter, (known, _)) in self.0.iter().zip(OUTCOMES) {
            if known == outcome {
                counter.fetch_add(1, Relaxed);
            }
        }
    }
}

impl Desk {
    /// Appends what is known of them.
    pub(crate) fn render(&self, out: &mut String) {
        let (subscriptions, unlinked) = self.totals();
        let mut page = Page::new(out);
        page.gauge("sedge_subscriptions", "Subscriptions of durable streams.", subscriptions);
        page.gauge(
            "sedge_subscriptions_memory_bytes",
            "Memory that subscriptions take on this node, a part of what durable streams may take.",
            self.held(),
        );
        page.counter(
            "sedge_subscription_streams_left_out_total",
            "Streams that a pattern matched and that were left out, because the subscription had as many as it may or there was no memory.",
            unlinked,
        );
        let name = "sedge_webhooks_total";
        page.family(
            name,
            "counter",
            "Webhooks by what came of them: the work was done, they were taken, or they failed and come again.",
        );
        for (counter, (_, outcome)) in self.webhooks.0.iter().zip(OUTCOMES) {
            page.labelled(name, &[("outcome", outcome)], counter.load(Relaxed));
        }
    }
}
