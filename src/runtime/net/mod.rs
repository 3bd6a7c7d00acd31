//! Sockets, TLS and system calls. The only room where `unsafe` may stand; rustix and socket2 make it needless nearly everywhere.
//!
//! - [`listener`]: one `SO_REUSEPORT` listener a core, so that the kernel spreads connections without a shared queue.
//! - [`inherit`]: sockets that were opened before this process was.
//! - [`stream`]: a connection, plain or TLS, with poll functions and nothing else: no split halves, no buffering.
//! - [`pair`]: two sockets of this process, for requests that it makes to itself.
//! - [`tls`]: rustls configurations from PEM files.
//! - [`ticker`]: the timerfd that drives a core's wheel. tokio's own timers are not enabled on a core: with them each park
//!   takes the timer's lock to ask for the next deadline.
//! - [`allocator`]: the memory of everything else.
//! - [`cpu`] pins; [`process`] limits; [`reserve`] keeps descriptors for when there are no others.

pub(crate) mod allocator;
pub(crate) mod cpu;
pub(crate) mod inherit;
pub(crate) mod listener;
pub(crate) mod pair;
pub(crate) mod process;
pub(crate) mod reserve;
pub(crate) mod stream;
pub(crate) mod ticker;
pub(crate) mod tls;
