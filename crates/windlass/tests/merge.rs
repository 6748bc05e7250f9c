//! Adapters merged into bases, against what PEFT's `merge_and_unload` made.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use support::values;
use windlass::convert::{Conversion, Options, Watch};
use windlass::merge::{Adapted, How, Merge, Method, Report, Weighted};
use windlass::tensor::Limits;
use windlass::{Code, Error, Model};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/merge").join(name)
}

fn merge(base: &Path, adapters: &[(&Path, f64)], out: &Path, options: Options) -> Result<Report, Error> {
    let stop = AtomicBool::new(false);
    let adapters: Vec<Adapted> =
        adapters.iter().map(|(path, scale)| Adapted { path: (*path).into(), scale: *scale }).collect();
    Merge::adapters(base, &adapters, out, options)?.run(&Watch { stop: &stop, progress: &|_, _| {} })
}

fn convert(from: &Path, to: &Path, options: Options) {
    let stop = AtomicBool::new(false);
    Conversion::plan(from, to, options).unwrap().run(&Watch { stop: &stop, progress: &|_, _| {} }).unwrap();
}

fn open(path: &Path) -> Model {
    Model::open(path, &Limits::default()).unwrap()
}

fn scheme(name: &str) -> Options {
    Options { scheme: Some(name.into()), ..Options::default() }
}

/// Holds a merged model against what PEFT changed; everything else must be as it was.
fn check(merged: &Path, base: &Path, expected: &Path, bound: f32) {
    let (merged, base, expected) = (open(merged), open(base), open(expected));
    for entry in base.source.tensors() {
        let name = entry.name();
        let Some(_) = expected.source.tensor(name) else {
            assert_eq!(values(&merged, name), values(&base, name), "{name}");
            continue;
        };
        let (ours, theirs) = (values(&merged, name), values(&expected, name));
        let largest = theirs.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() <= bound * largest, "{name}: {a} {b}");
        }
        assert_ne!(ours, values(&base, name), "{name}");
    }
}

const ALL: [(&str, &str); 4] =
    [("llama", "llama-mixed"), ("llama", "llama-dora"), ("llama", "llama-whole"), ("phi3", "phi3-fused")];

#[test]
fn every_kind_of_adapter_gives_what_peft_gives() {
    let folder = tempfile::tempdir().unwrap();
    for (base, adapter) in ALL {
        let out = folder.path().join(adapter);
        let report = merge(&golden(base), &[(&golden(adapter), 1.0)], &out, Options::default()).unwrap();
        let expected = golden(&format!("{adapter}-merged.safetensors"));
        check(&out, &golden(base), &expected, 1e-6);
        // What is reported is what was changed.
        let names: BTreeSet<String> = report.merged.iter().map(|t| t.name.clone()).collect();
        let theirs = open(&expected).source.tensors().iter().map(|t| t.name().to_string()).collect();
        assert_eq!(names, theirs);
        assert_eq!(report.relative_error, 0.0);
        for tensor in &report.merged {
            let (new, old) = (values(&open(&out), &tensor.name), values(&open(&golden(base)), &tensor.name));
            let squares = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>();
            let change = squares(&mut new.iter().zip(&old).map(|(a, b)| f64::from(a - b)));
            let wanted = (change / squares(&mut new.iter().map(|v| f64::from(*v)))).sqrt();
            assert!((tensor.relative_change / wanted - 1.0).abs() < 1e-3, "{tensor:?} {wanted}");
        }
    }
}

