//! Descriptors that were opened before this process was: by the process that it takes over from, or by systemd
//! (`sd_listen_fds(3)`). They are taken once, before anything else is opened.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::listener::Bound;

/// What a process tells the one that takes over from it: `public:5,public:6,admin:7,ready:8`, by descriptor.
pub(crate) const VARIABLE: &str = "SEDGE_HANDOVER";

/// systemd's own variables; they are for one process and not for the next.
pub(crate) const OF_SYSTEMD: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The first descriptor that systemd passes (`SD_LISTEN_FDS_START`).
const FIRST_OF_SYSTEMD: RawFd = 3;

/// More sockets are not inherited: one for each core of the largest machines.
const INHERITED_MAX: usize = 1024;

/// What was inherited.
#[derive(Default)]
pub(crate) struct Inherited {
    /// Sockets where clients are.
    pub(crate) public: Vec<Bound>,
    /// The operators'.
    pub(crate) admin: Option<Bound>,
    /// Where the process before waits for a byte: that this one serves.
    pub(crate) ready: Option<File>,
}

/// What was promised is not there.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum InheritError {
    /// The variable says something that is not understood.
    Unreadable(&'static str, String),
    /// A descriptor is named twice: each has one owner.
    Repeated(RawFd),
    /// There is one admin listener, and more sockets are named for it.
    SeveralAdmins,
    /// A descriptor is not what it is said to be.
    Descriptor(RawFd, io::Error),
}

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritError::Unreadable(name, value) => write!(
                f,
                "{name}={value:?} names no inherited sockets; it is set by whoever starts this process, and is not to be set by hand"
            ),
            InheritError::Repeated(fd) => write!(
                f,
                "{VARIABLE} names the descriptor {fd} twice; it is set by whoever starts this process, and is not to be set by hand"
            ),
            InheritError::SeveralAdmins => f.write_str(
                "more than one inherited socket is called `admin`; there is one admin listener, so name one of them (FileDescriptorName=)",
            ),
            InheritError::Descriptor(fd, error) => {
                write!(f, "the inherited descriptor {fd} is no listening socket that can be used: {error}")
            }
        }
    }
}

impl std::error::Error for InheritError {}

