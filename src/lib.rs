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

pub mod cli;
pub mod config;
pub mod front;
pub mod guard;
pub mod http;
pub mod import;
pub mod load;
pub mod net;
pub mod observe;
pub mod openai;
pub mod page;
pub mod relay;
pub mod serve;
pub mod shard;
pub mod simulator;
pub mod sse;
pub mod stream;
pub mod upstream;
