//! Training weights themselves, all, some, or those of new layers, against torch; and every optimizer from the command's options.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use windlass::ops::Context;
use windlass::register_providers;
use windlass::tensor::Limits;
use windlass::train::{Observer, Options, train};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

/// Losses of the steps.
fn losses(options: &Options) -> Result<Vec<f64>, String> {
    register_providers();
    let found = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let seen = |report: &windlass::training::StepReport, _: u64| found.lock().unwrap().push(report.loss);
    let observer = Observer { threads: 2, step: &seen, ..Observer::new(&stop) };
    let run = Context::here(|cx| train(cx, options, &Limits::default(), &observer));
    run.map_err(|error| format!("{error:?}"))?;
    Ok(found.into_inner().unwrap())
}

fn options(model: &Path, method: &str, out: &Path) -> Options {
    Options {
        model: model.to_str().unwrap().into(),
        data: golden("train/data.jsonl"),
        out: out.into(),
        method: method.into(),
        steps: Some(20),
        batch_size: 2,
        shuffle: false,
        learning_rate: 1e-3,
        scheduler: "constant".into(),
        weight_decay: Some(0.01),
        max_grad_norm: 0.0,
        ..Options::default()
    }
}

fn expected() -> BTreeMap<String, Vec<f64>> {
    serde_json::from_slice(&std::fs::read(golden("train/full.json")).unwrap()).unwrap()
}

fn assert_near(what: &str, expected: &[f64], found: &[f64], tolerance: f64) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let worst = expected.iter().zip(found).map(|(e, f)| ((e - f) / e).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{what}: losses are {worst:e} off: {found:?}");
}

/// Tied embeddings, biases, norms of heads, norms after blocks, joined projections.
#[test]
fn twenty_losses_of_all_weights_equal_those_of_torch() {
    for name in ["qwen3", "llama", "qwen2", "gemma2", "gemma3", "phi3"] {
        let out = tempfile::tempdir().unwrap();
        let options = options(&golden("models").join(name), "full", out.path());
        assert_near(name, &expected()[&format!("full-{name}")], &losses(&options).unwrap(), 1e-4);
    }
}

/// What was trained and written is what is loaded again, up to the digits of the base's BF16.
#[test]
fn the_model_leaves_as_a_folder_and_goes_on_from_there() {
    let out = tempfile::tempdir().unwrap();
    let (first, second) = (out.path().join("a"), out.path().join("b"));
    let trained = options(&golden("models/qwen3"), "full", &first);
    let mut whole = losses(&Options { steps: Some(21), ..trained.clone() }).unwrap();
    // The row of the twenty-first step again, on what was written after the twentieth.
    let rows = std::fs::read_to_string(golden("train/data.jsonl")).unwrap();
    let next = out.path().join("next.jsonl");
    std::fs::write(&next, rows.lines().take(2).collect::<Vec<_>>().join("\n")).unwrap();
    losses(&Options { overwrite: true, ..trained.clone() }).unwrap();
    let model = first.join("model");
    assert!(model.join("config.json").exists() && !first.join("adapter").exists());
    let again = Options { data: next, steps: Some(1), ..options(&model, "full", &second) };
    assert_near("again", &[whole.pop().unwrap()], &losses(&again).unwrap(), 5e-3);
}

#[test]
fn chosen_weights_alone_are_trained() {
    let out = tempfile::tempdir().unwrap();
    let norms = Options {
        train_only: vec!["*norm.weight".into()],
        ..options(&golden("models/llama"), "full", &out.path().join("a"))
    };
    assert_near("norms", &expected()["norms-llama"], &losses(&norms).unwrap(), 1e-4);
    let read = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    let (before, after) = (read(&golden("models/llama")), read(&out.path().join("a/model")));
    let (before, after) = (
        safetensors::SafeTensors::deserialize(&before).unwrap(),
        safetensors::SafeTensors::deserialize(&after).unwrap(),
    );
    assert_eq!(before.len(), after.len());
    for (name, tensor) in before.tensors() {
        let same = tensor.data() == after.tensor(&name).unwrap().data();
        assert_eq!(same, !name.ends_with("norm.weight"), "{name}");
    }
    let wrong = Options { train_only: vec!["*.nrom.weight".into()], overwrite: true, ..norms.clone() };
    assert!(losses(&wrong).unwrap_err().contains("no weight matches"));
    let wrong = Options { method: "lora".into(), overwrite: true, ..norms };
    assert!(losses(&wrong).unwrap_err().contains("--method full"));
}

