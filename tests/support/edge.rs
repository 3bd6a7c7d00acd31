//! The binary under test, as its users start it: a child process on a port of its own, known by what it prints.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::wire::Head;
use super::{Body, PATIENCE, Upstream, Wire, get};

/// The release binary when the gate names one, else the one cargo built beside the tests.
pub fn binary() -> PathBuf {
    std::env::var_os("SEDGE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_sedge").into(), PathBuf::from)
}

/// A command with none of the settings that the developer's own environment may hold.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    for name in ["SEDGE_LISTEN", "SEDGE_CONFIG", "OPENAI_BASE_URL", "OPENAI_API_KEY"] {
        command.env_remove(name);
    }
    command
}

/// A running edge; killed when dropped.
#[derive(Debug)]
pub struct Edge {
    child: Child,
    addr: SocketAddr,
    admin: SocketAddr,
    stderr: Arc<Lines>,
    stdout: Arc<Lines>,
    config: Option<PathBuf>,
}

impl Edge {
    /// In front of one upstream, with the defaults.
    #[track_caller]
    pub fn to(upstream: &Upstream) -> Self {
        Self::start(&["--upstream", &upstream.url()])
    }

    /// With `toml` as its configuration file, which [`Edge::rewrite_config`] may change later.
    #[track_caller]
    pub fn configured(toml: &str) -> Self {
        Self::configured_with(toml, &[])
    }

    #[track_caller]
    pub fn configured_with(toml: &str, args: &[&str]) -> Self {
        let path = scratch("sedge.toml");
        std::fs::write(&path, toml).expect("write the configuration");
        let mut all = vec!["--config", path.to_str().expect("UTF-8")];
        all.extend_from_slice(args);
        let mut edge = Self::start(&all);
        edge.config = Some(path);
        edge
    }

