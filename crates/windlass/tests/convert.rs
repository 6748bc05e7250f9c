//! Conversions of a small model made on the spot: there and back, kill and resume, bad input.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{Bench, files, files_beside, values, write_gguf};
use windlass::convert::{Conversion, Options, Watch};
use windlass::tensor::{Element, Limits};
use windlass::{Code, Model};

#[test]
fn there_and_back_through_gguf_is_equal_to_the_byte() {
    let bench = Bench::new();
    let report = bench.convert("model", "m.gguf", None).unwrap();
    assert_eq!((report.requantized, report.max_relative_error), (0, 0.0));
    bench.convert("m.gguf", "back", None).unwrap();
    assert_eq!(files(&bench.path("model")), files(&bench.path("back")));
}

#[test]
fn there_and_back_through_mlx_keeps_every_file() {
    let bench = Bench::new();
    bench.convert("model", "mlx", Some("mlx8-g32")).unwrap();
    bench.convert("mlx", "back", None).unwrap();
    let (before, after) = (files(&bench.path("model")), files(&bench.path("back")));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, bytes) in before.iter().filter(|(name, _)| *name != "model.safetensors") {
        assert_eq!(bytes, &after[name], "{name}");
    }
}

#[test]
fn quantized_values_come_back_as_the_scheme_decodes_them() {
    let bench = Bench::new();
    for scheme in ["f16", "q8_0", "q4_0"] {
        let (gguf, back) = (format!("{scheme}.gguf"), format!("{scheme}-back"));
        bench.convert("model", &gguf, Some(scheme)).unwrap();
        bench.convert(&gguf, &back, None).unwrap();
        let (quantized, restored) = (bench.open(&gguf), bench.open(&back));
        let decoded = values(&quantized, "blk.1.ffn_down.weight");
        let restored = values(&restored, "model.layers.1.mlp.down_proj.weight");
        let expected: Vec<f32> = decoded.iter().map(|v| half_to_even_bf16(*v)).collect();
        assert_eq!(restored, expected, "{scheme}");
    }
}

fn half_to_even_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// An importance matrix in the old binary format, with so many ones for each tensor.
fn ones(path: &Path, tensors: &[(&str, usize)]) {
    let word = |n: usize| (n as i32).to_le_bytes();
    let mut bytes = word(tensors.len()).to_vec();
    for (name, columns) in tensors {
        bytes.extend(word(name.len()));
        bytes.extend(name.as_bytes());
        bytes.extend([word(1), word(*columns)].concat());
        bytes.extend(1f32.to_le_bytes().repeat(*columns));
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_importance_matrix_of_another_model_is_refused() {
    let bench = Bench::new();
    let columns = bench.open("model").source.tensor("model.layers.0.self_attn.q_proj.weight").unwrap().columns();
    let convert = |scheme: &str, tensors: &[(&str, usize)]| {
        ones(&bench.path("importance.dat"), tensors);
        let imatrix = Some(bench.path("importance.dat"));
        let _ = std::fs::remove_file(bench.path("m.gguf"));
        bench.convert_with("model", "m.gguf", Options { scheme: Some(scheme.into()), imatrix, ..Options::default() })
    };
    convert("q4_0", &[("blk.0.attn_q.weight", columns), ("token_embd.weight", 7)]).unwrap();
    let error = convert("q4_0", &[("blk.0.attn_q.weight", columns + 1)]).unwrap_err();
    assert_eq!((error.code, error.tensor.as_deref()), (Code::Refused, Some("blk.0.attn_q.weight")), "{error}");
    assert!(error.to_string().contains(&format!("{} weights", columns + 1)), "{error}");
}

#[test]
fn exact_repacking_goes_both_ways() {
    let bench = Bench::new();
    bench.convert_with("model", "q.gguf", pure("q4_0")).unwrap();
    let decoded = bench.convert("q.gguf", "hf", None).unwrap();
    assert_eq!(decoded.schemes.keys().collect::<Vec<_>>(), ["bf16"], "Hugging Face folders hold no packed tensors");
    let options = Options { to: Some("mlx".into()), ..Options::default() };
    let report = bench.convert_with("q.gguf", "mlx", options).unwrap();
    assert!(report.repacked > 40 && report.requantized == 0, "{report:?}");
    let (gguf, mlx) = (bench.open("q.gguf"), bench.open("mlx"));
    let name = "model.layers.0.self_attn.v_proj.weight";
    let (a, b) = (values(&gguf, "blk.0.attn_v.weight"), values(&mlx, name));
    // The grids are equal; MLX then rounds each product and sum to half precision.
    let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 2e-3 * largest));
}

