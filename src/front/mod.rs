//! The front door: the life of a client's connection.
