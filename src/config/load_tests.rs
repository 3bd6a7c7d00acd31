//! Where a setting is taken from, what that leads to, and which route a request takes.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::tests::{Place, loaded};
use super::{Config, Member, Secret, UpstreamUrl, describe_unreloadable, keep_unreloadable};
use crate::cli::ServeArgs;

const TWO_ROUTES: &str = r#"
[[upstream]]
name = "a"
url = "http://a"
[[upstream]]
name = "b"
url = "http://b"
[[route]]
models = ["gpt-*", "o1"]
aliases = { "fast" = "gpt-4o-mini" }
upstreams = ["a"]
[[route]]
paths = ["/v1/audio/*"]
upstreams = ["b"]
"#;

fn load(text: &str, args: &ServeArgs, env: &[(&str, &str)]) -> Config {
    Place::new(text).load(args, env).unwrap_or_else(|errors| panic!("{errors}"))
}

fn fails(text: &str, args: &ServeArgs, env: &[(&str, &str)]) -> String {
    Place::new(text).load(args, env).map(|_| ()).unwrap_err()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn urls(config: &Config) -> Vec<String> {
    config.upstreams.iter().map(|upstream| format!("{} {}", upstream.name, upstream.url)).collect()
}

fn upstream_args(urls: &[&str]) -> ServeArgs {
    let upstreams = urls.iter().map(|url| UpstreamUrl::parse(url).unwrap()).collect();
    ServeArgs { upstreams, ..ServeArgs::default() }
}

#[test]
fn an_option_comes_before_the_environment_and_that_before_the_file() {
    let file = "listen = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\nworkers = 3";
    let env = [("SEDGE_LISTEN", "127.0.0.1:10")];
    let args = ServeArgs {
        listen: Some(address("127.0.0.1:100")),
        admin: Some(None),
        workers: Some(5),
        ..ServeArgs::default()
    };
    let listens = |args: &ServeArgs, env: &[_]| load(file, args, env).listen.port();
    assert_eq!(listens(&ServeArgs::default(), &[]), 1);
    assert_eq!(listens(&ServeArgs::default(), &env), 10);
    assert_eq!(listens(&ServeArgs::default(), &[("SEDGE_LISTEN", "")]), 1);
    assert_eq!(listens(&args, &env), 100);
    let config = load(file, &args, &[]);
    assert_eq!((config.admin, config.workers), (None, 5));
    let error = fails("", &ServeArgs::default(), &[("SEDGE_LISTEN", "8080")]);
    assert!(error.starts_with("SEDGE_LISTEN: \"8080\" has no address"), "{error}");
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let place = Place::new("workers = 1");
    let other = place.write("other.toml", "workers = 2");
    let args = |path: PathBuf| ServeArgs { config: Some(path), ..ServeArgs::default() };
    assert_eq!(place.load(&ServeArgs::default(), &[]).unwrap().workers, 1);
    let named = [("SEDGE_CONFIG", other.to_str().unwrap())];
    assert_eq!(place.load(&ServeArgs::default(), &named).unwrap().workers, 2);
    assert_eq!(place.load(&args(place.path().join("sedge.toml")), &named).unwrap().workers, 1);
    let missing = place.path().join("missing.toml");
    assert_eq!(
        place.load(&args(missing.clone()), &[]).unwrap_err(),
        "--config: there is no file missing.toml"
    );
    let missing = [("SEDGE_CONFIG", missing.to_str().unwrap())];
    assert_eq!(
        place.load(&ServeArgs::default(), &missing).unwrap_err(),
        "SEDGE_CONFIG: there is no file missing.toml"
    );
    std::fs::remove_file(place.path().join("sedge.toml")).unwrap();
    assert_eq!(place.load(&ServeArgs::default(), &[]).unwrap().workers, 0);
}

#[test]
fn with_nothing_configured_the_simulator_answers() {
    let mut config = load("", &ServeArgs::default(), &[]);
    assert!(config.simulator && !config.decides_by_model() && config.route(None, "/v1/models").is_none());
    config.lead_to_simulator(address("127.0.0.1:4000"));
    assert_eq!(urls(&config), ["simulator http://127.0.0.1:4000"]);
    assert_eq!(config.route(Some("any"), "/v1/chat/completions"), Some((0, None)));
}

#[test]
fn a_key_alone_leads_to_openai() {
    let config = load("", &ServeArgs::default(), &[("OPENAI_API_KEY", "sk-1")]);
    assert_eq!(urls(&config), ["api.openai.com https://api.openai.com/v1"]);
    let upstream = &config.upstreams[0];
    assert!(upstream.key_if_absent && !config.simulator);
    assert_eq!(upstream.key.as_ref().unwrap().expose(), "sk-1");
    assert!(load("", &ServeArgs::default(), &[("OPENAI_API_KEY", "")]).simulator);
    let error = fails("", &ServeArgs::default(), &[("OPENAI_API_KEY", "sk 1")]);
    assert!(error.starts_with("OPENAI_API_KEY: ") && !error.contains("sk 1"), "{error}");
}

#[test]
fn a_key_in_the_environment_is_not_for_the_upstreams_of_a_file() {
    let config = load(TWO_ROUTES, &ServeArgs::default(), &[("OPENAI_API_KEY", "sk-1")]);
    assert!(config.upstreams.iter().all(|upstream| upstream.key.is_none()));
}

#[test]
fn named_upstreams_take_the_place_of_the_files() {
    let base = [("OPENAI_BASE_URL", "http://env:1/v1"), ("OPENAI_API_KEY", "sk-1")];
    let config = load(TWO_ROUTES, &ServeArgs::default(), &base);
    assert_eq!(urls(&config), ["env http://env:1/v1"]);
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.notices, ["OPENAI_BASE_URL takes the place of the file's 2 upstreams and 2 routes"]);

    let args = upstream_args(&["http://one:1", "http://one:2/v1", "https://two"]);
    let config = load(TWO_ROUTES, &args, &base);
    assert_eq!(urls(&config), ["one http://one:1", "one-2 http://one:2/v1", "two https://two"]);
    assert_eq!(config.routes[0].upstreams, [0, 1, 2].map(Member::new));
    assert!(config.upstreams.iter().all(|upstream| upstream.key_if_absent && upstream.key.is_some()));

    // Their secrets need not be there, either.
    load("[[upstream]]\nurl = \"http://a\"\nkey = \"env:NOPE\"", &args, &[]);
    let error = fails("", &ServeArgs::default(), &[("OPENAI_BASE_URL", "localhost")]);
    assert!(error.starts_with("OPENAI_BASE_URL: must begin with https://"), "{error}");
}

