//! The edge under callgrind: what it does is counted, whatever else the machine does.

use std::collections::HashMap;

use rustix::process::Signal;

use super::edge::scratch;
use super::{Edge, Upstream};

/// What a tick of a core costs at least, in user instructions (measured: 2,300). How many there are is up to the machine, which may be
/// busy with something else.
const TICK_INSTRUCTIONS: u64 = 2_000;

/// What callgrind counts.
pub struct Profile {
    /// In user space, but for the ticks.
    pub instructions: u64,
    /// Pieces of memory that were asked for.
    pub allocations: u64,
}

/// The edge's whole life, with `run` in it.
pub fn profile(run: impl FnOnce(&Edge, &Upstream)) -> Profile {
    let out = scratch("callgrind.out");
    let file = format!("--callgrind-out-file={}", out.display());
    let upstream = Upstream::listen();
    let mut edge = Edge::under(&["valgrind", "--quiet", "--tool=callgrind", &file], &upstream);
    run(&edge, &upstream);
    edge.signal(Signal::TERM);
    assert!(edge.wait_exit().success());
    let text = std::fs::read_to_string(&out).expect("callgrind's file");
    let line = text.lines().find_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")));
    let total: u64 = line.and_then(|count| count.trim().parse().ok()).expect("callgrind's total");
    // Each reads the core's timer, and nothing else is read so.
    let ticks = calls(&text, |_, callee| callee == "read");
    let asks =
        |callee: &str| callee.starts_with("mi_") && ["alloc", "new"].iter().any(|word| callee.contains(word));
    let allocations = calls(&text, |caller, callee| asks(callee) && !caller.contains("mi_"));
    assert!(ticks > 0 && allocations > 0, "callgrind knows of {ticks} ticks and {allocations} allocations");
    Profile { instructions: total - ticks * TICK_INSTRUCTIONS, allocations }
}

/// Calls in callgrind's file, of those whose caller and callee count: a name follows its number where it stands first,
/// `(12) mi_malloc`, and the line behind `cfn=` says how often (`calls=3 ...`).
fn calls(text: &str, counts: impl Fn(&str, &str) -> bool) -> u64 {
    let (mut names, mut caller, mut callee, mut sum) = (HashMap::new(), "", "", 0);
    for line in text.lines() {
        let Some((kind, rest)) = line.split_once('=') else { continue };
        if !matches!(kind, "fn" | "cfn" | "calls") {
            continue;
        }
        if kind == "calls" {
            let count: u64 = rest.split(' ').next().and_then(|count| count.parse().ok()).expect("a count");
            sum += if counts(caller, callee) { count } else { 0 };
            continue;
        }
        let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
        let name = if name.is_empty() { names.get(number).copied().unwrap_or_default() } else { name };
        names.insert(number, name);
        *if kind == "fn" { &mut caller } else { &mut callee } = name;
    }
    sum
}
