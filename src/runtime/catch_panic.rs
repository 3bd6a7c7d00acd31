//! A future whose panic ends it and nothing else.
//!
//! A task that panics is dropped by the runtime, and with a client's task that is the right end: its connection closes, and
//! everything it held is given back. A task that works for others (a webhook, a health check) must come back with a result
//! instead, or what waits for it waits for ever.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::tell;

/// What `future` comes to; nothing if it panics. What it holds is dropped then, and is used by nobody else afterwards.
pub(crate) async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Runs a service that many depend on until it ends by itself: again after each panic, once `rest` has passed. `what` names it
/// in the log.
pub(crate) async fn kept_up<F: Future<Output = ()>>(what: &str, make: impl Fn() -> F, rest: impl AsyncFn()) {
    while caught(make()).await.is_none() {
        tell!("sedge: {what} failed by a bug, which the lines above describe; it starts again");
        rest().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_service_starts_again_until_it_ends_by_itself() {
        let (runs, rests) = (Cell::new(0), Cell::new(0));
        let make = async || {
            runs.set(runs.get() + 1);
            tokio::task::yield_now().await;
            assert!(runs.get() > 2, "a panic of this test's own");
        };
        kept_up("a service", make, async || rests.set(rests.get() + 1)).await;
        assert_eq!((runs.get(), rests.get()), (3, 2));
    }

    #[tokio::test]
    async fn a_panic_is_no_result() {
        assert_eq!(caught(async { 1 }).await, Some(1));
        let fails = async {
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "a panic of this test's own");
        };
        assert_eq!(caught(fails).await, None);
    }
}
