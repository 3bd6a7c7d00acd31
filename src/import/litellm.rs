//! What LiteLLM's settings mean here: deployments become upstreams, model groups become routes.

use std::path::Path;

use super::gateway::{Deployment, Gateway, Group, Upstream};
use super::yaml::Node;
use super::{Imported, Remark, provider};
use crate::admission;

#[derive(Default)]
struct Import {
    gateway: Gateway,
    remarks: Vec<Remark>,
}

const CHANGES_NOTHING: &str =
    "not carried over: sedge relays requests and answers as they are, and sets nothing in them";

/// Makes a configuration of LiteLLM's `root`, which stands in `file`.
pub(crate) fn import(root: &Node<'_>, file: &Path) -> Imported {
    let mut import = Import::default();
    for (name, node) in root.members() {
        match name.as_str() {
            "model_list" => node.items().iter().for_each(|item| import.deployment(item)),
            // When all groups are known.
            "router_settings" | "litellm_settings" => {}
            "general_settings" => import.general(&node),
            "environment_variables" => {
                import.remark(&node, "not carried over: set them in sedge's own environment");
            }
            _ => import.remark(&node, "not carried over: sedge has nothing like it"),
        }
    }
    for section in ["litellm_settings", "router_settings"] {
        if let Some(node) = root.get(section) {
            import.settings(&node);
        }
    }
    import.agree();
    let toml = import.gateway.write(file);
    let mut remarks = import.remarks;
    remarks.sort();
    Imported { toml, remarks, models: import.gateway.groups.len() }
}

impl Import {
    fn remark(&mut self, node: &Node<'_>, what: impl Into<String>) {
        self.remarks.push(Remark { line: node.line, path: node.path.clone(), what: what.into() });
    }

    fn deployment(&mut self, item: &Node<'_>) {
        let (Some(group), Some(params)) =
            (item.get("model_name").and_then(|n| n.text()), item.get("litellm_params"))
        else {
            return self.remark(item, "not carried over: it has no model_name and litellm_params");
        };
        for (name, node) in item.members() {
            match name.as_str() {
                "model_name" | "litellm_params" => {}
                "model_info" => self.remark(
                    &node,
                    "not carried over: sedge counts tokens, not money, and asks nothing about models",
                ),
                _ => self.remark(&node, "not carried over: sedge has nothing like it"),
            }
        }
        let Some(model) = params.get("model").and_then(|node| node.text()) else {
            return self.remark(&params, "not carried over: it names no model");
        };
        let Some((provider, model)) = provider::of(&model) else {
            let what = format!(
                "not carried over: LiteLLM translates {model:?} into another API, and sedge translates nothing; put whatever speaks OpenAI's API for it here"
            );
            return self.remark(&params, what);
        };
        if group.contains('*') && group != model && group != "*" {
            return self.remark(&params, "not carried over: sedge renames models one by one, not by pattern");
        }
        let base = params.get("api_base").or_else(|| params.get("base_url"));
        let Some(url) =
            base.as_ref().and_then(|node| reference(&node.text()?).err()).or_else(|| match base {
                None => provider.base.map(str::to_owned),
                Some(_) => None,
            })
        else {
            return self.remark(&params, "not carried over: where it is asked stands in no api_base of this file; an URL from the environment must be written out");
        };
        let (url, secret) = without_secrets(&url);
        if let (Some(what), Some(node)) = (secret, &base) {
            self.remark(node, what);
        }
        let url = url.trim_end_matches('/').to_owned();
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let url = if has_path { url } else { url + provider.path };
        let mut upstream = Upstream {
            name: String::new(),
            url,
            key: provider.key.filter(|_| base.is_none()).map(|variable| format!("env:{variable}")),
            limits: [None; 3],
        };
        let mut deployment = Deployment {
            upstream: 0,
            model: model.to_owned(),
            weight: 1,
            priority: 0,
            timeout: None,
            node: (params.line, params.path.clone()),
        };
        let mut clear = None;
        for (name, node) in params.members() {
            let whole = node.number().map(|number| number.ceil() as u64);
            match (name.as_str(), whole) {
                ("model" | "api_base" | "base_url", _) => {}
                ("api_key", _) => match node.text().map(|text| reference(&text)) {
                    Some(Ok(variable)) => upstream.key = Some(format!("env:{variable}")),
                    Some(Err(_)) => clear = Some(node),
                    None => {}
                },
                ("rpm", Some(n)) if n > 0 => upstream.limits[0] = Some(n),
                ("tpm", Some(n)) if n > 0 => upstream.limits[1] = Some(n),
                ("max_parallel_requests", Some(n)) if n > 0 => upstream.limits[2] = Some(n),
                ("weight", Some(n)) => deployment.weight = n,
                ("order", Some(n)) => deployment.priority = n.saturating_sub(1),
                ("timeout" | "stream_timeout", Some(n)) if n > 0 => {
                    deployment.timeout = deployment.timeout.max(Some(n));
                }
                _ => self.remark(&node, CHANGES_NOTHING),
            }
        }
        deployment.upstream = self.upstream(upstream, provider.prefix, clear.as_ref());
        if deployment.weight == 0 {
            self.remark(&params, "carried over with weight 0, which is never asked");
        }
        match self.gateway.groups.iter_mut().find(|known| known.name == group) {
            Some(known) => known.deployments.push(deployment),
            None => self.gateway.groups.push(Group {
                name: group,
                deployments: vec![deployment],
                aliases: Vec::new(),
                fallback: None,
            }),
        }
    }

