//! What a model will see of a file, what is trained on, and rows that cannot be used.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use windlass::ops::Context;
use windlass::tensor::Limits;
use windlass::train::data::{Settings, View, view};
use windlass::train::{Observer, Options, train};
use windlass::{Code, Error, Model, register_providers};

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    windlass::quickstart::make(&folder.path().join("model")).unwrap();
    let rows = "question,answer\nWhat is a windlass?,A hand crank.\nbad\nWho lifts?,\"The crew, slowly.\"\n";
    std::fs::write(folder.path().join("rows.csv"), rows).unwrap();
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]});
    std::fs::write(folder.path().join("chat.jsonl"), format!("{chat}\n{chat}\n")).unwrap();
    folder
}

fn mapped() -> Settings {
    let columns = [("prompt", "question"), ("completion", "answer")];
    Settings { columns: columns.map(|(a, b)| (a.into(), b.into())).into(), skip_bad_rows: true, ..Settings::default() }
}

fn see(folder: &Path, file: &str, settings: &Settings) -> Result<View, Error> {
    let limits = Limits::default();
    let model = Model::open(folder.join("model"), &limits).unwrap();
    view(&model, &folder.join(file), settings, (Some(64), true, 3), &limits)
}

#[test]
fn a_view_shows_what_is_learned() {
    let folder = folder();
    let error = see(folder.path(), "rows.csv", &Settings { skip_bad_rows: false, ..mapped() }).unwrap_err();
    assert_eq!(error.code, Code::Refused);
    assert!(error.message.ends_with("rows.csv, line 3: has 1 cells, the header has 2"), "{error}");
    assert!(error.help.unwrap().contains("--skip-bad-rows"));
    let view = see(folder.path(), "rows.csv", &mapped()).unwrap();
    let view: Value = serde_json::to_value(&view).unwrap();
    assert_eq!((&view["container"], &view["rows"], &view["skipped"]), (&"CSV".into(), &3.into(), &1.into()));
    assert_eq!((&view["examples"], &view["formats"]["completion"], &view["units"]), (&2.into(), &2.into(), &1.into()));
    let pieces = &view["first"][0]["pieces"];
    assert_eq!((&pieces[0]["learned"], &pieces[1]["learned"]), (&false.into(), &true.into()));
    assert!(pieces[0]["text"].as_str().unwrap().contains("What is a windlass?"), "{pieces}");
    assert!(pieces[1]["text"].as_str().unwrap().starts_with("A hand crank."), "{pieces}");
    let lengths: u64 = view["lengths"].as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap()).sum();
    assert_eq!(lengths, 2);
    assert_eq!(view["skipped_rows"], json!(["line 3: has 1 cells, the header has 2"]));
    assert_eq!(view["fingerprint"].as_str().unwrap().len(), 32);
}

#[test]
fn conversations_are_written_with_a_template() {
    let folder = folder();
    let chatml = Settings { template: Some("chatml".into()), ..Settings::default() };
    let view = see(folder.path(), "chat.jsonl", &chatml).unwrap();
    let shown: Vec<(String, bool)> = view.first[0].pieces.iter().map(|p| (p.text.clone(), p.learned)).collect();
    assert_eq!(shown.iter().map(|(_, learned)| *learned).collect::<Vec<_>>()[..2], [false, true], "{shown:?}");
    assert!(shown[0].0.ends_with("<|im_start|>assistant\n") && shown[1].0.starts_with("Hello<|im_end|>"), "{shown:?}");
    let wrong = Settings { truncation: Some("middle".into()), ..chatml };
    assert_eq!(see(folder.path(), "chat.jsonl", &wrong).unwrap_err().code, Code::Usage);
}

#[test]
fn training_lists_skipped_rows_and_holds_out_a_part() {
    register_providers();
    let folder = folder();
    let keys = json!({
        "model": folder.path().join("model"), "data": folder.path().join("rows.csv"), "out": folder.path().join("run"),
        "columns": {"prompt": "question", "completion": "answer"}, "skip_bad_rows": true, "eval_split": 0.5,
        "packing": true, "steps": 1, "rank": 2, "context": 64,
    });
    let options = Options::from_keys(keys.as_object().unwrap().clone()).unwrap();
    let stop = AtomicBool::new(false);
    let observer = Observer { threads: 2, ..Observer::new(&stop) };
    let run = |options: &Options| Context::here(|cx| train(cx, options, &Limits::default(), &observer));
    let report = run(&options).unwrap();
    assert_eq!((report.data.summary.skipped, report.data.summary.examples, report.data.units), (1, 2, 1));
    assert!(report.eval_loss.unwrap() > 0.0 && report.data.packing.unwrap() > 0.0);
    let list = folder.path().join("run/skipped.jsonl");
    let skipped: Value = serde_json::from_slice(&std::fs::read(&list).unwrap()).unwrap();
    assert_eq!((&skipped["line"], skipped["reason"].as_str().unwrap().contains("1 cells")), (&3.into(), true));
    // A list that no run of ours has left stays as it is.
    let other = Options { out: folder.path().join("other"), ..options.clone() };
    std::fs::create_dir(&other.out).unwrap();
    std::fs::write(other.out.join("skipped.jsonl"), "mine").unwrap();
    assert!(run(&other).is_err());
    assert_eq!(std::fs::read(other.out.join("skipped.jsonl")).unwrap(), b"mine");
    let both = Options { eval_data: Some(options.data.clone()), overwrite: true, ..options };
    assert_eq!(run(&both).err().unwrap().code, Code::Usage);
}
