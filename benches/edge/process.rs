//! What the kernel knows of a process: the time it was given, the memory it holds, the system calls it made.

use std::fs;
use std::io;
use std::path::PathBuf;
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
    find(command).is_some()
}

/// Where a command stands on the PATH.
pub fn find(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(command)).find(|file| file.is_file())
}

/// What `perf` is asked to do with a process until it is told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Count its system calls, by the kernel's tracepoint: it costs the process next to nothing, while `strace` slows it so much
    /// that its batches grow.
    SystemCalls,
    /// Record where its time goes, with the stacks.
    Stacks,
}

/// `perf`, at work on a process.
pub struct Perf {
    perf: Child,
    out: PathBuf,
}

impl Perf {
    /// Sets it to work, writing to `out`.
    pub fn start(ask: Ask, pid: u32, out: PathBuf) -> io::Result<Perf> {
        let args: &[&str] = match ask {
            Ask::SystemCalls => &["stat", "-x", ";", "-e", "raw_syscalls:sys_enter"],
            // The clock, for want of a counter of cycles in most virtual machines; a rate that no tick divides.
            Ask::Stacks => &["record", "--quiet", "-e", "cpu-clock", "-F", "1999", "--call-graph", "fp"],
        };
        let perf = Command::new("perf")
            .args(args)
            .arg("-o")
            .arg(&out)
            .args(["-p", &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Perf { perf, out })
    }

    /// Stops it. The count, if it was to count.
    pub fn stop(mut self) -> io::Result<Option<u64>> {
        let _ = kill_process(Pid::from_child(&self.perf), Signal::INT);
        self.perf.wait()?;
        let report = fs::read(&self.out)?;
        let report = String::from_utf8_lossy(&report);
        let line =
            report.lines().find(|line| line.contains(";raw_syscalls") || line.contains("raw_syscalls:"));
        Ok(line.and_then(|line| line.split(';').next()).and_then(|count| count.parse().ok()))
    }
}
