//! The contract of the flags that every running command has.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn windlass(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.current_dir(folder).args(arguments).env_remove("WINDLASS_CONFIG").output().unwrap()
}

fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    windlass::quickstart::make(&folder.path().join("model")).unwrap();
    folder
}

fn text(folder: &Path, more: &[&str]) -> String {
    let arguments = ["generate", "model", "-p", "The anchor", "-n", "12", "--temperature", "0", "--json"];
    let output = windlass(folder, &[&arguments, more].concat());
    assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["tokens"], 12);
    report["text"].as_str().unwrap().to_string()
}

fn error(folder: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let output = windlass(folder, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_default().to_string();
    (line("error: "), line("help: "))
}

#[test]
fn every_way_to_load_gives_the_same_text() {
    let folder = model();
    let expected = text(folder.path(), &[]);
    for how in ["mapped", "resident", "stream", "shared"] {
        assert_eq!(text(folder.path(), &["--load", how]), expected, "{how}");
    }
    let quantized = text(folder.path(), &["--scheme", "q8_0"]);
    let output = windlass(folder.path(), &["convert", "model", "model.gguf", "--scheme", "q8_0"]);
    assert!(output.status.success());
    let arguments = ["generate", "model.gguf", "-p", "The anchor", "-n", "12", "--temperature", "0", "--json"];
    let report: Value = serde_json::from_slice(&windlass(folder.path(), &arguments).stdout).unwrap();
    assert_eq!(report["text"], quantized.as_str());
}

#[test]
fn what_does_not_fit_is_refused_before_it_runs() {
    let folder = model();
    let here = folder.path();
    let long = "anchor ".repeat(600);
    for command in [
        &["bench", "model"][..],
        &["generate", "model", "-p", "hi"],
        &["logits", "model", "--tokens", "1,2", "--out", "l.safetensors"],
    ] {
        let (message, help) = error(here, &[command, &["--memory-limit", "8MiB"]].concat(), 4);
        assert!(message.contains("8.0 MiB") && message.contains("keys and values"), "{message}");
        assert!(help.contains("--memory-limit") && help.contains("--kv q8_0"), "{help}");
        let (message, help) = error(here, &[command, &["--memory-limit", "8MiB", "--load", "resident"]].concat(), 4);
        assert!(message.contains("the weights") && help.contains("--load stream"), "{message} {help}");
    }
    let (message, help) = error(here, &["generate", "model", "-p", &long, "--context", "256"], 2);
    assert!(message.contains("tokens, the context 256") && help.contains("--context"), "{message}");
    let (message, _) = error(here, &["logits", "model", "--tokens", "1,2,3", "--context", "2", "--out", "l"], 2);
    assert!(message.contains("3 tokens, the context has 2"), "{message}");
    error(here, &["generate", "model", "-p", "hi", "--load", "stream", "--scheme", "q8_0"], 2);
    error(here, &["generate", "model", "-p", "hi", "--scheme", "q8_9"], 2);
}
