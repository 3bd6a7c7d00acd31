//! Whole command lines.

use super::*;

fn parsed(line: &str) -> Result<Command, CliError> {
    parse(line.split_whitespace().map(OsString::from), &|_| None)
}

fn served(line: &str) -> ServeArgs {
    match parsed(line) {
        Ok(Command::Serve(args)) => args,
        other => panic!("{line}: {other:?}"),
    }
}

/// What is said of a command line, but for the advice at its end.
fn told(line: &str) -> String {
    let error = parsed(line).unwrap_err().to_string();
    let (what, advice) = error.split_once('\n').unwrap();
    assert_eq!(advice, "sedge --help tells what there is");
    what.strip_prefix("sedge: ").unwrap().to_owned()
}

#[test]
fn to_serve_is_what_is_done_if_nothing_else_is_said() {
    assert_eq!(served(""), ServeArgs::default());
    assert_eq!(served("serve --open"), served("--open"));
}

#[test]
fn every_option_is_understood() {
    let args = served(
        "serve --listen 127.0.0.1:1 --upstream http://a/v1 --upstream=https://b --config c.toml --admin off --open \
         --data-dir d --relay-all --workers 4 --tls-cert c --tls-key k --upstream-ca x --upstream-ca y",
    );
    let expected = ServeArgs {
        listen: Some("127.0.0.1:1".parse().unwrap()),
        upstreams: ["http://a/v1", "https://b"].map(|url| UpstreamUrl::parse(url).unwrap()).to_vec(),
        config: Some("c.toml".into()),
        admin: Some(None),
        data_dir: Some("d".into()),
        open: true,
        relay_all: true,
        workers: Some(4),
        tls: Some(ServerTls { cert: "c".into(), key: "k".into() }),
        upstream_ca: vec!["x".into(), "y".into()],
    };
    assert_eq!(args, expected);
    assert_eq!(parsed("check --config c.toml"), Ok(Command::Check(served("--config c.toml"))));
    assert_eq!(
        served("--listen 127.0.0.1:1 --listen 127.0.0.1:2").listen,
        Some("127.0.0.1:2".parse().unwrap())
    );
    assert_eq!(served("--admin 0.0.0.0:1").admin, Some(Some("0.0.0.0:1".parse().unwrap())));
}

#[test]
fn the_simulator_has_an_address_alone() {
    let listens = |line: &str, variable: Option<&str>| {
        let env = |name: &str| variable.filter(|_| name == "SEDGE_LISTEN").map(OsString::from);
        match parse(line.split_whitespace().map(OsString::from), &env) {
            Ok(Command::Simulate(args)) => Ok(args.listen.port()),
            other => Err(format!("{other:?}")),
        }
    };
    assert_eq!(listens("simulate", None), Ok(8081));
    assert_eq!(listens("simulate", Some("")), Ok(8081));
    assert_eq!(listens("simulate", Some("127.0.0.1:5")), Ok(5));
    assert_eq!(listens("simulate --listen 127.0.0.1:6", Some("127.0.0.1:5")), Ok(6));
    assert!(listens("simulate", Some("x")).unwrap_err().contains("SEDGE_LISTEN"));
    assert_eq!(told("simulate --open"), "--open is not an option of sedge simulate");
}

#[test]
fn help_and_version_are_everywhere() {
    for line in ["--help", "-h", "help", "check -h", "simulate --help", "--open --help"] {
        assert_eq!(parsed(line), Ok(Command::Help), "{line}");
    }
    for line in ["--version", "-V", "version", "simulate -V"] {
        assert_eq!(parsed(line), Ok(Command::Version), "{line}");
    }
}

#[test]
fn a_slip_is_told_with_what_was_meant() {
    for (line, expected) in [
        ("serv", "there is no command \"serv\"; did you mean \"serve\"?"),
        ("simulator", "there is no command \"simulator\"; did you mean \"simulate\"?"),
        ("frobnicate", "there is no command \"frobnicate\""),
        ("--lisen 127.0.0.1:1", "there is no option --lisen; did you mean \"--listen\"?"),
        ("--relay_all", "there is no option --relay_all; did you mean \"--relay-all\"?"),
        ("--frobnicate", "there is no option --frobnicate"),
        ("-x", "there is no option -x"),
        ("http://a/v1", "a URL must follow an option: --upstream URL"),
        ("serve http://a/v1", "a URL must follow an option: --upstream URL"),
        ("--open check", "the command comes first: sedge check [OPTIONS]"),
        ("serve now", "\"now\" follows no option that takes a value"),
        ("--listen", "--listen needs a value after it"),
        ("--open=yes", "--open takes no value"),
        ("--open --relay-all=1", "--relay-all takes no value"),
        ("--tls-cert c", "--tls-cert needs --tls-key FILE beside it"),
        ("--tls-key k", "--tls-key needs --tls-cert FILE beside it"),
        ("--config=", "--config: is empty; give the path of a file"),
    ] {
        assert_eq!(told(line), expected, "{line}");
    }
}

#[test]
fn a_wrong_value_is_told_with_its_option() {
    for (line, expected) in [
        ("--listen 8080", "--listen: \"8080\" has no address; write 127.0.0.1:8080"),
        ("--admin on", "--admin: \"on\" is not an address"),
        ("--workers many", "--workers: \"many\" is not a number of threads"),
        ("--workers 5000", "--workers: \"5000\" is not a number of threads"),
        ("--upstream api.openai.com", "--upstream: must begin with https://"),
    ] {
        assert!(told(line).starts_with(expected), "{line}: {}", told(line));
    }
    assert!(!told("--upstream http://u:hunter2@h").contains("hunter2"));
}

#[test]
fn the_page_of_help_knows_every_option_and_fits_a_terminal() {
    for option in VALUED.into_iter().chain(FLAGS) {
        assert!(HELP.contains(&format!("--{option} ")), "--{option}");
    }
    for command in COMMANDS {
        assert!(HELP.contains(command), "{command}");
    }
    for name in ["SEDGE_LISTEN", "SEDGE_CONFIG", "OPENAI_BASE_URL", "OPENAI_API_KEY"] {
        assert!(HELP.contains(name), "{name}");
    }
    assert!(HELP.lines().all(|line| line.len() <= 106), "{:?}", HELP.lines().max_by_key(|line| line.len()));
}
