//! `sedge import`: what LiteLLM was told is served by sedge, and what is left out is named.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{Edge, Upstream, answer, edge, get};

/// `printf %s sk-1234 | sha256sum`
const MASTER_SHA256: &str = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b";

fn gateway() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litellm/gateway.yaml")
}

fn sedge(args: &[&str]) -> Output {
    Command::new(edge::binary()).args(args).output().expect("run sedge")
}

fn imported(file: &Path) -> (String, String) {
    let output = sedge(&["import", file.to_str().expect("UTF-8")]);
    let [told, toml] = [output.stderr, output.stdout].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert!(output.status.success(), "{told}");
    (toml, told)
}

fn written(text: &str) -> PathBuf {
    let path = edge::scratch("config.yaml");
    std::fs::write(&path, text).expect("write");
    path
}

#[test]
fn what_it_makes_is_a_configuration() {
    let (toml, _) = imported(&gateway());
    let path = edge::scratch("sedge.toml");
    std::fs::write(&path, &toml).expect("write");
    let keys = ["OPENAI_API_KEY", "OPENROUTER_API_KEY", "MISTRAL_API_KEY", "HOSTED_VLLM_2_KEY"];
    let mut check = Command::new(edge::binary());
    check.args(["check", "--config", path.to_str().expect("UTF-8")]).env_remove("OPENAI_BASE_URL");
    let output = check.envs(keys.map(|key| (key, "sk-x"))).output().expect("run sedge");
    assert!(output.status.success(), "{}\n{toml}", String::from_utf8_lossy(&output.stderr));

    for line in [
        "sha256 = \"SHA\"".replace("SHA", MASTER_SHA256).as_str(),
        "url = \"https://api.openai.com/v1\"",
        "key = \"env:OPENAI_API_KEY\"",
        "limits = { requests_per_minute = 480, tokens_per_minute = 100000 }",
        "aliases = { \"gpt-4\" = \"gpt-4o-2024-11-20\", \"gpt-4o\" = \"gpt-4o-2024-11-20\" }",
        "upstreams = [{ name = \"openai\", weight = 3 }]",
        "upstreams = [{ name = \"hosted_vllm\", weight = 1 }, { name = \"hosted_vllm-2\", weight = 1, priority = 1 }]",
        "limits = { streams = 8 }",
        "models = [\"mixtral-8x7b\"]",
        "models = [\"*\"]",
        "balance = \"p2c\"",
        "retry = { attempts = 3 }",
        "fallback = \"gpt-4o\"",
        "timeouts = { first_byte = \"300s\" }",
        "first_byte = \"600s\"",
    ] {
        assert!(toml.lines().any(|found| found == line), "no line {line}\n{toml}");
    }
}

#[test]
fn what_it_leaves_out_it_names_by_line_and_path() {
    let file = gateway();
    let (toml, told) = imported(&file);
    let name = file.display();
    for (line, path, why) in [
        (2, "environment_variables", "sedge's own environment"),
        (14, "model_list[0].model_info", "counts tokens"),
        (17, "model_list[1].litellm_params", "translates"),
        (31, "model_list[3].litellm_params.api_key", "HOSTED_VLLM_2_KEY"),
        (34, "model_list[3].litellm_params.temperature", "sets nothing"),
        (38, "model_list[5].litellm_params", "by pattern"),
        (45, "model_list[7]", "no model_name and litellm_params"),
        (50, "router_settings.allowed_fails", "breaker"),
        (51, "router_settings.model_group_alias.nothing", "group"),
        (55, "litellm_settings.drop_params", "as they are"),
        (56, "litellm_settings.success_callback", "/metrics"),
        (57, "litellm_settings.fallbacks[0].llama", "only \"gpt-4o\""),
        (57, "litellm_settings.fallbacks[1].unknown", "one end"),
        (60, "general_settings.master_key", "SHA-256"),
        (61, "general_settings.database_url", "no users"),
    ] {
        let start = format!("{name}:{line}: {path}: ");
        let found = told.lines().find(|found| found.starts_with(&start));
        let found = found.unwrap_or_else(|| panic!("nothing begins with {start}\n{told}"));
        assert!(found.contains(why), "{found}");
    }
    for secret in ["sk-in-clear-text", "sk-1234", "password"] {
        assert!(!toml.contains(secret) && !told.contains(secret), "{secret}");
    }
}

