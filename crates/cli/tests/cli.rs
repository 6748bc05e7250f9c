//! The contract that scripts rely on: JSON keys, exit codes, what goes to which stream.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn windlass(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.current_dir(folder).args(arguments).env_remove("WINDLASS_CONFIG").output().unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = windlass(folder, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn error(folder: &Path, arguments: &[&str], code: i32) -> Value {
    let output = windlass(folder, &[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["error"].clone()
}

fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    windlass::quickstart::make(&folder.path().join("model")).unwrap();
    folder
}

fn keys(value: &Value, names: &[&str]) {
    for name in names {
        assert!(value.get(name).is_some(), "{name} is missing in {value}");
    }
}

#[test]
fn quickstart_shows_every_job_and_can_run_again() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let tour = json(folder.path(), &["quickstart", "--brief"]);
        let steps = tour["steps"].as_array().unwrap();
        assert!(steps.len() > 10 && steps.iter().all(|s| s["ok"] == true && s["seconds"].is_number()));
    }
    let output = windlass(folder.path(), &["quickstart", "--brief"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("windlass convert"));
}

#[test]
fn inspect_and_verify_have_their_keys() {
    let folder = model();
    let all = ["container", "version", "architecture", "parameters", "bytes", "schemes", "metadata", "tensors"];
    let description = json(folder.path(), &["inspect", "model", "--tensors"]);
    keys(&description, &all);
    assert_eq!(description["architecture"], "qwen3");
    keys(&description["tensors"][0], &["name", "dtype", "shape", "bytes", "file", "offset"]);
    let verdict = json(folder.path(), &["verify", "model", "--deep"]);
    assert_eq!((verdict["ok"].clone(), verdict["problems"].clone()), (true.into(), Value::Array(vec![])));
}

#[test]
fn convert_plans_converts_and_refuses() {
    let folder = model();
    let plan = json(folder.path(), &["convert", "model", "m.gguf", "--scheme", "q4_k_m", "--dry-run"]);
    keys(&plan, &["bytes_read", "bytes_written", "peak_memory_bytes"]);
    assert!(!folder.path().join("m.gguf").exists());
    let answer = json(folder.path(), &["plan", "convert", "model", "m.gguf", "--scheme", "q4_k_m"]);
    keys(&answer, &["memory", "bytes_read", "bytes_written", "fits"]);
    assert_eq!((&answer["bytes_written"], &answer["fits"]), (&plan["bytes_written"], &Value::Bool(true)));
    let report = json(folder.path(), &["convert", "model", "m.gguf", "--scheme", "q4_k_m"]);
    keys(&report, &["input", "output", "tensors", "bytes_in", "bytes_out", "seconds", "sync_seconds"]);
    keys(&report, &["peak_memory_bytes", "repacked", "requantized", "max_relative_error"]);
    assert_eq!(report["bytes_out"], plan["bytes_written"]);
    assert_eq!(report["bytes_out"].as_u64(), folder.path().join("m.gguf").metadata().ok().map(|m| m.len()));
    let error = error(folder.path(), &["convert", "nowhere", "n.gguf"], 1);
    assert!(error["message"].as_str().unwrap().contains("nowhere"));
}

#[test]
fn exit_codes_are_as_promised() {
    let folder = model();
    let here = folder.path();
    assert_eq!(windlass(here, &["inspect"]).status.code(), Some(2));
    assert_eq!(windlass(here, &["inspect", "model", "--bogus"]).status.code(), Some(2));
    error(here, &["convert", "model", "m.gguf", "--scheme", "q99"], 2);
    error(here, &["inspect", "model", "--device", "cuda:7"], 2);
    std::fs::write(here.join("empty.gguf"), "").unwrap();
    error(here, &["inspect", "empty.gguf"], 3);
    std::fs::write(here.join("page.safetensors"), "<!DOCTYPE html>").unwrap();
    let page = error(here, &["inspect", "page.safetensors"], 3);
    assert!(page["message"].as_str().unwrap().contains("web page"), "{page}");
    error(here, &["convert", "model", "m.gguf", "--memory-limit", "1MiB"], 4);
    error(here, &["convert", "model", "m.gguf", "--scheme", "q2_k", "--max-error", "0.001"], 5);
}