fn pure(scheme: &str) -> Options {
    Options { scheme: Some(scheme.into()), pure: true, ..Options::default() }
}

#[test]
fn the_number_of_threads_does_not_change_a_byte() {
    let bench = Bench::new();
    for threads in [1, 3] {
        let options = Options { threads, scheme: Some("q4_k_m".into()), ..Options::default() };
        bench.convert_with("model", &format!("{threads}.gguf"), options).unwrap();
    }
    assert!(std::fs::read(bench.path("1.gguf")).unwrap() == std::fs::read(bench.path("3.gguf")).unwrap());
}

#[test]
fn an_interrupted_conversion_resumes_to_the_same_bytes() {
    let bench = Bench::new();
    bench.convert("model", "whole.gguf", Some("q4_k_m")).unwrap();
    let options = || Options { scheme: Some("q4_k_m".into()), threads: 1, ..Options::default() };
    let source = bench.path("model").to_string_lossy().into_owned();
    let target = bench.path("cut.gguf");
    let stop = AtomicBool::new(false);
    // The first call of `progress` comes from the middle of the work; small models may end before it.
    let plan = Conversion::plan(&source, &target, options()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let journal = bench.path("cut.gguf.partial.journal");
            while std::fs::metadata(&journal).map_or(0, |m| m.len()) < 200 && !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            stop.store(true, Ordering::Relaxed);
        });
        let result = plan.run(&Watch { stop: &stop, progress: &|_, _| {} });
        stop.store(true, Ordering::Relaxed);
        let error = result.expect_err("the conversion should have been interrupted");
        assert!(error.resumable && error.help.unwrap().contains("--resume"));
    });
    assert!(!target.exists());
    assert!(bench.path("cut.gguf.partial").exists());
    bench.convert_with("model", "cut.gguf", Options { resume: true, ..options() }).unwrap();
    // The name of the model inside differs with the file's name only if the folder's does, so bytes are equal.
    assert!(std::fs::read(bench.path("whole.gguf")).unwrap() == std::fs::read(&target).unwrap());
    assert!(!bench.path("cut.gguf.partial").exists() && !bench.path("cut.gguf.partial.journal").exists());
}

#[test]
fn parts_are_split_and_joined() {
    let bench = Bench::new();
    let options = Options { part_size: Some(3 << 20), ..Options::default() };
    bench.convert_with("model", "split", options.clone()).unwrap();
    assert!(bench.path("split/model.safetensors.index.json").exists());
    bench.convert_with("split", "s.gguf", options).unwrap();
    let first = std::fs::read_dir(bench.folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut parts: Vec<_> = first.filter(|n| n.starts_with("s-0000")).collect();
    parts.sort();
    assert!(parts.len() >= 3, "{parts:?}");
    bench.convert(&parts[0], "back", None).unwrap();
    let (a, b) = (files(&bench.path("model")), files(&bench.path("back")));
    assert!(a["model.safetensors"] == b["model.safetensors"]);
}

#[test]
fn a_target_that_exists_is_left_alone() {
    let bench = Bench::new();
    std::fs::write(bench.path("m.gguf"), "mine").unwrap();
    let error = bench.convert("model", "m.gguf", None).unwrap_err();
    assert!(error.help.unwrap().contains("--overwrite"));
    assert_eq!(std::fs::read(bench.path("m.gguf")).unwrap(), b"mine");
    bench.convert_with("model", "m.gguf", Options { overwrite: true, ..Options::default() }).unwrap();
    assert!(std::fs::read(bench.path("m.gguf")).unwrap().starts_with(b"GGUF"));
}

#[test]
fn a_value_that_is_not_a_number_is_refused_and_nothing_is_written() {
    let bench = Bench::new();
    let path = bench.path("model/model.safetensors");
    let offset = {
        let model = bench.open("model");
        let entry = model.source.tensor("model.layers.2.mlp.up_proj.weight").unwrap();
        entry.planes()[0].offset as usize + 2 * 700
    };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset..offset + 2].copy_from_slice(&[0xc0, 0x7f]);
    std::fs::write(&path, bytes).unwrap();
    let error = bench.convert("model", "m.gguf", Some("q4_k_m")).unwrap_err();
    assert_eq!(error.code, Code::Refused);
    assert_eq!(error.tensor.as_deref(), Some("model.layers.2.mlp.up_proj.weight"));
    assert!(error.message.contains("NaN in row 2, column 188"), "{error}");
    let left: Vec<_> = files_beside(&bench);
    assert_eq!(left, ["model"]);
}

