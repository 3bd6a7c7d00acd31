//! sedge, an edge for streams of tokens. The map of the house, from the top down; arrows run downwards only.
//!
//! | room | what lives there | may use |
//! | --- | --- | --- |
//! | `main.rs`, [`cli`], [`config`] | the command line; what a user may set, checked before anything starts | everything |
//! | [`import`] | a configuration of LiteLLM's, made into one of ours | `guard` |
//! | [`load`] | the load test: a client of any such API | `upstream` and below |
//! | [`front`] | a client connection's life: head in, key checked, handed on; keep-alive, drain; batches; durable streams | everything below |
//! | [`relay`] | one request to an upstream and back: the pump, heartbeats, honest endings; the tee into a durable stream | `upstream` and below |
//! | [`upstream`] | choice of upstream, breakers and limits, dialing, the per-core pool | `shard`, `net`, the core |
//! | [`page`], [`simulator`] | what people look at; the upstream that answers when none is configured | `shard`, the core, `observe` |
//! | [`shard`] | one per core: runtime, listener, buffer pool, timer wheel, clock | `net` |
//! | [`net`] | sockets, TLS, every `unsafe` system call | nothing |
//! | [`guard`] | client keys, the operators' token, limits and seats, trusted proxies | `observe`, the core |
//! | [`observe`] | counters, histograms, access log, trace ids | nothing |
//! | [`http`] | HTTP/1.1 heads and body framing as state machines | nothing |
//! | [`stream`] | durable streams: logs, who reads them, what is kept on disk, who is woken | `observe`, the core |
//! | [`sse`] | event boundaries, events written | nothing |
//! | [`openai`] | `model` and `stream` of a request, the side band of a response, errors in each API's dialect | `http`, `sse` |

mod tell;

pub(crate) mod cli;
pub(crate) mod config;
pub(crate) mod front;
pub(crate) mod guard;
pub(crate) mod http;
pub(crate) mod import;
pub(crate) mod load;
pub(crate) mod net;
pub(crate) mod observe;
pub(crate) mod openai;
pub(crate) mod page;
pub(crate) mod relay;
pub(crate) mod serve;
pub(crate) mod shard;
pub(crate) mod simulator;
pub(crate) mod sse;
pub(crate) mod stream;
pub(crate) mod upstream;

pub mod testing;

pub use cli::run::main;
pub use net::allocator::Allocator;
