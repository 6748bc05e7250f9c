//! Perplexity and divergence against transformers' logits, and the gates that stand on them.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use windlass::convert::{Conversion, Options, Quality, Watch};
use windlass::eval::{self, Text, eval};
use windlass::load::{self, load};
use windlass::models::Evaluation;
use windlass::ops::Context;
use windlass::tensor::{DType, Limits};
use windlass::{Code, Model, quickstart, register_providers};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name)
}

/// Loss of each token after the first of the second half, from logits that transformers computed.
fn losses(name: &str) -> (Vec<u32>, Vec<f64>) {
    let bytes = std::fs::read(golden(name).join("logits.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tokens = file.tensor("tokens").unwrap().data().chunks_exact(8);
    let tokens: Vec<u32> = tokens.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
    let logits = file.tensor("logits").unwrap().data().chunks_exact(4);
    let logits: Vec<f64> = logits.map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
    let loss = |at: usize| {
        let row = &logits[at * 128..][..128];
        row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[tokens[at + 1] as usize]
    };
    let losses = (tokens.len() / 2..tokens.len() - 1).map(loss).collect();
    (tokens, losses)
}

#[test]
fn perplexity_is_what_the_logits_of_transformers_give() {
    register_providers();
    for name in ["llama", "qwen3", "gemma2"] {
        let (tokens, losses) = losses(name);
        let model = Model::open(golden(name), &Limits::default()).unwrap();
        let loaded = load(&model, &load::Options { context: Some(64), ..Default::default() }).unwrap();
        let with_cache = || (&loaded.decoder, loaded.decoder.cache(tokens.len(), DType::F32).unwrap());
        let mut evaluation = Evaluation::new(with_cache(), Some(with_cache()), tokens.len()).unwrap();
        let mut read = 0;
        // Twice: a window begins with nothing.
        for _ in 0..2 {
            let mut each = |n| {
                read += n;
                true
            };
            assert!(Context::here(|cx| evaluation.window(cx, &tokens, &mut each)).unwrap());
        }
        let scores = evaluation.scores();
        assert_eq!((scores.tokens, read), (2 * losses.len(), 2 * tokens.len()));
        let expected = (losses.iter().sum::<f64>() / losses.len() as f64).exp();
        assert!((scores.perplexity() / expected - 1.0).abs() < 1e-4, "{name}: {} {expected}", scores.perplexity());
        assert_eq!((scores.mean_divergence(), scores.agreement()), (Some(0.0), Some(1.0)));
    }
}

struct Tour {
    folder: tempfile::TempDir,
    text: Text,
}

impl Tour {
    fn new() -> Tour {
        register_providers();
        let folder = tempfile::tempdir().unwrap();
        quickstart::make(&folder.path().join("model")).unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, "The anchor is heavy, the crank is small; 錨は重い. ".repeat(60)).unwrap();
        let text = Text::read(&path, &Limits::default()).unwrap();
        Tour { folder, text }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn convert(&self, to: &str, scheme: &str, quality: Quality) -> windlass::Result<windlass::convert::Report> {
        let options = Options { scheme: Some(scheme.into()), quality, ..Options::default() };
        let watch = Watch { stop: &false.into(), progress: &|_, _| () };
        Conversion::plan(self.path("model"), &self.path(to), options)?.run(&watch)
    }

    fn eval(&self, model: &str, base: Option<&str>, context: usize) -> windlass::Result<eval::Report> {
        let limits = Limits::default();
        let open = |name: &str| Model::open(self.path(name), &limits).unwrap();
        let how = load::Options { context: Some(context), ..Default::default() };
        let loaded = |name: &str| (open(name), load(&open(name), &how).unwrap());
        let (model, base) = (loaded(model), base.map(loaded));
        let both = ((&model.0, &model.1), base.as_ref().map(|base| (&base.0, &base.1)));
        let options = eval::Options { context, ..eval::Options::default() };
        Context::here(|cx| eval(cx, both.0, both.1, &self.text, &options, &limits, &|_, _| true))
    }
}

#[test]
fn a_coarser_scheme_is_further_from_its_source() {
    let tour = Tour::new();
    tour.convert("q8.gguf", "q8_0", Quality::default()).unwrap();
    tour.convert("q2.gguf", "q2_k", Quality::default()).unwrap();
    let fine = tour.eval("q8.gguf", Some("model"), 64).unwrap();
    let coarse = tour.eval("q2.gguf", Some("model"), 64).unwrap();
    assert!(fine.mean_kld.unwrap() > 0.0 && fine.mean_kld < coarse.mean_kld, "{fine:?} {coarse:?}");
    assert!(fine.mean_kld < fine.p99_kld && fine.top1_agreement >= coarse.top1_agreement);
    assert_eq!(fine.tokens, fine.windows * 31);
    let alone = tour.eval("q8.gguf", None, 64).unwrap();
    assert_eq!((alone.perplexity, alone.mean_kld), (fine.perplexity, None));
}

#[test]
fn a_text_that_is_too_short_and_one_that_is_cut_otherwise_are_refused() {
    let tour = Tour::new();
    let error = tour.eval("model", None, 100_000).unwrap_err();
    assert!(error.code == Code::Usage && error.message.contains("tokens, one window of 100000"), "{}", error.message);
    assert_eq!(tour.eval("model", None, 2).unwrap_err().code, Code::Usage);
    std::fs::write(tour.path("bytes"), [0x61, 0xff]).unwrap();
    let error = Text::read(&tour.path("bytes"), &Limits::default()).unwrap_err();
    assert_eq!((error.code, error.offset), (Code::Refused, Some(1)));
    assert_eq!(Text::read(&tour.path("nothing"), &Limits::default()).unwrap_err().code, Code::Failed);
}

#[test]
fn a_conversion_whose_quality_is_not_met_leaves_no_target() {
    let tour = Tour::new();
    let quality = |max: f64| Quality { text: Some(tour.path("text")), max_divergence: Some(max), context: Some(64) };
    for (target, scheme) in [("m.gguf", "q4_0"), ("folder", "mlx4-g64")] {
        let error = tour.convert(target, scheme, quality(1e-9)).unwrap_err();
        assert_eq!(error.code, Code::Gate, "{}", error.message);
        assert!(!tour.path(target).exists() && !tour.path(&format!("{target}.partial")).exists());
        let report = tour.convert(target, scheme, quality(10.0)).unwrap();
        let measured = tour.eval(target, Some("model"), 64).unwrap();
        let quality = report.quality.unwrap();
        // The gate looks at the first windows of a long text; this one is short.
        assert_eq!((quality.mean_kld, quality.tokens), (measured.mean_kld, measured.tokens));
    }
    let without = Quality { max_divergence: Some(1.0), ..Quality::default() };
    let error = tour.convert("n.gguf", "q4_0", without).unwrap_err();
    assert!(error.code == Code::Usage && error.help.as_deref().unwrap().contains("--calibrate"));
    let error = tour.convert("n.safetensors", "bf16", quality(1.0)).unwrap_err();
    assert!(error.message.contains("no place for a configuration"), "{}", error.message);
}