impl Inherited {
    /// Takes what `env` says was passed on to this process. To be called before anything else opens a descriptor.
    pub(crate) fn take(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Inherited, InheritError> {
        let mut inherited = Inherited::default();
        let named = named(env)?;
        let mut seen = HashSet::new();
        if let Some((_, fd)) = named.iter().find(|(_, fd)| !seen.insert(*fd)) {
            return Err(InheritError::Repeated(*fd));
        }
        if named.iter().filter(|(role, _)| role == "admin").count() > 1 {
            return Err(InheritError::SeveralAdmins);
        }
        for (role, fd) in named {
            let taken = take_descriptor(fd).map_err(|error| InheritError::Descriptor(fd, error))?;
            if role == "ready" {
                inherited.ready = Some(taken.into());
                continue;
            }
            let bound = Bound::inherited(taken).map_err(|error| InheritError::Descriptor(fd, error))?;
            match &role[..] {
                "admin" => inherited.admin = Some(bound),
                _ => inherited.public.push(bound),
            }
        }
        Ok(inherited)
    }
}

/// Descriptors with what they are for.
fn named(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Vec<(String, RawFd)>, InheritError> {
    let text = |name| env(name).map(|value| value.to_string_lossy().into_owned());
    if let Some(value) = text(VARIABLE) {
        return of_a_predecessor(&value).ok_or(InheritError::Unreadable(VARIABLE, value));
    }
    // Meant for another process, a shell perhaps that has started this one.
    if text("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let Some(count) = text("LISTEN_FDS") else { return Ok(Vec::new()) };
    let names = text("LISTEN_FDNAMES").unwrap_or_default();
    of_systemd(&count, &names).ok_or(InheritError::Unreadable("LISTEN_FDS", count))
}

fn of_a_predecessor(value: &str) -> Option<Vec<(String, RawFd)>> {
    let entry = |entry: &str| {
        let (role, fd) = entry.split_once(':')?;
        let fd = fd.parse().ok().filter(|&fd: &RawFd| fd > 2)?;
        matches!(role, "public" | "admin" | "ready").then(|| (role.to_owned(), fd))
    };
    value.split(',').take(INHERITED_MAX).map(entry).collect()
}

fn of_systemd(count: &str, names: &str) -> Option<Vec<(String, RawFd)>> {
    let count: usize = count.parse().ok().filter(|&count| count <= INHERITED_MAX)?;
    let mut names = names.split(':');
    let role = |name: Option<&str>| if name == Some("admin") { "admin" } else { "public" };
    Some((FIRST_OF_SYSTEMD..).take(count).map(|fd| (role(names.next()).to_owned(), fd)).collect())
}

fn take_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: whoever started this process has opened it under this number and leaves it to this process alone; nothing in here
    // has opened a descriptor before, so nobody else owns the number. That it is open at all is asked next, before it is used.
    #[expect(unsafe_code, reason = "a number becomes a descriptor")]
    let taken = unsafe { OwnedFd::from_raw_fd(fd) };
    match fcntl_getfd(&taken).and_then(|flags| fcntl_setfd(&taken, flags | FdFlags::CLOEXEC)) {
        Ok(()) => Ok(taken),
        Err(error) => {
            // Closing a number that is not open would be a fault of its own.
            std::mem::forget(taken);
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, RawFd)]) -> Option<Vec<(String, RawFd)>> {
        Some(list.iter().map(|(role, fd)| ((*role).to_owned(), *fd)).collect())
    }

    #[test]
    fn a_predecessor_names_what_it_passes_on() {
        assert_eq!(
            of_a_predecessor("public:5,admin:6,ready:7"),
            pairs(&[("public", 5), ("admin", 6), ("ready", 7)])
        );
        for bad in
            ["", "public", "public:", "public:x", "public:-1", "public:0", "public:2", "other:5", "public:5,"]
        {
            assert_eq!(of_a_predecessor(bad), None, "{bad}");
        }
    }

    #[test]
    fn systemd_counts_from_three() {
        assert_eq!(of_systemd("2", ""), pairs(&[("public", 3), ("public", 4)]));
        assert_eq!(of_systemd("3", "http:admin"), pairs(&[("public", 3), ("admin", 4), ("public", 5)]));
        assert_eq!(of_systemd("-1", ""), None);
        assert_eq!(of_systemd("1000000", ""), None);
    }

    /// Two owners would close one number, and the second whatever has it by then.
    #[test]
    fn a_descriptor_has_one_owner() {
        let env = |name: &str| (name == VARIABLE).then(|| "public:900,public:901,admin:900".into());
        let Err(error) = Inherited::take(&env) else { panic!("it was taken twice") };
        assert!(matches!(error, InheritError::Repeated(900)), "{error}");
        assert!(error.to_string().contains("names the descriptor 900 twice"), "{error}");
    }

    /// The last one was taken and the others closed without a word, so that whoever connected to them was refused.
    #[test]
    fn there_is_one_admin_listener() {
        let own = std::process::id().to_string();
        let env = |name: &str| match name {
            "LISTEN_PID" => Some(own.clone().into()),
            "LISTEN_FDS" => Some("3".into()),
            "LISTEN_FDNAMES" => Some("admin:http:admin".into()),
            _ => None,
        };
        assert!(matches!(Inherited::take(&env), Err(InheritError::SeveralAdmins)));
    }

    #[test]
    fn sockets_for_another_process_are_left_alone() {
        let env = |name: &str| match name {
            "LISTEN_PID" => Some("1".into()),
            "LISTEN_FDS" => Some("1".into()),
            _ => None,
        };
        assert!(named(&env).unwrap().is_empty());
    }
}
