//! What the operating system knows of this process, for the `process_*` metrics that Prometheus's client libraries agreed
//! on. Best effort: what cannot be read is left out, never guessed.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// One reading.
#[derive(Debug, Default)]
pub(crate) struct ProcessStats {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    /// `None` when there is no limit.
    pub(crate) max_fds: Option<u64>,
}

impl ProcessStats {
    pub(crate) fn read() -> ProcessStats {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        ProcessStats {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: fs::read_to_string("/proc/self/status").ok().and_then(|status| resident(&status)),
            // The listing holds the descriptor it is read by; that one is not ours.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

/// The line `VmRSS:     1234 kB` (proc_pid_status(5)), in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let stats = ProcessStats::read();
        assert!(stats.cpu_seconds > 0.0);
        assert!(stats.resident_bytes.unwrap() > 64 * 1024);
        assert!(stats.open_fds.unwrap() >= 1);
    }

    #[test]
    fn the_resident_size_is_in_kibibytes() {
        assert_eq!(resident("Name:\tsedge\nVmRSS:\t    2048 kB\nThreads:\t3\n"), Some(2048 * 1024));
        assert_eq!(resident("Name:\tsedge\n"), None);
    }
}
