//! sedge, an edge for streams of tokens. The map of the house, from the top down.
//!
//! | room | what it owns |
//! | --- | --- |
//! | [`cli`], [`serve`] | the command line; the process: cores, signals, reload, handover |
//! | [`config`] | what a user may set, checked before anything starts |
//! | [`edge`] | accepting, a connection's life: head in, key checked, handed on; keep-alive, drain |
//! | [`edge::endpoints`] | what a request can be for, apart from a relay |
//! | [`relay`] | one request to an upstream and its response back: `plan`, `attempt`, `pump`, `finish` |
//! | [`routing`] | which upstream: policies, breakers, limits on concurrency, what is learnt |
//! | [`admission`] | client keys, the operators' token, rates, connection slots, trusted proxies, hosts and origins |
//! | [`subscriptions`] | durable cursors that wake workers, and the task that wakes them |
//! | [`streams`] | durable streams: the rules, where they are kept, who is told |
//! | [`downstream`] | a client's connection: what is read, what is written, its time limits |
//! | [`upstream`] | the client of upstreams: dialing, TLS, pools, heads, probes |
//! | [`telemetry`] | counters, histograms, Prometheus, access log, trace ids |
//! | [`runtime`] | one per core: executor, buffer pool, timer wheel, clock, random names; [`runtime::net`] has the sockets and every `unsafe` system call |
//! | [`proto`] | HTTP/1.1, SSE, JSON, the APIs: pure, no socket and no clock |
//! | [`simulator`], [`load`], [`import`], [`pages`] | the built-in upstream; the load test; other gateways' configurations; what people look at |
//! | [`testing`] | what benchmarks and fuzz targets drive directly |

pub(crate) mod admission;
pub(crate) mod cli;
pub(crate) mod config;
pub(crate) mod downstream;
pub(crate) mod edge;
pub(crate) mod import;
pub(crate) mod load;
pub(crate) mod pages;
pub(crate) mod proto;
pub(crate) mod relay;
pub(crate) mod routing;
pub(crate) mod runtime;
pub(crate) mod serve;
pub(crate) mod simulator;
pub(crate) mod streams;
pub(crate) mod subscriptions;
pub(crate) mod telemetry;
pub(crate) mod tell;
pub mod testing;
pub(crate) mod upstream;

pub use crate::cli::run::main;
pub use crate::runtime::net::allocator::Allocator;
