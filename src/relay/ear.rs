//! Hearing whether a client has said anything, without asking each time.
//!
//! A stream's task is woken by two sockets and cannot tell by which. Asking the client's socket on every wake would cost a
//! tenth of a relayed segment, to learn nearly always that it is silent. So the client's socket gets a waker of its own,
//! which remembers that it was the one: while it has not been called, the socket has nothing to say, and its waker is still
//! in place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// The client's side of a task's attention.
pub struct Ear {
    task: Waker,
    heard: AtomicBool,
}

impl Ear {
    /// For the task that `task` wakes. What was said before is heard, too.
    pub fn new(task: &Waker) -> Arc<Ear> {
        Arc::new(Ear { task: task.clone(), heard: AtomicBool::new(true) })
    }

    /// Whether something may have been said since the last call.
    pub fn take(&self) -> bool {
        // Both sides run on one core; nothing but the flag itself is handed over.
        self.heard.load(Ordering::Relaxed) && self.heard.swap(false, Ordering::Relaxed)
    }

    /// Listens again although something is left unheard.
    pub fn keep(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether it serves the task that `task` wakes.
    pub fn is_of(&self, task: &Waker) -> bool {
        self.task.will_wake(task)
    }
}

impl Wake for Ear {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.heard.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_tells_once_and_wakes_its_task() {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let ear = Ear::new(&task);
        assert!(ear.is_of(&task));
        assert!(ear.take());
        assert!(!ear.take());
        Waker::from(Arc::clone(&ear)).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(ear.take());
        assert!(!ear.take());
    }
}