    /// With these arguments, one worker, and ports of its own for both listeners.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(command(), args)
    }

    /// In front of one upstream, run by a tool that takes a program and its arguments.
    #[track_caller]
    pub fn under(tool: &[&str], upstream: &Upstream) -> Self {
        let plain = command();
        let mut under = Command::new(tool[0]);
        under.args(&tool[1..]).arg(plain.get_program());
        for (name, _) in plain.get_envs() {
            under.env_remove(name);
        }
        Self::spawn(under, &["--upstream", &upstream.url()])
    }

    /// The same, in a process that may have this many descriptors and no more.
    #[track_caller]
    pub fn start_with_descriptors(descriptors: u32, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")]).arg(binary());
        Self::spawn(shell, args)
    }

    /// The same, in a process whose files may have this many bytes and no more: a disk that is full.
    #[track_caller]
    pub fn start_with_file_bytes(bytes: u64, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        // In blocks of 512 bytes (POSIX). The signal that comes with the error would end it.
        let limit = format!("trap '' XFSZ; ulimit -f {} && exec \"$0\" \"$@\"", bytes / 512);
        shell.args(["-c", &limit]).arg(binary());
        Self::spawn(shell, args)
    }

    /// With `toml`, which says how many workers there are as well.
    #[track_caller]
    pub fn configured_freely(toml: &str) -> Self {
        let path = scratch("sedge.toml");
        std::fs::write(&path, toml).expect("write the configuration");
        let mut edge = Self::run(command(), &["--config", path.to_str().expect("UTF-8")]);
        edge.config = Some(path);
        edge
    }

    #[track_caller]
    fn spawn(command: Command, args: &[&str]) -> Self {
        Self::run(command, &[&["--workers", "1"], args].concat())
    }

    /// Started by `command`, which may have prepared something for it, with these arguments and ports of its own. Every `Host` is
    /// served.
    #[track_caller]
    pub fn run(command: Command, args: &[&str]) -> Self {
        Self::run_closed(command, &[&["--open"], args].concat())
    }

    /// The same, as its users start it: without client keys it serves only the hosts that mean this machine.
    #[track_caller]
    pub fn run_closed(mut command: Command, args: &[&str]) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start sedge");
        let stderr = Lines::follow(child.stderr.take().expect("stderr"));
        let stdout = Lines::follow(child.stdout.take().expect("stdout"));
        let address = |needle: &str| {
            let line = stderr.wait_for(needle);
            let rest = line.split_once(needle).expect("the needle").1;
            let rest = rest.split_once("://").expect("a URL").1;
            let end = rest.find([' ', '/', ';', ',']).unwrap_or(rest.len());
            rest[..end].parse().unwrap_or_else(|_| panic!("no address in {line:?}"))
        };
        let (addr, admin) = (address("listening on "), address("admin on "));
        Self { child, addr, admin, stderr, stdout, config: None }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What it says on stderr, and where a test may wait for more.
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    #[track_caller]
    pub fn connect(&self) -> Wire {
        Wire::connect(self.addr)
    }

    /// One request on a connection of its own, and the whole answer.
    #[track_caller]
    pub fn ask(&self, request: &[u8]) -> (Head, Body) {
        let mut client = self.connect();
        client.send(request);
        client.read_answer()
    }

    #[track_caller]
    pub fn ask_admin(&self, path: &str) -> (Head, Body) {
        let mut client = Wire::connect(self.admin);
        client.send(get(path, &["Connection: close"]));
        client.read_answer()
    }

    #[track_caller]
    pub fn metrics(&self) -> String {
        let (head, body) = self.ask_admin("/metrics");
        assert_eq!(head.status(), 200);
        body.text()
    }

    /// The sum of a metric over the series that carry all these labels (`name="value"`).
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.metrics(), name, labels)
    }

    /// Scrapes until the metric reaches `value`: an outcome is counted when its task ends, a moment after the bytes.
    #[track_caller]
    pub fn wait_metric(&self, name: &str, labels: &[&str], value: f64) {
        let started = Instant::now();
        loop {
            let text = self.metrics();
            let now = sum(&text, name, labels);
            if (now - value).abs() < f64::EPSILON {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{name}{labels:?} is {now}, not {value}:\n{text}");
            super::look_again();
        }
    }

    /// Lets the edge, which has one worker, go on until it has seen all that has come to it so far: it looks at its sockets in turns,
    /// so by the second answer to a question that was asked later each of them has had one. A third is for what it tells itself.
    #[track_caller]
    pub fn settle(&self) {
        (0..3).for_each(|_| assert_eq!(self.ask_admin("/livez").0.status(), 200));
    }

    /// Writes `wire` again and again until no byte of it fits, however often the edge, which has one worker, has its turn; gives back
    /// how many did. None if more than `most` fit, or the edge has closed.
    #[track_caller]
    pub fn fill(&self, mut stream: &TcpStream, wire: &[u8], most: usize) -> Option<usize> {
        stream.set_nonblocking(true).expect("nonblocking");
        let (mut sent, mut blocked_at) = (0, None);
        let filled = loop {
            match stream.write(&wire[sent % wire.len()..]) {
                Ok(more) => sent += more,
                Err(e) if e.kind() == ErrorKind::WouldBlock && blocked_at == Some(sent) => break Some(sent),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    blocked_at = Some(sent);
                    self.settle();
                }
                Err(_) => break None,
            }
            if sent > most {
                break None;
            }
        };
        stream.set_nonblocking(false).expect("blocking");
        filled
    }

    /// Connections that it has opened to upstreams, once it has seen all that has come to it so far.
    #[track_caller]
    pub fn upstream_connections(&self) -> f64 {
        self.settle();
        self.metric("sedge_upstream_connections_opened_total", &[])
    }

    /// Puts another file in the place of the configuration, whole at any moment.
    pub fn rewrite_config(&self, toml: &str) {
        let path = self.config.as_ref().expect("a configured edge");
        let next = path.with_extension("next");
        std::fs::write(&next, toml).and_then(|()| std::fs::rename(&next, path)).expect("write");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "still running; stderr: {:?}", self.stderr.all());
            super::look_again();
        }
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most resident memory it has ever had, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status.lines().find(|l| l.starts_with(name)).expect("the line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * 1024
    }

    /// Processor time that it has used, in ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("stat");
        // The name, in parentheses, may hold anything: what follows it begins with field 3. 14 and 15 are utime and stime.
        let fields = stat.rsplit_once(") ").expect("a name").1.split(' ');
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the edge said on stderr: {:#?}", self.stderr.all());
        }
    }
}

/// Lines a child has printed so far.
#[derive(Debug, Default)]
pub struct Lines {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Lines {
    fn follow(source: impl Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let writer = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                writer.state.lock().expect("lines").0.push(line);
                writer.changed.notify_all();
            }
            writer.state.lock().expect("lines").1 = true;
            writer.changed.notify_all();
        });
        lines
    }

    /// The first line that contains `needle`.
    #[track_caller]
    pub fn wait_for(&self, needle: &str) -> String {
        self.wait_for_nth(needle, 0)
    }

    /// The line that contains `needle` after `before` others that do.
    #[track_caller]
    pub fn wait_for_nth(&self, needle: &str, before: usize) -> String {
        let state = self.state.lock().expect("lines");
        let found = |lines: &[String]| lines.iter().filter(|l| l.contains(needle)).nth(before).cloned();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |(lines, ended)| found(lines).is_none() && !*ended)
            .expect("lines");
        let lines = state.0.clone();
        // Not while holding the lock: the edge prints these lines once more when a failed test drops it.
        drop(state);
        found(&lines).unwrap_or_else(|| panic!("no line with {needle:?} in {lines:#?}"))
    }

    pub fn all(&self) -> Vec<String> {
        self.state.lock().expect("lines").0.clone()
    }
}

/// A path for a file of this test alone, in cargo's directory for integration tests.
pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}-{name}", std::process::id()))
}

fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