    /// The upstream that is the same, or this one under a name of its own. `clear` is a key in clear text.
    fn upstream(&mut self, mut upstream: Upstream, provider: &str, clear: Option<&Node<'_>>) -> usize {
        let same = |known: &Upstream| {
            known.url == upstream.url && known.key == upstream.key && known.limits == upstream.limits
        };
        if let (None, Some(index)) = (clear, self.gateway.upstreams.iter().position(same)) {
            return index;
        }
        let mut number = 1;
        upstream.name = provider.to_owned();
        while self.gateway.upstreams.iter().any(|known| known.name == upstream.name) {
            number += 1;
            upstream.name = format!("{provider}-{number}");
        }
        if let Some(node) = clear {
            let letters = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            let variable: String = upstream.name.chars().map(letters).chain("_KEY".chars()).collect();
            self.remark(
                node,
                format!(
                    "a key in clear text is not written down again: put it into the environment as {variable}"
                ),
            );
            upstream.key = Some(format!("env:{variable}"));
        }
        self.gateway.upstreams.push(upstream);
        self.gateway.upstreams.len() - 1
    }

    fn general(&mut self, section: &Node<'_>) {
        for (name, node) in section.members() {
            match (name.as_str(), node.text().map(|text| reference(&text))) {
                ("master_key", Some(Err(key))) => {
                    self.gateway.master_key = Some(admission::sha256_hex(key.as_bytes()));
                    self.remark(&node, "carried over as its SHA-256; it opens the door and administers nothing");
                }
                ("master_key", Some(Ok(variable))) => self.remark(
                    &node,
                    format!("not carried over: add a [[key]] with the output of: printf %s \"${variable}\" | sha256sum"),
                ),
                _ => self.remark(&node, "not carried over: sedge keeps no users, budgets or database; its doors are [[key]] and [limits]"),
            }
        }
    }

    /// `litellm_settings` and `router_settings`: much may stand in either.
    fn settings(&mut self, section: &Node<'_>) {
        for (name, node) in section.members() {
            let number = node.number().map(|number| number.ceil() as u64);
            match (name.as_str(), number) {
                ("num_retries", Some(n)) => self.gateway.retries = Some(n),
                ("timeout" | "request_timeout", Some(n)) if n > 0 => self.gateway.timeout = Some(n),
                ("routing_strategy", _) => self.balance(&node),
                ("fallbacks", _) => node.items().iter().for_each(|item| self.fallback(item)),
                ("default_fallbacks", _) => {
                    self.remark(&node, "not carried over: write `fallback` on the routes that are to have one");
                }
                ("model_group_alias", _) => self.aliases(&node),
                ("context_window_fallbacks" | "content_policy_fallbacks", _) => {
                    self.remark(&node, "not carried over: sedge does not read why a model refuses; it passes the refusal on");
                }
                ("allowed_fails" | "cooldown_time" | "retry_after", _) => self.remark(
                    &node,
                    "not carried over: every upstream has a breaker that opens on its share of failures and backs off; see `breaker`",
                ),
                ("callbacks" | "success_callback" | "failure_callback" | "service_callbacks", _) => self.remark(
                    &node,
                    "not carried over: sedge tells Prometheus at /metrics and writes one JSON line a request",
                ),
                ("redis_host" | "redis_port" | "redis_password" | "redis_url" | "cache" | "cache_params", _) => {
                    self.remark(&node, "not carried over: sedge keeps no cache, and each process counts for itself");
                }
                ("set_verbose" | "json_logs" | "drop_params" | "modify_params", _) => self.remark(&node, CHANGES_NOTHING),
                _ => self.remark(&node, "not carried over: sedge has nothing like it"),
            }
        }
    }

