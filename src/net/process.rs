//! Limits of the process itself.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many descriptors as the system lets this user have: each stream needs two.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// Memory comes in small pages. A stream holds some three kibibytes in a dozen small allocations; in huge pages the heap grows
/// by two mebibytes at a time, a fifth of them for nothing (tuning.md).
pub fn forbid_huge_pages() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

/// No core dump is ever written: it would hold keys, prompts and answers.
pub fn forbid_core_dumps() -> io::Result<()> {
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}
