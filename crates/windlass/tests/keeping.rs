//! What a conversion replaces, carries along, warns of and refuses to lose.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use support::{Bench, files, files_beside, values, write_gguf};
use windlass::Code;
use windlass::convert::{Conversion, Options, Watch};
use windlass::tensor::Limits;

fn overwrite() -> Options {
    Options { overwrite: true, ..Options::default() }
}

#[test]
fn only_what_is_of_a_model_is_replaced() {
    let bench = Bench::new();
    bench.convert("model", "out", None).unwrap();
    std::fs::write(bench.path("out/notes.md"), "mine").unwrap();
    std::fs::create_dir(bench.path("out/figures")).unwrap();
    let error = bench.convert_with("model", "out", overwrite()).unwrap_err();
    assert!(error.message.contains("figures, notes.md"), "{error}");
    assert!(bench.path("out/notes.md").exists());
    std::fs::remove_file(bench.path("out/notes.md")).unwrap();
    std::fs::remove_dir(bench.path("out/figures")).unwrap();
    std::fs::write(bench.path("out/added_tokens.json"), "{}").unwrap();
    bench.convert_with("model", "out", overwrite()).unwrap();
    assert_eq!(files(&bench.path("model")), files(&bench.path("out")));
}

#[test]
fn parts_of_an_older_target_go_and_the_report_names_the_first() {
    let bench = Bench::new();
    let options = |size| Options { part_size: Some(size), ..overwrite() };
    bench.convert_with("model", "s.gguf", options(1 << 20)).unwrap();
    std::fs::write(bench.path("s-other-00001-of-00009.gguf"), "mine").unwrap();
    let error = bench.convert_with("model", "s.gguf", Options { overwrite: false, ..options(4 << 20) }).unwrap_err();
    assert!(error.message.contains("exists already"), "{error}");
    let report = bench.convert_with("model", "s.gguf", options(4 << 20)).unwrap();
    let mut parts: Vec<String> = files_beside(&bench).into_iter().filter(|n| n.starts_with("s-0")).collect();
    parts.sort();
    assert_eq!(report.output, bench.path(&parts[0]));
    let count = parts.len();
    assert!(parts.iter().all(|name| name.ends_with(&format!("-of-{count:05}.gguf"))), "{parts:?}");
    assert!(bench.path("s-other-00001-of-00009.gguf").exists());
    let error = bench.convert_with(&parts[0], "s.gguf", options(1 << 20)).unwrap_err();
    assert!(error.message.contains("part of the source"), "{error}");
    assert_eq!(bench.convert_with("model", "t.gguf", options(0)).unwrap_err().code, Code::Usage);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link_and_its_end_is_written() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("disk")).unwrap();
    std::fs::write(bench.path("disk/real.gguf"), "old").unwrap();
    std::os::unix::fs::symlink("disk/real.gguf", bench.path("link.gguf")).unwrap();
    assert!(bench.convert("model", "link.gguf", None).unwrap_err().message.contains("exists already"));
    bench.convert_with("model", "link.gguf", overwrite()).unwrap();
    assert!(bench.path("link.gguf").is_symlink());
    assert!(std::fs::read(bench.path("disk/real.gguf")).unwrap().starts_with(b"GGUF"));
    bench.convert("model", "disk/folder", None).unwrap();
    std::os::unix::fs::symlink("disk/folder", bench.path("folder")).unwrap();
    bench.convert_with("model", "folder", overwrite()).unwrap();
    assert!(bench.path("folder").is_symlink() && bench.path("disk/folder/config.json").exists());
    std::os::unix::fs::symlink("nowhere.gguf", bench.path("dangling.gguf")).unwrap();
    let error = bench.convert_with("model", "dangling.gguf", overwrite()).unwrap_err();
    assert!(error.message.contains("does not exist") && error.help.is_some(), "{error}");
}