#[test]
fn a_truncated_model_is_refused_with_file_tensor_and_offset() {
    let bench = Bench::new();
    let path = bench.path("model/model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1000]).unwrap();
    let error = bench.convert("model", "m.gguf", None).unwrap_err();
    assert_eq!(error.code, Code::Refused);
    assert!(error.path.is_some_and(|p| p.ends_with("model.safetensors")));
    assert!(error.help.is_some());
}

#[test]
fn a_missing_tensor_and_a_foreign_config_are_named() {
    let bench = Bench::new();
    let config = bench.path("model/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"num_hidden_layers\": 6", "\"num_hidden_layers\": 7")).unwrap();
    let error = bench.convert("model", "m.gguf", None).unwrap_err();
    assert_eq!(error.code, Code::Refused);
    assert!(error.tensor.is_some_and(|t| t.starts_with("model.layers.6.")));
    std::fs::write(&config, text.replace("\"intermediate_size\": 768", "\"intermediate_size\": 512")).unwrap();
    let error = bench.convert("model", "m.gguf", None).unwrap_err();
    assert!(error.message.contains("[512, 256]") && error.message.contains("[768, 256]"), "{error}");
}

#[test]
fn an_impossible_pair_is_wrong_usage() {
    let bench = Bench::new();
    let options = Options { to: Some("safetensors".into()), scheme: Some("q4_k".into()), ..Options::default() };
    let error = bench.convert_with("model", "out", options).unwrap_err();
    assert_eq!(error.code, Code::Usage);
    assert!(error.help.unwrap().contains("bf16"));
    let error = bench.convert("model", "m.gguf", Some("q4_k_n")).unwrap_err();
    assert_eq!(error.code, Code::Usage);
    assert!(error.message.contains("q4_k_m") || error.message.contains("q4_k_s"), "{error}");
}

#[test]
fn a_gate_that_is_not_met_leaves_nothing() {
    let bench = Bench::new();
    let options = Options { scheme: Some("q2_k".into()), max_error: Some(0.01), ..Options::default() };
    let error = bench.convert_with("model", "m.gguf", options).unwrap_err();
    assert_eq!(error.code, Code::Gate);
    assert_eq!(files_beside(&bench), ["model"]);
}

#[test]
fn a_limit_too_small_for_one_block_is_out_of_memory() {
    let bench = Bench::new();
    let options = Options { memory_limit: 1 << 20, ..Options::default() };
    assert_eq!(bench.convert_with("model", "m.gguf", options).unwrap_err().code, Code::Memory);
}

#[test]
fn gguf_vectors_are_f32_and_tied_embeddings_are_written_once() {
    let bench = Bench::new();
    bench.convert("model", "m.gguf", Some("q4_k_m")).unwrap();
    let model = bench.open("m.gguf");
    assert!(model.source.tensor("output.weight").is_none());
    let norm = model.source.tensor("blk.0.attn_norm.weight").unwrap();
    assert_eq!(norm.element(), &Element::Plain(windlass::tensor::DType::F32));
    assert_eq!(model.source.tensor("token_embd.weight").unwrap().element().name(), "q6_k");
}

/// A GGUF as other tools make them: without our keys.
fn make_foreign(bench: &Bench, scheme: &str) {
    bench.convert("model", "ours.gguf", Some(scheme)).unwrap();
    let ours = bench.open("ours.gguf");
    let keep = ours.source.metadata().iter().filter(|(k, _)| !k.starts_with("windlass."));
    let mut metadata: windlass::tensor::Metadata = keep.map(|(k, v)| (k.to_string(), v.clone())).collect();
    metadata.set("general.license", "mit");
    write_gguf(bench, &ours, metadata, "foreign.gguf");
}

#[test]
fn a_gguf_from_elsewhere_gets_its_float_type_configuration_and_tokenizer_back() {
    let bench = Bench::new();
    make_foreign(&bench, "bf16");
    bench.convert("foreign.gguf", "hf", None).unwrap();
    let restored = bench.open("hf");
    let original = bench.open("model");
    for entry in original.source.tensors() {
        let back = restored.source.tensor(entry.name()).unwrap();
        assert_eq!(back.element(), entry.element(), "{}", entry.name());
        assert_eq!(values(&restored, entry.name()), values(&original, entry.name()));
    }
    let text = "Der Anker hält, 锚 ⚓ <|im_end|>";
    let tokens = |m: &Model| m.tokenizer(&Limits::default()).unwrap().encode(text, false).unwrap();
    assert_eq!(tokens(&restored), tokens(&original));
    let report = bench.convert("hf", "again.gguf", None).unwrap();
    assert_eq!(report.requantized, 0);
    let again = bench.open("again.gguf");
    assert_eq!(again.source.metadata().get("general.license").and_then(|v| v.as_str()), Some("mit"));
}

