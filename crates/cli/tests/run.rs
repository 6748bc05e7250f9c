//! The contract of the verbs that run models.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

/// A conversation whose turns come from a program.
fn converse(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.current_dir(folder).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn chat_takes_turns_and_keeps_what_was_said() {
    let folder = model();
    let here = folder.path();
    let flags = ["chat", "model", "-n", "5", "--temperature", "0", "--context", "256", "-v"];
    let input = "Hello\nOne line \\\nand another\n/save talk.json\n/reset\nHello\n/exit\nnever said\n";
    let output = converse(here, &flags, input);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    let saved: Value = serde_json::from_slice(&std::fs::read(here.join("talk.json")).unwrap()).unwrap();
    let messages = saved["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!(messages[2]["content"], "One line \nand another");
    // The same beginning gives the same answer, and is known from the second turn on.
    let answer = messages[1]["content"].as_str().unwrap();
    assert!(out.matches(answer.trim()).count() >= 2, "{out}");
    let known: Vec<usize> = err.lines().filter_map(|l| l.split_once('(')?.1.split(' ').next()?.parse().ok()).collect();
    assert!(known.len() == 3 && known[0] == 0 && known[1] > 5, "{err}");
    let (document, code) = {
        let output = converse(here, &["model", "-n", "3", "--json", "--system", "Be brief."], "Hello\n");
        (serde_json::from_slice::<Value>(&output.stdout).unwrap(), output.status.code())
    };
    assert_eq!((code, &document["messages"][0]["role"]), (Some(0), &"system".into()));
    assert_eq!(document["messages"].as_array().map(Vec::len), Some(3));
}

#[test]
fn what_a_conversation_cannot_do_is_said() {
    let folder = model();
    let here = folder.path();
    let fails = |arguments: &[&str], input: &str, words: &str| {
        let output = converse(here, arguments, input);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && err.contains(words), "{arguments:?} {input:?}: {err}");
    };
    fails(&["chat", "model"], "/rest\n", "did you mean /reset?");
    fails(&["chat", "model"], "/save text\n", "File exists");
    fails(&["chat", "model", "--context", "16"], &format!("{}\n", "anchor ".repeat(40)), "the context 16");
    fails(&["nowhere"], "", "unrecognized subcommand");
    std::fs::remove_file(here.join("model/chat_template.jinja")).unwrap();
    fails(&["model"], "Hello\n", "has no chat template");
    std::fs::remove_file(here.join("model/tokenizer.json")).unwrap();
    let (error, code) = document(here, &["generate", "model", "-p", "x"]);
    assert!(code == 3 && error["error"]["message"].is_string(), "{error}");
}

/// Ctrl-C ends the answer; a program's conversation ends with it.
#[test]
#[cfg(unix)]
fn an_answer_can_be_stopped() {
    let folder = model();
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.current_dir(folder.path()).args(["chat", "model", "--temperature", "1.5"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"Hello\n").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    drop(input);
}

/// Names of the spans of a trace, and how many there are of each.
fn spans(path: &Path) -> std::collections::BTreeMap<String, usize> {
    let trace: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for event in trace["traceEvents"].as_array().unwrap() {
        *counts.entry(format!("{}:{}", event["ph"].as_str().unwrap(), event["name"].as_str().unwrap())).or_default() +=
            1;
    }
    counts
}

#[test]
fn a_trace_shows_tokens_layers_ops_blocks_and_memory() {
    let folder = model();
    let here = folder.path();
    let generate = ["generate", "model", "-p", "heavy", "-n", "4", "--temperature", "0", "--trace", "t.json", "-v"];
    let output = windlass(here, &generate);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("p99"), "there is no table");
    let counts = spans(&here.join("t.json"));
    // The prompt and three tokens after the first; six layers each, every one with its ops.
    assert_eq!(counts["X:layer"], 6 * 4, "{counts:?}");
    assert_eq!(counts["X:token"] + counts.get("X:prompt").unwrap_or(&0), 4);
    assert_eq!(counts["X:attention"], 6 * 4);
    assert!(counts["C:own memory"] == 4 && counts["M:thread_name"] >= 1);
    let (error, code) = document(here, &generate[..10]);
    assert!(code == 1 && error["error"]["path"] == "t.json", "{error}");
    let (_, code) = document(here, &["convert", "model", "m.gguf", "--scheme", "q8_0", "--trace", "c.json"]);
    let counts = spans(&here.join("c.json"));
    assert!(code == 0 && counts["X:q8_0"] > 10 && counts["X:f32"] > 5, "{counts:?}");
    let (error, code) = document(here, &["bench", "model", "--trace", "nowhere/t.json"]);
    assert!(code == 1 && error["error"]["path"] == "nowhere/t.json", "{error}");
}
