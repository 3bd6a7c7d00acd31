//! One request to an upstream and its answer back.
