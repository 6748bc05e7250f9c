//! Adapters that PEFT, mlx_lm and llama.cpp's conversion made, from each container to the others and back.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use windlass::convert::{Conversion, Options, Report, Watch};
use windlass::tensor::Limits;
use windlass::{Code, Error, Model};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adapters").join(name)
}

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        Bench(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A copy of a golden folder with its description edited.
    fn edited(&self, from: &str, edit: &[(&str, &str)]) -> PathBuf {
        let to = self.path(from);
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(golden(from)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
        let config = to.join("adapter_config.json");
        let mut text = std::fs::read_to_string(&config).unwrap();
        for (old, new) in edit {
            assert!(text.contains(old), "{old} is not in {text}");
            text = text.replace(old, new);
        }
        std::fs::write(config, text).unwrap();
        to
    }
}

fn convert(from: &Path, to: &Path, container: Option<&str>, base: bool) -> Result<Report, Error> {
    let config_from = base.then(|| golden("base"));
    let options = Options { to: container.map(String::from), config_from, ..Options::default() };
    run(from, to, options)
}

fn run(from: &Path, to: &Path, options: Options) -> Result<Report, Error> {
    let stop = AtomicBool::new(false);
    let watch = Watch { stop: &stop, progress: &|_, _| {} };
    Conversion::plan(from, to, options)?.run(&watch)
}

fn open(path: &Path) -> Result<Model, Error> {
    Model::open(path, &Limits::default())
}

/// Every tensor: its type, its shape, its bytes.
fn tensors(path: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let model = open(path).unwrap();
    let read = |entry: &windlass::formats::Entry| {
        let mut bytes = vec![0; entry.bytes() as usize];
        model.source.read(entry, 0, 0, &mut bytes).unwrap();
        (entry.name().to_string(), (entry.element().name().to_string(), entry.shape().to_vec(), bytes))
    };
    model.source.tensors().iter().map(read).collect()
}

fn file(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn peft_becomes_the_gguf_that_llama_cpp_makes_and_comes_back_to_the_byte() {
    let bench = Bench::new();
    let report = convert(&golden("peft"), &bench.path("a.gguf"), None, true).unwrap();
    assert_eq!((report.max_relative_error, report.warnings.len()), (0.0, 0), "{:?}", report.warnings);
    assert_eq!(tensors(&bench.path("a.gguf")), tensors(&golden("peft.gguf")));
    let (ours, theirs) = (open(&bench.path("a.gguf")).unwrap(), open(&golden("peft.gguf")).unwrap());
    for key in ["general.type", "general.architecture", "adapter.type", "adapter.lora.alpha"] {
        assert_eq!(ours.source.metadata().get(key), theirs.source.metadata().get(key), "{key}");
    }
    // What the base is travels in the GGUF, so that the way back needs nothing.
    convert(&bench.path("a.gguf"), &bench.path("back"), None, false).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        assert_eq!(file(&bench.path("back"), name), file(&golden("peft"), name), "{name}");
    }
}

/// What PEFT wrote before safetensors holds the same, is found by its description, and names its base.
#[test]
fn a_pickled_adapter_is_read_and_finds_its_base() {
    let bench = Bench::new();
    assert_eq!(tensors(&golden("peft-bin")), tensors(&golden("peft")));
    convert(&golden("peft-bin"), &bench.path("safe"), None, false).unwrap();
    assert_eq!(tensors(&bench.path("safe")), tensors(&golden("peft")));
    assert_eq!(file(&bench.path("safe"), "adapter_config.json"), file(&golden("peft-bin"), "adapter_config.json"));
    let error = convert(&golden("peft-bin"), &bench.path("a.gguf"), None, false).unwrap_err();
    assert!(error.message.contains("\"tiny/base\", which it names, was not found"), "{}", error.message);
    assert!(error.help.unwrap().contains("--config-from"));
    let base = golden("base");
    let folder = bench.edited("peft-bin", &[("tiny/base", base.to_str().unwrap())]);
    convert(&folder, &bench.path("a.gguf"), None, false).unwrap();
    assert_eq!(tensors(&bench.path("a.gguf")), tensors(&golden("peft.gguf")));
    // A base beside the adapter is found from there; a description that is not one is said.
    let beside = bench.edited("peft", &[("tiny/base", "../other")]);
    std::fs::create_dir(bench.path("other")).unwrap();
    std::fs::copy(base.join("config.json"), bench.path("other/config.json")).unwrap();
    convert(&beside, &bench.path("b.gguf"), None, false).unwrap();
    std::fs::write(bench.path("other/config.json"), "{}").unwrap();
    let error = convert(&beside, &bench.path("c.gguf"), None, false).unwrap_err();
    assert!(error.message.contains("other/config.json: "), "{}", error.message);
}

#[test]
fn a_gguf_from_elsewhere_becomes_peft_and_comes_back() {
    let bench = Bench::new();
    let error = convert(&golden("peft.gguf"), &bench.path("no"), None, false).unwrap_err();
    assert_eq!(error.code, Code::Refused);
    assert!(error.help.unwrap().contains("--config-from"));
    convert(&golden("peft.gguf"), &bench.path("peft"), None, true).unwrap();
    assert_eq!(tensors(&bench.path("peft")), tensors(&golden("peft")));
    let (ours, theirs) = (open(&bench.path("peft")).unwrap(), open(&golden("peft")).unwrap());
    let scales = |m: &Model| m.adapter.as_ref().unwrap().modules.iter().map(|m| m.scale).collect::<Vec<_>>();
    assert_eq!(scales(&ours), scales(&theirs));
    convert(&bench.path("peft"), &bench.path("again.gguf"), None, true).unwrap();
    assert_eq!(tensors(&bench.path("again.gguf")), tensors(&golden("peft.gguf")));
}

#[test]
fn mlx_becomes_peft_and_gguf_and_comes_back() {
    let bench = Bench::new();
    for kind in ["mlx", "mlx-dora"] {
        convert(&golden(kind), &bench.path(&format!("{kind}-peft")), None, false).unwrap();
        convert(&bench.path(&format!("{kind}-peft")), &bench.path(&format!("{kind}-again")), Some("mlx"), false)
            .unwrap();
        assert_eq!(tensors(&bench.path(&format!("{kind}-again"))), tensors(&golden(kind)));
        assert_eq!(
            file(&bench.path(&format!("{kind}-again")), "adapter_config.json"),
            file(&golden(kind), "adapter_config.json")
        );
    }
    convert(&golden("mlx"), &bench.path("m.gguf"), None, true).unwrap();
    convert(&bench.path("m.gguf"), &bench.path("m"), Some("mlx"), false).unwrap();
    assert_eq!(tensors(&bench.path("m")), tensors(&golden("mlx")));
    // B is stored the other way round, and the scale is the same.
    let peft = open(&bench.path("mlx-peft")).unwrap();
    let adapter = peft.adapter.unwrap();
    assert!(adapter.modules.iter().all(|m| m.scale == 2.5 && m.rank == 2));
    let name = "model.layers.0.mlp.down_proj";
    let (mlx, peft) = (tensors(&golden("mlx")), tensors(&bench.path("mlx-peft")));
    let (_, shape, rows) = &mlx[&format!("{name}.lora_b")];
    let (_, turned_shape, turned) = &peft[&format!("base_model.model.{name}.lora_B.weight")];
    assert_eq!((shape.as_slice(), turned_shape.as_slice()), (&[2, 16][..], &[16, 2][..]));
    assert_eq!(rows[4 * (16 + 3)..][..4], turned[4 * (3 * 2 + 1)..][..4]);
}

#[test]
fn scales_that_a_target_cannot_say_go_into_b_and_come_out_again() {
    let bench = Bench::new();
    let report = convert(&golden("rslora"), &bench.path("a.gguf"), None, true).unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("rounded to f32")), "{:?}", report.warnings);
    let report = convert(&golden("rslora"), &bench.path("mlx"), Some("mlx"), false).unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("padded with zeros to rank 4")), "{:?}", report.warnings);
    for from in ["a.gguf", "mlx"] {
        let back = bench.path(&format!("{from}-back"));
        convert(&bench.path(from), &back, None, false).unwrap();
        assert_eq!(file(&back, "adapter_config.json"), file(&golden("rslora"), "adapter_config.json"));
        let (before, after) = (tensors(&golden("rslora")), tensors(&back));
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, (dtype, shape, bytes)) in &before {
            let (dtype_after, shape_after, bytes_after) = &after[name];
            assert_eq!((dtype, shape), (dtype_after, shape_after), "{name}");
            let floats = |b: &[u8]| b.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
            for (x, y) in floats(bytes).into_iter().zip(floats(bytes_after)) {
                assert!((x - y).abs() <= x.abs() * 2.5e-7, "{name}: {x} {y}");
            }
        }
    }
    // What each module adds is what it added: alpha / rank of llama.cpp times the B that is stored.
    let (before, after) = (open(&golden("rslora")).unwrap(), open(&bench.path("a.gguf")).unwrap());
    let product = |model: &Model, i: usize| {
        let module = &model.adapter.as_ref().unwrap().modules[i];
        let (dtype, _, b) = &tensors(model.source.path())[model.source.tensors()[module.b].name()];
        assert_eq!(dtype, "F32");
        module.scale * f64::from(f32::from_le_bytes(*b.first_chunk::<4>().unwrap()))
    };
    for i in 0..4 {
        let (x, y) = (product(&before, [1, 0, 3, 2][i]), product(&after, i));
        assert!((x - y).abs() < 1e-6 * x.abs(), "{i}: {x} {y}");
    }
}

