//! The configuration that comes of it, and how it is written.

use std::fmt::Write;
use std::path::Path;

use super::toml::{inline, string, strings};

/// A deployment: somewhere that a model can be asked.
pub(crate) struct Deployment {
    /// Its upstream, by index.
    pub(crate) upstream: usize,
    /// What the model is called there.
    pub(crate) model: String,
    pub(crate) weight: u64,
    pub(crate) priority: u64,
    pub(crate) timeout: Option<u64>,
    /// Its line and path in LiteLLM's file.
    pub(crate) node: (usize, String),
}

/// An upstream as it is written.
#[derive(PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) key: Option<String>,
    /// Requests and tokens a minute, streams at once.
    pub(crate) limits: [Option<u64>; 3],
}

/// All deployments of one name.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) aliases: Vec<String>,
    pub(crate) fallback: Option<String>,
}

/// All that is carried over.
#[derive(Default)]
pub(crate) struct Gateway {
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) groups: Vec<Group>,
    pub(crate) master_key: Option<String>,
    pub(crate) retries: Option<u64>,
    pub(crate) timeout: Option<u64>,
    pub(crate) balance: Option<&'static str>,
}

impl Gateway {
    /// As a `sedge.toml`, which says that it is from `file`.
    pub(crate) fn write(&self, file: &Path) -> String {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let mut out = format!("# From {}.\n", name.escape_default());
        if let Some(hash) = &self.master_key {
            out += &format!("\n[[key]]\nname = \"master\"\nsha256 = \"{hash}\"\n");
        }
        let used = |index: usize| {
            self.groups.iter().flat_map(|group| &group.deployments).any(|d| d.upstream == index)
        };
        for (_, upstream) in self.upstreams.iter().enumerate().filter(|(index, _)| used(*index)) {
            // Writing into a string cannot fail, here and below.
            let _ = write!(
                out,
                "\n[[upstream]]\nname = {}\nurl = {}\n",
                string(&upstream.name),
                string(&upstream.url)
            );
            if let Some(key) = &upstream.key {
                let _ = writeln!(out, "key = {}", string(key));
            }
            let [rpm, tpm, streams] = upstream.limits;
            out += &inline(
                "limits",
                &[("requests_per_minute", rpm), ("tokens_per_minute", tpm), ("streams", streams)],
            );
        }
        // What is named comes before what is meant by a pattern: the first route that matches takes the request.
        let (patterns, names): (Vec<&Group>, Vec<&Group>) =
            self.groups.iter().partition(|group| group.name.contains('*'));
        names.into_iter().chain(patterns).for_each(|group| self.route(group, &mut out));
        if let Some(seconds) = self.timeout {
            let _ = write!(out, "\n[timeouts]\nfirst_byte = \"{seconds}s\"\n");
        }
        out
    }

    fn route(&self, group: &Group, out: &mut String) {
        let model = &group.deployments[0].model;
        let renamed = !group.name.contains('*') && *model != group.name;
        let aliases: Vec<String> = group
            .aliases
            .iter()
            .chain(renamed.then_some(&group.name))
            .map(|alias| format!("{} = {}", string(alias), string(model)))
            .collect();
        let _ = write!(out, "\n[[route]]\nname = {}\n", string(&group.name));
        let _ = writeln!(out, "models = {}", strings([&group.name]));
        if !aliases.is_empty() {
            let _ = writeln!(out, "aliases = {{ {} }}", aliases.join(", "));
        }
        let mut asked: Vec<(usize, u64, u64)> = Vec::new();
        for deployment in &group.deployments {
            match asked.iter_mut().find(|(upstream, _, priority)| {
                *upstream == deployment.upstream && *priority == deployment.priority
            }) {
                Some((_, weight, _)) => *weight += deployment.weight,
                None => asked.push((deployment.upstream, deployment.weight, deployment.priority)),
            }
        }
        let asked: Vec<String> = asked
            .into_iter()
            .map(|(upstream, weight, priority)| {
                let priority = if priority > 0 { format!(", priority = {priority}") } else { String::new() };
                format!(
                    "{{ name = {}, weight = {weight}{priority} }}",
                    string(&self.upstreams[upstream].name)
                )
            })
            .collect();
        let _ = writeln!(out, "upstreams = [{}]", asked.join(", "));
        if let Some(balance) = self.balance {
            let _ = writeln!(out, "balance = \"{balance}\"");
        }
        if let Some(retries) = self.retries.filter(|&retries| retries > 0) {
            let _ = writeln!(out, "retry = {{ attempts = {} }}", retries + 1);
        }
        if let Some(seconds) = group.deployments.iter().filter_map(|deployment| deployment.timeout).max() {
            let _ = writeln!(out, "timeouts = {{ first_byte = \"{seconds}s\" }}");
        }
        if let Some(fallback) = &group.fallback {
            let _ = writeln!(out, "fallback = {}", string(fallback));
        }
    }
}