#[test]
fn a_target_of_the_other_kind_says_what_to_do() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("folder")).unwrap();
    let options = Options { to: Some("gguf".into()), ..overwrite() };
    let error = bench.convert_with("model", "folder", options).unwrap_err();
    assert!(error.message.contains("is a folder") && error.help.unwrap().contains("folder/model"));
    std::fs::write(bench.path("file"), "mine").unwrap();
    let error = bench.convert_with("model", "file", overwrite()).unwrap_err();
    assert!(error.message.contains("is a file, and the output is a folder") && error.help.is_some(), "{error}");
}

#[test]
fn a_plan_says_what_is_lost_on_the_way() {
    let bench = Bench::new();
    let plan = |from: &str, to: &str, options: Options| {
        Conversion::plan(bench.path(from), &bench.path(to), options).unwrap().describe()
    };
    let warns = |plan: &windlass::convert::Plan, text: &str| plan.warnings.iter().any(|w| w.contains(text));
    std::fs::copy(bench.path("model/model.safetensors"), bench.path("bare.safetensors")).unwrap();
    assert!(warns(&plan("bare.safetensors", "bare.gguf", Options::default()), "--config-from"));
    std::fs::write(bench.path("model/modeling_x.py"), "import os").unwrap();
    std::fs::write(bench.path("model/corpus.txt"), vec![b'x'; 60_000_000]).unwrap();
    let described = plan("model", "m.gguf", Options::default());
    assert!(warns(&described, "modeling_x.py is code") && warns(&described, "corpus.txt has 57 MiB"));
    assert!(described.fits && described.bytes_written < 30_000_000, "{described:?}");
    std::fs::write(bench.path("r.toml"), "[[rule]]\nmatch = \"blk.*.ffn_dwon.weight\"\nscheme = \"f16\"\n").unwrap();
    let options = Options { recipe: Some(bench.path("r.toml")), ..Options::default() };
    assert!(warns(&plan("model", "m.gguf", options), "ffn_dwon"));
    std::fs::write(bench.path("r.toml"), "base = \"q4_k_m\"\n[[rule]]\nmatch = 3\n").unwrap();
    let options = Options { recipe: Some(bench.path("r.toml")), ..Options::default() };
    let error = bench.convert_with("model", "m.gguf", options).unwrap_err();
    assert!(error.message.contains("r.toml: recipe: line 3: "), "{error}");
    assert!(!error.message.contains('\n'), "{error}");
    let described = plan("model", "m.gguf", Options { memory_limit: 1 << 20, ..Options::default() });
    assert!(!described.fits && described.obstacles[0].contains("MiB"), "{described:?}");
}

#[test]
fn the_configuration_says_the_type_that_the_tensors_have() {
    let bench = Bench::new();
    let said = |name: &str| {
        let config: serde_json::Value = serde_json::from_slice(&files(&bench.path(name))["config.json"]).unwrap();
        config["dtype"].as_str().unwrap().to_string()
    };
    let has = |name: &str| {
        let model = bench.open(name);
        model.source.tensor("model.layers.0.mlp.up_proj.weight").unwrap().element().name().to_string()
    };
    bench.convert("model", "q.gguf", Some("q4_0")).unwrap();
    bench.convert_with("q.gguf", "mlx", Options { to: Some("mlx".into()), ..Options::default() }).unwrap();
    bench.convert("mlx", "hf", None).unwrap();
    assert_eq!((has("hf").as_str(), said("hf").as_str()), ("F16", "float16"));
    bench.convert("model", "wide", Some("f32")).unwrap();
    assert_eq!((has("wide").as_str(), said("wide").as_str()), ("F32", "float32"));
    bench.convert("q.gguf", "same", None).unwrap();
    assert_eq!((has("same").as_str(), said("same").as_str()), ("BF16", "bfloat16"));
}

