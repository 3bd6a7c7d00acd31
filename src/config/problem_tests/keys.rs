//! What is said of keys and other secrets that are wrong, of which nothing is ever repeated.

use super::{assert_problem_like, problems};
use crate::cli::ServeArgs;
use crate::config::tests::{Place, UPSTREAM};

#[test]
fn a_secret_is_looked_up_and_never_repeated() {
    let inline = format!("{UPSTREAM}key = \"sk-hunter2\"");
    assert_problem_like(&inline, "5: [[upstream]] key", "\"env:NAME\" or \"file:");
    assert_problem_like(
        &format!("{UPSTREAM}key = \"env:NOPE\""),
        "5: [[upstream]] key",
        "variable NOPE is not set",
    );
    assert_problem_like(
        &format!("{UPSTREAM}key = \"file:nope\""),
        "5: [[upstream]] key",
        "there is no file nope",
    );
    let place = Place::new(&format!("{UPSTREAM}key = \"env:KEY\""));
    for (value, why) in
        [("", "is not set, or empty"), ("hunter2 x", "space"), ("hunter2\r\nX: y", "line break")]
    {
        let error = place.load(&ServeArgs::default(), &[("KEY", value)]).unwrap_err();
        assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
    }
    assert!(!problems(&inline).contains("hunter2"));
    let config = place.load(&ServeArgs::default(), &[("KEY", "sk-hunter2")]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let hash = problems("[[key]]\nname = \"x\"\nsha256 = \"sk-hunter2\"");
    assert!(
        hash.contains("sedge.toml:3: [[key]] sha256: is not a SHA-256") && !hash.contains("hunter2"),
        "{hash}"
    );
    let key = problems("[[key]]\nname = \"x\"\nkey = \"sk-hunter2\"");
    assert!(key.contains("sedge.toml:3: [[key]] key: must not stand") && !key.contains("hunter2"), "{key}");
}

#[test]
fn keys_that_cannot_be_read_are_not_missing_too() {
    assert_problem_like(
        "listen = \"0.0.0.0:80\"\n[[key]]\nfile = \"nope\"",
        "3: [[key]] file",
        "there is no file nope",
    );
}

#[test]
fn client_keys_are_checked() {
    let hash = "00".repeat(32);
    assert_problem_like(&format!("[[key]]\nsha256 = \"{hash}\""), "1: [[key]] name", "is missing");
    assert_problem_like("[[key]]\nname = \"a\"", "1: [[key]] sha256", "sha256sum");
    assert_problem_like(
        &format!("[[key]]\nname = \"a\"\nsha256 = \"{hash}\"\nfile = \"x\""),
        "4: [[key]] file",
        "keep one of them",
    );
    assert_problem_like("[[key]]\nfile = \"nope\"", "2: [[key]] file", "there is no file nope");
    assert_problem_like("[[key]]\nfile = \"/dev/zero\"", "2: [[key]] file", "is not a file");
    let one = format!("[[key]]\nname = \"a\"\nsha256 = \"{hash}\"\n");
    assert_problem_like(
        &format!("{one}{}", one.replace("\"a\"", "\"b\"")),
        "6: [[key]] sha256",
        "\"b\" has the same key as \"a\"",
    );
}

#[test]
fn the_lines_of_a_file_of_keys_are_told_apart() {
    let hash = "00".repeat(32);
    let told = |table: &str, text: &str| {
        let place = Place::new(table);
        place.write("keys", text);
        place.load(&ServeArgs::default(), &[]).map(|config| config.keys.len())
    };
    let (named, plain) = ("[[key]]\nname = \"a\"\nfile = \"keys\"", "[[key]]\nfile = \"keys\"");
    assert_eq!(told(named, &format!("{hash}\n")), Ok(1));
    assert_eq!(told(plain, &format!("a:{hash}\r\n#\n b : {}\n", "11".repeat(32))), Ok(2));
    for (table, text, expected) in [
        (plain, format!("a:{hash}\n{hash}\n"), "keys:2: has no name"),
        (named, format!("\na:{hash}\n"), "keys:2: has its own name"),
        (plain, "a:hunter2\n".to_owned(), "keys:1: is not a SHA-256"),
        (plain, format!(":{hash}"), "keys:1: has a name that is none"),
        (plain, "# none yet\n".to_owned(), "keys: has no key in it"),
    ] {
        let error = told(table, &text).unwrap_err();
        assert!(error.starts_with(expected) && !error.contains("hunter2"), "{error}");
    }
}