#[test]
fn a_user_adds_a_container_without_touching_the_crates() {
    use windlass::formats::{
        Container, Error, Extent, Layout, LayoutPart, Probe, Problem, Source, SourceBuilder, Target,
    };
    struct Raw;
    impl Container for Raw {
        fn name(&self) -> &'static str {
            "raw"
        }
        fn description(&self) -> &'static str {
            "the words RAW! and f32 values"
        }
        fn convention(&self) -> windlass::catalog::Convention {
            windlass::catalog::Convention::Hf
        }
        fn detect(&self, probe: &Probe) -> bool {
            probe.head.starts_with(b"RAW!")
        }
        fn open(&self, path: &Path, limits: &Limits) -> Result<Source, Error> {
            let mut builder = SourceBuilder::new("raw", "1", path, limits);
            let part = builder.part(path, std::sync::Arc::new(windlass::formats::files::open(path)?))?;
            let length = builder.part_length(part) - 4;
            let extent = Extent { part, offset: 4, length };
            builder.tensor(
                "all".into(),
                windlass::tensor::DType::F32.into(),
                vec![length as usize / 4],
                vec![extent],
            )?;
            Ok(builder.build())
        }
        fn verify(&self, _: &Source, _: &Limits) -> Result<Vec<Problem>, Error> {
            Ok(Vec::new())
        }
        fn can_hold(&self, element: &Element) -> bool {
            *element == Element::Plain(windlass::tensor::DType::F32)
        }
        fn layout(&self, target: &Target) -> Result<Layout, Error> {
            let length = target.tensors[0].shape[0] as u64 * 4;
            let parts = vec![LayoutPart::new(String::new(), b"RAW!".to_vec(), length + 4)];
            let tensors = vec![vec![Extent { part: 0, offset: 4, length }]];
            Ok(Layout { parts, tensors, ..Layout::default() })
        }
    }
    windlass::formats::register(Box::new(Raw));
    let bench = Bench::new();
    let bytes: Vec<u8> = b"RAW!".iter().copied().chain(1.5f32.to_le_bytes()).chain(2.5f32.to_le_bytes()).collect();
    std::fs::write(bench.path("in.raw"), &bytes).unwrap();
    bench.convert("in.raw", "mid.safetensors", None).unwrap();
    assert_eq!(values(&bench.open("mid.safetensors"), "all"), [1.5, 2.5]);
    bench.convert_with("mid.safetensors", "out.raw", Options { to: Some("raw".into()), ..Options::default() }).unwrap();
    assert_eq!(std::fs::read(bench.path("out.raw")).unwrap(), bytes);
}

#[test]
fn a_journal_without_its_bytes_is_not_believed() {
    let bench = Bench::new();
    bench.convert("model", "whole.gguf", Some("q8_0")).unwrap();
    bench.convert("model", "cut.gguf", Some("q8_0")).unwrap();
    // As if the unfinished target of an interrupted run had been removed, and its journal not.
    let stop = AtomicBool::new(true);
    let options = Options { scheme: Some("q8_0".into()), overwrite: true, ..Options::default() };
    let plan = Conversion::plan(bench.path("model"), &bench.path("cut.gguf"), options.clone()).unwrap();
    assert!(plan.run(&Watch { stop: &stop, progress: &|_, _| {} }).unwrap_err().resumable);
    std::fs::remove_file(bench.path("cut.gguf.partial")).unwrap();
    bench.convert_with("model", "cut.gguf", Options { resume: true, ..options }).unwrap();
    assert!(std::fs::read(bench.path("whole.gguf")).unwrap() == std::fs::read(bench.path("cut.gguf")).unwrap());
}

#[test]
fn a_folder_that_is_not_a_model_or_holds_the_source_is_never_replaced() {
    let bench = Bench::new();
    let overwrite = || Options { overwrite: true, ..Options::default() };
    std::fs::create_dir(bench.path("mine")).unwrap();
    std::fs::write(bench.path("mine/thesis.txt"), "years of work").unwrap();
    assert!(bench.convert_with("model", "mine", overwrite()).unwrap_err().message.contains("does not hold a model"));
    assert!(bench.convert_with("model", "model", overwrite()).unwrap_err().message.contains("holds the source"));
    assert!(bench.path("mine/thesis.txt").exists() && bench.path("model/config.json").exists());
}

