//! Upstreams: choice, dialing, and the per-core pool of idle connections.
