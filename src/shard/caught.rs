//! A future whose panic ends it and nothing else.
//!
//! A task that panics is dropped by the runtime, and with a client's task that is the right end: its connection closes, and
//! everything it held is given back. A task that works for others (a webhook, a health check) must come back with a result
//! instead, or what waits for it waits for ever.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// What `future` comes to; nothing if it panics. What it holds is dropped then, and is used by nobody else afterwards.
pub async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

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
