//! x
mod support;
#[test] fn a() { let _ = support::stream_request(); }