/// Rows of queries and keys have another order in a GGUF: factors follow, from either side.
#[test]
fn a_gguf_gets_the_same_change_in_its_own_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (base, adapter) in ALL {
        let (gguf, merged) = (at(&format!("{adapter}.gguf")), at(&format!("{adapter}-merged.gguf")));
        convert(&golden(base), &gguf, scheme("f32"));
        merge(&gguf, &[(&golden(adapter), 1.0)], &merged, Options::default()).unwrap();
        convert(&merged, &at(adapter), scheme("f32"));
        check(&at(adapter), &golden(base), &golden(&format!("{adapter}-merged.safetensors")), 1e-6);
        // An adapter that became a GGUF, or MLX's, changes the same.
        if ["llama-dora", "llama-whole"].contains(&adapter) {
            continue;
        }
        for (name, container) in [("a.gguf", "gguf"), ("a-mlx", "mlx")] {
            let (carried, out) = (at(&format!("{adapter}-{name}")), at(&format!("{adapter}-{name}-out")));
            let options = Options { to: Some(container.into()), config_from: Some(golden(base)), ..Options::default() };
            convert(&golden(adapter), &carried, options);
            merge(&golden(base), &[(&carried, 1.0)], &out, Options::default()).unwrap();
            check(&out, &golden(base), &golden(&format!("{adapter}-merged.safetensors")), 1e-6);
        }
    }
}

#[test]
fn a_quantized_base_is_changed_where_the_adapter_changes_it_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let adapter = golden("llama-mixed");
    convert(&golden("llama"), &at("q8_0.gguf"), scheme("q8_0"));
    convert(&at("q8_0.gguf"), &at("decoded.gguf"), scheme("f32"));
    let report = merge(&at("q8_0.gguf"), &[(&adapter, 1.0)], &at("merged.gguf"), Options::default()).unwrap();
    // The same in two steps: merged as floats, then quantized.
    merge(&at("decoded.gguf"), &[(&adapter, 1.0)], &at("floats.gguf"), Options::default()).unwrap();
    convert(&at("floats.gguf"), &at("two.gguf"), scheme("q8_0"));
    let [merged, two, base, floats] =
        ["merged.gguf", "two.gguf", "q8_0.gguf", "floats.gguf"].map(|name| open(&at(name)));
    let changed: BTreeSet<&str> = report.merged.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(changed.len(), 8);
    let (mut error, mut norm) = (0.0, 0.0);
    for entry in base.source.tensors() {
        let (name, ours) = (entry.name(), values(&merged, entry.name()));
        let same_as = if changed.contains(name) { &two } else { &base };
        assert_eq!(ours, values(same_as, name), "{name}");
        if changed.contains(name) {
            for (a, b) in ours.iter().zip(values(&floats, name)) {
                error += f64::from(a - b).powi(2);
                norm += f64::from(b).powi(2);
            }
        }
    }
    assert!((report.relative_error / (error / norm).sqrt() - 1.0).abs() < 1e-4);
    assert!(report.relative_error > 1e-3 && report.conversion.max_relative_error >= report.relative_error);
    let same = merge(&at("q8_0.gguf"), &[(&adapter, 0.0)], &at("zero.gguf"), Options::default()).unwrap();
    assert_eq!(same.relative_change, 0.0);
    let options = Options { max_error: Some(1e-4), ..Options::default() };
    let error = merge(&at("q8_0.gguf"), &[(&adapter, 1.0)], &at("gate.gguf"), options).unwrap_err();
    assert_eq!(error.code, Code::Gate);
    assert!(!at("gate.gguf").exists());
}

#[test]
fn a_scale_and_several_adapters_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let (once, twice) = (folder.path().join("once"), folder.path().join("twice"));
    let adapter = golden("llama-mixed");
    merge(&golden("llama"), &[(&adapter, 0.5), (&adapter, 0.5)], &twice, Options::default()).unwrap();
    check(&twice, &golden("llama"), &golden("llama-mixed-merged.safetensors"), 1e-6);
    merge(&golden("llama"), &[(&adapter, 1.0), (&adapter, -1.0)], &once, Options::default()).unwrap();
    let (base, after) = (open(&golden("llama")), open(&once));
    for entry in base.source.tensors() {
        for (a, b) in values(&base, entry.name()).iter().zip(values(&after, entry.name())) {
            assert!((a - b).abs() < 1e-6, "{}", entry.name());
        }
    }
}

