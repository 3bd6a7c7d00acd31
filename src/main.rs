//! The sedge binary.

fn main() {}
