//! Names with several addresses, for one edge alone: it runs in a mount namespace with a list of hosts of its own.

use std::process::Command;

use super::Edge;
use super::edge::{binary, scratch};

/// Whether this machine lets a process have one. Containers often do not.
pub fn can_be_had() -> bool {
    let can = Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success());
    if !can {
        eprintln!("no mount namespace may be made here: nothing is shown");
    }
    can
}

/// An edge configured by `toml`, to which each name leads to its addresses, in this order.
#[track_caller]
pub fn edge(hosts: &[(&str, &[&str])], toml: &str) -> Edge {
    let lines: String = hosts
        .iter()
        .flat_map(|(name, addresses)| addresses.iter().map(move |address| format!("{address} {name}\n")))
        .collect();
    let (list, config) = (scratch("hosts"), scratch("sedge.toml"));
    std::fs::write(&list, lines).expect("write the hosts");
    std::fs::write(&config, toml).expect("write the configuration");
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    command.args(["-rm", "sh", "-c", script]).arg(&list).arg(binary());
    for name in ["SEDGE_LISTEN", "SEDGE_CONFIG", "OPENAI_BASE_URL", "OPENAI_API_KEY"] {
        command.env_remove(name);
    }
    Edge::run(command, &["--workers", "1", "--config", config.to_str().expect("UTF-8")])
}