#[test]
fn padding_that_was_trained_since_is_kept() {
    let bench = Bench::new();
    convert(&golden("rslora"), &bench.path("mlx"), Some("mlx"), false).unwrap();
    let path = bench.path("mlx").join("adapters.safetensors");
    let model = open(&bench.path("mlx")).unwrap();
    let entry = model.source.tensor("model.layers.0.mlp.down_proj.lora_a").unwrap();
    let last = (entry.planes()[0].offset + entry.bytes() - 4) as usize;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[last..last + 4].copy_from_slice(&1.0f32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let report = convert(&bench.path("mlx"), &bench.path("back"), None, false).unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("changed since")), "{:?}", report.warnings);
    let back = open(&bench.path("back")).unwrap();
    assert!(back.adapter.unwrap().modules.iter().all(|m| m.rank == 4));
}

#[test]
fn dora_goes_to_mlx_and_back_and_not_to_gguf() {
    let bench = Bench::new();
    convert(&golden("dora"), &bench.path("mlx"), Some("mlx"), false).unwrap();
    convert(&bench.path("mlx"), &bench.path("back"), None, false).unwrap();
    assert_eq!(tensors(&bench.path("back")), tensors(&golden("dora")));
    let error = convert(&golden("dora"), &bench.path("a.gguf"), None, true).unwrap_err();
    assert_eq!(error.code, Code::Refused);
    assert!(error.message.contains("DoRA") && error.help.unwrap().contains("merge"), "{}", error.message);
    assert!(!bench.path("a.gguf").exists());
}

