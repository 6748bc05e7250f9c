//! Losses of training against those of torch and peft, which started from the same adapters.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use windlass::convert::{Conversion, Options as ConvertOptions, Watch};
use windlass::ops::Context;
use windlass::register_providers;
use windlass::tensor::Limits;
use windlass::train::{Observer, Options, train};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

/// Losses of 20 steps.
fn losses(options: &Options, provider: Option<&'static str>) -> Vec<f64> {
    register_providers();
    let found = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let observer =
        Observer { threads: 2, step: &|report, _| found.lock().unwrap().push(report.loss), ..Observer::new(&stop) };
    Context::here(|cx| {
        let cx = match provider {
            Some(name) => Context::new(cx.session()).with_provider(name),
            None => Context::new(cx.session()),
        };
        train(&cx, options, &Limits::default(), &observer).unwrap();
    });
    found.into_inner().unwrap()
}

fn options(model: &Path, run: &str, method: &str, targets: &[&str], out: &Path) -> Options {
    Options {
        model: model.to_str().unwrap().into(),
        data: golden("train/data.jsonl"),
        out: out.into(),
        method: method.into(),
        steps: Some(20),
        batch_size: 2,
        shuffle: false,
        learning_rate: 5e-3,
        scheduler: "constant".into(),
        weight_decay: Some(0.01),
        max_grad_norm: 0.0,
        rank: 4,
        alpha: Some(8.0),
        target_modules: targets.iter().map(|t| t.to_string()).collect(),
        init_adapter: Some(golden("train").join(run)),
        ..Options::default()
    }
}

fn expected(run: &str) -> Vec<f64> {
    serde_json::from_slice(&std::fs::read(golden("train").join(run).join("losses.json")).unwrap()).unwrap()
}

fn assert_near(what: &str, expected: &[f64], found: &[f64], tolerance: f64) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let worst = expected.iter().zip(found).map(|(e, f)| ((e - f) / e).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{what}: losses are {worst:e} off: {found:?}");
}

const ALL: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

#[test]
fn twenty_losses_equal_those_of_peft() {
    let runs: [(&str, &str, &str, &[&str]); 6] = [
        ("qwen3-lora", "qwen3", "lora", &ALL),
        ("llama-rslora", "llama", "rslora", &["q_proj", "v_proj"]),
        ("qwen2-dora", "qwen2", "dora", &ALL),
        ("gemma2-lora", "gemma2", "lora", &["q_proj", "o_proj", "down_proj"]),
        ("phi3-lora", "phi3", "lora", &["qkv_proj", "gate_up_proj", "o_proj"]),
        ("qwen3-nf4", "qwen3", "qlora", &ALL),
    ];
    for (run, model, method, targets) in runs {
        let out = tempfile::tempdir().unwrap();
        let options = options(&golden("models").join(model), run, method, targets, out.path());
        assert_near(run, &expected(run), &losses(&options, None), 2e-5);
    }
}

#[test]
fn recomputed_layers_and_the_reference_give_the_same_losses() {
    let out = tempfile::tempdir().unwrap();
    let plain = options(&golden("models/qwen3"), "qwen3-lora", "lora", &ALL, out.path());
    let kept = losses(&plain, None);
    let again = Options { gradient_checkpointing: true, overwrite: true, ..plain.clone() };
    assert_eq!(kept, losses(&again, None));
    let reference = Options { overwrite: true, ..plain };
    assert_near("reference", &kept, &losses(&reference, Some("reference")), 2e-5);
}

