//! Training as a user has it: killed, stopped, gone on with.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.current_dir(folder).args(arguments).env_remove("WINDLASS_CONFIG");
    command
}

fn windlass(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// The report of a training that succeeds.
fn trained(folder: &Path, arguments: &[&str]) -> Value {
    let output = windlass(folder, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The error of one that does not.
fn refused(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = windlass(folder, &[arguments, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    let error = serde_json::from_str::<Value>(&text).unwrap()["error"].clone();
    format!("{} / {}", error["message"].as_str().unwrap(), error["help"].as_str().unwrap_or_default())
}

/// A folder with a small model and rows of different lengths.
fn bench() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    windlass::quickstart::make(&folder.path().join("model")).unwrap();
    let row = |i: usize| {
        let ids: Vec<usize> = (0..12 + i % 7 * 4).map(|at| (i * 31 + at * at * 7) % 500).collect();
        format!("{}\n", serde_json::json!({ "input_ids": ids }))
    };
    std::fs::write(folder.path().join("data.jsonl"), (0..23).map(row).collect::<String>()).unwrap();
    folder
}

const BASE: [&str; 13] = [
    "train",
    "--model",
    "model",
    "--data",
    "data.jsonl",
    "--rank",
    "4",
    "--threads",
    "1",
    "--learning-rate",
    "0.005",
    "--steps",
    "40",
];

fn metrics(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Steps and losses, to the last bit, and those of evaluations.
fn losses(out: &Path) -> Vec<(u64, u64, Option<u64>)> {
    let bits = |value: &Value| value.as_f64().map(f64::to_bits);
    let line = |line: &Value| (line["step"].as_u64().unwrap(), bits(&line["loss"]).unwrap(), bits(&line["eval_loss"]));
    metrics(out).iter().map(line).collect()
}

fn adapter(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("adapter/adapter_model.safetensors")).unwrap()
}

fn checkpoints(out: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(out.join("checkpoints")).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Starts a training, and waits until `is_there`.
fn started(folder: &Path, arguments: &[&str], is_there: impl Fn() -> bool) -> Child {
    let mut child = command(folder, arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    while !is_there() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
        std::thread::yield_now();
    }
    child
}

/// What a kill in the middle of forty steps must not change.
fn killed_and_resumed(more: &[&str]) {
    let bench = bench();
    let here = bench.path();
    let arguments = |out: &'static str| [&BASE[..], more, &["--out", out]].concat();
    trained(here, &arguments("whole"));
    let every = [&arguments("killed")[..], &["--checkpoint-every", "5"]].concat();
    let mut child = started(here, &every, || here.join("killed/checkpoints/step-000020").exists());
    signal(&child, "-KILL");
    assert_eq!(child.wait().unwrap().code(), None, "it was killed");
    let before = losses(&here.join("killed"));
    assert!((20..40).contains(&before.len()), "it was killed at {}", before.len());
    let report = trained(here, &[&every[..], &["--resume"]].concat());
    assert!(report["resumed_from"].as_u64().unwrap() >= 20, "{report}");
    assert_eq!(report["steps"], 40);
    let whole = losses(&here.join("whole"));
    assert_eq!(whole.iter().map(|(step, ..)| *step).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
    assert_eq!(losses(&here.join("killed")), whole);
    assert!(adapter(&here.join("killed")) == adapter(&here.join("whole")));
    assert_eq!(checkpoints(&here.join("killed")), ["step-000035", "step-000040"]);
}

#[test]
fn a_training_that_was_killed_goes_on_with_the_same_losses() {
    killed_and_resumed(&[]);
}

#[test]
fn also_with_evaluation() {
    killed_and_resumed(&["--eval-data", "data.jsonl", "--eval-every", "6", "--early-stop", "5"]);
}

#[test]
fn also_with_dropout_accumulation_and_clipping() {
    let more = ["--dropout", "0.2", "--accumulate", "3", "--batch-size", "2", "--max-grad-norm", "0.1"];
    killed_and_resumed(&more);
}

#[test]
fn also_on_a_quantized_base_in_the_order_of_the_file() {
    let more =
        ["--method", "qdora", "--no-shuffle", "--scheduler", "linear", "--warmup-steps", "7", "--weight-decay", "0.1"];
    killed_and_resumed(&more);
}

/// A rate that falls with losses depends on all that were seen.
#[test]
fn also_with_a_rate_that_heeds_losses() {
    let settings = "patience=1,threshold=0.05,factor=0.7";
    killed_and_resumed(&["--scheduler", "reduce_on_plateau", "--scheduler-settings", settings]);
}

#[test]
fn signals_leave_a_checkpoint() {
    let bench = bench();
    let here = bench.path();
    let out = |name: &str| -> PathBuf { here.join(name) };
    trained(here, &[&BASE[..], &["--out", "whole"]].concat());
    for (name, how) in [("term", "-TERM"), ("int", "-INT")] {
        let arguments = [&BASE[..], &["--out", name]].concat();
        let mut child = started(here, &arguments, || {
            std::fs::read(out(name).join("metrics.jsonl"))
                .is_ok_and(|text| text.iter().filter(|b| **b == b'\n').count() > 4)
        });
        signal(&child, how);
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert_eq!(checkpoints(&out(name)).len(), 1);
        assert!(!out(name).join("adapter").exists());
        trained(here, &[&arguments[..], &["--resume"]].concat());
        assert_eq!(losses(&out(name)), losses(&out("whole")));
    }
    let arguments = [&BASE[..], &["--out", "usr1"]].concat();
    let mut child = started(here, &arguments, || {
        std::fs::metadata(out("usr1").join("metrics.jsonl")).is_ok_and(|about| about.len() > 0)
    });
    signal(&child, "-USR1");
    assert_eq!(child.wait().unwrap().code(), Some(0), "it goes on");
    assert_eq!(checkpoints(&out("usr1")).len(), 1);
    assert_eq!(losses(&out("usr1")), losses(&out("whole")));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_that_of_another_training_is_refused() {
    let bench = bench();
    let here = bench.path();
    let arguments = [&BASE[..], &["--out", "run", "--checkpoint-every", "20"]].concat();
    trained(here, &arguments);
    let (first, whole) = (adapter(&here.join("run")), losses(&here.join("run")));
    let again = [&arguments[..], &["--resume"]].concat();
    let state = |step: &str| here.join("run/checkpoints").join(step).join("state.safetensors");
    let bytes = std::fs::read(state("step-000040")).unwrap();
    let mut turned = bytes.clone();
    *turned.last_mut().unwrap() ^= 1;
    for (damaged, why) in [(&bytes[..bytes.len() - 7], "bytes"), (&turned[..], "checksum"), (&[], "bytes")] {
        std::fs::write(state("step-000040"), damaged).unwrap();
        let output = windlass(here, &again);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && text.contains("warning: passed over") && text.contains(why), "{text}");
        assert!(losses(&here.join("run")) == whole && adapter(&here.join("run")) == first);
        assert!(std::fs::read(state("step-000040")).unwrap() == bytes, "it was written again");
    }
    for (other, name) in [
        (["--rank", "8"], "rank was 4 there and is 8 now"),
        (["--learning-rate", "0.1"], "learning_rate was 0.005"),
        (["--steps", "60"], "steps was 40"),
        (["--seed", "1"], "seed was 42"),
        (["--accumulate", "2"], "accumulate was 1"),
        (["--method", "qlora"], "method was \"lora\""),
    ] {
        let kept: Vec<&str> = match again.iter().position(|a| *a == other[0]) {
            Some(at) => [&again[..at], &again[at + 2..]].concat(),
            None => again.clone(),
        };
        let message = refused(here, &[&kept[..], &other].concat(), 2);
        assert!(message.contains("is of another training") && message.contains(name), "{message}");
    }
    let data = std::fs::read_to_string(here.join("data.jsonl")).unwrap();
    std::fs::write(here.join("data.jsonl"), data.replacen("[0,", "[1,", 1)).unwrap();
    assert!(refused(here, &again, 2).contains("data was"));
    std::fs::write(here.join("data.jsonl"), data).unwrap();
    // Neither what the first of a run leaves nor a folder without checkpoints is replaced unasked.
    assert!(refused(here, &arguments, 1).contains("--resume"));
    for step in ["step-000020", "step-000040"] {
        std::fs::write(here.join("run/checkpoints").join(step).join("checkpoint.json"), "{").unwrap();
    }
    assert!(refused(here, &again, 3).contains("no checkpoint in"));
    trained(here, &[&arguments[..], &["--overwrite"]].concat());
    assert_eq!(adapter(&here.join("run")), first);
}

#[test]
fn a_training_with_a_constant_rate_can_be_made_longer() {
    let bench = bench();
    let here = bench.path();
    let constant = |out: &'static str, steps: &'static str| {
        [&BASE[..11], &["--scheduler", "constant", "--steps", steps, "--checkpoint-every", "1h", "--out", out]].concat()
    };
    trained(here, &constant("whole", "12"));
    trained(here, &constant("longer", "7"));
    assert_eq!(checkpoints(&here.join("longer")), ["step-000007"]);
    let report = trained(here, &[&constant("longer", "12")[..], &["--resume"]].concat());
    assert_eq!(report["resumed_from"], 7);
    assert_eq!(losses(&here.join("longer")), losses(&here.join("whole")));
    assert!(adapter(&here.join("longer")) == adapter(&here.join("whole")));
    let report = trained(here, &[&constant("anew", "2")[..], &["--resume"]].concat());
    assert_eq!((&report["steps"], &report["resumed_from"]), (&2.into(), &Value::Null), "there was nothing to resume");
}

#[test]
fn a_full_disk_ends_the_training_and_leaves_the_last_checkpoint_good() {
    let bench = bench();
    let here = bench.path();
    let arguments = [&BASE[..], &["--out", "run", "--checkpoint-every", "10"]].concat();
    // Files beyond the limit cannot be written, as on a full disk: metrics can, the second checkpoint not.
    let mut child = started(here, &arguments, || here.join("run/checkpoints/step-000010").exists());
    signal(&child, "-KILL");
    child.wait().unwrap();
    let there = checkpoints(&here.join("run"));
    let script =
        format!("trap '' XFSZ; ulimit -f 16; exec {} {} --resume", env!("CARGO_BIN_EXE_windlass"), arguments.join(" "));
    let output = Command::new("sh").current_dir(here).args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the checkpoint could not be written") && text.contains("is complete"), "{text}");
    let left = checkpoints(&here.join("run"));
    assert_eq!(left.iter().filter(|name| !there.contains(name)).count(), 0, "{left:?}");
    assert!(left.iter().all(|name| !name.ends_with(".partial")), "{left:?}");
    trained(here, &[&arguments[..], &["--resume"]].concat());
    trained(here, &[&BASE[..], &["--out", "whole"]].concat());
    assert_eq!(losses(&here.join("run")), losses(&here.join("whole")));
}

#[test]
fn two_trainings_into_one_folder_are_refused() {
    let bench = bench();
    let here = bench.path();
    let arguments = [&BASE[..11], &["--steps", "2000", "--out", "run"]].concat();
    let mut child = started(here, &arguments, || {
        std::fs::metadata(here.join("run/metrics.jsonl")).is_ok_and(|about| about.len() > 0)
    });
    assert!(refused(here, &[&arguments[..], &["--resume"]].concat(), 1).contains("another process"));
    signal(&child, "-KILL");
    child.wait().unwrap();
}

#[test]
fn evaluations_are_in_the_metrics_the_drawing_and_the_events() {
    let bench = bench();
    let here = bench.path();
    let arguments = [&BASE[..11], &["--steps", "12", "--eval-data", "data.jsonl", "--out", "run"]].concat();
    let report = trained(here, &[&arguments[..], &["--eval-every", "5"]].concat());
    let with: Vec<u64> = metrics(&here.join("run"))
        .iter()
        .filter(|line| line["eval_loss"].is_number())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(with, [5, 10, 12]);
    assert_eq!(report["eval_loss"], metrics(&here.join("run"))[11]["eval_loss"]);
    let svg = std::fs::read_to_string(here.join("run/loss.svg")).unwrap();
    assert!(svg.contains("<polyline") && svg.contains(">eval</text>") && svg.ends_with("</svg>\n"), "{svg}");
    let events: Vec<_> = std::fs::read_dir(here.join("run/tensorboard")).unwrap().map(|e| e.unwrap().path()).collect();
    let bytes = std::fs::read(&events[0]).unwrap();
    let count = |tag: &str| bytes.windows(tag.len()).filter(|part| *part == tag.as_bytes()).count();
    assert_eq!((events.len(), count("train/loss"), count("eval/loss")), (1, 12, 3));
    for (flags, message) in [
        (&["--early-stop", "2"][..], "--early-stop needs --eval-every"),
        (&["--keep-best"], "--keep-best needs --eval-every"),
        (&["--eval-every", "0"], "at least 1"),
        (&["--checkpoint-every", "soon"], "neither a number of steps"),
    ] {
        let error = refused(here, &[&arguments[..], &["--overwrite"], flags].concat(), 2);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_loss_that_does_not_get_better_ends_the_training() {
    let bench = bench();
    let here = bench.path();
    let arguments = [&BASE[..9], &["--steps", "40", "--learning-rate", "0", "--eval-data", "data.jsonl"]].concat();
    let more = ["--eval-every", "3", "--early-stop", "2", "--checkpoint-every", "100", "--out", "run"];
    let report = trained(here, &[&arguments[..], &more].concat());
    assert_eq!(
        (&report["steps"], &report["stopped_early"], &report["best_step"]),
        (&9.into(), &true.into(), &3.into())
    );
    assert_eq!(checkpoints(&here.join("run")), ["step-000009"]);
    let again = trained(here, &[&arguments[..], &more, &["--resume"]].concat());
    assert_eq!((&again["steps"], &again["resumed_from"]), (&9.into(), &9.into()), "it stays ended");
}

#[test]
fn the_adapter_is_that_of_the_best_evaluation_where_that_is_kept() {
    let bench = bench();
    let here = bench.path();
    // What is learned does not help with rows of another kind.
    let other: String = (0..4).map(|i| format!("{{\"input_ids\": [{i}, 9, 9, 9, 9, 9, 9, 9]}}\n")).collect();
    std::fs::write(here.join("other.jsonl"), other).unwrap();
    let arguments = [&BASE[..11], &["--scheduler", "constant", "--out"]].concat();
    let best =
        ["best", "--steps", "30", "--eval-data", "other.jsonl", "--eval-every", "2", "--keep-best", "--keep", "1"];
    let report = trained(here, &[&arguments[..], &best].concat());
    let step = report["best_step"].as_u64().unwrap();
    let lines = metrics(&here.join("best"));
    let lowest = lines.iter().filter_map(|line| line["eval_loss"].as_f64()).fold(f64::MAX, f64::min);
    assert_eq!(report["eval_loss"].as_f64(), Some(lowest));
    assert!(step < 30, "the best is the last: {report}");
    assert_eq!(checkpoints(&here.join("best")), [format!("step-{step:06}"), "step-000030".into()]);
    trained(here, &[&arguments[..], &["short", "--steps", &step.to_string()]].concat());
    assert!(adapter(&here.join("best")) == adapter(&here.join("short")));
}

/// Puts a value into a tensor of the model, at a place among its values.
fn spoil(folder: &Path, tensor: &str, at: usize, value: f32) {
    let path = folder.join("model/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    assert_eq!(header[tensor]["dtype"], "BF16");
    let offset = 8 + length + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize + 2 * at;
    bytes[offset..offset + 2].copy_from_slice(&value.to_bits().to_le_bytes()[2..]);
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn what_is_not_a_number_first_is_named_with_the_rows_of_its_batch() {
    let bench = bench();
    let here = bench.path();
    let arguments = [&BASE[..9], &["--steps", "4", "--no-shuffle", "--batch-size", "2", "--accumulate", "2"]].concat();
    let hot = refused(here, &[&arguments[..], &["--learning-rate", "1e30", "--out", "hot"]].concat(), 1);
    assert!(hot.contains("step 2: the result of ") && hot.contains(", at ") && hot.contains("rows [4, 5]"), "{hot}");
    let skip = ["--learning-rate", "1e30", "--out", "skip", "--skip-nan", "--steps", "40"];
    let all = refused(here, &[&arguments[..9], &skip].concat(), 1);
    assert!(all.contains("step 12: "), "more than ten in a row are not left out: {all}");
    spoil(here, "model.layers.1.mlp.up_proj.weight", 77, f32::NAN);
    let spoilt = refused(here, &[&arguments[..], &["--out", "spoilt"]].concat(), 1);
    assert!(spoilt.contains("step 1: model.layers.1.mlp.up_proj.weight has the value NaN"), "{spoilt}");
    assert!(spoilt.contains("rows [0, 1] of the data"), "{spoilt}");
}

#[test]
fn steps_that_are_not_a_number_are_left_out_where_that_is_wanted() {
    let bench = bench();
    let here = bench.path();
    // Its logits come from a matrix of their own: only a row with this token meets what is no number.
    let untied = Path::new(env!("CARGO_MANIFEST_DIR")).join("../windlass/tests/golden/models/llama");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(untied.join(name), here.join("model").join(name)).unwrap();
    }
    let token = |i: usize| if i == 3 { 99 } else { 5 };
    let rows = (0..6).map(|i| format!("{{\"input_ids\": [1, 2, {}, 3]}}\n", token(i)));
    std::fs::write(here.join("data.jsonl"), rows.collect::<String>()).unwrap();
    spoil(here, "model.embed_tokens.weight", 99 * 64, f32::INFINITY);
    let arguments = [&BASE[..11], &["--steps", "6", "--no-shuffle", "--out", "run", "--skip-nan"]].concat();
    trained(here, &arguments);
    let skipped: Vec<bool> = metrics(&here.join("run")).iter().map(|line| line["skipped"] == true).collect();
    assert_eq!(skipped, [false, false, false, true, false, false]);
    assert!(metrics(&here.join("run"))[3]["loss"].is_null());
}

#[test]
fn a_trace_shows_the_steps_that_were_asked_for() {
    let bench = bench();
    let here = bench.path();
    let arguments = [&BASE[..11], &["--steps", "6", "--out", "run", "--trace-steps", "3..4"]].concat();
    assert!(refused(here, &arguments, 2).contains("--trace FILE"));
    assert!(refused(here, &[&BASE[..], &["--out", "run", "--trace-steps", "4..3"]].concat(), 2).contains("3..5"));
    trained(here, &[&arguments[..], &["--trace", "trace.json"]].concat());
    let trace: Value = serde_json::from_slice(&std::fs::read(here.join("trace.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let steps = |name: &str| -> Vec<u64> {
        let spans = events.iter().filter(|event| event["name"] == name && event["ph"] == "X");
        spans.map(|span| span["args"]["step"].as_u64().unwrap()).collect()
    };
    assert_eq!((steps("forward"), steps("backward"), steps("optimizer")), (vec![3, 4], vec![3, 4], vec![3, 4]));
    assert!(events.iter().any(|event| event["name"] == "layer" && event["args"]["layer"] == 5));
}

#[test]
fn lines_of_steps_are_printed_where_there_is_no_terminal() {
    let bench = bench();
    let here = bench.path();
    let output = windlass(here, &[&BASE[..11], &["--steps", "3", "--out", "run", "-v"]].concat());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("step ")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].starts_with("step 2/3  loss ") && lines[1].contains(" tokens/s  ") && lines[1].ends_with(" left"));
}
