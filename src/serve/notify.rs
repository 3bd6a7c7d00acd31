//! What systemd is told about this process (`sd_notify(3)`), when it has asked.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// It serves.
pub(crate) const READY: &str = "READY=1";

/// It finishes what it has.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// It reads its configuration again; [`READY`] follows.
pub(crate) fn reloading() -> String {
    let now = clock_gettime(ClockId::Monotonic);
    format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000)
}

/// Another process is the service from now on.
pub(crate) fn main_process(pid: u32) -> String {
    format!("MAINPID={pid}")
}

/// Tells it. Where nobody has asked, or listens any more, there is nothing to be done about it.
pub(crate) fn tell(state: &str) {
    if let Some(socket) = env::var_os("NOTIFY_SOCKET") {
        let _ = send(&socket, state);
    }
}

fn send(to: &OsStr, state: &str) -> io::Result<()> {
    let address = match to.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
