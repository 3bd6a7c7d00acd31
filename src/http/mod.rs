//! HTTP/1.1 heads and bodies as state machines: bytes in, decisions out. No socket, no clock, no task.
//!
//! httparse splits lines; this room adds what RFC 9112 leaves to a hardened edge, and nothing that it refuses here may
//! reach an upstream. A head is borrowed from the caller's buffer; nothing is copied until it is written out again.
