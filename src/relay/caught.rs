//! A panic as a value: a task that holds something for others goes on to give it back.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Runs `work` to its end; `None` if it panicked, which the panic hook has logged by then. Nothing of `work` is looked at
/// afterwards: it is dropped by the caller, as it would be while a panic unwinds.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_work_alone() {
        assert_eq!(caught(async { 1 }).await, Some(1));
        let late = caught(async {
            tokio::task::yield_now().await;
            panic!("a bug");
        });
        assert_eq!(late.await, None::<()>);
    }
}