    fn balance(&mut self, node: &Node<'_>) {
        self.gateway.balance = match node.text().as_deref() {
            Some("simple-shuffle") => Some("weighted"),
            Some("least-busy" | "latency-based-routing") => Some("p2c"),
            other => {
                let what = format!(
                    "{}: p2c in its place: whoever is likely to answer first",
                    other.unwrap_or_default()
                );
                self.remark(node, what);
                Some("p2c")
            }
        };
    }

    fn fallback(&mut self, item: &Node<'_>) {
        for (group, node) in item.members() {
            let to: Vec<String> = node.items().iter().filter_map(Node::text).collect();
            let known = |name: &String| self.gateway.groups.iter().any(|group| group.name == *name);
            let first = to.iter().find(|name| known(name)).cloned();
            let at = self.gateway.groups.iter().position(|known| known.name == group);
            let (Some(at), Some(first)) = (at, first) else {
                self.remark(&node, "not carried over: one end of it was not");
                continue;
            };
            if to.len() > 1 {
                self.remark(&node, format!("only {first:?}: a route has one fallback, and that one its own"));
            }
            self.gateway.groups[at].fallback = Some(first);
        }
    }

    fn aliases(&mut self, section: &Node<'_>) {
        for (alias, node) in section.members() {
            let to = node.get("model").and_then(|model| model.text()).or_else(|| node.text());
            match to.and_then(|to| self.gateway.groups.iter_mut().find(|group| group.name == to)) {
                Some(group) if !group.name.contains('*') => group.aliases.push(alias),
                _ => self
                    .remark(&node, "not carried over: the group that it stands for was not, or is a pattern"),
            }
        }
    }

    /// A route hands a model on under one name: deployments that call it otherwise than the first cannot be asked.
    fn agree(&mut self) {
        let mut remarks = Vec::new();
        for group in &mut self.gateway.groups {
            let model = group.deployments[0].model.clone();
            group.deployments.retain(|deployment| {
                let same = deployment.model == model;
                if !same {
                    let (line, path) = deployment.node.clone();
                    let what = format!(
                        "not carried over: it calls the model {:?} where the group's first calls it {model:?}, and a route has one name for it",
                        deployment.model
                    );
                    remarks.push(Remark { line, path, what });
                }
                same
            });
        }
        self.remarks.append(&mut remarks);
    }
}

/// The variable of `os.environ/NAME`, or else the text itself.
fn reference(text: &str) -> Result<String, String> {
    match text.strip_prefix("os.environ/") {
        Some(variable) => Ok(variable.to_owned()),
        None => Err(text.to_owned()),
    }
}

/// A URL without what may be secret in it, and what to say of that.
fn without_secrets(url: &str) -> (String, Option<String>) {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (address, query) = url.split_at(end);
    let start = address.find("://").map_or(0, |at| at + 3);
    let path = address[start..].find('/').map_or(address.len(), |at| start + at);
    let host = address[start..path].rfind('@').map_or(start, |at| start + at + 1);
    let mut left_out = Vec::new();
    if host > start {
        left_out.push("the user name and password");
    }
    if !query.is_empty() {
        left_out.push("the query");
    }
    let what = format!(
        "carried over without {} of its URL, where secrets may stand; a key belongs into the environment, as key = \"env:NAME\" of the [[upstream]]",
        left_out.join(" and ")
    );
    ([&address[..start], &address[host..]].concat(), (!left_out.is_empty()).then_some(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_loses_what_may_be_secret() {
        for (url, kept, told) in [
            ("https://api.example/v1", "https://api.example/v1", None),
            ("https://api.example/v1/@me", "https://api.example/v1/@me", None),
            ("https://u:p@api.example/v1", "https://api.example/v1", Some("the user name and password of")),
            ("https://p@ss@api.example", "https://api.example", Some("the user name and password of")),
            ("u:p@api.example:80/v1", "api.example:80/v1", Some("the user name and password of")),
            ("https://api.example/v1?key=p#p", "https://api.example/v1", Some("the query of")),
            ("https://u@a?p", "https://a", Some("the user name and password and the query of")),
        ] {
            let (without, what) = without_secrets(url);
            assert_eq!(without, kept, "{url}");
            assert_eq!(what.is_some(), told.is_some(), "{url}");
            assert!(what.is_none_or(|what| what.contains(told.unwrap_or_default())), "{url}");
        }
    }
}
