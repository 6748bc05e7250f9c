//! Checkpoints of the libraries that quantize, put together from arrays that those libraries made (the golden files of
//! `windlass-quant`): tensors get their names and shapes back, and the library's values.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/checkpoint.rs"]
mod checkpoint;

use std::path::Path;

use checkpoint::{Array, decode, save};
use safetensors::SafeTensors;
use serde_json::{Value as Json, json};
use windlass_formats::open;
use windlass_quant::float;
use windlass_tensor::{DType, Limits};

/// One tensor as a checkpoint stores it, what config.json says of it, and its values.
struct Case {
    key: String,
    config: Json,
    arrays: Vec<Array>,
    tensor: &'static str,
    scheme: String,
    shape: Vec<usize>,
    values: Vec<u8>,
    returned: DType,
}

fn config(scheme: &str, naming: &str, options: &str, returned: DType) -> Json {
    let family = scheme.split('-').next().unwrap();
    let bits = family.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap_or(4);
    let group = scheme.split_once("-g").and_then(|(_, g)| g.parse::<i64>().ok()).unwrap_or(-1);
    let quantization = match (scheme, naming) {
        _ if scheme.starts_with("gptq") => {
            let format = if naming == "v1" { "gptq" } else { "gptq_v2" };
            json!({"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": options == "act",
                   "checkpoint_format": format})
        }
        _ if scheme.starts_with("awq") => {
            json!({"quant_method": "awq", "bits": 4, "group_size": group, "version": "GEMM", "zero_point": true})
        }
        (_, "inverse") => json!({"quant_method": "fp8"}),
        (_, "gptoss") => json!({"quant_method": "mxfp4"}),
        (_, "modelopt") => json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}),
        _ => {
            let kind = if scheme.starts_with("ct") { "int" } else { "float" };
            let bits = if scheme.contains("fp4") {
                4
            } else if kind == "float" {
                8
            } else {
                bits
            };
            let weights = json!({"num_bits": bits, "type": kind, "group_size": group, "strategy": "group"});
            json!({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}})
        }
    };
    let name = match returned {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    };
    json!({"dtype": name, "quantization_config": quantization})
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for file in ["grouped", "reads"] {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../quant/tests/golden");
        let bytes = std::fs::read(golden.join(format!("{file}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut keys: Vec<String> =
            file.names().iter().filter_map(|n| Some(n.strip_suffix(".decoded")?.into())).collect();
        keys.sort_unstable();
        for key in keys {
            let dtype = |view: &safetensors::tensor::TensorView| DType::from_name(&view.dtype().to_string()).unwrap();
            let [scheme, naming, options] = key.split('.').collect::<Vec<_>>().try_into().unwrap();
            let decoded = file.tensor(&format!("{key}.decoded")).unwrap();
            let returned = dtype(&decoded);
            let (module, tensor) = match naming {
                "gptoss" => ("layers.0.experts_", "layers.0.experts.weight"),
                _ => ("layers.0.up_proj.", "layers.0.up_proj.weight"),
            };
            let mut arrays = vec![Array::new("norm.weight", DType::F16, &[4], vec![0; 8])];
            for name in file.names() {
                let Some(part) = name.strip_prefix(&format!("{key}.")) else { continue };
                if !["decoded", "input"].contains(&part) {
                    let view = file.tensor(name).unwrap();
                    arrays.push(Array::new(
                        &format!("{module}{part}"),
                        dtype(&view),
                        view.shape(),
                        view.data().to_vec(),
                    ));
                }
            }
            cases.push(Case {
                config: config(scheme, naming, options, returned),
                arrays,
                tensor,
                scheme: scheme.into(),
                shape: decoded.shape().to_vec(),
                values: decoded.data().to_vec(),
                returned,
                key: key.clone(),
            });
        }
    }
    cases
}

#[test]
fn checkpoints_have_the_tensors_and_values_of_their_libraries() {
    let cases = cases();
    assert!(cases.len() >= 35, "{}", cases.len());
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &case.config, &case.arrays);
        let source = open(folder.path(), &Limits::default()).unwrap_or_else(|e| panic!("{}: {e}", case.key));
        let names: Vec<&str> = source.tensors().iter().map(|t| t.name()).collect();
        assert_eq!(names.len(), 2, "{}: {names:?}", case.key);
        assert!(names.contains(&"norm.weight"));
        let entry = source.tensor(case.tensor).unwrap_or_else(|| panic!("{}: {names:?}", case.key));
        assert_eq!((entry.element().name(), entry.shape()), (case.scheme.as_str(), &case.shape[..]), "{}", case.key);
        let mut bytes = vec![0; case.values.len()];
        float::from_f32(case.returned, &decode(&source, entry), &mut bytes).unwrap();
        let read = |bytes: &[u8]| {
            let mut values = vec![0.0; bytes.len() / case.returned.size()];
            float::to_f32(case.returned, bytes, &mut values).unwrap();
            values
        };
        let (ours, theirs) = (read(&bytes), read(&case.values));
        let differ = ours.iter().zip(&theirs).filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count();
        assert_eq!(differ, 0, "{}: {differ} values of {}", case.key, ours.len());
    }
}

