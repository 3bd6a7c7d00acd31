//! The process itself: signals that come while it starts, what a crash leaves behind, and where its admin listener is.

mod support;

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;

use rustix::process::{Signal, getuid};
use support::edge::{command, scratch};
use support::{Edge, Upstream};

/// Nobody, everywhere.
const NOBODY: u32 = 65534;

/// A signal that reached a process in its first milliseconds killed it, since nothing caught it yet: a service manager that reloads
/// right after a start ended the service. Here the start is held where it waits for a Redis that says nothing.
#[test]
fn a_reload_that_comes_while_it_starts_is_obeyed_once_it_serves() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("redis://{}", silent.local_addr().expect("an address"));
    let path = scratch("sedge.toml");
    std::fs::write(&path, format!("workers = 1\n[streams]\nredis = \"{url}\"\n")).expect("write");
    let mut command = command();
    command.args(["--listen", "127.0.0.1:0", "--admin", "off", "--config"]).arg(&path);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("run sedge");
    let (mut asks, _) = silent.accept().expect("it begins to start");
    let mut first = [0; 1];
    asks.read_exact(&mut first).expect("a word for Redis");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::HUP).expect("signal");
    let stderr = std::io::BufReader::new(child.stderr.take().expect("stderr"));
    let reloaded = std::io::BufRead::lines(stderr)
        .map_while(Result::ok)
        .any(|line| line.contains("configuration reloaded"));
    rustix::process::kill_process(pid, Signal::KILL).expect("signal");
    let status = child.wait().expect("its end");
    assert!(reloaded, "{status}");
}

/// A handler of core dumps behind a pipe gets them whatever RLIMIT_CORE says, with keys and prompts. The kernel gives none of a process
/// that is not dumpable; the files below its `/proc` are root's then, and it can still read what it tells in its metrics.
#[test]
fn a_crash_leaves_no_memory_behind() {
    let upstream = Upstream::serve(|_, _| support::answer("200 OK", &[], "{}"));
    let mut command = command();
    if getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let edge = Edge::run(command, &["--workers", "1", "--upstream", &upstream.url()]);
    let owner = std::fs::metadata(format!("/proc/{}/environ", edge.pid())).expect("the process").uid();
    assert_eq!(owner, 0, "the process can be dumped");
    assert!(edge.metric("process_open_fds", &[]) > 3.0);
    assert!(edge.metric("process_resident_memory_bytes", &[]) > 1e6);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", edge.pid())).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

/// The port of the admin listener was Prometheus' own, so that both on one machine could not start. Nobody who has configured nothing
/// cares which port it is.
#[test]
fn a_taken_port_moves_an_admin_listener_that_nobody_has_placed() {
    // Taken by this test, or by somebody else.
    let _held = TcpListener::bind("127.0.0.1:9091");
    let mut child = command()
        .args(["--listen", "127.0.0.1:0", "--workers", "1"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("run sedge");
    let mut told = String::new();
    let stderr = std::io::BufReader::new(child.stderr.take().expect("stderr"));
    for line in std::io::BufRead::lines(stderr).map_while(Result::ok) {
        told += &format!("{line}\n");
        if line.contains("admin on") {
            break;
        }
    }
    child.kill().expect("kill");
    child.wait().expect("its end");
    assert!(told.contains("127.0.0.1:9091 is taken, so the admin listener is on 127.0.0.1:909"), "{told}");
    assert!(told.contains("admin on http://127.0.0.1:909"), "{told}");
}

#[test]
fn a_taken_port_that_was_configured_is_an_error() {
    let held = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = held.local_addr().expect("an address").to_string();
    let output =
        command().args(["--listen", "127.0.0.1:0", "--admin", &address]).output().expect("run sedge");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains(&format!("{address} is taken")), "{told}");
}
