//! Sockets, TLS and system calls. The only room where `unsafe` may stand.
