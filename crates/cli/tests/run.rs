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
    fails(&["models/nowhere.gguf"], "", "models/nowhere.gguf: entity not found");
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

#[test]
fn tune_writes_a_table_that_routes_heed_until_it_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        let output = command.current_dir(here).env("WINDLASS_CACHE", here.join("cache")).args(arguments).arg("--json");
        let output = output.output().unwrap();
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        (value, output.status.code().unwrap())
    };
    let source = |routes: &Value| routes[0]["source"].as_str().unwrap().to_string();
    let explain = ["explain", "softmax", "--dtype", "f32", "--size", "1000"];
    assert_eq!(source(&run(&explain).0), "built-in");
    let (report, code) = run(&["tune", "--op", "softmax"]);
    assert_eq!(code, 0);
    let path = std::path::PathBuf::from(report["path"].as_str().unwrap());
    assert!(path.starts_with(here.join("cache")) && path.is_file());
    for one in report["measurements"].as_array().unwrap() {
        assert!(one["seconds"].as_array().unwrap().len() > 1 && one["op"] == "softmax", "{one}");
    }
    let from = source(&run(&explain).0);
    assert!(from.starts_with("measured (") && from.contains(".routes:"), "{from}");
    assert!(
        run(&["routes", "--op", "softmax"])
            .0
            .as_array()
            .unwrap()
            .iter()
            .any(|row| { row["source"].as_str().unwrap().starts_with("measured") && row["dtype"] == "f32" })
    );
    // Another op goes beside it.
    run(&["tune", "--op", "rms_norm"]);
    let table = std::fs::read_to_string(&path).unwrap();
    assert!(table.contains("\nsoftmax dtype f32") && table.contains("\nrms_norm dtype f32"), "{table}");
    // A table that somebody broke is an error that says where, and how to be rid of it.
    std::fs::write(&path, "softmax = smid\n").unwrap();
    let (error, code) = run(&explain);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(code == 2 && message.contains(".routes:1: ") && message.contains("did you mean \"simd\"?"), "{error}");
    assert_eq!(error["error"]["path"], path.to_str().unwrap());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(source(&run(&explain).0), "built-in");
    assert_eq!(run(&["tune", "--forget"]).0["removed"], false);
}

#[test]
fn routes_that_are_wrong_come_with_file_line_and_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let table = |text: &str, words: &[&str]| {
        std::fs::write(here.join("my.routes"), text).unwrap();
        let (error, code) = document(here, &["routes", "--routes", "my.routes"]);
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(code == 2 && words.iter().all(|word| message.contains(word)), "{text:?}: {error}");
    };
    table("# fine\nsoftmax = simd\nlinaer = simd\n", &["my.routes:3: ", "no op is called \"linaer\"", "\"linear\"?"]);
    table("softmax = sidm\n", &["my.routes:1: ", "no provider is called \"sidm\"", "\"simd\"?"]);
    table("softmax simd\n", &["my.routes:1: ", "there is no ="]);
    table("softmax size 9..3 = simd\n", &["my.routes:1: ", "is empty"]);
    table("include \"gone.routes\"\n", &["my.routes:1: ", "gone.routes"]);
    std::fs::write(here.join("my.routes"), "softmax size 10..20 = reference\n").unwrap();
    let at = |size: &str| {
        let (rows, _) = document(here, &["explain", "softmax", "--size", size, "--routes", "my.routes"]);
        (rows[0]["provider"].clone(), rows[0]["source"].clone())
    };
    assert_eq!(at("15"), ("reference".into(), "my.routes:1".into()));
    assert_eq!(at("20").0, "simd");
    for arguments in
        [["explain", "sofmax"], ["routes", "--op=sofmax"], ["survey", "--op=sofmax"], ["tune", "--op=sofmax"]]
    {
        let (error, code) = document(here, &arguments);
        let message = error["error"]["message"].as_str().unwrap();
        assert!(code == 2 && message.ends_with("did you mean \"softmax\"?"), "{arguments:?}: {error}");
    }
}

