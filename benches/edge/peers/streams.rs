//! The peers of the scenes with durable streams: how each is started for them, and where it wants to be asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::process::find;
use super::{Kind, Peer, Site, free_address, log_file, own, sedge, settings, wait_for};

/// Debian's package libnginx-mod-nchan puts it here.
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// The server of the crate `durable-streams`: `cargo install durable-streams`.
const DURABLE_STREAMS: &str = "durable-streams-server";

/// Names the binary of that crate's server, where it does not stand on the PATH.
const DURABLE_STREAMS_VARIABLE: &str = "DURABLE_STREAMS_SERVER";

/// What is asked of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What<'a> {
    /// That it be made.
    Make,
    /// That the body be appended.
    Append,
    /// What comes from now on, as events.
    Follow,
    /// What there is from this offset on; `-1` is the beginning.
    Read(&'a str),
}

pub(super) fn is_here(kind: Kind) -> bool {
    match kind {
        Kind::Nchan => find("nginx").is_some() && Path::new(NCHAN_MODULE).is_file(),
        _ => durable_streams().is_some(),
    }
}

fn durable_streams() -> Option<PathBuf> {
    std::env::var_os(DURABLE_STREAMS_VARIABLE).map(PathBuf::from).or_else(|| find(DURABLE_STREAMS))
}

/// Starts it with streams in `folder`, or in memory.
pub(super) fn start(kind: Kind, site: &Site<'_>, folder: Option<&Path>) -> Peer {
    match kind {
        Kind::Sedge => {
            let text = folder.map(|folder| vec!["--data-dir".into(), folder.display().to_string()]);
            sedge(site, &text.unwrap_or_default())
        }
        Kind::Nchan => nchan(site),
        Kind::DurableStreams => electric(site, folder),
        _ => own(kind, site, &[folder.map_or("-".into(), |folder| folder.display().to_string())]),
    }
}

fn nchan(site: &Site<'_>) -> Peer {
    let addr = free_address();
    let folder = site.scratch.join("nchan");
    fs::create_dir_all(&folder).expect("a folder for the peer");
    let file = folder.join("peer.conf");
    fs::write(&file, settings::nchan(addr, NCHAN_MODULE, &folder)).expect("write the peer's configuration");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&folder).arg("-c").arg(&file);
    let child = command.stdin(Stdio::null()).stderr(log_file(site, "nchan.error.log")).spawn();
    wait_for(child.expect("start nchan"), addr)
}

fn electric(site: &Site<'_>, folder: Option<&Path>) -> Peer {
    let addr = free_address();
    // It has a folder in any case; without the promise of durability it writes there and does not sync.
    let memory = site.scratch.join("durable-streams");
    let _ = fs::remove_dir_all(&memory);
    let mut command = Command::new(durable_streams().expect("it is here"));
    command.args(["--port", &addr.port().to_string(), "--worker-threads", "1", "--wal-shards", "1"]);
    command.arg("--durability").arg(if folder.is_some() { "wal" } else { "memory" });
    command.arg("--data-dir").arg(folder.unwrap_or(&memory));
    command.stdin(Stdio::null()).stdout(log_file(site, "durable-streams.log"));
    let child = command.stderr(log_file(site, "durable-streams.error.log")).spawn();
    wait_for(child.expect("start the server of durable-streams"), addr)
}

/// The head of a request, but for its `content-length` and the empty line.
pub fn request(kind: Kind, what: What<'_>, name: &str) -> String {
    let path = match (kind, what) {
        (Kind::Nchan, What::Follow) => format!("/follow/{name}"),
        (Kind::Nchan, _) => format!("/publish/{name}"),
        (Kind::DurableStreams, What::Follow) => format!("/{name}?offset=now&live=sse"),
        (Kind::Sedge, What::Follow) => format!("/v1/stream/{name}?offset=now"),
        (Kind::DurableStreams, _) => format!("/{name}"),
        _ => format!("/v1/stream/{name}"),
    };
    let path = if let What::Read(offset) = what { format!("{path}?offset={offset}") } else { path };
    let (verb, field) = match what {
        What::Make => ("PUT", "content-type: text/plain\r\n"),
        What::Append => ("POST", "content-type: text/plain\r\n"),
        What::Follow => ("GET", "accept: text/event-stream\r\n"),
        What::Read(_) => ("GET", "accept: */*\r\n"),
    };
    format!("{verb} {path} HTTP/1.1\r\nhost: streams.example.test\r\nuser-agent: bench\r\n{field}")
}
