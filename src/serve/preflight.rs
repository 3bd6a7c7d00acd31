//! All that a start needs beside the sockets, tried without leaving a trace: what `sedge check` looks at once the configuration itself is
//! right.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::admission::meters::Meters;
use crate::config::{AccessLog, Config};
use crate::relay::settings::Settings;
use crate::routing::health::Healths;
use crate::runtime::net::tls;
use crate::streams::store::journal;
use crate::telemetry::Registry;

/// What would keep `config` from being served, a sentence each: certificates, keys, directories and files.
pub(crate) fn check(config: &Config) -> Vec<String> {
    let settings = Settings::new(config.clone(), &Registry::new(1), &Meters::default(), &Healths::default());
    let mut problems: Vec<String> = settings.err().map(|error| error.to_string()).into_iter().collect();
    // They are for webhooks as well, and read when the first is sent.
    if let (Err(error), false) = (tls::client(&config.upstream_ca), config.upstream_ca.is_empty()) {
        problems.push(error.to_string());
    }
    problems.dedup();
    if let Some(path) = &config.data_dir {
        match directory(path) {
            Err(error) => problems
                .push(format!("data_dir: durable streams cannot be kept in {}: {error}", path.display())),
            Ok(()) if path.is_dir() => {
                problems.extend(journal::check(path).err().map(|error| format!("data_dir: {error}")));
            }
            Ok(()) => {}
        }
    }
    if let AccessLog::File(path) = &config.access_log {
        problems.extend(
            log_file(path)
                .err()
                .map(|error| format!("access_log: {} cannot be written: {error}", path.display())),
        );
    }
    problems
}

/// Whether a directory can be used, or made.
fn directory(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(kind) if kind.is_dir() => usable(path),
        Ok(_) => Err(io::Error::other("it is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The nearest that is there: the rest is made.
            let there = path.ancestors().skip(1).find(|above| above.as_os_str().is_empty() || above.exists());
            match there {
                Some(above) if above.as_os_str().is_empty() => usable(Path::new(".")),
                Some(above) if !above.is_dir() => {
                    Err(io::Error::other(format!("{} is not a directory", above.display())))
                }
                Some(above) => usable(above),
                None => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether a file can be appended to, or made.
fn log_file(path: &Path) -> io::Result<()> {
    match path.exists() {
        // A pipe is waited for until somebody reads.
        true if path.metadata()?.file_type().is_file() => {
            OpenOptions::new().append(true).open(path).map(drop)
        }
        true if path.is_dir() => Err(io::Error::other("it is a directory")),
        true => Ok(access(path, Access::WRITE_OK)?),
        false => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            usable(parent.unwrap_or(Path::new(".")))
        }
    }
}

/// Whether names can be made in a directory by this user.
fn usable(directory: &Path) -> io::Result<()> {
    Ok(access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}