#[test]
fn a_plan_is_near_what_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let flags = ["bench", "--synthetic", "qwen3-0.6b", "--scheme", "q4_0", "--prompt", "64", "--generate", "4"];
    let (plan, code) = document(here, &[&["plan"], &flags[..]].concat());
    assert_eq!((code, &plan["fits"]), (0, &true.into()));
    keys(&plan["memory"], &["weights_resident", "keys_and_values", "activations", "process"]);
    let sum: u64 = plan["memory"].as_object().unwrap().values().map(|m| m["cpu"].as_u64().unwrap()).sum();
    let planned = plan["peak_memory_bytes"].as_u64().unwrap();
    assert_eq!(planned, sum);
    // Twenty-eight layers of keys and values for eight heads of 128 halves.
    assert_eq!(plan["memory"]["keys_and_values"]["cpu"], 28 * 2 * 8 * 128 * 2 * 68);
    let (report, code) = document(here, &[&flags[..], &["--repeat", "1"]].concat());
    assert_eq!(code, 0, "{report}");
    keys(&report, &["prompt_tokens_per_second", "tokens_per_second", "load_seconds", "peak_memory_bytes", "threads"]);
    let measured = report["peak_memory_bytes"].as_u64().unwrap();
    let ratio = planned as f64 / measured as f64;
    assert!((0.9..1.1).contains(&ratio), "planned {planned}, measured {measured}");
    // A limit that is too small is known before anything is made.
    let (plan, code) = document(here, &[&["plan"], &flags[..], &["--memory-limit", "100MiB"]].concat());
    assert!(code == 0 && plan["fits"] == false && plan["obstacles"][0].as_str().unwrap().contains("limit"), "{plan}");
    let (error, code) = document(here, &[&flags[..], &["--memory-limit", "100MiB"]].concat());
    assert_eq!((code, &error["error"]["code"]), (4, &"out-of-memory".into()));
}

#[test]
fn every_verb_that_runs_has_a_plan() {
    let folder = model();
    let here = folder.path();
    let plan = |arguments: &[&str]| {
        let (plan, code) = document(here, &[&["plan"], arguments].concat());
        assert_eq!(code, 0, "{plan}");
        keys(&plan, &["memory", "bytes_read", "fits"]);
        plan
    };
    let mapped = plan(&["generate", "model", "-p", "heavy anchors", "-n", "20"]);
    let resident = plan(&["bench", "model", "--load", "resident"]);
    let weights = |plan: &Value, name: &str| plan["memory"][name]["cpu"].as_u64().unwrap();
    let file = std::fs::metadata(here.join("model/model.safetensors")).unwrap().len();
    assert!(file - weights(&mapped, "weights_mapped") < 10_000);
    assert!(weights(&resident, "weights_resident").abs_diff(file) < 20_000);
    let quantized = plan(&["bench", "model", "--scheme", "q8_0"]);
    assert!(weights(&quantized, "weights_resident") < file * 6 / 10);
    assert!(plan(&["bench", "model", "--load", "stream"])["memory"]["layers_streamed"].is_object());
    plan(&["eval", "model", "--text", "text"]);
    let logits = plan(&["logits", "model", "--tokens", "1,2,3", "--out", "l.safetensors"]);
    assert_eq!(logits["bytes_written"], 3 * 2048 * 4);
    assert!(!here.join("l.safetensors").exists());
    let text = windlass(here, &["plan", "bench", "model"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("it fits"));
}

#[test]
fn an_op_can_be_measured_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, code) = document(folder.path(), &["bench", "rms_norm", "--dtype", "f32"]);
    let rows = rows.as_array().unwrap();
    assert!(
        code == 0 && rows.len() > 2 && rows.iter().all(|row| row["dtype"] == "f32" && row["seconds"][0][1].is_f64())
    );
    let (error, code) = document(folder.path(), &["bench", "--synthetic", "qwen3-9b"]);
    assert!(code == 2 && error["error"]["help"].as_str().unwrap().contains("qwen3-"), "{error}");
    let (error, code) = document(folder.path(), &["bench"]);
    assert!(code == 2 && error["error"]["message"].is_string(), "{error}");
}
