//! Logits of tiny models of every decoder against those that transformers computed, from every container and by every
//! provider.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use windlass::convert::{Conversion, Options, Watch};
use windlass::load::{self, load};
use windlass::models::Wanted;
use windlass::ops::Context;
use windlass::tensor::{DType, Limits, TypedTensor};
use windlass::{Model, register_providers};

const MODELS: [&str; 11] =
    ["llama", "llama3", "yarn", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "mixtral", "qwen3moe"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name)
}

/// The tokens of a golden model, and the logits that they must give.
fn expected(name: &str) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(golden(name).join("logits.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tokens = file.tensor("tokens").unwrap().data().chunks_exact(8);
    let logits = file.tensor("logits").unwrap().data().chunks_exact(4);
    (
        tokens.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect(),
        logits.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
    )
}

/// Logits of all tokens, run in batches of `batch`.
fn logits(path: &Path, tokens: &[u32], provider: Option<&'static str>, batch: usize) -> Vec<f32> {
    register_providers();
    let model = Model::open(path.to_str().unwrap(), &Limits::default()).unwrap();
    let loaded = load(&model, &load::Options { context: Some(64), ..Default::default() }).unwrap();
    let mut cache = loaded.decoder.cache(tokens.len(), DType::F32).unwrap();
    Context::here(|cx| {
        let cx = match provider {
            Some(name) => Context::new(cx.session()).with_provider(name),
            None => Context::new(cx.session()),
        };
        let mut all = Vec::new();
        for batch in tokens.chunks(batch) {
            let logits = loaded.decoder.forward(&cx, batch, &mut cache, Wanted::All).unwrap().unwrap();
            all.extend(TypedTensor::<f32>::new(logits).unwrap().to_vec().unwrap());
        }
        all
    })
}

fn assert_near(what: &str, expected: &[f32], found: &[f32], tolerance: f32) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let worst = expected.iter().zip(found).map(|(e, f)| (e - f).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: logits are {worst} off");
}

fn convert(from: &Path, to: &Path, scheme: &str) {
    let options = Options { scheme: Some(scheme.into()), ..Options::default() };
    let watch = Watch { stop: &false.into(), progress: &|_, _| () };
    Conversion::plan(from.to_str().unwrap(), to, options).unwrap().run(&watch).unwrap();
}

#[test]
fn the_reference_gives_the_logits_of_transformers() {
    for name in MODELS {
        let (tokens, expected) = expected(name);
        let found = logits(&golden(name), &tokens, Some("reference"), tokens.len());
        assert_near(name, &expected, &found, 1e-4);
    }
}

#[test]
fn vectors_give_the_logits_of_transformers_all_at_once_and_token_by_token() {
    for name in MODELS {
        let (tokens, expected) = expected(name);
        for batch in [tokens.len(), 5, 1] {
            let found = logits(&golden(name), &tokens, None, batch);
            assert_near(&format!("{name} in batches of {batch}"), &expected, &found, 1e-4);
        }
    }
}

#[test]
fn a_gguf_gives_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    for name in MODELS {
        let (tokens, expected) = expected(name);
        let gguf = folder.path().join(format!("{name}.gguf"));
        convert(&golden(name), &gguf, "f32");
        assert_near(name, &expected, &logits(&gguf, &tokens, None, tokens.len()), 1e-4);
    }
}

/// The same codes, in a scheme's own kernel and decoded by the reference: only the rounding of activations differs, and
/// that of NF4's table.
#[test]
fn packed_weights_are_used_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (tokens, _) = expected("llama");
    for (scheme, share) in [("q8_0", 0.03), ("q4_0", 0.03), ("nf4", 0.05), ("mlx4-g32", 0.03)] {
        let target = folder.path().join(if scheme.starts_with('q') { format!("{scheme}.gguf") } else { scheme.into() });
        convert(&golden("llama"), &target, scheme);
        let exact = logits(&target, &tokens, Some("reference"), tokens.len());
        let found = logits(&target, &tokens, None, tokens.len());
        let range = exact.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        assert_near(scheme, &exact, &found, share * range);
    }
}