#[test]
fn the_types_of_factors_are_kept_or_chosen() {
    let bench = Bench::new();
    let half = Options { scheme: Some("bf16".into()), config_from: Some(golden("base")), ..Options::default() };
    run(&golden("peft"), &bench.path("half"), half.clone()).unwrap();
    assert!(tensors(&bench.path("half")).values().all(|t| t.0 == "BF16"));
    assert!(bench.path("half/adapter_model.safetensors").is_file());
    convert(&bench.path("half"), &bench.path("half.gguf"), None, true).unwrap();
    assert!(tensors(&bench.path("half.gguf")).values().all(|t| t.0 == "BF16"));
    convert(&bench.path("half.gguf"), &bench.path("half-back"), None, false).unwrap();
    assert_eq!(tensors(&bench.path("half-back")), tensors(&bench.path("half")));
    run(&golden("peft"), &bench.path("chosen.gguf"), half).unwrap();
    assert!(tensors(&bench.path("chosen.gguf")).values().all(|t| t.0 == "BF16"));
}

#[test]
fn memory_does_not_limit_what_is_turned_around() {
    let bench = Bench::new();
    let small = Options { to: Some("mlx".into()), memory_limit: 64 << 20, threads: 1, ..Options::default() };
    run(&golden("peft"), &bench.path("small"), small).unwrap();
    convert(&golden("peft"), &bench.path("mlx"), Some("mlx"), false).unwrap();
    assert_eq!(tensors(&bench.path("small")), tensors(&bench.path("mlx")));
}

