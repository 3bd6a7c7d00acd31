//! What the kernel knows of a process: the time it was given, the memory it holds, the system calls it made.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPU time of a process.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cpu {
    /// User and system, in nanoseconds, as the scheduler accounts it.
    pub ns: u64,
    /// Of which in user mode, in clock ticks of the same process: good for a share, too coarse for more.
    user_ticks: u64,
    system_ticks: u64,
}

impl Cpu {
    /// Time spent so far by all threads of `pid`.
    pub fn of(pid: u32) -> Cpu {
        let mut cpu = Cpu::default();
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            cpu.ns += number(schedstat.split_whitespace().next());
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        cpu.user_ticks = number(fields.next());
        cpu.system_ticks = number(fields.next());
        cpu
    }

    /// Time spent since `before`.
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            ns: self.ns - before.ns,
            user_ticks: self.user_ticks - before.user_ticks,
            system_ticks: self.system_ticks - before.system_ticks,
        }
    }

    /// The share of it in user mode.
    pub fn user_share(self) -> f64 {
        let all = self.user_ticks + self.system_ticks;
        if all == 0 { f64::NAN } else { self.user_ticks as f64 / all as f64 }
    }
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Proportional set size in bytes: what the process holds of its own, and its share of what others hold too.
pub fn memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    number(line.and_then(|rest| rest.split_whitespace().next())) * 1024
}

/// The cores of this machine that the benchmark may use.
pub fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("the cores that may be used");
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// Keeps the calling thread, and every child that it starts from now on, on these cores.
pub fn stay_on(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).expect("a core that may be used");
}

/// Lets this process and its children hold as many descriptors as the machine allows.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    limit.maximum.unwrap_or(u64::MAX)
}

/// Whether a command stands on the PATH.
pub fn is_installed(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

/// A count of the system calls of a process, going on until it is asked for. The kernel's tracepoint through `perf` where it may
/// be used: it costs the process next to nothing, while `strace` slows it so much that its batches grow.
pub struct SystemCalls {
    counter: Child,
    report: std::path::PathBuf,
}

impl SystemCalls {
    /// Begins to count, if `perf` can.
    pub fn count(pid: u32, scratch: &Path) -> Option<SystemCalls> {
        let report = scratch.join("system-calls.csv");
        let _ = fs::remove_file(&report);
        let counter = Command::new("perf")
            .args(["stat", "-x", ";", "-e", "raw_syscalls:sys_enter", "-o"])
            .arg(&report)
            .args(["-p", &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(SystemCalls { counter, report })
    }

    /// The count.
    pub fn take(mut self) -> io::Result<Option<u64>> {
        let pid = Pid::from_child(&self.counter);
        let _ = kill_process(pid, Signal::INT);
        self.counter.wait()?;
        let report = fs::read_to_string(&self.report).unwrap_or_default();
        let line = report.lines().find(|line| line.contains("raw_syscalls"));
        Ok(line.and_then(|line| line.split(';').next()).and_then(|count| count.parse().ok()))
    }
}
