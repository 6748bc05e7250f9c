//! A tiny encoder against transformers, from both containers and by both providers; a decoder's states against its logits.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use windlass::convert::{Conversion, Options, Watch};
use windlass::embed::{self, embed};
use windlass::load::{self, load_encoder};
use windlass::models::Pooling;
use windlass::ops::Context;
use windlass::tensor::{Limits, TypedTensor};
use windlass::{Code, Model, register_providers};

const TEXT: &str = "A windlass lifts heavy anchors, slowly.";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoders/bert")
}

fn open(path: &Path) -> Model {
    register_providers();
    Model::open(path, &Limits::default()).unwrap()
}

fn expected(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(golden().join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = file.tensor(name).unwrap().data().chunks_exact(4);
    values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn tokens() -> Vec<u32> {
    let bytes = std::fs::read(golden().join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = file.tensor("tokens").unwrap().data().chunks_exact(8);
    values.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
}

fn convert(to: &Path, scheme: &str) {
    let options = Options { scheme: Some(scheme.into()), ..Options::default() };
    let watch = Watch { stop: &false.into(), progress: &|_, _| () };
    Conversion::plan(golden(), to, options).unwrap().run(&watch).unwrap();
}

fn run(path: &Path, options: &embed::Options) -> embed::Report {
    let model = open(path);
    Context::here(|cx| embed(cx, &model, TEXT, options, &Limits::default())).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn states_are_those_of_transformers() {
    let model = open(&golden());
    let encoder = load_encoder(&model).unwrap();
    for provider in [Some("reference"), None] {
        let states = Context::here(|cx| match provider {
            Some(name) => encoder.forward(&Context::new(cx.session()).with_provider(name), &tokens()),
            None => encoder.forward(cx, &tokens()),
        });
        let states = states.unwrap();
        let found = TypedTensor::<f32>::new(states).unwrap().to_vec().unwrap();
        let worst = found.iter().zip(expected("states")).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-5, "{provider:?}: {worst}");
    }
}

#[test]
fn embeddings_are_pooled_and_normalised_as_the_files_say() {
    let report = run(&golden(), &embed::Options::default());
    assert_eq!(
        (report.tokens, report.dimensions, report.pooling, report.normalized),
        (tokens().len(), 64, "mean", true)
    );
    assert!(cosine(&report.embedding, &expected("mean")) > 0.999_999_9);
    let length: f64 = report.embedding.iter().map(|v| f64::from(*v).powi(2)).sum();
    assert!((length - 1.0).abs() < 1e-6);
    let cls = embed::Options { pooling: Some(Pooling::Cls), normalize: Some(false), truncate: false };
    let report = run(&golden(), &cls);
    assert!(cosine(&report.embedding, &expected("cls")) > 0.999_999_9 && !report.normalized);
}

#[test]
fn a_gguf_says_how_to_pool_and_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (scheme, least) in [("f32", 0.999_999_9), ("q8_0", 0.999)] {
        let path = folder.path().join(format!("{scheme}.gguf"));
        convert(&path, scheme);
        assert_eq!(embed::declared(&open(&path), &Limits::default()).unwrap().pooling, Some(Pooling::Mean));
        let report = run(&path, &embed::Options::default());
        let found = cosine(&report.embedding, &expected("mean"));
        assert!(found > least && report.normalized, "{scheme}: {found}");
    }
}

#[test]
fn configurations_of_modules_go_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch { stop: &false.into(), progress: &|_, _| () };
    let (gguf, back) = (folder.path().join("m.gguf"), folder.path().join("back"));
    let pooling = "1_Pooling/config.json";
    for overwrite in [false, true] {
        let options = || Options { overwrite, ..Options::default() };
        Conversion::plan(golden(), &gguf, options()).unwrap().run(&watch).unwrap();
        Conversion::plan(&gguf, &back, options()).unwrap().run(&watch).unwrap();
        assert_eq!(std::fs::read(back.join(pooling)).unwrap(), std::fs::read(golden().join(pooling)).unwrap());
    }
    // A folder of that name with something else in it is somebody's own.
    std::fs::write(back.join("1_Pooling/notes.txt"), "mine").unwrap();
    let options = Options { overwrite: true, ..Options::default() };
    let error = Conversion::plan(&gguf, &back, options).unwrap().run(&watch).unwrap_err();
    assert!(error.message.contains("1_Pooling"), "{}", error.message);
}

#[test]
fn decoders_are_pooled_at_their_last_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    windlass::quickstart::make(&path).unwrap();
    let last = run(&path, &embed::Options::default());
    assert_eq!((last.pooling, last.normalized, last.dimensions), ("last", false, 256));
    let mean = run(&path, &embed::Options { pooling: Some(Pooling::Mean), ..Default::default() });
    assert!(cosine(&last.embedding, &mean.embedding) < 0.999);
}

#[test]
fn what_cannot_be_done_is_said() {
    let model = open(&golden());
    let limits = Limits::default();
    let options = embed::Options::default();
    let long = TEXT.repeat(3);
    let error = Context::here(|cx| embed(cx, &model, &long, &options, &limits)).unwrap_err();
    assert!(error.code == Code::Usage && error.message.contains("the model takes 24"), "{}", error.message);
    let options = embed::Options { truncate: true, ..options };
    let report = Context::here(|cx| embed(cx, &model, &long, &options, &limits)).unwrap();
    assert!(report.truncated && report.tokens == 24);
    // An encoder gives no next token.
    let error = load::load(&model, &load::Options::default()).err().unwrap();
    assert!(error.message.contains("it is an encoder"), "{}", error.message);
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(golden().join(file), folder.path().join(file)).unwrap();
    }
    let modules = r#"[{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": "2_Dense"}]"#;
    std::fs::write(folder.path().join("modules.json"), modules).unwrap();
    let error = embed::declared(&open(folder.path()), &limits).unwrap_err();
    assert!(error.message.contains("Dense"), "{}", error.message);
    // A path that leaves the folder is not followed.
    let modules = r#"[{"type": "a.Pooling", "path": "../bert/1_Pooling"}]"#;
    std::fs::write(folder.path().join("modules.json"), modules).unwrap();
    assert_eq!(embed::declared(&open(folder.path()), &limits).unwrap().pooling, None);
}