#[test]
fn flags_have_environment_variables() {
    let folder = model();
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    let output =
        command.current_dir(folder.path()).env("WINDLASS_JSON", "1").args(["inspect", "model"]).output().unwrap();
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn verify_reads_the_side_files_and_never_waits_for_memory() {
    let folder = model();
    let here = folder.path();
    error(here, &["verify", "model", "--deep", "--memory-limit", "64KiB"], 4);
    std::fs::write(here.join("model/tokenizer.json"), "{").unwrap();
    let output = windlass(here, &["verify", "model", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["problems"][0]["code"], "bad-tokenizer");
}

#[test]
fn errors_without_json_are_two_lines_on_standard_error() {
    let folder = model();
    std::fs::write(folder.path().join("m.gguf"), "mine").unwrap();
    let output = windlass(folder.path(), &["convert", "model", "m.gguf"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty());
    assert!(text.starts_with("error: m.gguf exists already\nhelp: "), "{text}");
}

#[test]
fn registries_list_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let schemes = json(folder.path(), &["schemes"]);
    let q4_k = schemes.as_array().unwrap().iter().find(|s| s["name"] == "q4_k").unwrap();
    assert_eq!((q4_k["bits_per_weight"].as_f64(), &q4_k["containers"][0]), (Some(4.5), &"gguf".into()));
    let formats = json(folder.path(), &["formats"]);
    assert!(formats.as_array().unwrap().iter().any(|f| f["name"] == "mlx" && f["write"] == true));
    let architectures = json(folder.path(), &["architectures"]);
    assert!(architectures.as_array().unwrap().iter().any(|a| a["name"] == "qwen3"));
}

#[test]
fn tokens_go_there_and_back_alike_in_every_container() {
    let folder = model();
    json(folder.path(), &["convert", "model", "m.gguf"]);
    let text = "Hello, wörld! 锚 ⚓ <|im_end|>\n\tfn x()";
    let tokens = json(folder.path(), &["tokenize", "model", "-p", text]);
    assert_eq!(tokens, json(folder.path(), &["tokenize", "m.gguf", "-p", text]));
    let list: Vec<String> = tokens["tokens"].as_array().unwrap().iter().map(|t| t.to_string()).collect();
    let back = json(folder.path(), &["detokenize", "m.gguf", "--tokens", &list.join(",")]);
    assert_eq!(back["text"], text);
}

#[test]
fn diff_measures_what_quantization_lost() {
    let folder = model();
    json(folder.path(), &["convert", "model", "m.gguf", "--scheme", "q8_0"]);
    let result = json(folder.path(), &["diff", "model", "m.gguf"]);
    let tensors = result["tensors"].as_array().unwrap();
    assert!(result["only_in_a"].as_array().unwrap().is_empty() && result["only_in_b"].as_array().unwrap().is_empty());
    keys(&tensors[0], &["name", "max_abs", "rmse", "cosine", "sqnr_db", "identical"]);
    let norm = tensors.iter().find(|t| t["name"] == "model.norm.weight").unwrap();
    assert_eq!(norm["identical"], true);
    let worst = tensors.iter().filter_map(|t| t["sqnr_db"].as_f64()).fold(f64::MAX, f64::min);
    assert!(worst > 35.0 && worst < 60.0, "{worst}");
}

#[test]
fn a_configuration_file_gives_defaults_below_the_command_line() {
    let folder = model();
    let here = folder.path();
    std::fs::write(here.join("windlass.toml"), "json = true\n[convert]\nscheme = \"q8_0\"\n").unwrap();
    let report: Value = serde_json::from_slice(&windlass(here, &["convert", "model", "a.gguf"]).stdout).unwrap();
    assert!(report["schemes"]["q8_0"].as_u64().unwrap() > 10, "{report}");
    let output = windlass(here, &["convert", "model", "b.gguf", "--scheme", "q4_0"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["schemes"]["q4_0"].as_u64().unwrap() > 10, "{report}");
    std::fs::write(here.join("windlass.toml"), "shceme = 1\n").unwrap();
    let output = windlass(here, &["convert", "model", "c.gguf"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"shceme\""));
}

/// A file with one tensor of zeros, as a hole: large enough to be interrupted in the middle.
#[cfg(unix)]
fn large(path: &Path, megabytes: u64) {
    use std::io::Write;
    let (rows, bytes) = (megabytes * 512, megabytes << 20);
    let header = format!(r#"{{"large":{{"dtype":"BF16","shape":[{rows},1024],"data_offsets":[0,{bytes}]}}}}"#);
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + bytes).unwrap();
}

#[cfg(unix)]
#[test]
fn a_signal_leaves_no_target_and_resume_gives_the_same_bytes() {
    for signal in ["-TERM", "-INT", "-KILL"] {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        large(&here.join("in.safetensors"), 256);
        let arguments = ["convert", "in.safetensors", "out.gguf", "--scheme", "q4_k_s", "--threads", "1"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_windlass")).current_dir(here).args(arguments).spawn().unwrap();
        let journal = here.join("out.gguf.partial.journal");
        while std::fs::metadata(&journal).map_or(0, |m| m.len()) < 500 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
            std::thread::yield_now();
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(status.code(), if signal == "-KILL" { None } else { Some(1) });
        assert!(!here.join("out.gguf").exists() && here.join("out.gguf.partial").exists());
        json(here, &[&arguments[..], &["--resume"]].concat());
        json(here, &["convert", "in.safetensors", "whole.gguf", "--scheme", "q4_k_s"]);
        assert!(std::fs::read(here.join("out.gguf")).unwrap() == std::fs::read(here.join("whole.gguf")).unwrap());
        assert!(!here.join("out.gguf.partial").exists() && !journal.exists());
    }
}

#[cfg(unix)]
#[test]
fn a_file_size_limit_stands_for_a_full_disk_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    large(&here.join("in.safetensors"), 8);
    let windlass = env!("CARGO_BIN_EXE_windlass");
    let script = format!("trap '' XFSZ; ulimit -f 64; exec {windlass} convert in.safetensors out.gguf --scheme q8_0");
    let output = Command::new("sh").current_dir(here).args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("out.gguf"), "{text}");
    let left: Vec<_> = std::fs::read_dir(here).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["in.safetensors"]);
}

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

#[test]
fn every_command_of_the_guide_to_converting_works() {
    follow("convert.md", 10);
}

#[test]
fn every_command_of_the_guide_to_running_works() {
    follow("run.md", 4);
}

#[test]
fn every_command_of_the_guide_to_training_works() {
    follow("train.md", 4);
}

/// Runs the commands of a page, of which there are more than `least`.
fn follow(name: &str, least: usize) {
    let folder = tempfile::tempdir().unwrap();
    let guide = page(name);
    let blocks = guide.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let commands: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert!(commands.len() > least);
    for command in commands {
        let arguments = command.strip_prefix("windlass ").unwrap();
        // The only quotes of the guide surround a prompt at the end.
        let (words, quoted) = arguments.split_once('"').unwrap_or((arguments, ""));
        let mut arguments: Vec<&str> = words.split_whitespace().collect();
        arguments.extend(quoted.strip_suffix('"'));
        let output = windlass(folder.path(), &arguments);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_reference_names_everything_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let reference = page("reference.md");
    for name in windlass::load::synthetic::names() {
        assert!(reference.contains(&format!("`{name}`")), "shape {name} is not in docs/reference.md");
    }
    for registry in ["schemes", "formats", "architectures"] {
        for row in json(folder.path(), &[registry]).as_array().unwrap() {
            let name = row["name"].as_str().unwrap();
            assert!(reference.contains(&format!("| `{name}` |")), "{registry}: {name} is not in docs/reference.md");
        }
    }
}

#[test]
fn verify_has_one_kind_of_document() {
    let folder = model();
    let here = folder.path();
    let verdict = |path: &str| {
        let output = windlass(here, &["verify", path, "--json"]);
        assert_eq!(output.status.code(), Some(3));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let bytes = std::fs::read(here.join("model/model.safetensors")).unwrap();
    std::fs::write(here.join("short.safetensors"), &bytes[..bytes.len() - 100]).unwrap();
    let short = verdict("short.safetensors");
    assert_eq!(short["ok"], false);
    keys(&short["problems"][0], &["code", "message", "tensor", "offset"]);
    std::fs::write(here.join("page.gguf"), "<html>").unwrap();
    assert_eq!(verdict("page.gguf")["ok"], false);
    // A tokenizer with more tokens than the embedding has rows.
    let path = here.join("model/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let next = vocabulary.len() as u64 + 100;
    vocabulary.extend((next..next + 2048).map(|i| (format!("token{i}"), i.into())));
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let large = verdict("model");
    assert_eq!(large["problems"][0]["code"], "vocabulary", "{large}");
    assert_eq!(large["problems"][0]["tensor"], "model.embed_tokens.weight");
    error(here, &["verify", "nowhere.gguf"], 1);
}

#[test]
fn a_plan_says_whether_it_fits() {
    let folder = model();
    let here = folder.path();
    let plan = json(here, &["convert", "model", "m.gguf", "--dry-run"]);
    keys(&plan, &["memory", "bytes_read", "bytes_written", "fits", "disk_free_bytes", "memory_limit_bytes"]);
    assert_eq!((&plan["fits"], plan["memory"]["blocks"]["cpu"].is_u64()), (&true.into(), true));
    for arguments in [&["convert"][..], &["plan", "convert"]] {
        let small = [arguments, &["model", "m.gguf", "--memory-limit", "1MiB"]].concat();
        let small = if arguments.len() == 1 { [&small[..], &["--dry-run"]].concat() } else { small };
        let plan = json(here, &small);
        assert_eq!(plan["fits"], false);
        assert!(plan["obstacles"][0].as_str().unwrap().contains("MiB"), "{plan}");
        let text = String::from_utf8(windlass(here, &small).stdout).unwrap();
        assert!(text.contains("it does not fit"), "{text}");
    }
    let error = error(here, &["convert", "model", "m.gguf", "--memory-limit", "1MiB"], 4);
    assert!(error["message"].as_str().unwrap().contains("the limit of 1.0 MiB"), "{error}");
}

#[test]
fn quickstart_replaces_only_what_it_made() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    std::fs::create_dir_all(here.join("windlass-quickstart/tiny-qwen3")).unwrap();
    std::fs::write(here.join("windlass-quickstart/tiny-qwen3/mine.txt"), "mine").unwrap();
    let error = error(here, &["quickstart", "--brief"], 1);
    assert!(error["help"].as_str().unwrap().contains("--overwrite"), "{error}");
    assert!(here.join("windlass-quickstart/tiny-qwen3/mine.txt").exists());
    let output = windlass(here, &["quickstart", "--out", "other", "--memory-limit", "1MiB"]);
    assert_eq!(output.status.code(), Some(4), "the limit holds for every step");
}

#[test]
fn wrong_usage_is_one_line_and_help_in_json() {
    let folder = model();
    let here = folder.path();
    for arguments in [&["inspect"][..], &["inspect", "model", "--bogus"], &["convret"], &["plan", "convert"], &[]] {
        let error = error(here, arguments, 2);
        let (message, help) = (error["message"].as_str().unwrap(), error["help"].as_str().unwrap());
        assert!(!message.contains('\n') && !message.contains("Usage") && !message.starts_with("error"), "{error}");
        assert!(!help.contains('\n') && !help.is_empty(), "{error}");
    }
    let error = error(here, &["convert", "model", "m.gguf", "--scheme", "q4km"], 2);
    assert!(error["message"].as_str().unwrap().contains("q4_k_m"), "{error}");
}

#[test]
fn diff_goes_on_after_what_it_cannot_measure() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, big: i64, columns: usize| {
        let mut data = Vec::new();
        let mut header = serde_json::Map::new();
        let mut add = |name: &str, dtype: &str, shape: Value, bytes: Vec<u8>| {
            let end = data.len() + bytes.len();
            header.insert(
                name.into(),
                serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), end]}),
            );
            data.extend(bytes);
        };
        let ints = [1i64, -5, big].iter().flat_map(|v| v.to_le_bytes()).collect();
        add("ids", "I64", serde_json::json!([3]), ints);
        add("flags", "BOOL", serde_json::json!([4]), vec![1, 0, 1, 1]);
        add("other", "F32", serde_json::json!([1, columns]), vec![0; 4 * columns]);
        add("weights", "F32", serde_json::json!([2]), [1f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect());
        let header = Value::Object(header).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        std::fs::write(folder.path().join(name), bytes).unwrap();
    };
    // Both are the same number as doubles.
    write("a.safetensors", (1 << 62) + 1, 2);
    write("b.safetensors", 1 << 62, 3);
    let result = json(folder.path(), &["diff", "a.safetensors", "b.safetensors"]);
    let find = |name: &str| result["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap().clone();
    assert_eq!((&find("ids")["identical"], &find("ids")["max_abs"]), (&false.into(), &1.0.into()));
    assert_eq!((&find("flags")["identical"], &find("weights")["identical"]), (&true.into(), &true.into()));
    assert_eq!(result["unequal_shapes"][0]["shape_b"], serde_json::json!([1, 3]));
    let text = String::from_utf8(windlass(folder.path(), &["diff", "a.safetensors", "b.safetensors"]).stdout).unwrap();
    assert!(text.contains("not compared"), "{text}");
}

#[cfg(unix)]
#[test]
fn long_work_prints_lines_where_there_is_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    large(&here.join("in.safetensors"), 512);
    let arguments = ["convert", "in.safetensors", "out.gguf", "--scheme", "q4_k_s", "--threads", "1"];
    let output = windlass(here, &arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.starts_with("convert ")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("% ") && line.contains("B/s ") && line.ends_with(" left"), "{line}");
    std::fs::remove_file(here.join("out.gguf")).unwrap();
    let quiet = windlass(here, &[&arguments[..], &["-q"]].concat());
    assert!(quiet.stderr.is_empty(), "{}", String::from_utf8_lossy(&quiet.stderr));
}

#[test]
fn devices_are_there_or_have_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let rows = json(folder.path(), &["devices"]);
    let all =
        ["name", "kind", "description", "memory_total", "memory_free", "dtypes", "features", "providers", "problem"];
    rows.as_array().unwrap().iter().for_each(|row| keys(row, &all));
    assert_eq!((&rows[0]["name"], &rows[0]["problem"]), (&"cpu".into(), &Value::Null));
    assert!(rows.as_array().unwrap().iter().any(|row| row["name"] == "mpi" && row["problem"].is_string()));
}