#[test]
fn an_adapter_for_another_base_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let refused = |base: &Path, adapter: &Path, scale: f64| {
        let error = merge(base, &[(adapter, scale)], &out, Options::default()).unwrap_err();
        assert!(!out.exists() && error.help.is_some(), "{error:?}");
        (error.code, error.message, error.tensor.unwrap_or_default())
    };
    let (code, message, tensor) = refused(&golden("llama"), &golden("phi3-fused"), 1.0);
    assert_eq!(code, Code::Refused);
    assert!(message.contains("_proj\", which a base of architecture llama does not have"), "{message}");
    assert!(tensor.ends_with("qkv_proj.lora_A.weight") || tensor.ends_with("gate_up_proj.lora_A.weight"), "{tensor}");
    // The same names in another size.
    let wide = folder.path().join("wide");
    windlass::quickstart::make(&wide).unwrap();
    let (_, message, tensor) = refused(&wide, &golden("llama-mixed"), 1.0);
    assert!(message.contains("expected factors for [") && message.contains("found them for ["), "{message}");
    assert!(tensor.contains("lora_A"), "{tensor}");
    let (_, message, _) = refused(&golden("llama"), &golden("llama-whole"), 0.5);
    assert!(message.contains("a scale of 0.5 cannot be given"), "{message}");
    let (code, message, _) = refused(&golden("llama-mixed"), &golden("llama-mixed"), 1.0);
    assert_eq!(code, Code::Usage);
    assert!(message.contains("is an adapter, and not a base"), "{message}");
    let (_, message, _) = refused(&golden("llama"), &golden("phi3"), 1.0);
    assert!(message.contains("is not an adapter"), "{message}");
}

#[test]
fn a_base_that_shares_its_embedding_is_not_changed_by_half() {
    let folder = tempfile::tempdir().unwrap();
    let tied = folder.path().join("tied");
    std::fs::create_dir(&tied).unwrap();
    let config = std::fs::read_to_string(golden("llama/config.json")).unwrap();
    let config = config.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    std::fs::write(tied.join("config.json"), config).unwrap();
    std::fs::copy(golden("llama/model.safetensors"), tied.join("model.safetensors")).unwrap();
    let out = folder.path().join("out");
    let error = merge(&tied, &[(&golden("llama-whole"), 1.0)], &out, Options::default()).unwrap_err();
    assert!(error.message.contains("one tensor for its embedding and its output"), "{}", error.message);
}

#[test]
fn the_source_of_a_merge_is_never_its_target() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    std::fs::create_dir(&adapter).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(golden("llama-mixed").join(name), adapter.join(name)).unwrap();
    }
    let options = Options { overwrite: true, ..Options::default() };
    let error = merge(&golden("llama"), &[(&adapter, 1.0)], &adapter, options).unwrap_err();
    assert!(error.message.contains("holds the source"), "{}", error.message);
}