#[test]
fn what_it_makes_is_served() {
    let upstream = Upstream::serve(|head, body| {
        let asked: serde_json::Value = serde_json::from_slice(&body.bytes()).unwrap_or_default();
        let told = format!("{} {}", head.start, asked["model"].as_str().unwrap_or("none"));
        answer("200 OK", &[], told)
    });
    let yaml = format!(
        "model_list:\n- model_name: fast\n  litellm_params: {{model: hosted_vllm/llama-3.1-8b, api_base: {}/api/v1}}\n",
        upstream.url()
    );
    let (toml, told) = imported(&written(&yaml));
    assert!(told.contains("1 of its models; 0 remarks"), "{told}");
    let edge = Edge::configured(&toml);
    let request = support::post("/v1/chat/completions", &[], r#"{"model":"fast"}"#);
    let (head, body) = edge.ask(&request);
    assert_eq!(
        (head.status(), body.text().as_str()),
        (200, "POST /api/v1/chat/completions HTTP/1.1 llama-3.1-8b")
    );
    let request = support::post("/v1/chat/completions", &[], r#"{"model":"other"}"#);
    assert_eq!(edge.ask(&request).0.status(), 404);
    assert_eq!(edge.ask(&get("/livez", &[])).0.status(), 200);
}

#[test]
fn what_cannot_be_read_says_so() {
    for (text, why) in [
        ("model_list: [", "is no YAML"),
        ("", "holds no model"),
        ("just words", "holds no model"),
        ("model_list:\n- model_name: x\n  litellm_params: {model: bedrock/claude}\n", "translates"),
    ] {
        let path = written(text);
        let output = sedge(&["import", path.to_str().expect("UTF-8")]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(why) && told.contains(path.to_str().expect("UTF-8")), "{told}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(sedge(&["import"]).status.code(), Some(2));
    assert_eq!(sedge(&["import", "/nowhere.yaml"]).status.code(), Some(1));
}

#[test]
fn it_overwrites_nothing() {
    let output = edge::scratch("made.toml");
    let (file, to) = (gateway(), output.to_str().expect("UTF-8").to_owned());
    let args = ["import", file.to_str().expect("UTF-8"), "--output", &to];
    let first = sedge(&args);
    assert!(first.status.success() && first.stdout.is_empty());
    let made = std::fs::read_to_string(&output).expect("read");
    assert!(made.contains("[[route]]"), "{made}");
    let again = sedge(&args);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"));
}

/// An `api_base` with a user name and a password, or with a key in its query, was written into the new file in clear text.
#[test]
fn no_secret_of_a_url_is_written() {
    let file = written(
        "model_list:\n- model_name: a\n  litellm_params:\n    model: openai/a\n    api_base: https://me:hunter2@a.example/v1\n\
         - model_name: b\n  litellm_params:\n    model: openai/b\n    api_base: https://b.example/v1?api-version=1&key=hunter2\n",
    );
    let (toml, told) = imported(&file);
    assert!(!toml.contains("hunter2") && !told.contains("hunter2"), "{toml}\n{told}");
    for line in ["url = \"https://a.example/v1\"", "url = \"https://b.example/v1\""] {
        assert!(toml.contains(line), "{toml}");
    }
    assert!(
        told.contains(":5: ") && told.contains("without the user name and password of its URL"),
        "{told}"
    );
    assert!(told.contains(":9: ") && told.contains("without the query of its URL"), "{told}");
}

/// Ten lines of aliases made it read for ever, until memory was gone.
#[test]
fn a_file_whose_aliases_grow_without_end_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..40 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        text += &format!("a{level}: &a{level} [{before}]\n");
    }
    // Where it grows, it ends at this much memory, in KiB, and says nothing of aliases.
    let limited = "ulimit -v 4000000 && exec \"$0\" import \"$1\"";
    let mut limit = Command::new("sh");
    let output =
        limit.args(["-c", limited]).arg(edge::binary()).arg(written(&text)).output().expect("run sedge");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("with its aliases written out"), "{told}");
}