#[test]
fn an_upstream_that_leads_back_is_refused() {
    let error = fails("", &ServeArgs::default(), &[("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1")]);
    assert!(error.starts_with("OPENAI_BASE_URL: ") && error.contains("round in circles"), "{error}");
    let error = fails("", &upstream_args(&["http://localhost:8080"]), &[]);
    assert!(error.starts_with("--upstream: "), "{error}");
}

#[test]
fn beyond_loopback_there_are_keys_or_it_is_said_to_be_open() {
    let file = "\nlisten = \"0.0.0.0:80\"";
    let error = fails(file, &ServeArgs::default(), &[]);
    assert!(
        error.starts_with("sedge.toml:2: listen: ") && error.contains("[[key]]") && error.contains("--open"),
        "{error}"
    );
    let args = ServeArgs { listen: Some(address("[::]:80")), ..ServeArgs::default() };
    assert!(fails("", &args, &[]).starts_with("--listen: [::]:80 can be reached"));
    let open = ServeArgs { open: true, ..args };
    assert!(load("", &open, &[]).notices[0].contains("anyone"));
    assert!(load(&format!("open = true{file}"), &ServeArgs::default(), &[]).open);
    let keys = format!("{file}\n[[key]]\nname = \"a\"\nsha256 = \"{}\"", "00".repeat(32));
    assert_eq!(load(&keys, &ServeArgs::default(), &[]).keys.len(), 1);
    assert!(load("listen = \"[::1]:80\"", &ServeArgs::default(), &[]).notices.is_empty());
}