#[test]
fn values_that_changed_in_a_gguf_are_never_rounded_silently() {
    let bench = Bench::new();
    bench.convert("model", "m.gguf", Some("f32")).unwrap();
    bench.convert("m.gguf", "same", None).unwrap();
    assert_eq!(bench.open("same").source.tensors()[0].element().name(), "BF16");
    let offset = {
        let model = bench.open("m.gguf");
        model.source.tensor("blk.2.ffn_up.weight").unwrap().planes()[0].offset as usize + 4 * 700
    };
    let mut bytes = std::fs::read(bench.path("m.gguf")).unwrap();
    bytes[offset..offset + 4].copy_from_slice(&0.1f32.to_le_bytes());
    std::fs::write(bench.path("m.gguf"), bytes).unwrap();
    let error = bench.convert("m.gguf", "back", None).unwrap_err();
    assert_eq!((error.code, error.tensor.as_deref()), (Code::Refused, Some("blk.2.ffn_up.weight")));
    assert!(error.help.as_ref().unwrap().contains("--scheme f32"), "{error:?}");
    assert!(!bench.path("back").exists());
    bench.convert("m.gguf", "wide", Some("f32")).unwrap();
    assert_eq!(values(&bench.open("wide"), "model.layers.2.mlp.up_proj.weight")[700], 0.1);
    bench.convert("m.gguf", "rounded", Some("bf16")).unwrap();
}

#[test]
fn lists_among_foreign_keys_come_back() {
    use windlass::tensor::{Array, Value};
    let bench = Bench::new();
    bench.convert("model", "ours.gguf", None).unwrap();
    let ours = bench.open("ours.gguf");
    let keep = ours.source.metadata().iter().filter(|(k, _)| !k.starts_with("windlass."));
    let mut metadata: windlass::tensor::Metadata = keep.map(|(k, v)| (k.to_string(), v.clone())).collect();
    let list = Value::Array(Array::F32((0..1000).map(|i| i as f32 * 0.1).collect()));
    metadata.set("custom.list", list.clone());
    metadata.set("custom.huge", Array::U8(vec![7; 2 << 20]));
    write_gguf(&bench, &ours, metadata, "foreign.gguf");
    let report = bench.convert("foreign.gguf", "hf", None).unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("custom.huge")), "{:?}", report.warnings);
    bench.convert("hf", "again.gguf", None).unwrap();
    assert_eq!(bench.open("again.gguf").source.metadata().get("custom.list"), Some(&list));
}

#[cfg(unix)]
#[test]
fn paths_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::new();
    let path = |name: &[u8]| bench.folder.path().join(std::ffi::OsStr::from_bytes(name));
    let stop = AtomicBool::new(false);
    let watch = Watch { stop: &stop, progress: &|_, _| {} };
    let split = Options { part_size: Some(4 << 20), ..Options::default() };
    let report = Conversion::plan(bench.path("model"), &path(b"m\xff.gguf"), split).unwrap().run(&watch).unwrap();
    assert!(serde_json::to_string(&report).unwrap().contains('\u{fffd}'));
    assert!(report.output.exists());
    Conversion::plan(bench.path("model"), &path(b"w\xff.gguf"), Options::default()).unwrap().run(&watch).unwrap();
    Conversion::plan(path(b"w\xff.gguf"), &path(b"back\xff"), Options::default()).unwrap().run(&watch).unwrap();
    assert_eq!(files(&bench.path("model")), files(&path(b"back\xff")));
}

