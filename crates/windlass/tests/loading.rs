//! Every way to load a model gives the same numbers, within the memory that it promises.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use windlass::convert::{Conversion, Options as ConvertOptions, Watch};
use windlass::load::{self, Loaded, Options, Run, Strategy, cache_element, load};
use windlass::models::Wanted;
use windlass::ops::Context;
use windlass::tensor::{Limits, TypedTensor};
use windlass::{Code, Model, register_providers};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name)
}

fn open(path: &Path) -> Model {
    Model::open(path, &Limits::default()).unwrap()
}

fn run(context: usize) -> Run {
    Run { context, element: cache_element("f32").unwrap(), batch: context, logits: context }
}

/// Logits of a few tokens, in two batches: streamed layers come round again.
fn logits(loaded: &Loaded) -> Vec<f32> {
    register_providers();
    let mut cache = loaded.cache(&run(12)).unwrap();
    Context::here(|cx| {
        let batches: [&[u32]; 2] = [&[5, 17, 3, 99, 4, 8, 31], &[7, 2, 64, 11, 12]];
        let one = |tokens: &&[u32]| {
            let logits = loaded.decoder.forward(cx, tokens, &mut cache, Wanted::All).unwrap().unwrap();
            TypedTensor::<f32>::new(logits).unwrap().to_vec().unwrap()
        };
        batches.iter().flat_map(one).collect()
    })
}

fn with(strategy: Strategy, scheme: Option<&str>) -> Options {
    Options { context: Some(64), strategy, scheme: scheme.map(String::from), ..Options::default() }
}

fn convert(from: &Path, to: &Path, scheme: &str) {
    let options = ConvertOptions { scheme: Some(scheme.into()), ..ConvertOptions::default() };
    let watch = Watch { stop: &false.into(), progress: &|_, _| () };
    Conversion::plan(from, to, options).unwrap().run(&watch).unwrap();
}

#[test]
fn every_strategy_gives_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let mut models: Vec<PathBuf> = ["llama", "phi3", "gemma2", "qwen3moe", "yarn"].map(golden).into();
    for (name, scheme) in [("llama", "q4_0"), ("gemma3", "q8_0"), ("mixtral", "f16"), ("qwen3", "nf4")] {
        let file = if scheme == "nf4" { name.to_string() } else { format!("{name}.gguf") };
        convert(&golden(name), &folder.path().join(&file), scheme);
        models.push(folder.path().join(file));
    }
    for path in models {
        let model = open(&path);
        let expected = logits(&load(&model, &with(Strategy::Mapped, None)).unwrap());
        assert!(expected.iter().any(|v| *v != 0.0));
        for (name, strategy) in Strategy::ALL {
            let found = logits(&load(&model, &with(strategy, None)).unwrap());
            assert!(found == expected, "{} {name}", path.display());
        }
    }
}

#[test]
fn a_model_quantized_while_loading_is_the_converted_one() {
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("half.gguf");
    convert(&golden("llama"), &half, "q8_0");
    let cases = [
        (golden("llama"), "q8_0", "a.gguf"),
        (golden("llama3"), "q4_0", "b.gguf"),
        (golden("gemma2"), "q8_0", "c.gguf"),
        (golden("qwen3"), "mlx4-g32", "d"),
        (golden("qwen3moe"), "nf4", "e"),
        (golden("llama"), "nf4-dq", "f"),
        (golden("mistral"), "bf16", "g"),
        (half, "q4_1", "h.gguf"),
    ];
    for (source, scheme, target) in cases {
        let target = folder.path().join(target);
        convert(&source, &target, scheme);
        let expected = logits(&load(&open(&target), &with(Strategy::Mapped, None)).unwrap());
        for strategy in [Strategy::Mapped, Strategy::Resident, Strategy::Shared] {
            let loaded = load(&open(&source), &with(strategy, Some(scheme))).unwrap();
            assert!(logits(&loaded) == expected, "{scheme} of {} by {strategy:?}", source.display());
        }
    }
}

#[test]
fn what_cannot_be_loaded_is_refused_with_the_remedy() {
    let model = open(&golden("llama"));
    let refusal = |options: Options| load(&model, &options).err().unwrap();
    let error = refusal(with(Strategy::Stream, Some("q8_0")));
    assert_eq!(error.code, Code::Usage);
    assert!(error.help.unwrap().contains("convert"));
    assert_eq!(refusal(with(Strategy::Resident, Some("q9"))).code, Code::Usage);
    for strategy in [Strategy::Resident, Strategy::Shared, Strategy::Stream] {
        let error = refusal(Options { memory_limit: Some(1 << 10), ..with(strategy, None) });
        assert_eq!(error.code, Code::Memory, "{error}");
        assert!(error.message.contains("1.0 KiB") && error.help.unwrap().contains("--load"), "{}", error.message);
    }
}

#[test]
fn a_context_beyond_the_limit_is_refused_with_the_numbers() {
    let model = open(&golden("qwen3"));
    let limit = windlass::runtime::system::own_memory().unwrap_or(0) + (192 << 20);
    let loaded = load(&model, &Options { memory_limit: Some(limit), ..Options::default() }).unwrap();
    assert!(loaded.cache(&run(16)).is_ok());
    let large = Run { context: 1 << 24, ..run(16) };
    let error = loaded.cache(&large).unwrap_err();
    assert_eq!(error.code, Code::Memory);
    assert!(error.message.contains("16777216 tokens") && error.message.contains("keys and values"), "{error}");
    let help = error.help.unwrap();
    assert!(help.contains("--context") && help.contains("--kv q8_0") && help.contains("--memory-limit"), "{help}");
    // What the remedy says fits does fit.
    let words = help.split_whitespace().collect::<Vec<_>>();
    let at = words.iter().position(|word| *word == "--context").unwrap();
    let context: usize = words[at + 1].parse().unwrap();
    assert!(context > 1000, "{help}");
    assert!(loaded.cache(&Run { context: context * 9 / 10, ..run(16) }).is_ok());
    windlass::ops::pool().set_owner_limit("ops", None);
}

#[test]
fn names_of_strategies_are_known() {
    assert_eq!(Strategy::named("stream"), Some(Strategy::Stream));
    assert_eq!(Strategy::named("streem"), None);
    assert!(load::cache_element("q3_k").is_err());
}