/// The tensors of a model, each value changed by a little that its number decides.
fn variant(folder: &Path, name: &str, size: f32, config: impl Fn(String) -> String) -> PathBuf {
    let out = folder.join(name);
    std::fs::create_dir(&out).unwrap();
    let text = std::fs::read_to_string(golden("llama/config.json")).unwrap();
    std::fs::write(out.join("config.json"), config(text)).unwrap();
    let mut bytes = std::fs::read(golden("llama/model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk::<8>().unwrap()) as usize;
    for (i, value) in bytes[header..].as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let change = size * ((i as f32 * 0.37 + size).sin() + (i % 7) as f32 * 0.1);
        *value = (f32::from_le_bytes(*value) + change).to_le_bytes();
    }
    std::fs::write(out.join("model.safetensors"), bytes).unwrap();
    out
}

fn join(
    base: Option<&Path>,
    models: &[(&Path, f64, f64)],
    how: &How,
    out: &Path,
    options: Options,
) -> Result<Report, Error> {
    let stop = AtomicBool::new(false);
    let model = |(path, weight, density): &(&Path, f64, f64)| Weighted {
        path: (*path).into(),
        weight: *weight,
        density: *density,
    };
    let models: Vec<Weighted> = models.iter().map(model).collect();
    Merge::models(base, &models, how, out, options)?.run(&Watch { stop: &stop, progress: &|_, _| {} })
}

fn how(method: &str) -> How {
    How { method: Method::named(method).unwrap(), seed: 3, ..How::default() }
}

/// The formulas are tested in `windlass-edit`: here, that each tensor meets its own in every model, however they are stored and
/// cut.
#[test]
fn models_in_different_containers_give_what_models_in_one_give() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (a, b) = (variant(folder.path(), "a", 0.05, |c| c), variant(folder.path(), "b", -0.11, |c| c));
    convert(&golden("llama"), &at("base.gguf"), scheme("f32"));
    convert(&a, &at("a.gguf"), scheme("f32"));
    convert(&b, &at("b-mlx"), Options { to: Some("mlx".into()), ..Options::default() });
    for method in ["linear", "slerp", "task", "ties", "dare", "dare-ties"] {
        let how = How { lambda: 0.7, ..how(method) };
        let density = if how.method.is_sparse() { 0.4 } else { 1.0 };
        let run = |base: &Path, a: &Path, b: &Path, name: &str, options: Options| {
            let base = how.method.needs_base().then_some(base);
            join(base, &[(a, 0.6, density), (b, 0.4, density)], &how, &at(name), options).unwrap();
            at(name)
        };
        let plain = run(&golden("llama"), &a, &b, &format!("{method}-plain"), Options::default());
        let mixed = run(
            &at("base.gguf"),
            &at("a.gguf"),
            &at("b-mlx"),
            &format!("{method}-mixed"),
            Options { to: Some("safetensors".into()), threads: 3, ..Options::default() },
        );
        let (plain, mixed, base) = (open(&plain), open(&mixed), open(&golden("llama")));
        for entry in base.source.tensors() {
            let name = entry.name();
            let (ours, theirs) = (values(&plain, name), values(&mixed, name));
            assert!(ours.iter().zip(&theirs).all(|(x, y)| (x - y).abs() < 1e-6), "{method} {name}");
            assert_ne!(ours, values(&base, name), "{method} {name}");
        }
    }
}

/// Two of the methods by hand, so that weights, base and order are the ones that were named.
#[test]
fn weights_belong_to_their_models() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (variant(folder.path(), "a", 0.05, |c| c), variant(folder.path(), "b", -0.11, |c| c));
    let at = |name: &str| folder.path().join(name);
    join(None, &[(&a, 3.0, 1.0), (&b, 1.0, 1.0)], &how("linear"), &at("linear"), Options::default()).unwrap();
    let base = golden("llama");
    let rules = at("rules.toml");
    std::fs::write(
        &rules,
        "[[rule]]\nmatch = \"*norm*\"\nkeep = true\n[[rule]]\nmatch = \"lm_head*\"\nweights = [0, 1]\n",
    )
    .unwrap();
    let task = How { lambda: 0.5, rules: Some(rules), ..how("task-arithmetic") };
    let report = join(Some(&base), &[(&a, 1.0, 1.0), (&b, 2.0, 1.0)], &task, &at("task"), Options::default()).unwrap();
    let [base, a, b, linear, task] = [&base, &a, &b, &at("linear"), &at("task")].map(|path| open(path));
    for entry in base.source.tensors() {
        let name = entry.name();
        let all = [&base, &a, &b, &linear, &task].map(|model| values(model, name));
        for i in 0..all[0].len() {
            let [base, a, b, linear, task] = all.each_ref().map(|v| v[i]);
            assert!((linear - (0.75 * a + 0.25 * b)).abs() < 1e-6, "{name}");
            let wanted = match name {
                _ if name.contains("norm") => base,
                "lm_head.weight" => base + 0.5 * (b - base),
                _ => base + 0.5 * ((a - base) + 2.0 * (b - base)),
            };
            assert!((task - wanted).abs() < 1e-6, "{name}: {task} {wanted}");
        }
    }
    assert!(report.merged.iter().all(|t| !t.name.contains("norm") && t.relative_change > 0.0));
}