#[test]
fn new_layers_are_trained_among_the_old_ones() {
    let out = tempfile::tempdir().unwrap();
    let grown = Options { expand_blocks: 2, ..options(&golden("models/qwen3"), "llama-pro", &out.path().join("a")) };
    assert_near("pro", &expected()["pro-qwen3"], &losses(&grown).unwrap(), 1e-4);
    let config = std::fs::read(out.path().join("a/model/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["num_hidden_layers"], config["layer_types"].as_array().unwrap().len()), (&4.into(), 4));
    // The grown model is a model: it loads and goes on.
    let again = Options { steps: Some(1), ..options(&out.path().join("a/model"), "full", &out.path().join("b")) };
    assert!(losses(&again).unwrap()[0].is_finite());
    // A quantized base, whose new layers are floats.
    let packed =
        Options { base_scheme: Some("q8_0".into()), out: out.path().join("c"), steps: Some(2), ..grown.clone() };
    assert_near("packed", &losses(&packed).unwrap(), &expected()["pro-qwen3"][..2], 2e-2);
    let wrong = Options { expand_blocks: 9, overwrite: true, ..grown };
    assert!(losses(&wrong).unwrap_err().contains("new layers do not go"));
}

#[test]
fn optimizers_and_schedules_follow_the_options() {
    let out = tempfile::tempdir().unwrap();
    let short = |keys: serde_json::Value| {
        let mut all = serde_json::json!({
            "model": golden("models/qwen3"), "data": golden("train/data.jsonl"), "out": out.path(), "overwrite": true,
            "steps": 3, "rank": 4, "learning_rate": 1e-3,
        });
        all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        Options::from_keys(all.as_object().unwrap().clone()).map_err(|e| format!("{e:?}")).and_then(|o| losses(&o))
    };
    let plain = short(serde_json::json!({})).unwrap();
    for keys in [
        serde_json::json!({"optimizer": "sgd", "optimizer_settings": {"momentum": 0.9, "nesterov": true}}),
        serde_json::json!({"optimizer": "lion", "optimizer_settings": ["beta2=0.95"], "scheduler": "wsd"}),
        serde_json::json!({"optimizer": "muon", "scheduler": "cosine", "scheduler_settings": ["floor=0.1"]}),
        serde_json::json!({"parameter_groups": ["*.lora_B:rate=16;weight_decay=0"]}),
        serde_json::json!({"max_grad_value": 1e-4}),
    ] {
        assert_ne!(short(keys.clone()).unwrap(), plain, "{keys}");
    }
    for (keys, message) in [
        (serde_json::json!({"optimizer": "adamv2"}), "there are adamw"),
        (serde_json::json!({"optimizer": "lion", "epsilon": 1e-6}), "no setting"),
        (serde_json::json!({"optimizer": "sgd", "optimizer_settings": ["momentum"]}), "NAME=NUMBER"),
        (serde_json::json!({"scheduler": "cosin"}), "\\\"cosine\\\""),
        (serde_json::json!({"parameter_groups": ["nothing:rate=1"]}), "no parameter matches"),
        (serde_json::json!({"precision": "bf16"}), "is not built"),
        (serde_json::json!({"method": "ful"}), "\\\"full\\\""),
    ] {
        let error = short(keys.clone()).unwrap_err();
        assert!(error.contains(message), "{keys}: {error}");
    }
}

#[test]
fn the_reference_names_every_method() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (name, about) in windlass::train::METHODS {
        assert!(page.contains(&format!("| `{name}` | {about} |")), "{name}");
    }
}
