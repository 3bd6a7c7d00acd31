//! `sedge check` says what `sedge serve` would refuse. It passed a TLS key that is not its certificate's, an authority file without a
//! certificate, a directory that cannot be used, and a second listener on a port that has one: a deployment that was checked did not
//! start.

mod support;

use std::path::{Path, PathBuf};

use support::edge::{command, scratch};

/// What it says of a configuration, with this binary's own directory taken out.
fn check(toml: &str) -> (Option<i32>, String) {
    let path = scratch("sedge.toml");
    std::fs::write(&path, toml).expect("write");
    let output = command().args(["check", "--config"]).arg(&path).output().expect("run sedge");
    let told =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), told.replace(&path.display().to_string(), "sedge.toml"))
}

#[track_caller]
fn refused(toml: &str, part: &str) {
    let (code, told) = check(toml);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains(part), "{told}");
    assert_eq!(told.lines().count(), 1, "one problem was expected:\n{told}");
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = scratch(name);
    std::fs::write(&path, text).expect("write");
    path
}

fn tls(cert: &Path, key: &Path) -> String {
    format!("[tls]\ncert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display())
}

fn certificate() -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    (file("cert.pem", &made.cert.pem()), file("key.pem", &made.signing_key.serialize_pem()))
}

#[test]
fn certificates_and_keys_must_fit() {
    let ((cert, key), (_, other)) = (certificate(), certificate());
    assert_eq!(check(&tls(&cert, &key)).0, Some(0));
    refused(&tls(&cert, &other), "the key does not serve");
    refused(&tls(&file("cert.pem", "nothing"), &key), "holds no certificate");
    refused(&tls(&cert, &file("key.pem", "nothing")), "no private key could be read");
    let ca = |path: &Path| format!("upstream_ca = [\"{}\"]\n", path.display());
    assert_eq!(check(&ca(&cert)).0, Some(0));
    refused(&ca(&file("ca.pem", "")), "holds no certificate");
    let upstream = "[[upstream]]\nurl = \"https://api.example/v1\"\n";
    refused(&(ca(&file("ca.pem", "")) + upstream), "holds no certificate");
}

#[test]
fn directories_and_files_must_be_usable() {
    let plain = file("plain", "");
    let inside = plain.join("streams");
    refused(&format!("data_dir = \"{}\"\n", plain.display()), "durable streams cannot be kept in");
    refused(&format!("data_dir = \"{}\"\n", inside.display()), "durable streams cannot be kept in");
    refused(&format!("access_log = \"{}\"\n", Path::new("/").join("proc").display()), "it is a directory");
    let new = scratch("new").join("streams");
    assert_eq!(check(&format!("data_dir = \"{}\"\n", new.display())).0, Some(0));
    assert!(!new.parent().expect("a parent").exists(), "it leaves no trace");
    let log = scratch("access.log");
    assert_eq!(check(&format!("access_log = \"{}\"\n", log.display())).0, Some(0));
    assert!(!log.exists(), "it leaves no trace");
}

#[test]
fn a_port_has_one_listener() {
    for (listen, admin) in [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("[::]:8080", "127.0.0.1:8080"),
    ] {
        refused(
            &format!("open = true\nlisten = \"{listen}\"\nadmin = \"{admin}\"\n"),
            "is where clients are served",
        );
    }
    assert_eq!(check("listen = \"127.0.0.1:8080\"\nadmin = \"[::1]:8080\"\n").0, Some(0));
    // The default one goes elsewhere by itself.
    assert_eq!(check("listen = \"127.0.0.1:9091\"\n").0, Some(0));
}

#[test]
fn one_error_is_told_once() {
    let route =
        |name: &str| format!("[[route]]\nname = \"{name}\"\nmodels = [\"{name}\"]\nupstreams = [\"a\"]\n");
    let routes = [route("x"), route("y"), route("z")].concat();
    refused(&format!("[upstream]\nname = \"a\"\nurl = \"http://h\"\n{routes}"), "two brackets, [[upstream]]");
    refused(&format!("[[upstream]]\nnme = \"a\"\nurl = \"http://h\"\n{routes}"), "did you mean \"name\"?");
    refused(&routes, "there is no [[upstream]] in this file");
    let upstream = "[[upstream]]\nname = \"a\"\nurl = \"http://h\"\n";
    refused(
        &format!("{upstream}[[route]]\nname = \"w\"\nmodel = \"w\"\nupstreams = [\"a\"]\n{routes}"),
        "write models",
    );
    refused(
        &format!("{upstream}[[route]]\nmodels = [\n\"a\",\n\"b\"\nupstreams = [\"a\"]\n{routes}"),
        "missing comma between array elements",
    );
    refused("listen: 127.0.0.1:80\nupstream:\n  - url: http://x\n", "this is YAML");
    refused("{\n \"listen\": \"127.0.0.1:80\",\n \"open\": true\n}\n", "this is JSON");
}

#[test]
fn habits_of_other_files_get_the_right_hint() {
    let upstream = |line: &str| format!("[[upstream]]\nname = \"a\"\nurl = \"http://h\"\n{line}\n");
    for table in
        ["[[upstream]]\nurl = \"http://h\"\n", "[cors]\norigins = \"*\"\n", "[timeouts]\n", "[streams]\n"]
    {
        refused(
            &format!("{table}admin = \"off\"\n"),
            "it belongs at the top of the file, above the first line in brackets",
        );
    }
    refused(&upstream("key = \"${OPENAI_API_KEY}\""), "is not replaced here; write \"env:OPENAI_API_KEY\"");
    refused(&upstream("key = \"$OPENAI_API_KEY\""), "write \"env:OPENAI_API_KEY\"");
    refused("listen = \"${ADDRESS}\"\n", "variables are not replaced here");
    refused("[[upstream]]\nurl = \"${BASE_URL}/v1\"\n", "variables are not replaced here");
    let route = |line: &str| upstream(&format!("[[route]]\n{line}"));
    refused(
        &route("models = [\"^gpt-.*$\"]"),
        "is a regular expression; in a pattern * stands for any text, and nothing else does: write \"gpt-*\"",
    );
    refused(&route("paths = [\"^/v1/chat/.*\"]"), "write \"/v1/chat/*\"");
    refused(&route("models = [\"(a|b)\"]"), "write each text as an item of its own");
}
