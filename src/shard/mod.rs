//! One per core: runtime, listener, buffer pool, timer wheel, clock.