#[test]
fn an_admin_listener_beyond_loopback_has_a_token() {
    let file = "\nadmin = \"0.0.0.0:90\"";
    let error = fails(file, &ServeArgs::default(), &[]);
    assert!(error.starts_with("sedge.toml:2: admin: 0.0.0.0:90 can be reached"), "{error}");
    assert!(error.contains("admin_token = \"env:NAME\"") && error.contains("127.0.0.1"), "{error}");
    let args = ServeArgs { admin: Some(Some(address("[::]:90"))), ..ServeArgs::default() };
    assert!(fails("", &args, &[]).starts_with("--admin: [::]:90 can be reached"));
    let token = format!("admin_token = \"env:TOKEN\"{file}");
    let missing = fails(&token, &ServeArgs::default(), &[]);
    assert_eq!(missing, "sedge.toml:1: admin_token: the environment variable TOKEN is not set, or empty");
    let config = load(&token, &ServeArgs::default(), &[("TOKEN", "s3cret")]);
    assert_eq!(config.admin_token.as_ref().unwrap().expose(), "s3cret");
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn the_two_listeners_need_an_address_each() {
    let error = fails("listen = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:1\"", &ServeArgs::default(), &[]);
    assert!(error.starts_with("sedge.toml:2: admin: "), "{error}");
    let any = "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"";
    assert_eq!(load(any, &ServeArgs::default(), &[]).listen.port(), 0);
}

#[test]
fn files_named_by_options_are_checked() {
    let place = Place::new("");
    let cert = place.write("cert.pem", "x");
    let tls = super::ServerTls { cert, key: place.path().join("key.pem") };
    let args = ServeArgs { tls: Some(tls), upstream_ca: vec![place.path().into()], ..ServeArgs::default() };
    let error = place.load(&args, &[]).unwrap_err();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[0], "--tls-key: there is no file key.pem");
    assert!(
        lines.len() == 2 && lines[1].starts_with("--upstream-ca: ") && lines[1].ends_with("is not a file"),
        "{error}"
    );
}

#[test]
fn the_first_route_that_takes_a_request_has_it() {
    let config = load(TWO_ROUTES, &ServeArgs::default(), &[]);
    let chat = "/v1/chat/completions";
    assert_eq!(config.route(Some("gpt-4o"), chat), Some((0, None)));
    assert_eq!(config.route(Some("o1"), chat), Some((0, None)));
    assert_eq!(config.route(Some("fast"), chat), Some((0, Some("gpt-4o-mini".into()))));
    assert_eq!(config.route(Some("o1-mini"), chat), None);
    assert_eq!(config.route(Some("gpt-4o"), "/v1/audio/speech"), Some((0, None)));
    assert_eq!(config.route(Some("tts-1"), "/v1/audio/speech"), Some((1, None)));
    assert_eq!(config.route(None, "/v1/audio/speech"), Some((1, None)));
    assert_eq!(config.route(None, chat), None);
}

#[test]
fn bodies_are_looked_into_only_if_that_decides_something() {
    let with =
        |lines: &str| load(&format!("[[upstream]]\nurl = \"http://a\"\n{lines}"), &ServeArgs::default(), &[]);
    for (lines, by_model) in [
        ("", false),
        ("[[route]]\nmodels = [\"gpt-*\", \"*\"]", false),
        ("[[route]]\nmodels = \"gpt-*\"", true),
        ("[[route]]\naliases = { \"a\" = \"b\" }", true),
        ("[[route]]\nearly_heartbeat_ms = 100", false),
        ("[[route]]\nmodels = \"gpt-*\"\n[[route]]", true),
    ] {
        assert_eq!(with(lines).decides_by_model(), by_model, "{lines}");
    }
    assert!(with("[[route]]\nearly_heartbeat_ms = 100").decides_by_stream() && !with("").decides_by_stream());
    assert!(with("limits = { tokens_per_minute = 5 }").limits_tokens() && !with("").limits_tokens());
}

#[test]
fn silence_may_last_longer_where_heartbeats_are_seen() {
    let idle = |text: &str| {
        let config = load(text, &ServeArgs::default(), &[]);
        let route = config.routes.first().map(|route| route.timeouts.idle.as_secs());
        (config.timeouts.idle.as_secs(), route)
    };
    let route = "[[upstream]]\nurl = \"http://a\"\n[[route]]\nupstreams = [\"a\"]\n";
    assert_eq!(idle(route), (600, Some(600)));
    assert_eq!(idle(&format!("heartbeat = \"0\"\n{route}")), (110, Some(110)));
    assert_eq!(idle(&format!("heartbeat = \"0\"\n{route}heartbeat = \"5s\"")), (110, Some(600)));
    assert_eq!(idle(&format!("{route}heartbeat = \"0\"")), (600, Some(110)));
    let set = "[timeouts]\nidle = \"300s\"";
    assert_eq!(idle(&format!("heartbeat = \"0\"\n{route}{set}")), (300, Some(300)));
}

