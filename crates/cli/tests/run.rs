//! The contract of the verbs that run models.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn windlass(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.current_dir(folder).args(arguments).env_remove("WINDLASS_CONFIG").output().unwrap()
}

/// The one document on standard output, and the exit code.
fn document(folder: &Path, arguments: &[&str]) -> (Value, i32) {
    let output = windlass(folder, &[arguments, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"));
    (value, output.status.code().unwrap())
}

fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    windlass::quickstart::make(&folder.path().join("model")).unwrap();
    std::fs::write(folder.path().join("text"), "A windlass lifts a heavy anchor. ".repeat(80)).unwrap();
    folder
}

fn keys(value: &Value, names: &[&str]) {
    for name in names {
        assert!(!value[name].is_null(), "{name} is missing in {value}");
    }
}

#[test]
fn eval_has_its_keys_and_a_gate() {
    let folder = model();
    let here = folder.path();
    let small = ["--text", "text", "--context", "64", "--windows", "2"];
    let (report, code) = document(here, &[&["eval", "model"], &small[..]].concat());
    assert_eq!(code, 0);
    keys(&report, &["tokens", "perplexity"]);
    document(here, &["convert", "model", "m.gguf", "--scheme", "q4_0"]);
    let against = [&["eval", "m.gguf", "--against", "model"], &small[..]].concat();
    let (report, code) = document(here, &against);
    assert_eq!(code, 0);
    keys(&report, &["tokens", "perplexity", "mean_kld", "p99_kld", "top1_agreement"]);
    let (report, code) = document(here, &[&against[..], &["--max-kld", "1e-9"]].concat());
    assert_eq!((code, &report["error"]["code"]), (5, &"gate".into()));
    keys(&report, &["mean_kld"]);
    let (error, code) = document(here, &["eval", "model", "--text", "nowhere"]);
    assert_eq!((code, &error["error"]["path"]), (1, &"nowhere".into()));
    let output = windlass(here, &against);
    assert!(String::from_utf8_lossy(&output.stdout).contains("KL          mean"));
}

#[test]
fn convert_measures_on_a_text() {
    let folder = model();
    let here = folder.path();
    std::fs::write(here.join("long"), "A windlass lifts a heavy anchor. ".repeat(400)).unwrap();
    let gate = ["convert", "model", "m.gguf", "--scheme", "q2_k", "--calibrate", "long", "--max-kld"];
    let (report, code) = document(here, &[&gate[..], &["1e-9"]].concat());
    assert_eq!((code, &report["error"]["code"]), (5, &"gate".into()));
    assert!(!here.join("m.gguf").exists());
    let (report, code) = document(here, &[&gate[..], &["10"]].concat());
    assert_eq!(code, 0);
    keys(&report["quality"], &["mean_kld"]);
    let (error, code) = document(here, &["convert", "model", "n.gguf", "--max-kld", "1"]);
    assert!(code == 2 && error["error"]["help"].as_str().unwrap().contains("--calibrate"));
}

#[test]
fn embed_has_its_keys() {
    let folder = model();
    let (report, code) = document(folder.path(), &["embed", "model", "-p", "heavy anchors"]);
    assert_eq!((code, report["embedding"].as_array().map(Vec::len)), (0, Some(256)));
    keys(&report, &["embedding", "tokens"]);
    let (error, code) = document(folder.path(), &["embed", "model", "-p", ""]);
    assert!(code == 2 && error["error"]["message"].as_str().unwrap().contains("no tokens"), "{error}");
}
