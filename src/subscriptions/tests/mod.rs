//! What the protocol says, one story each.

pub(crate) mod keeping;
pub(crate) mod pull_wake;
pub(crate) mod webhook;

use serde_json::{Value, json};

use super::world::Server;
use super::*;

fn webhook() -> Value {
    json!({ "type": "webhook", "pattern": "events/*", "webhook": { "url": "http://127.0.0.1:9/hook" }, "lease_ttl_ms": 1000 })
}

fn pull() -> Value {
    json!({ "type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool", "lease_ttl_ms": 1000 })
}

/// The body of an ack or callback for a wake that was told by `wake`.
fn progress(wake: &Value, acks: &[(&str, &str)], done: bool) -> Value {
    let acks: Vec<_> =
        acks.iter().map(|(stream, offset)| json!({ "stream": stream, "offset": offset })).collect();
    json!({ "wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks, "done": done })
}

fn claim(server: &mut Server, worker: &str) -> Result<Value, Code> {
    server.ask("s", "claim", None, &json!({ "worker": worker }))
}
