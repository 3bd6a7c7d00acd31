//! The built-in upstream: OpenAI-compatible, deterministic, as fast as asked.