#[test]
fn libraries_are_listed_once() {
    let mut names: Vec<&str> = windlass_formats::libraries::libraries().map(|library| library.name()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// GPTQModel can give modules widths of their own (`dynamic`); the arrays say them.
#[test]
fn exceptions_of_gptq_are_read_off_the_arrays() {
    let cases = cases();
    let two: Vec<&Case> =
        cases.iter().filter(|c| c.key == "gptq4-g32.v2.plain" || c.key == "gptq8-g128.v2.act").collect();
    let [four, eight] = two[..] else { panic!("{}", two.len()) };
    let mut config = four.config.clone();
    config["quantization_config"]["dynamic"] = json!({"+:.*down_proj": {"bits": 8, "group_size": 128}});
    let renamed =
        eight.arrays.iter().skip(1).map(|array| Array { name: array.name.replace("up_", "down_"), ..array.clone() });
    let arrays: Vec<Array> = four.arrays.iter().cloned().chain(renamed).collect();
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &config, &arrays);
    let source = open(folder.path(), &Limits::default()).unwrap();
    let element = |name: &str| source.tensor(name).unwrap().element().name().to_string();
    assert_eq!(element("layers.0.up_proj.weight"), "gptq4-g32");
    assert_eq!(element("layers.0.down_proj.weight"), "gptq8-g128");
    config["quantization_config"].as_object_mut().unwrap().remove("dynamic");
    save(folder.path(), &config, &arrays);
    let error = open(folder.path(), &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("down_proj.weight") && error.contains("config.json says 4 bits"), "{error}");
}

/// A group that does not exist is found when rows are read, and the error names the tensor.
#[test]
fn an_order_that_points_outside_is_refused_when_it_is_read() {
    let case = cases().into_iter().find(|c| c.key == "gptq4-g128.v1.act").unwrap();
    let mut arrays = case.arrays.clone();
    let g_idx = arrays.iter_mut().find(|a| a.name.ends_with("g_idx")).unwrap();
    g_idx.bytes[40..44].copy_from_slice(&9i32.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &case.config, &arrays);
    let source = open(folder.path(), &Limits::default()).unwrap();
    let entry = source.tensor(case.tensor).unwrap();
    let mut planes = checkpoint::planes(entry);
    let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
    let error = source.read_rows(entry, entry.columns(), 0, entry.rows(), &mut slices).unwrap_err().to_string();
    assert!(error.contains(case.tensor) && error.contains("column 10 into group 9, expected 0 to 1"), "{error}");
}

/// What older programs said in a file of its own is what newer ones say in config.json, and it goes when nothing is packed.
#[test]
fn older_descriptions_are_read() {
    let golden =
        |kind: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../windlass/tests/golden/libraries").join(kind);
    for (kind, file, scheme) in [
        ("gptq4-sym-g32", "quantize_config.json", "gptq4-g32"),
        ("awq4-g32", "quant_config.json", "awq4-g32"),
        ("modelopt-nvfp4", "hf_quant_config.json", "nvfp4-modelopt"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(golden(kind).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let text = std::fs::read(golden(kind).join("config.json")).unwrap();
        let mut config: Json = serde_json::from_slice(&text).unwrap();
        let mut said = config.as_object_mut().unwrap().remove("quantization_config").unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let open = || windlass_formats::open(folder.path(), &Limits::default());
        let packed = |source: &windlass_formats::Source| {
            source.tensors().iter().filter(|entry| entry.element().name() == scheme).count()
        };
        said.as_object_mut().unwrap().remove("quant_method");
        if kind.starts_with("awq") {
            said = json!({"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMM"});
        }
        if kind.starts_with("modelopt") {
            said = json!({"producer": {"name": "modelopt"}, "quantization": said});
        }
        std::fs::write(folder.path().join(file), said.to_string()).unwrap();
        assert_eq!(packed(&open().unwrap()), 14, "{kind}");
        std::fs::write(folder.path().join(file), said.to_string().replace('4', "3").replace("32", "64")).unwrap();
        assert!(open().is_err(), "{kind}: what is said does not matter");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("qmodel.pt"), "").unwrap();
    let error = windlass_formats::open(folder.path(), &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("save_to_safetensors"), "{error}");
}
