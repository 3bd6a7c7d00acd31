//! What is measured, each as a process of its own on the core that is kept for it.
//!
//! The floor, hyper and axum are this same binary, started again with a hidden subcommand; sedge, nginx and HAProxy are started
//! as their users start them: on one worker, access log on, streaming, connections to the upstream kept. For durable streams there
//! are a floor and an axum of their own, and instead of the proxies nginx' nchan and the server of the crate `durable-streams`.

pub mod axum;
pub mod broadcast;
pub mod floor;
pub mod hyper;
pub mod log;
mod settings;
pub mod streams;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::process::{is_installed, stay_on};
use super::scenes::Certificate;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "relay-as";

/// How long a peer may take until it accepts connections.
const START_TRIES: u32 = 500;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Copies bytes, and that is all.
    Floor,
    /// The binary of this crate.
    Sedge,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
    /// hyper alone.
    Hyper,
    /// axum, as a relay with reqwest.
    Axum,
    /// nginx with the module nchan.
    Nchan,
    /// The server of the crate `durable-streams`.
    DurableStreams,
}

/// What a peer is started as.
#[derive(Clone, Copy, Debug)]
pub enum Role<'a> {
    /// A relay to the upstream.
    Relay,
    /// A server of streams, in a folder or in memory.
    Streams(Option<&'a Path>),
}

impl Kind {
    /// All of them, in the order of the tables.
    pub const ALL: [Kind; 8] = [
        Kind::Floor,
        Kind::Sedge,
        Kind::Haproxy,
        Kind::Nginx,
        Kind::Hyper,
        Kind::Axum,
        Kind::Nchan,
        Kind::DurableStreams,
    ];

    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Floor => "floor",
            Kind::Sedge => "sedge",
            Kind::Haproxy => "haproxy",
            Kind::Nginx => "nginx",
            Kind::Hyper => "hyper",
            Kind::Axum => "axum",
            Kind::Nchan => "nchan",
            Kind::DurableStreams => "durable-streams",
        }
    }

    /// Whether it can be started here.
    pub fn is_here(self) -> bool {
        match self {
            Kind::Haproxy | Kind::Nginx => is_installed(self.name()),
            Kind::Nchan | Kind::DurableStreams => streams::is_here(self),
            _ => true,
        }
    }
}

/// What every peer needs to know to be started.
pub struct Site<'a> {
    /// Where logs and configurations go.
    pub scratch: &'a Path,
    /// The release binary.
    pub sedge: &'a Path,
    /// The core that is kept for it, and those of everything else.
    pub cores: (&'a [usize], &'a [usize]),
    /// The upstream.
    pub upstream: SocketAddr,
    /// Served with TLS, with this certificate.
    pub tls: Option<&'a Certificate>,
    /// What it is started as.
    pub role: Role<'a>,
}

/// How long a peer may take to end once it was told to, likewise.
const END_TRIES: u32 = 500;

