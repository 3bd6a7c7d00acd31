//! A core that does not run is reported: by `/livez`, by a metric and in the log.
//!
//! The story: a core hung in a loop for good, none of its connections was served any more, and `/livez` on the admin listener went
//! on saying that all was well, so that nothing restarted the process.

mod support;

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write, pipe};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use support::edge::binary;
use support::streams::{directory, path, remove, request};
use support::{Edge, Wire, get, wait_until};

/// What a pipe holds.
const PIPE_BYTES: u64 = 64 << 10;

/// A process whose standard error is a pipe in the test's hands, and whose disk takes 1 MiB and no more.
struct Mute {
    child: Child,
    lines: BufReader<PipeReader>,
    writer: PipeWriter,
    admin: SocketAddr,
    public: SocketAddr,
}

impl Mute {
    fn start(data: &str) -> Mute {
        let (reader, writer) = pipe().expect("a pipe");
        let script = "trap '' XFSZ; ulimit -f 2048 && exec \"$0\" \"$@\"";
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(binary())
            .args(["--workers", "1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir", data])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer.try_clone().expect("the same pipe"))
            .spawn();
        let (child, mut lines) = (child.expect("start sedge"), BufReader::new(reader));
        let mut address = |needle: &str| {
            let line = line(&mut lines, needle);
            let rest = line.split_once("http://").expect("a URL").1;
            rest[..rest.find([' ', '/']).unwrap_or(rest.len())].trim().parse().expect("an address")
        };
        let (public, admin) = (address("listening on "), address("admin on "));
        line(&mut lines, "sedge keeps durable streams in ");
        Mute { child, lines, writer, admin, public }
    }

    /// From now on whoever writes a line to standard error waits until somebody reads there.
    fn fill(&self) {
        let mut writer = self.writer.try_clone().expect("the same pipe");
        thread::spawn(move || {
            let mut page = [b'.'; 4096];
            page[4095] = b'\n';
            (0..PIPE_BYTES / 4096).all(|_| writer.write_all(&page).is_ok())
        });
        let full = || rustix::io::ioctl_fionread(self.lines.get_ref()).is_ok_and(|held| held == PIPE_BYTES);
        wait_until("the pipe is full", full);
    }

    fn ask_admin(&self, path: &str) -> (u16, String) {
        let mut wire = Wire::connect(self.admin);
        wire.send(get(path, &["Connection: close"]));
        let (head, body) = wire.read_answer();
        (head.status(), body.text())
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next line with `needle` in it.
fn line(lines: &mut impl BufRead, needle: &str) -> String {
    lines.lines().map(|line| line.expect("a line")).find(|line| line.contains(needle)).expect(needle)
}

/// The one thing that a worker says on standard error is that the disk has failed. When nobody reads there it waits, and all of its
/// connections with it.
#[test]
fn a_core_that_does_not_run_is_reported_until_it_runs_again() {
    let data = directory("watchdog");
    let mut edge = Mute::start(&data);
    let healthy = [0, 1].map(|_| edge.ask_admin("/livez"));
    assert!(healthy.iter().all(|(status, _)| *status == 200), "{healthy:?}");
    edge.fill();
    let mut client = Wire::connect(edge.public);
    let kind = ["Content-Type: text/plain"];
    client.send(request("PUT", &path("a"), &kind, ""));
    client.read_answer();
    while client.try_send(request("POST", &path("a"), &kind, "x".repeat(30_000))).is_ok()
        && client.try_read_head().is_ok_and(|head| head.status() == 204)
    {}
    wait_until("the stuck core is reported", || edge.ask_admin("/livez").0 == 503);
    let (_, complaint) = edge.ask_admin("/livez");
    assert!(complaint.starts_with("core 0 is stuck: it has not run for "), "{complaint}");
    assert_eq!(edge.ask_admin("/readyz").0, 503);
    let stuck = |edge: &Mute| {
        let metrics = edge.ask_admin("/metrics").1;
        let value = |core: &str| {
            let start = format!("sedge_core_stuck_seconds{{core=\"{core}\"}} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
            line.and_then(|seconds| seconds.parse::<u64>().ok()).expect("seconds")
        };
        (value("0"), value("admin"))
    };
    let (worker, admin) = stuck(&edge);
    assert!(worker >= 5 && admin == 0, "{worker} {admin}");

    // The watchdog's own line had to wait as well.
    line(&mut edge.lines, "sedge: core 0 has not run for 5 s");
    line(&mut edge.lines, "sedge: core 0 runs again after ");
    assert_eq!(edge.ask_admin("/livez"), (200, "alive\n".to_owned()));
    assert_eq!(stuck(&edge), (0, 0));
    drop(edge);
    remove(&data);
}

/// A process that was stopped as a whole, or whose machine slept, does not hang: its watchdog did not run either.
#[test]
#[expect(clippy::disallowed_methods, reason = "nothing can be observed of a process that is stopped")]
fn a_process_that_was_stopped_is_not_stuck() {
    let edge = Edge::start(&[]);
    edge.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(6));
    edge.signal(Signal::CONT);
    assert_eq!(edge.ask_admin("/livez").0.status(), 200);
    // The first look after it has passed when the second reload has been told.
    for nth in 0..2 {
        edge.signal(Signal::HUP);
        edge.stderr().wait_for_nth("configuration reloaded", nth);
    }
    assert!(
        !edge.stderr().all().iter().any(|line| line.contains("has not run")),
        "{:?}",
        edge.stderr().all()
    );
    assert_eq!(edge.metric("sedge_core_stuck_seconds", &[]), 0.0);
}
