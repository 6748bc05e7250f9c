//! Adapters merged into bases, against what PEFT's `merge_and_unload` made.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use support::values;
use windlass::convert::{Conversion, Options, Watch};
use windlass::merge::{Adapted, Merge, Report};
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