#[test]
fn inspect_verify_and_diff_know_adapters() {
    let bench = Bench::new();
    convert(&golden("peft"), &bench.path("a.gguf"), None, true).unwrap();
    convert(&golden("peft"), &bench.path("mlx"), Some("mlx"), false).unwrap();
    for path in [golden("peft"), bench.path("a.gguf"), bench.path("mlx"), golden("mlx"), golden("peft.gguf")] {
        let model = open(&path).unwrap();
        let described = windlass::inspect::inspect(&model, false);
        let adapter = described.adapter.unwrap();
        assert!(adapter.modules > 0 && adapter.method == "lora", "{}", path.display());
        let progress = |_, _| {};
        let options = windlass::verify::Options {
            deep: true,
            limits: Limits::default(),
            memory_limit: 64 << 20,
            progress: &progress,
        };
        let verdict = windlass::verify::verify(&model, &options).unwrap();
        assert!(verdict.ok, "{}: {:?}", path.display(), verdict.problems);
    }
    for other in [bench.path("a.gguf"), bench.path("mlx")] {
        let (a, b) = (open(&golden("peft")).unwrap(), open(&other).unwrap());
        let difference = windlass::diff::diff(&a, &b, 64 << 20, &|_, _| {}).unwrap();
        assert!(difference.only_in_a.is_empty() && difference.only_in_b.is_empty(), "{difference:?}");
        assert!(difference.tensors.iter().all(|t| t.identical), "{difference:?}");
        assert_eq!(difference.tensors.len(), 16);
    }
    let (a, b) = (open(&golden("peft")).unwrap(), open(&golden("dora")).unwrap());
    let difference = windlass::diff::diff(&a, &b, 64 << 20, &|_, _| {}).unwrap();
    assert!(!difference.only_in_a.is_empty());
}

#[test]
fn hostile_descriptions_are_errors_that_name_what_is_wrong() {
    for (edit, code) in [
        (("\"r\": 2", "\"r\": 0"), "r must be a rank"),
        (("\"r\": 2", "\"r\": 3"), "has rank 2, but adapter_config.json says 3"),
        (("\"r\": 2", "\"r\": 2, \"r\": 2"), "twice"),
        (("\"lora_alpha\": 3", "\"lora_alpha\": NaN"), "adapter_config.json"),
        (("\"k_proj\": 4", "\"k_proj(\": 4"), "regular expression"),
        (("\"k_proj\": 4", "\"v_proj\": 4"), "rank"),
    ] {
        let bench = Bench::new();
        let folder = bench.edited("peft", &[edit]);
        let error = open(&folder).err().unwrap();
        assert_eq!(error.code, Code::Refused);
        assert!(error.message.contains(code), "{edit:?}: {}", error.message);
    }
}

#[test]
fn what_a_target_cannot_say_is_refused_and_leaves_nothing() {
    for (edit, says) in [
        (("\"lora_bias\": false", "\"lora_bias\": true"), "lora_bias"),
        (("\"init_lora_weights\": true", "\"init_lora_weights\": \"olora\""), "olora"),
        (("\"peft_type\": \"LORA\"", "\"peft_type\": \"LOHA\""), "LOHA"),
    ] {
        let bench = Bench::new();
        let folder = bench.edited("peft", &[edit]);
        let error = convert(&folder, &bench.path("a.gguf"), None, true).unwrap_err();
        assert_eq!(error.code, Code::Refused);
        assert!(error.message.contains(says), "{edit:?}: {}", error.message);
        assert!(!bench.path("a.gguf").exists());
    }
    let bench = Bench::new();
    let folder = bench.edited("peft", &[("\"r\": 2", "\"r\": 2")]);
    let base = bench.path("other");
    std::fs::create_dir(&base).unwrap();
    let config = std::fs::read_to_string(golden("base/config.json")).unwrap();
    let options = |config: String| {
        std::fs::write(base.join("config.json"), config).unwrap();
        Options { config_from: Some(base.clone()), ..Options::default() }
    };
    let fewer = options(config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"));
    let error = run(&folder, &bench.path("a.gguf"), fewer).unwrap_err();
    assert!(error.message.contains("model.layers.1") && error.tensor.is_some(), "{}", error.message);
    let wider = options(config.replace("\"intermediate_size\": 24", "\"intermediate_size\": 32"));
    let error = run(&folder, &bench.path("a.gguf"), wider).unwrap_err();
    assert!(error.message.contains("has shape [16, 32] in the base"), "{}", error.message);
    let tied = options(config.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"));
    let error = run(&folder, &bench.path("a.gguf"), tied).unwrap_err();
    assert!(error.message.contains("which the base shares"), "{}", error.message);
}

#[test]
fn a_factor_without_the_other_is_named() {
    let bench = Bench::new();
    let folder = bench.edited("mlx", &[]);
    let path = folder.join("adapters.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let renamed = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
        let mut bytes = bytes.clone();
        bytes[at..at + from.len()].copy_from_slice(to);
        std::fs::write(&path, bytes).unwrap();
        open(&folder)
    };
    let error = renamed(b"0.mlp.down_proj.lora_b", b"0.mlp.down_proj.lora_x").err().unwrap();
    assert!(error.message.contains("factor B of module"), "{}", error.message);
    let error = renamed(b"\"shape\":[24,2]", b"\"shape\":[2,24]").err().unwrap();
    assert!(error.message.contains("rank"), "{}", error.message);
}