#[test]
fn models_that_do_not_fit_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let llama = golden("llama");
    let refused = |base: Option<&Path>, models: &[(&Path, f64, f64)], method: &str| {
        let error = join(base, models, &how(method), &out, Options::default()).unwrap_err();
        assert!(!out.exists());
        format!("{} / {}", error.message, error.help.unwrap_or_default())
    };
    let other = refused(None, &[(&llama, 1.0, 1.0), (&golden("phi3"), 1.0, 1.0)], "linear");
    assert!(other.contains("is a phi3, and") && other.contains("one architecture"), "{other}");
    // Two tokens that changed places.
    let small = folder.path().join("small");
    windlass::quickstart::make(&small).unwrap();
    let qwen = folder.path().join("qwen");
    windlass::quickstart::make(&qwen).unwrap();
    let path = qwen.join("tokenizer.json");
    let mut tokens: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let vocabulary = tokens["model"]["vocab"].as_object_mut().unwrap();
    let (e, t) = (vocabulary["e"].clone(), vocabulary["t"].clone());
    (vocabulary["e"], vocabulary["t"]) = (t, e);
    std::fs::write(&path, tokens.to_string()).unwrap();
    let tokens = refused(None, &[(&small, 1.0, 1.0), (&qwen, 1.0, 1.0)], "linear");
    assert!(
        tokens.contains("2 of ")
            && tokens.contains("tokens differ from those of")
            && tokens.contains("trained from one base"),
        "{tokens}"
    );
    let adapter = refused(None, &[(&llama, 1.0, 1.0), (&golden("llama-mixed"), 1.0, 1.0)], "linear");
    assert!(adapter.contains("is an adapter, and not a model"), "{adapter}");
    for (base, models, method, says) in [
        (None, 2, "ties", "--base MODEL"),
        (Some(llama.as_path()), 2, "linear", "takes no --base"),
        (None, 1, "linear", "nothing to merge it with"),
        (None, 3, "slerp", "from one model to another"),
    ] {
        let said = refused(base, &vec![(llama.as_path(), 1.0, 1.0); models], method);
        assert!(said.contains(says), "{said}");
    }
    let none = refused(Some(&llama), &[(&llama, 1.0, 0.0)], "ties");
    assert!(none.contains("a density lies above 0"), "{none}");
}

#[test]
fn another_vocabulary_is_told_as_such() {
    use safetensors::{SafeTensors, tensor::TensorView};
    let folder = tempfile::tempdir().unwrap();
    let short = variant(folder.path(), "short", 0.0, |c| c.replace("\"vocab_size\": 48", "\"vocab_size\": 40"));
    let bytes = std::fs::read(short.join("model.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let cut = all.tensors().into_iter().map(|(name, tensor)| {
        let (mut shape, data) = (tensor.shape().to_vec(), tensor.data());
        if shape[0] == 48 {
            shape[0] = 40;
        }
        let length = shape.iter().product::<usize>() * 4;
        (name, TensorView::new(tensor.dtype(), shape, &data[..length]).unwrap())
    });
    let written = safetensors::serialize(cut, None).unwrap();
    std::fs::write(short.join("model.safetensors"), written).unwrap();
    let models = [(golden("llama"), 1.0, 1.0), (short, 1.0, 1.0)];
    let models: Vec<(&Path, f64, f64)> = models.iter().map(|(p, w, d)| (p.as_path(), *w, *d)).collect();
    let error = join(None, &models, &how("linear"), &folder.path().join("out"), Options::default()).unwrap_err();
    assert!(error.message.contains("has a vocabulary of 40 tokens"), "{}", error.message);
    assert!(error.message.contains("one of 48") && error.help.unwrap().contains("resize"));
    assert_eq!(error.tensor.as_deref(), Some("lm_head.weight"));
}
