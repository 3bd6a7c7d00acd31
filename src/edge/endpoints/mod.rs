//! What a request can be for, apart from a relay: one module each.
//!
//! | module | serves |
//! | --- | --- |
//! | [`builtin`] | pages, health, metrics: short responses made here |
//! | [`models`], [`model_lists`] | `GET /v1/models`: what all upstreams offer |
//! | [`batch`] | `POST /v1/sedge/batch`: many requests in one, answered as they finish |
//! | [`streams`] | durable streams |
//! | [`subscriptions`] | subscriptions to streams |

pub(crate) mod batch;
pub(crate) mod builtin;
pub(crate) mod model_lists;
pub(crate) mod models;
pub(crate) mod streams;
pub(crate) mod subscriptions;