/// The rows of llama's queries and keys stand in another order in a GGUF; the adapter does not show it.
#[test]
fn a_gguf_is_trained_as_its_original() {
    let out = tempfile::tempdir().unwrap();
    let gguf = out.path().join("llama.gguf");
    let how = ConvertOptions { scheme: Some("f32".into()), ..ConvertOptions::default() };
    let watch = Watch { stop: &AtomicBool::new(false), progress: &|_, _| {} };
    Conversion::plan(golden("models/llama"), &gguf, how).unwrap().run(&watch).unwrap();
    let (a, b) = (out.path().join("a"), out.path().join("b"));
    let original = options(&golden("models/llama"), "llama-rslora", "rslora", &["q_proj", "v_proj"], &a);
    let converted = Options { model: gguf.to_str().unwrap().into(), out: b.clone(), ..original.clone() };
    assert_near("gguf", &losses(&original, None), &losses(&converted, None), 1e-6);
    let read = |out: &Path| {
        let bytes = std::fs::read(out.join("adapter/adapter_model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut all: Vec<(String, Vec<f32>)> = file
            .iter()
            .map(|(name, t)| {
                (name.into(), t.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
            })
            .collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    };
    for ((name, a), (other, b)) in read(&a).into_iter().zip(read(&b)) {
        assert_eq!(name, other);
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

#[test]
fn nothing_of_an_earlier_run_or_of_others_is_replaced_unasked() {
    let out = tempfile::tempdir().unwrap();
    let once = Options { steps: Some(1), ..options(&golden("models/qwen3"), "qwen3-lora", "lora", &ALL, out.path()) };
    losses(&once, None);
    let refused = |options: &Options| {
        let stop = AtomicBool::new(false);
        let observer = Observer { threads: 2, ..Observer::new(&stop) };
        let run = Context::here(|cx| train(cx, options, &Limits::default(), &observer));
        run.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(&once).contains("metrics.jsonl exists already"), "{}", refused(&once));
    std::fs::remove_file(out.path().join("metrics.jsonl")).unwrap();
    assert!(refused(&once).contains("adapter exists already"), "{}", refused(&once));
    let again = Options { overwrite: true, ..once };
    std::fs::write(out.path().join("adapter/thesis.txt"), "my own").unwrap();
    assert!(!refused(&again).is_empty());
    assert_eq!(std::fs::read_to_string(out.path().join("adapter/thesis.txt")).unwrap(), "my own");
    std::fs::remove_file(out.path().join("adapter/thesis.txt")).unwrap();
    assert_eq!(losses(&again, None).len(), 1);
}

/// Not by the last digit either: what is left out depends on the seed alone.
#[test]
fn dropout_is_the_same_for_the_same_seed() {
    let run = |seed: u64, method: &str, run: &str, model: &str| {
        let out = tempfile::tempdir().unwrap();
        let plain = options(&golden("models").join(model), run, method, &ALL, out.path());
        losses(&Options { dropout: 0.3, seed, steps: Some(4), ..plain }, None)
    };
    assert_eq!(run(1, "lora", "qwen3-lora", "qwen3"), run(1, "lora", "qwen3-lora", "qwen3"));
    assert_ne!(run(1, "lora", "qwen3-lora", "qwen3"), run(2, "lora", "qwen3-lora", "qwen3"));
    assert_eq!(run(1, "dora", "qwen2-dora", "qwen2"), run(1, "dora", "qwen2-dora", "qwen2"));
}

/// Packs of examples with one optimizer step for all of them: the loss is that of torch with each example alone, and the
/// steps are those without packing.
#[test]
fn packs_have_the_losses_of_their_examples() {
    let out = tempfile::tempdir().unwrap();
    let all = Options {
        steps: Some(3),
        context: Some(64),
        ..options(&golden("models/qwen3"), "qwen3-lora", "lora", &ALL, out.path())
    };
    let plain = losses(&Options { batch_size: 40, ..all.clone() }, None);
    // 40 examples have 636 tokens, and come to 11 packs.
    let packed = Options { batch_size: 11, packing: true, overwrite: true, ..all };
    let found = losses(&packed, None);
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden("train/packing.json")).unwrap()).unwrap();
    assert_near("torch", &[expected["loss"].as_f64().unwrap()], &found[..1], 1e-6);
    assert_near("steps", &plain, &found, 1e-6);
}
