//! What a file may say, and what that amounts to.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::load::{check_in, load_in};
use super::{AccessLog, Config, Glob, Member};
use crate::cli::ServeArgs;

/// A directory of its own, with a `sedge.toml` in it.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(text: &str) -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("sedge-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let place = Place(directory);
        place.write("sedge.toml", text);
        place
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn load(&self, args: &ServeArgs, env: &[(&str, &str)]) -> Result<Config, String> {
        let loaded = load_in(&self.0, args, &|name| variable(env, name));
        loaded.map(|(config, _)| config).map_err(|errors| self.without_directory(&errors.to_string()))
    }

    pub(crate) fn check(&self, args: &ServeArgs) -> Result<String, String> {
        let plain = |text: String| self.without_directory(&text);
        check_in(&self.0, args, &|_| None)
            .map(|(_, summary)| plain(summary))
            .map_err(|errors| plain(errors.to_string()))
    }

    fn without_directory(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn variable(env: &[(&str, &str)], name: &str) -> Option<OsString> {
    env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
}

/// An upstream, on four lines, for files whose problem is another one.
pub(crate) const UPSTREAM: &str = "[[upstream]]\nname = \"openai\"\nurl = \"https://api.openai.com/v1\"\n\n";

pub(crate) fn loaded(text: &str) -> Config {
    Place::new(text).load(&ServeArgs::default(), &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn an_empty_file_leaves_the_defaults() {
    let config = loaded("");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9091");
    assert!(
        config.simulator && config.upstreams.is_empty() && config.routes.is_empty() && config.keys.is_empty()
    );
    assert!(!config.open && !config.relay_all && config.playground && config.notices.is_empty());
    assert_eq!((config.workers, config.access_log), (0, AccessLog::Stdout));
    assert_eq!((config.heartbeat, config.drain_timeout), (Duration::from_secs(15), Duration::from_secs(30)));
    assert_eq!(config.timeouts.idle, Duration::from_secs(600));
    assert_eq!((config.limits.max_body, config.limits.stream_memory), (16 << 30, 1 << 30));
}

#[test]
fn every_key_is_understood() {
    let place = Place::new("");
    for (name, text) in [("cert.pem", "c"), ("key.pem", "k"), ("ca.pem", "a"), ("vllm.key", "sk-vllm\n")] {
        place.write(name, text);
    }
    let hash = "ab".repeat(32);
    place.write("clients", &format!("# teams\nred: {hash}\n\nblue:{}\n", "CD".repeat(32)));
    place.write(
        "sedge.toml",
        &format!(
            r#"
            listen = "0.0.0.0:443"
            admin = "off"
            open = false
            relay_all = true
            workers = 3
            upstream_ca = ["ca.pem"]
            playground = false
            access_log = "./access.log"
            heartbeat = "0"
            drain_timeout = "1m"
            admin_token = "env:TOKEN"
            trusted_proxies = ["10.0.0.0/8", "::1"]
            tls = {{ cert = "cert.pem", key = "key.pem" }}
            [cors]
            origins = ["https://app.example"]
            credentials = true
            allow_headers = ["authorization"]
            max_age = "1m"
            [timeouts]
            connect = "1s"
            tls = "2s"
            request_head = "3s"
            request_body = "4s"
            first_byte = "5s"
            idle = "6s"
            total = "0"
            client_stall = "8s"
            keep_alive = "9s"
            [limits]
            max_connections = 1_000
            max_connections_per_address = 10
            max_body = "1GiB"
            max_model_peek = 65536
            head_memory = "1MiB"
            stream_memory = "64MiB"
            [[upstream]]
            name = "openai"
            url = "https://api.openai.com/v1"
            key = "env:KEY"
            max_idle = 5
            pool_idle_timeout = "7s"
            [[upstream]]
            url = "http://vllm:8000"
            key = "file:vllm.key"
            [[upstream]]
            url = "http://vllm:8001"
            [[route]]
            name = "fast"
            models = "gpt-*"
            aliases = {{ "gpt-fast" = "gpt-4o-mini" }}
            paths = ["/v1/chat/*"]
            upstreams = ["openai", {{ name = "vllm", weight = 3 }}]
            early_heartbeat_ms = 2000
            heartbeat = "5s"
            max_body = "1MiB"
            timeouts = {{ connect = "10ms", tls = "11ms", first_byte = "12ms", idle = "13ms", total = "14ms" }}
            [[route]]
            [[key]]
            name = "green"
            sha256 = "{}"
            [[key]]
            file = "clients"
            "#,
            "0f".repeat(32)
        ),
    );
    let config = place.load(&ServeArgs::default(), &[("KEY", "sk-openai"), ("TOKEN", "t")]).unwrap();

    assert_eq!((config.listen.to_string(), config.admin), ("0.0.0.0:443".to_owned(), None));
    assert!(!config.open && config.relay_all && !config.playground && !config.simulator);
    assert_eq!((config.workers, config.heartbeat, config.drain_timeout.as_secs()), (3, Duration::ZERO, 60));
    assert_eq!(config.access_log, AccessLog::File(place.path().join("./access.log")));
    assert_eq!(config.upstream_ca, [place.path().join("ca.pem")]);
    assert_eq!(config.admin_token.unwrap().expose(), "t");
    assert!(config.trusted_proxies[1].contains(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])));
    let cors = config.cors.unwrap();
    assert!(cors.credentials && cors.admits(b"https://app.example") && !cors.admits(b"https://b.example"));
    assert_eq!((cors.allow_headers.as_deref(), cors.max_age.as_secs()), (Some("authorization"), 60));
    assert_eq!(config.tls.unwrap().key, place.path().join("key.pem"));
    let all = &config.timeouts;
    let times = [all.connect, all.tls, all.request_head, all.request_body, all.first_byte, all.idle];
    assert_eq!(times.map(|time| time.as_secs()), [1, 2, 3, 4, 5, 6]);
    assert_eq!([all.total, all.client_stall, all.keep_alive].map(|time| time.as_secs()), [0, 8, 9]);
    let limits = &config.limits;
    assert_eq!((limits.max_connections, limits.max_connections_per_address), (1000, 10));
    assert_eq!(limits.head_memory, 1 << 20);
    assert_eq!((limits.max_body, limits.max_model_peek, limits.stream_memory), (1 << 30, 1 << 16, 64 << 20));

    let [openai, vllm, second] = &config.upstreams[..] else { panic!("three upstreams were written") };
    assert_eq!((&openai.name[..], openai.key.as_ref().unwrap().expose()), ("openai", "sk-openai"));
    assert_eq!((openai.max_idle, openai.pool_idle_timeout.as_secs(), openai.key_if_absent), (5, 7, false));
    assert_eq!((&vllm.name[..], vllm.key.as_ref().unwrap().expose()), ("vllm", "sk-vllm"));
    assert_eq!((&second.name[..], second.max_idle, second.key.is_none()), ("vllm-2", 64, true));

    let [fast, rest] = &config.routes[..] else { panic!("two routes were written") };
    assert_eq!(
        (&fast.name[..], &fast.models[..], &fast.paths[..]),
        ("fast", &[Glob::new("gpt-*")][..], &[Glob::new("/v1/chat/*")][..])
    );
    assert_eq!(fast.upstreams, [Member::new(0), Member { index: 1, weight: 3, priority: 0 }]);
    assert_eq!(
        (fast.early_heartbeat, fast.heartbeat),
        (Some(Duration::from_secs(2)), Some(Duration::from_secs(5)))
    );
    let own = &fast.timeouts;
    assert_eq!(
        [own.connect, own.tls, own.first_byte, own.idle, own.total].map(|time| time.as_millis()),
        [10, 11, 12, 13, 14]
    );
    assert_eq!((own.keep_alive, fast.max_body), (all.keep_alive, 1 << 20));
    assert_eq!(
        (&rest.name[..], &rest.upstreams[..], rest.max_body),
        ("route-2", &[0, 1, 2].map(Member::new)[..], 1 << 30)
    );
    assert_eq!(&rest.timeouts, all);

    let names: Vec<_> =
        config.keys.iter().map(|key| (&key.name[..], key.sha256[0], key.sha256[31])).collect();
    assert_eq!(names, [("green", 0x0f, 0x0f), ("red", 0xab, 0xab), ("blue", 0xcd, 0xcd)]);
}

#[test]
fn check_sums_up_or_tells() {
    let place = Place::new(UPSTREAM);
    let summary = "sedge.toml: ok: 1 upstream, 1 route, 0 client keys, to listen on 127.0.0.1:8080";
    assert_eq!(place.check(&ServeArgs::default()), Ok(summary.to_owned()));
    place.write("sedge.toml", "open = 1");
    assert!(place.check(&ServeArgs::default()).unwrap_err().starts_with("sedge.toml:1: open: "));
    std::fs::remove_file(place.path().join("sedge.toml")).unwrap();
    assert!(place.check(&ServeArgs::default()).unwrap_err().starts_with("sedge.toml: there is no such file"));
}
