//! Configuration files, each written in one place, for the tests that need more than the command line.

use std::fmt::Write;

/// One upstream for every model.
fn one(url: &str) -> String {
    routes(&[("*", url)])
}

/// Each model pattern with the upstream that serves it.
pub fn routes(routes: &[(&str, &str)]) -> String {
    let mut toml = String::new();
    for (number, (models, url)) in routes.iter().enumerate() {
        let _ = write!(
            toml,
            "[[upstream]]\nname = \"u{number}\"\nurl = \"{url}\"\n\n\
             [[route]]\nmodels = [\"{models}\"]\nupstreams = [\"u{number}\"]\n\n"
        );
    }
    toml
}

pub fn timeouts(url: &str, timeouts: &[(&str, &str)]) -> String {
    let mut toml = one(url) + "[timeouts]\n";
    for (name, value) in timeouts {
        let _ = writeln!(toml, "{name} = \"{value}\"");
    }
    toml
}

pub fn heartbeat(url: &str, every: &str) -> String {
    format!("heartbeat = \"{every}\"\n\n{}", one(url))
}

pub fn timeouts_and_heartbeat(url: &str, list: &[(&str, &str)], every: &str) -> String {
    format!("heartbeat = \"{every}\"\n\n{}", timeouts(url, list))
}

/// The stream is begun, and then kept alive, after this much silence.
pub fn early_heartbeat(url: &str, millis: u32) -> String {
    format!(
        "heartbeat = \"{millis}ms\"\n\n{}early_heartbeat_ms = {millis}\n",
        one(url).trim_end().to_owned() + "\n"
    )
}

pub fn drain_timeout(url: &str, limit: &str) -> String {
    format!("drain_timeout = \"{limit}\"\n\n{}", one(url))
}

pub fn max_body(url: &str, bytes: u64) -> String {
    format!("{}[limits]\nmax_body = {bytes}\n", one(url))
}

/// A client's key, `sk-` and its name.
pub fn key(name: &str) -> String {
    let hash = sedge::testing::admission::sha256_hex(format!("sk-{name}").as_bytes());
    format!("[[key]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n")
}
