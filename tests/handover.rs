//! SIGUSR2: another process takes over the listening sockets, and nobody outside notices. systemd may hand them over as well.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use support::{Edge, Wire, edge, get, post, wait_until, wait_while_it_goes_on};

const STREAMS: usize = 200;

fn config(workers: usize) -> String {
    format!("workers = {workers}\ndrain_timeout = \"1h\"\naccess_log = \"off\"\n")
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("signal");
}

/// Makes the process take another one's place; gives back the new one.
fn hand_over(edge: &Edge, pid: i32, nth: usize) -> i32 {
    signal(pid, Signal::USR2);
    let line = edge.stderr().wait_for_nth("has taken over", nth);
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.iter().position(|word| *word == "process").expect("a process");
    words[at + 1].parse().expect("its id")
}

/// Ended, or a zombie of a process that does not wait for it.
fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z')))
}

/// Asks on new connections, one after the other, until told to stop.
fn ask_on(addr: SocketAddr, stop: &AtomicBool, asked: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let mut client = Wire::connect(addr);
        client.send(get("/v1/models", &[]));
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 200, "{}", body.text());
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn processes_follow_each_other_and_nothing_is_lost() {
    let mut edge = Edge::configured_freely(&config(1));
    let addr = edge.addr();
    let knobs = ["x-sim-events: 200", "x-sim-interval-ms: 20"];
    let request = post("/v1/chat/completions", &knobs, r#"{"model":"m","stream":true,"messages":[]}"#);
    let mut clients: Vec<_> = (0..STREAMS).map(|_| edge.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&request));
    let heads: Vec<_> = clients.iter_mut().map(Wire::read_head).collect();
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));

    let (bodies, last) = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| ask_on(addr, &stop, &asked));
        }
        let readers = clients.into_iter().zip(heads).map(|(mut client, head)| {
            assert_eq!(head.status(), 200);
            thread::spawn(move || client.read_body(&head))
        });
        let readers: Vec<_> = readers.collect();
        let mut pid = edge.pid() as i32;
        // More cores than sockets, fewer, and as many.
        for (nth, workers) in [3, 1, 2, 2].into_iter().enumerate() {
            edge.rewrite_config(&config(workers));
            let before = asked.load(Ordering::Relaxed);
            pid = hand_over(&edge, pid, nth);
            let asked = || asked.load(Ordering::Relaxed);
            wait_while_it_goes_on("the next one serves", asked, || asked() > before + 100);
        }
        let bodies: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
        stop.store(true, Ordering::Relaxed);
        (bodies, pid)
    });

    let first = bodies[0].text();
    assert!(first.ends_with("data: [DONE]\n\n"), "{first}");
    for body in &bodies {
        assert_eq!(body.end, support::End::Whole);
        assert_eq!(body.text(), first);
    }
    eprintln!("{} requests through four handovers", asked.load(Ordering::Relaxed));
    assert_eq!(edge.wait_exit().code(), Some(0));
    // The admin's port leads to the last one as well, and to it alone.
    assert_eq!(edge.ask_admin("/readyz").0.status(), 200);
    assert_eq!(edge.metric("sedge_streams_open", &[]), 0.0);
    signal(last, Signal::TERM);
    wait_until("the last one has ended", || is_gone(last));
}

#[test]
fn who_cannot_serve_takes_nothing_over() {
    let edge = Edge::configured_freely(&config(1));
    let mut client = edge.connect();
    edge.rewrite_config("nonsense = true\n");
    edge.signal(Signal::USR2);
    let line = edge.stderr().wait_for("not taken over, this process goes on");
    assert!(line.contains("exit status: 2"), "{line}");
    edge.stderr().wait_for("nonsense");
    for _ in 0..20 {
        client.send(get("/v1/models", &[]));
        assert_eq!(client.read_answer().0.status(), 200);
        assert_eq!(edge.ask(&get("/v1/models", &[])).0.status(), 200);
    }
    assert_eq!(edge.metric("sedge_handovers_failed_total", &[]), 1.0);
    // And when it can, it does.
    edge.rewrite_config(&config(1));
    let next = hand_over(&edge, edge.pid() as i32, 0);
    assert_eq!(edge.ask(&get("/v1/models", &[])).0.status(), 200);
    signal(next, Signal::TERM);
    wait_until("it has ended", || is_gone(next));
}

/// The program in a shell that has these sockets at 3 and 4, as `systemd` starts it.
fn activated(sockets: &[&TcpListener], notify: &Path) -> Command {
    // Numbers that the moves below do not run into.
    let pass = |socket: &&TcpListener| {
        let fd = fcntl_dupfd_cloexec(socket, 100).expect("dup");
        fcntl_setfd(&fd, FdFlags::empty()).expect("to be inherited");
        fd
    };
    let passed: Vec<_> = sockets.iter().map(pass).collect();
    let moves: String =
        passed.iter().enumerate().map(|(at, fd)| format!("exec {}<&{}; ", at + 3, fd.as_raw_fd())).collect();
    let mut shell = Command::new("bash");
    let script = format!(
        "{moves}export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES=http:admin; exec \"$0\" \"$@\"",
        sockets.len()
    );
    shell.args(["-c", &script]).arg(edge::binary()).env("NOTIFY_SOCKET", notify);
    // Open until it has been started; the test process has few others to lose.
    std::mem::forget(passed);
    shell
}

#[test]
fn systemd_may_hold_the_sockets_and_hears_what_becomes_of_them() {
    let path = edge::scratch("notify");
    let notified = UnixDatagram::bind(&path).expect("bind");
    notified.set_read_timeout(Some(support::PATIENCE)).expect("a time limit");
    let heard = || {
        let mut block = [0; 256];
        let count = notified.recv(&mut block).expect("a word");
        String::from_utf8_lossy(&block[..count]).into_owned()
    };
    let (public, admin) = (TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0"));
    let (public, admin) = (public.expect("bind"), admin.expect("bind"));
    // More cores than the one socket, which does not allow for others at its address.
    let mut edge = Edge::run(activated(&[&public, &admin], &path), &["--workers", "2"]);
    assert_eq!(heard(), "READY=1");
    let addresses = [public, admin].map(|socket| socket.local_addr().expect("address"));
    assert_eq!([edge.addr(), edge.admin()], addresses);
    for _ in 0..20 {
        assert_eq!(edge.ask(&get("/v1/models", &[])).0.status(), 200);
    }
    edge.signal(Signal::HUP);
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(), "READY=1");

    let next = hand_over(&edge, edge.pid() as i32, 0);
    // The new one serves, and the old one says who is to be watched.
    let words = [heard(), heard()];
    assert!(words.contains(&"READY=1".to_owned()) && words.contains(&format!("MAINPID={next}")), "{words:?}");
    assert_eq!(edge.wait_exit().code(), Some(0));
    assert_eq!(edge.ask(&get("/v1/models", &[])).0.status(), 200);
    signal(next, Signal::TERM);
    assert_eq!(heard(), "STOPPING=1");
    wait_until("it has ended", || is_gone(next));
}