#[test]
fn pytorch_and_numpy_are_written_and_read_back() {
    let bench = Bench::new();
    for (to, target, back) in [("pytorch", "torch", "from-torch"), ("pytorch", "parts", "from-parts")] {
        let part_size = (target == "parts").then_some(3 << 20);
        let options = Options { to: Some(to.into()), part_size, ..Options::default() };
        bench.convert_with("model", target, options).unwrap();
        bench.convert(target, back, None).unwrap();
        assert_eq!(files(&bench.path("model")), files(&bench.path(back)));
    }
    assert!(bench.path("torch/pytorch_model.bin").exists());
    assert!(bench.path("parts/pytorch_model.bin.index.json").exists());
    for (target, back) in [("m.npz", "n.safetensors"), ("m.pt", "p.safetensors")] {
        bench.convert("model", target, None).unwrap();
        bench.convert(target, back, None).unwrap();
        let (a, b) = (bench.open("model"), bench.open(back));
        for entry in a.source.tensors() {
            assert_eq!(b.source.tensor(entry.name()).unwrap().element(), entry.element());
            assert!(values(&a, entry.name()) == values(&b, entry.name()), "{target}: {}", entry.name());
        }
    }
    for target in ["torch", "parts", "m.npz", "m.pt"] {
        let options = windlass::verify::Options {
            deep: true,
            limits: Limits::default(),
            memory_limit: 64 << 20,
            progress: &|_, _| {},
        };
        let verdict = windlass::verify::verify(&bench.open(target), &options).unwrap();
        assert!(verdict.ok, "{target}: {verdict:?}");
    }
    let options = Options { part_size: Some(1 << 20), ..Options::default() };
    assert!(bench.convert_with("model", "parts.npz", options).unwrap_err().message.contains("has no parts"));
}

/// A file that PyTorch wrote, with every type it shares with us.
#[test]
fn every_type_goes_through_pytorch() {
    let bench = Bench::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/pytorch/types.bin");
    std::fs::copy(golden, bench.path("types.bin")).unwrap();
    bench.convert("types.bin", "types.safetensors", None).unwrap();
    bench.convert("types.safetensors", "again.pt", None).unwrap();
    let (a, b) = (bench.open("types.bin").source, bench.open("again.pt").source);
    assert_eq!(a.tensors().len(), b.tensors().len());
    for entry in a.tensors() {
        let other = b.tensor(entry.name()).unwrap();
        assert_eq!((entry.element(), entry.shape()), (other.element(), other.shape()), "{}", entry.name());
        let read = |source: &windlass::formats::Source, entry: &windlass::formats::Entry| {
            let mut bytes = vec![0; entry.bytes() as usize];
            source.read(entry, 0, 0, &mut bytes).unwrap();
            bytes
        };
        assert_eq!(read(&a, entry), read(&b, other), "{}", entry.name());
    }
}

/// BERT's position numbers have no name in GGUF, and come back from it.
#[test]
fn integers_without_a_name_in_gguf_come_back() {
    let bench = Bench::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoders/bert");
    let made = bench.path("made");
    std::fs::create_dir(&made).unwrap();
    std::fs::copy(golden.join("config.json"), made.join("config.json")).unwrap();
    let bytes = std::fs::read(golden.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut about: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let mut data = bytes[8 + header..].to_vec();
    let numbers: Vec<u8> = (0..40i64).flat_map(i64::to_le_bytes).collect();
    let place = [data.len(), data.len() + numbers.len()];
    about["embeddings.position_ids"] = serde_json::json!({"dtype": "I64", "shape": [1, 40], "data_offsets": place});
    data.extend(&numbers);
    let text = about.to_string();
    let file = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &data].concat();
    std::fs::write(made.join("model.safetensors"), file).unwrap();
    // Copied once, its tensors are in the order of the library.
    bench.convert("made", "bert", None).unwrap();
    for scheme in [None, Some("f32")] {
        bench.convert_with("bert", "bert.gguf", overwriting(scheme)).unwrap();
        bench.convert_with("bert.gguf", "back", overwriting(None)).unwrap();
        assert_eq!(files(&bench.path("bert")), files(&bench.path("back")), "{scheme:?}");
    }
    bench.convert_with("bert.gguf", "half", overwriting(Some("f16"))).unwrap();
    let half = bench.open("half");
    let entry = half.source.tensor("embeddings.position_ids").unwrap();
    let mut found = vec![0; numbers.len()];
    half.source.read(entry, 0, 0, &mut found).unwrap();
    assert_eq!((entry.element().name(), entry.shape(), found), ("I64", &[1, 40][..], numbers));
}

fn overwriting(scheme: Option<&str>) -> Options {
    Options { scheme: scheme.map(String::from), overwrite: true, ..Options::default() }
}