#[test]
fn what_a_reload_cannot_change_is_told() {
    let old = load("", &ServeArgs::default(), &[]);
    assert!(describe_unreloadable(&old, &old).is_empty());
    let new =
        "listen = \"127.0.0.1:1\"\nadmin = \"off\"\nworkers = 2\naccess_log = \"off\"\nheartbeat = \"1s\"";
    let told = describe_unreloadable(&old, &load(new, &ServeArgs::default(), &[]));
    assert_eq!(told, ["listen = \"127.0.0.1:1\"", "admin = \"off\"", "workers = 2", "access_log"]);
}

#[test]
fn a_reload_keeps_what_protects_a_listener_that_stays() {
    let (none, open) = (ServeArgs::default(), ServeArgs { open: true, ..ServeArgs::default() });
    let mut new = load("listen = \"127.0.0.1:1\"\nworkers = 2", &none, &[]);
    keep_unreloadable(&load("", &none, &[]), &mut new).unwrap();
    assert_eq!((new.listen, new.workers), (address("127.0.0.1:8080"), 0));

    let old = load("listen = \"0.0.0.0:80\"", &open, &[]);
    let error = keep_unreloadable(&old, &mut load("", &none, &[])).unwrap_err();
    assert!(error.starts_with("0.0.0.0:80 is listened on") && error.contains("[[key]]"), "{error}");
    let mut new = load("", &open, &[]);
    keep_unreloadable(&old, &mut new).unwrap();
    assert_eq!(new.listen, old.listen);

    let old = load("admin = \"0.0.0.0:90\"\nadmin_token = \"env:T\"", &none, &[("T", "t")]);
    let error = keep_unreloadable(&old, &mut load("", &none, &[])).unwrap_err();
    assert!(error.contains("0.0.0.0:90") && error.contains("admin_token"), "{error}");
    keep_unreloadable(&old, &mut load("admin_token = \"env:T\"", &none, &[("T", "t")])).unwrap();
}

#[test]
fn what_may_be_used_is_read_wherever_it_may_stand() {
    let hash = "ab".repeat(32);
    let limits = "limits = { requests_per_minute = 5, tokens_per_minute = 9_000, streams = 2, max_tokens = 7, assumed_tokens = 3 }";
    let config = loaded(&format!(
        "[[upstream]]\nurl = \"http://a\"\n{limits}\n[[route]]\n{limits}\n\
         [[key]]\nname = \"k\"\nsha256 = \"{hash}\"\nmodels = [\"gpt-*\"]\n{limits}\n"
    ));
    let quota = &config.keys[0].quota;
    assert_eq!((quota.requests_per_minute, quota.tokens_per_minute), (Some(5), Some(9000)));
    assert_eq!((quota.streams, quota.max_tokens, quota.assumed_tokens), (Some(2), Some(7), 3));
    assert_eq!((quota, quota), (&config.routes[0].quota, &config.upstreams[0].quota));
    assert!(config.keys[0].models[0].matches("gpt-4o") && config.limits_tokens());
    assert!(loaded("[[upstream]]\nurl = \"http://a\"").upstreams[0].quota.is_unlimited());
}

#[test]
fn streams_are_on_a_disk_or_in_redis() {
    let with = |redis: &str| format!("[streams]\nredis = \"{redis}\"\n");
    let place = Place::new(&with("redis://127.0.0.1:6379/2"));
    let config = place.load(&ServeArgs::default(), &[]).expect("an address");
    assert_eq!(config.streams.redis.as_ref().map(Secret::expose), Some("redis://127.0.0.1:6379/2"));
    let hidden = [("REDIS", "rediss://:secret@redis.example:6380")];
    let config = Place::new(&with("env:REDIS")).load(&ServeArgs::default(), &hidden).expect("an address");
    assert!(!format!("{config:?}").contains("secret@"), "it is never shown");
    for (wrong, why) in [
        ("redis://:secret@127.0.0.1", "has a password in it"),
        ("http://127.0.0.1", "is no address of Redis"),
        ("127.0.0.1:6379", "is no address of Redis"),
        ("env:NOT_THERE", "is not set"),
    ] {
        let errors = Place::new(&with(wrong)).load(&ServeArgs::default(), &[]).expect_err(wrong);
        assert!(errors.starts_with("sedge.toml:2: [streams] redis: ") && errors.contains(why), "{errors}");
        assert!(!errors.contains("secret@"), "{errors}");
    }
    let both = ServeArgs { data_dir: Some("streams".into()), ..ServeArgs::default() };
    let errors = place.load(&both, &[]).expect_err("both");
    assert!(errors.contains("--data-dir") && errors.contains("exclude each other"), "{errors}");
}
