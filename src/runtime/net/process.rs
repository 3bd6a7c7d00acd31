//! Limits of the process itself.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Takes as many descriptors as the system lets this user have: each stream needs two.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// Memory comes in small pages. A stream holds some three kibibytes in a dozen small allocations; in huge pages the heap grows
/// by two mebibytes at a time, a fifth of them for nothing (tuning.md).
pub(crate) fn forbid_huge_pages() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

/// No core dump is ever written: it would hold keys, prompts and answers. A handler behind a pipe (`core_pattern` with `|`) is given a dump
/// whatever the limit says (core(5)), so the process is made undumpable as well; that survives until the next exec, and leaves `/proc/self`
/// readable to itself.
pub(crate) fn forbid_core_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
