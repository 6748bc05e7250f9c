//! What a model will see of a file, what is trained on, and rows that cannot be used.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

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

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    windlass::quickstart::make(&folder.path().join("model")).unwrap();
    let rows = "question,answer\nWhat is a windlass?,A hand crank.\nbad\nWho lifts?,\"The crew, slowly.\"\n";
    std::fs::write(folder.path().join("rows.csv"), rows).unwrap();
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]});
    std::fs::write(folder.path().join("chat.jsonl"), format!("{chat}\n{chat}\n")).unwrap();
    folder
}

const MAPPED: [&str; 2] = ["--columns", "prompt=question,completion=answer"];

#[test]
fn data_shows_what_is_learned() {
    let folder = folder();
    let here = folder.path();
    let base = [&["data", "rows.csv", "--model", "model"], &MAPPED[..]].concat();
    let (error, code) = document(here, &base);
    assert_eq!(code, 3);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("rows.csv, line 3: has 1 cells, the header has 2"), "{message}");
    assert!(error["error"]["help"].as_str().unwrap().contains("--skip-bad-rows"), "{error}");
    let skipping = [&base[..], &["--skip-bad-rows", "--packing"]].concat();
    let (view, code) = document(here, &skipping);
    assert_eq!((code, &view["container"], &view["rows"], &view["skipped"]), (0, &"CSV".into(), &3.into(), &1.into()));
    assert_eq!((&view["examples"], &view["formats"]["completion"], &view["units"]), (&2.into(), &2.into(), &1.into()));
    let pieces = &view["first"][0]["pieces"];
    assert_eq!((&pieces[0]["learned"], &pieces[1]["learned"]), (&false.into(), &true.into()));
    assert!(pieces[0]["text"].as_str().unwrap().contains("What is a windlass?"));
    assert!(pieces[1]["text"].as_str().unwrap().starts_with("A hand crank."));
    let lengths: u64 = view["lengths"].as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap()).sum();
    assert_eq!(lengths, 2);
    let text = String::from_utf8(windlass(here, &skipping).stdout).unwrap();
    assert!(text.contains("What is a windlass?⟦A hand crank.") && text.contains("skipped line 3"), "{text}");
}

#[test]
fn conversations_need_a_template() {
    let folder = folder();
    let here = folder.path();
    let (error, code) = document(here, &["data", "chat.jsonl", "--model", "model"]);
    assert_eq!(code, 3);
    assert!(
        error["error"]["message"].as_str().unwrap().contains("line 1: a conversation needs a chat template"),
        "{error}"
    );
    let (view, code) = document(here, &["data", "chat.jsonl", "--model", "model", "--template", "chatml"]);
    assert_eq!((code, &view["formats"]["chat"]), (0, &2.into()));
    let (_, code) = document(here, &["data", "chat.jsonl", "--model", "model", "--truncation", "middle"]);
    assert_eq!(code, 2);
}

#[test]
fn train_lists_skipped_rows_and_holds_out_a_part() {
    let folder = folder();
    let here = folder.path();
    std::fs::write(here.join("run.toml"), "[columns]\nprompt = \"question\"\ncompletion = \"answer\"\n").unwrap();
    let base = ["train", "run.toml", "--model", "model", "--data", "rows.csv", "--out", "run", "--rank", "2"];
    let more = ["--steps", "1", "--skip-bad-rows", "--eval-split", "0.5", "--packing"];
    let (report, code) = document(here, &[&base[..], &more[..]].concat());
    assert_eq!(code, 0, "{report}");
    assert_eq!((&report["data"]["skipped"], &report["data"]["examples"]), (&1.into(), &2.into()));
    assert!(
        report["eval_loss"].as_f64().unwrap() > 0.0 && report["data"]["packing"].as_f64().unwrap() > 0.0,
        "{report}"
    );
    let skipped: Value = serde_json::from_slice(&std::fs::read(here.join("run/skipped.jsonl")).unwrap()).unwrap();
    assert_eq!((&skipped["file"], &skipped["line"]), (&"rows.csv".into(), &3.into()));
    assert!(skipped["reason"].as_str().unwrap().contains("1 cells"));
}