#[test]
fn keys_of_a_file_cannot_replace_weights_or_leave_the_folder() {
    let bench = Bench::new();
    bench.convert("model", "m.gguf", None).unwrap();
    let model = bench.open("m.gguf");
    let mut metadata = model.source.metadata().clone();
    for name in ["model.safetensors", "../evil.json", "evil.py", "model.safetensors.index.json"] {
        metadata.set(format!("windlass.file.{name}"), "evil");
    }
    write_gguf(&bench, &model, metadata, "evil.gguf");
    bench.convert("evil.gguf", "out", None).unwrap();
    assert_eq!(files(&bench.path("model")), files(&bench.path("out")));
    assert!(!bench.path("evil.json").exists());
}

#[test]
fn bare_weights_take_configuration_and_tokenizer_from_another_folder() {
    let bench = Bench::new();
    std::fs::copy(bench.path("model/model.safetensors"), bench.path("bare.safetensors")).unwrap();
    let options = || Options { config_from: Some(bench.path("model")), ..Options::default() };
    bench.convert_with("bare.safetensors", "bare.gguf", options()).unwrap();
    bench.convert("bare.gguf", "back", None).unwrap();
    assert_eq!(files(&bench.path("model")), files(&bench.path("back")));
    bench.convert_with("bare.safetensors", "mlx", Options { scheme: Some("mlx4-g64".into()), ..options() }).unwrap();
    assert_eq!(bench.open("mlx").source.container(), "mlx");
}

#[test]
fn rules_know_the_names_of_gguf_whatever_the_containers() {
    let bench = Bench::new();
    std::fs::write(bench.path("r.toml"), "[[rule]]\nmatch = \"blk.*.ffn_down.weight\"\nscheme = \"f16\"\n").unwrap();
    let options = Options { recipe: Some(bench.path("r.toml")), ..Options::default() };
    let report = bench.convert_with("model", "out", options).unwrap();
    assert_eq!(report.schemes.get("f16"), Some(&6), "{report:?}");
}

#[test]
fn what_a_float_cannot_hold_is_measured_too() {
    let bench = Bench::new();
    let tiny: Vec<u8> = (0..64).flat_map(|i| (i as f32 * 1e-9).to_le_bytes()).collect();
    let header = r#"{"x":{"dtype":"F32","shape":[2,32],"data_offsets":[0,256]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &tiny].concat();
    std::fs::write(bench.path("tiny.safetensors"), bytes).unwrap();
    let options = Options { scheme: Some("f16".into()), max_error: Some(0.01), ..Options::default() };
    assert_eq!(bench.convert_with("tiny.safetensors", "t.safetensors", options).unwrap_err().code, Code::Gate);
}

/// Gemma's norms gain one on the way to GGUF; a gain below the last place of one must come back all the same.
#[test]
fn gains_too_small_to_be_added_to_one_come_back() {
    use windlass::formats::{Target, TargetTensor, container};
    let bench = Bench::new();
    let config = serde_json::json!({
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_size": 64, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 8,
        "query_pre_attn_scalar": 32, "sliding_window": 16, "rms_norm_eps": 1e-6, "max_position_embeddings": 32,
    });
    let (architecture, hyper) = windlass::catalog::from_hf_config(&config).unwrap();
    let pieces = architecture.pieces(&hyper).unwrap();
    let places = pieces.iter().filter(|p| p.required).map(|p| p.places(windlass::catalog::Convention::Hf)[0].clone());
    let tensor = |p: windlass::catalog::Place| TargetTensor {
        name: p.tensor,
        element: windlass::tensor::DType::BF16.into(),
        shape: p.shape,
    };
    let target = Target {
        tensors: places.map(tensor).collect(),
        files: vec![("config.json".into(), config.to_string().into_bytes())],
        ..Target::default()
    };
    let layout = container("safetensors").unwrap().layout(&target).unwrap();
    let values = |i: usize| {
        let count: usize = target.tensors[i].shape.iter().product();
        // 1.99 x 2^-26: far below the last place of one.
        (0..count).flat_map(|n| if n % 3 == 0 { [0xff, 0x32] } else { [0x80, 0x3e] }).collect()
    };
    windlass::convert::write_layout(&bench.path("gemma"), &layout, |i| Ok(values(i))).unwrap();
    bench.convert("gemma", "g.gguf", None).unwrap();
    assert_eq!(values_of_norm(&bench.open("g.gguf")), [1.0, 1.25, 1.25]);
    bench.convert("g.gguf", "back", None).unwrap();
    assert_eq!(files(&bench.path("gemma")), files(&bench.path("back")));
}

fn values_of_norm(gguf: &Model) -> Vec<f32> {
    values(gguf, "output_norm.weight")[..3].to_vec()
}
