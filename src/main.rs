//! The sedge binary: a thin shell around [`sedge::main`].

use std::process::ExitCode;

/// Streams make many small, short-lived allocations at their beginning and end; tuning.md has the figures.
#[global_allocator]
static ALLOCATOR: sedge::Allocator = sedge::Allocator;

fn main() -> ExitCode {
    sedge::main()
}
