//! Which upstream is asked: policies, health, breakers, limits on concurrency, and what is learnt from each response.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`balancer`], [`affinity`] | the choice; whose keys are whose |
//! | [`breaker`], [`window`], [`health`] | who is left alone for a while, by what it did lately and by what probes say |
//! | [`latency`], [`call`] | how long it takes, and who counts it |
//! | [`concurrency_limiter`], [`aimd`], [`fair_queue`] | how many requests at once, learnt from latency; who waits, and in which order |
//! | [`metrics`] | what is counted of each upstream |

pub(crate) mod affinity;
pub(crate) mod aimd;
pub(crate) mod balancer;
pub(crate) mod breaker;
pub(crate) mod call;
pub(crate) mod concurrency_limiter;
pub(crate) mod fair_queue;
pub(crate) mod health;
pub(crate) mod latency;
pub(crate) mod metrics;
pub(crate) mod window;