/// A peer that accepts connections; told to end when dropped, so that one that takes a profile of itself can write it.
pub struct Peer {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Peer {
    /// Starts it and waits until it serves.
    pub fn start(kind: Kind, site: &Site<'_>) -> Peer {
        stay_on(site.cores.0);
        let started = match (site.role, kind) {
            (Role::Streams(folder), _) => streams::start(kind, site, folder),
            (Role::Relay, Kind::Sedge) => {
                let upstream = format!("http://{}", site.upstream);
                sedge(site, &["--upstream".into(), upstream])
            }
            (Role::Relay, Kind::Haproxy | Kind::Nginx) => configured(kind, site),
            (Role::Relay, _) => own(kind, site, &[site.upstream.to_string()]),
        };
        stay_on(site.cores.1);
        started
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    #[expect(clippy::disallowed_methods, reason = "a process that is ending tells nobody when it has")]
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        for _ in 0..END_TRIES {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sedge(site: &Site<'_>, args: &[String]) -> Peer {
    let mut command = Command::new(site.sedge);
    for name in ["SEDGE_LISTEN", "SEDGE_CONFIG", "OPENAI_BASE_URL", "OPENAI_API_KEY"] {
        command.env_remove(name);
    }
    // The scenes ask for a host of their own, as clients of a server with a name do.
    command.args(["--listen", "127.0.0.1:0", "--admin", "off", "--workers", "1", "--open"]).args(args);
    if let Some(certificate) = site.tls {
        command.arg("--tls-cert").arg(&certificate.chain).arg("--tls-key").arg(&certificate.key);
    }
    let mut child = command
        .current_dir(site.scratch)
        .stdin(Stdio::null())
        .stdout(log_file(site, "sedge.access.log"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("start sedge");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
    let addr = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let rest = line.split_once(" listening on ")?.1.split_once("://")?.1;
        rest.split([' ', '/']).next()?.parse().ok()
    });
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
    Peer { child, addr: addr.expect("sedge says where it listens") }
}

/// This binary, as a relay with the upstream or as a server of streams with their folder.
fn own(kind: Kind, site: &Site<'_>, args: &[String]) -> Peer {
    let addr = free_address();
    let name = match site.role {
        Role::Relay => kind.name().to_owned(),
        Role::Streams(_) => format!("{}-streams", kind.name()),
    };
    let child = Command::new(std::env::current_exe().expect("the benchmark's own path"))
        .args([SUBCOMMAND, &name, &addr.to_string()])
        .args(args)
        .stdin(Stdio::null())
        .spawn()
        .expect("start the benchmark's own relay");
    wait_for(child, addr)
}

fn configured(kind: Kind, site: &Site<'_>) -> Peer {
    let addr = free_address();
    let folder = site.scratch.join(kind.name());
    fs::create_dir_all(&folder).expect("a folder for the peer");
    let settings = match kind {
        Kind::Nginx => settings::nginx(addr, site.upstream, site.tls, &folder),
        _ => settings::haproxy(addr, site.upstream, site.tls),
    };
    let file = folder.join("peer.conf");
    fs::write(&file, settings).expect("write the peer's configuration");
    let mut command = Command::new(kind.name());
    match kind {
        Kind::Nginx => command.arg("-p").arg(&folder).arg("-c").arg(&file),
        _ => command.arg("-db").arg("-f").arg(&file),
    };
    let child = command
        .stdin(Stdio::null())
        .stdout(log_file(site, &format!("{}.access.log", kind.name())))
        .stderr(log_file(site, &format!("{}.error.log", kind.name())))
        .spawn()
        .expect("start the peer");
    wait_for(child, addr)
}

/// Runs what the hidden subcommand names: `relay-as NAME LISTEN UPSTREAM`, or `relay-as NAME-streams LISTEN FOLDER`, in which `-`
/// is none.
pub fn run_own(args: &[String]) -> std::io::Result<()> {
    let [name, listen, place] = args else { panic!("{SUBCOMMAND} NAME LISTEN UPSTREAM") };
    let listener = listener(listen.parse().expect("an address"))?;
    let upstream = || place.parse().expect("an address");
    match name.as_str() {
        "floor" => floor::run(&listener, upstream()),
        "hyper" => hyper::run(listener, upstream()),
        "axum" => axum::run(listener, upstream()),
        "floor-streams" => log::run(&listener, Some(Path::new(place)).filter(|_| place != "-")),
        _ => broadcast::run(listener),
    }
}

/// A listener with a backlog for thousands of clients that come at once.
pub fn listener(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn free_address() -> SocketAddr {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    probe.local_addr().expect("its address")
}

#[expect(clippy::disallowed_methods, reason = "a peer that is starting tells nobody when it listens")]
fn wait_for(child: Child, addr: SocketAddr) -> Peer {
    let mut peer = Peer { child, addr };
    for _ in 0..START_TRIES {
        if TcpStream::connect(addr).is_ok() {
            return peer;
        }
        let exited = peer.child.try_wait().ok().flatten();
        assert!(exited.is_none(), "the peer at {addr} ended: {exited:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the peer at {addr} does not listen");
}

fn log_file(site: &Site<'_>, name: &str) -> Stdio {
    let path: PathBuf = site.scratch.join(name);
    File::create(path).expect("a log file").into()
}
