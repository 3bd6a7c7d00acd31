//! Another process takes over from this one, and no connection is lost meanwhile.
//!
//! ```text
//!  serves ──SIGUSR2──► starts the program again, with its listening sockets ──"it serves"──► drains, ends with 0
//!    ▲                                   │
//!    └── says why, goes on ── it ended, or did not serve within SUCCESSOR_PATIENCE
//! ```
//!
//! Both accept from the same queues for a moment; what waits in them is never lost, since a queue lives as long as one process
//! holds its socket. What may never happen: a socket that this process holds and nobody reads. So it lets go of all of them
//! before it drains.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use crate::runtime::net::inherit::{OF_SYSTEMD, VARIABLE};
use crate::runtime::net::listener::Bound;

/// How long a new process may take until it serves.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(30);

/// How often, and at what distance, it is looked whether a process that has given up is gone: two seconds in all.
const END_LOOKS: u32 = 40;
const END_LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why nobody has taken over.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum NoSuccessor {
    /// The program could not be started.
    Start(PathBuf, io::Error),
    /// It ended, or closed what it should have told on, before it served.
    Ended(String),
    /// It did not serve in time, and was ended.
    Late,
    /// This process keeps durable streams on disk, and only one can.
    StreamsOnDisk,
}

impl fmt::Display for NoSuccessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoSuccessor::Start(program, error) => {
                write!(f, "{} cannot be started: {error}", program.display())
            }
            NoSuccessor::Ended(how) => {
                write!(f, "the new process did not come to serve: {how}; its own words stand above")
            }
            NoSuccessor::StreamsOnDisk => f.write_str(
                "durable streams on disk have one process at a time; stop this one with TERM, then start the other",
            ),
            NoSuccessor::Late => {
                write!(
                    f,
                    "the new process did not serve within {} s and was ended",
                    SUCCESSOR_PATIENCE.as_secs()
                )
            }
        }
    }
}

impl std::error::Error for NoSuccessor {}

/// What the next process needs: the sockets, and how this one was started.
pub(crate) struct Estate {
    public: Vec<Bound>,
    admin: Option<Bound>,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Estate {
    /// Takes hold of the sockets. The program is looked up now: once it has been replaced, the system no longer tells its path.
    pub(crate) fn new<'a>(
        public: impl Iterator<Item = &'a Bound>,
        admin: Option<&Bound>,
    ) -> io::Result<Estate> {
        Ok(Estate {
            public: public.map(Bound::share).collect::<io::Result<_>>()?,
            admin: admin.map(Bound::share).transpose()?,
            program: std::env::current_exe()?,
            arguments: std::env::args_os().skip(1).collect(),
        })
    }

    /// Starts the program again and waits until it serves; says its process id.
    pub(crate) async fn pass_on(&self) -> Result<u32, NoSuccessor> {
        let (mut child, ready) =
            self.start().map_err(|error| NoSuccessor::Start(self.program.clone(), error))?;
        let pid = child.id();
        match serves(ready).await {
            Ok(true) => Ok(pid),
            Ok(false) => Err(NoSuccessor::Ended(end(&mut child).await)),
            Err(late) => {
                // It may have ended by itself in this very moment.
                let _ = child.kill();
                let _ = child.wait();
                Err(late)
            }
        }
    }

    fn start(&self) -> io::Result<(Child, Receiver)> {
        let (reader, writer) = io::pipe()?;
        // Held until the process has been started with them.
        let public: Vec<OwnedFd> = self.public.iter().map(Bound::heritable).collect::<io::Result<_>>()?;
        let admin = self.admin.as_ref().map(Bound::heritable).transpose()?;
        let ready = rustix::io::dup(&writer)?;
        let public = public.iter().map(|fd| ("public", fd));
        let named = public.chain(admin.iter().map(|fd| ("admin", fd))).chain([("ready", &ready)]);
        let told: Vec<String> = named.map(|(role, fd)| format!("{role}:{}", fd.as_raw_fd())).collect();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env(VARIABLE, told.join(","));
        for name in OF_SYSTEMD {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        Ok((child, Receiver::from_owned_fd(reader.into())?))
    }
}

/// Whether the other end says so before it closes.
async fn serves(mut ready: Receiver) -> Result<bool, NoSuccessor> {
    tokio::select! {
        read = ready.read_u8() => Ok(read.is_ok()),
        () = super::pause(SUCCESSOR_PATIENCE) => Err(NoSuccessor::Late),
    }
}

/// How a process ended that has closed its end of the pipe, which is a moment before it is gone. It is ended if it stays.
async fn end(child: &mut Child) -> String {
    for _ in 0..END_LOOKS {
        if let Ok(Some(status)) = child.try_wait() {
            return status.to_string();
        }
        super::pause(END_LOOK_EVERY).await;
    }
    let _ = child.kill();
    child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
}
