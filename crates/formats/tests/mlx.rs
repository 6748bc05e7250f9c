//! MLX folders as mlx_lm writes them, and NumPy archives: what is read, and what is written back.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/model.rs"]
mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{fnv, golden, planes, target, write};
use serde_json::Value;
use windlass_formats::{Error, Source, Target, TargetTensor, container, open};
use windlass_quant::{Packing, scheme};
use windlass_tensor::{DType, Element, Limits};

fn read(path: &Path) -> Source {
    open(path, &Limits::default()).unwrap()
}

fn packing(element: &Element) -> Option<&Packing> {
    match element {
        Element::Packed(layout) => layout.as_any().downcast_ref(),
        Element::Plain(_) => None,
    }
}

/// Packed tensors decode to what MLX makes of them.
fn assert_values(source: &Source, values: &Path) {
    let expected: BTreeMap<String, Value> = serde_json::from_slice(&std::fs::read(values).unwrap()).unwrap();
    let packed = source.tensors().iter().filter(|t| packing(t.element()).is_some());
    assert_eq!(packed.count(), expected.len());
    for (name, facts) in expected {
        let tensor = source.tensor(&name).unwrap();
        assert_eq!(serde_json::json!(tensor.shape()), facts["shape"], "{name}");
        let packing = packing(tensor.element()).unwrap();
        let planes = planes(source, &name);
        let planes: Vec<&[u8]> = planes.iter().map(Vec::as_slice).collect();
        let mut decoded = vec![0f32; tensor.values() as usize];
        // MLX computes scales of the small floats in the type of its output.
        packing.scheme.decode(&planes, tensor.columns(), packing.float, &mut decoded).unwrap();
        let bytes: Vec<u8> = decoded.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(fnv(&bytes), facts["fnv"], "{name} in {}", packing.scheme.name());
    }
}

fn schemes(source: &Source) -> BTreeMap<&str, &str> {
    source.tensors().iter().map(|t| (t.name(), t.element().name())).collect()
}

const FOLDERS: [&str; 4] = ["affine", "mixed", "experts", "old"];

#[test]
fn packed_folders_are_read_as_mlx_reads_them() {
    for name in FOLDERS {
        let source = read(&golden("mlx").join(name));
        assert_eq!(source.container(), "mlx", "{name}");
        assert_values(&source, &golden("mlx").join(format!("{name}.values.json")));
        let problems = container("mlx").unwrap().verify(&source, &Limits::default()).unwrap();
        assert_eq!(problems, [], "{name}");
    }
}

#[test]
fn each_layer_has_its_own_scheme() {
    let source = read(&golden("mlx/mixed"));
    let found = schemes(&source);
    assert_eq!(found["model.layers.0.mlp.up_proj.weight"], "mlx-mxfp4");
    assert_eq!(found["model.layers.0.mlp.down_proj.weight"], "mlx8-g64");
    assert_eq!(found["model.layers.0.self_attn.k_proj.weight"], "mlx-nvfp4");
    assert_eq!(found["model.layers.0.self_attn.v_proj.weight"], "mlx3-g32");
    assert_eq!(found["lm_head.weight"], "F16");
    assert_eq!(found["model.norm.weight"], "F16");
    let experts = read(&golden("mlx/experts"));
    assert_eq!(experts.tensor("switch.weight").unwrap().shape(), [3, 8, 64]);
    let old = read(&golden("mlx/old"));
    assert_eq!(schemes(&old), BTreeMap::from([("layers.0.weight", "mlx4-g64"), ("norm.weight", "BF16")]));
    assert_eq!(planes(&old, "norm.weight")[0], [0x80, 0x3f].repeat(4));
}

#[test]
fn a_plain_folder_is_mlx_by_its_metadata() {
    let plain = read(&golden("mlx/plain"));
    assert_eq!(plain.container(), "mlx");
    assert!(plain.tensors().iter().all(|t| t.element().dtype() == Some(DType::F16)));
    assert_eq!(read(&golden("safetensors/llama")).container(), "safetensors");
}

/// Where the folders written by these tests are left for MLX to look at.
fn out(name: &str) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mlx").join(name);
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out).unwrap();
    out
}

#[test]
fn what_is_written_reads_the_same() {
    for (name, part_size) in FOLDERS.into_iter().chain(["plain"]).flat_map(|name| [(name, None), (name, Some(9000))]) {
        let source = read(&golden("mlx").join(name));
        let path = out(&format!("{name}{}", if part_size.is_some() { "-parts" } else { "" }));
        let layout = write(container("mlx").unwrap(), &source, &target(&source, part_size), &path);
        assert!(layout.folder);
        assert_eq!(layout.parts.len() > 1, part_size.is_some() && source.bytes() > 9000, "{name}");
        let again = read(&path);
        assert_eq!(again.container(), "mlx");
        assert_eq!(schemes(&again), schemes(&source), "{name}");
        for tensor in source.tensors() {
            assert_eq!(again.tensor(tensor.name()).unwrap().shape(), tensor.shape());
            assert_eq!(planes(&again, tensor.name()), planes(&source, tensor.name()), "{name}");
        }
        assert_eq!(container("mlx").unwrap().verify(&again, &Limits::default()).unwrap(), [], "{name}");
    }
}

#[test]
fn the_commonest_packing_is_the_default_in_the_config() {
    let source = read(&golden("mlx/mixed"));
    let layout = container("mlx").unwrap().layout(&target(&source, None)).unwrap();
    let (_, config) = layout.files.iter().find(|(name, _)| name == "config.json").unwrap();
    let theirs = std::fs::read(golden("mlx/mixed/config.json")).unwrap();
    let (ours, theirs): (Value, Value) =
        (serde_json::from_slice(config).unwrap(), serde_json::from_slice(&theirs).unwrap());
    let mut expected = theirs.clone();
    for key in ["quantization", "quantization_config"] {
        expected[key]["model.layers.0.self_attn.v_proj"]["mode"] = "affine".into();
    }
    assert_eq!(ours, expected);
    let order: Vec<_> = ours.as_object().unwrap().keys().take(3).cloned().collect();
    assert_eq!(order, ["hidden_size", "intermediate_size", "model_type"]);
    assert!(String::from_utf8_lossy(config).contains("\"rms_norm_eps\": 1e-06"));
}

#[test]
fn a_config_loses_what_is_no_longer_true() {
    let source = read(&golden("mlx/plain"));
    let mut wanted = target(&source, None);
    let config = r#"{"a": 1, "quantization": {"bits": 4, "group_size": 64}, "quantization_config": {"bits": 4}}"#;
    wanted.files = vec![("config.json".into(), config.into())];
    for name in ["mlx", "safetensors"] {
        let layout = container(name).unwrap().layout(&wanted).unwrap();
        let (_, config) = layout.files.iter().find(|(name, _)| name == "config.json").unwrap();
        assert_eq!(serde_json::from_slice::<Value>(config).unwrap(), serde_json::json!({"a": 1}), "{name}");
    }
    wanted.files.clear();
    let error = container("mlx").unwrap().layout(&wanted).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
}

#[test]
fn what_it_cannot_hold_is_an_error() {
    let mlx = container("mlx").unwrap();
    let packed = |name| Packing { scheme: scheme(name).unwrap(), float: DType::F32 }.element();
    assert!(mlx.can_hold(&packed("mlx-nvfp4")));
    assert!(!mlx.can_hold(&packed("q4_0")));
    assert!(!mlx.can_hold(&DType::F8E4M3.into()));
    let layout = |name: &str, element| {
        let tensors = vec![TargetTensor { name: name.into(), element, shape: vec![1, 64] }];
        mlx.layout(&Target { tensors, ..Target::default() }).unwrap_err()
    };
    assert!(matches!(layout("x.weight", packed("q4_0")), Error::CannotHold { .. }));
    assert!(layout("x.codes", packed("mlx4-g64")).to_string().contains(".weight"));
}

#[test]
fn archives_are_read_as_numpy_wrote_them() {
    let source = read(&golden("npz/types.npz"));
    assert_eq!(source.container(), "npz");
    let expected = [
        ("bool", "BOOL"),
        ("c8", "C64"),
        ("column", "F32"),
        ("empty", "F32"),
        ("f2", "F16"),
        ("f4", "F32"),
        ("f8", "F64"),
        ("i1", "I8"),
        ("i2", "I16"),
        ("i4", "I32"),
        ("i8", "I64"),
        ("scalar", "F32"),
        ("u1", "U8"),
        ("u2", "U16"),
        ("u4", "U32"),
        ("u8", "U64"),
    ];
    assert_eq!(schemes(&source), BTreeMap::from(expected));
    for name in ["u1", "i1"] {
        assert_eq!(source.tensor(name).unwrap().shape(), [2, 3]);
        assert_eq!(planes(&source, name)[0], [0, 1, 2, 3, 4, 5]);
    }
    let floats: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    assert_eq!(planes(&source, "f4")[0], floats);
    let complex: Vec<u8> = (0..6).flat_map(|i| [i as f32, 0.0]).flat_map(f32::to_le_bytes).collect();
    assert_eq!(planes(&source, "c8")[0], complex);
    assert_eq!(source.tensor("scalar").unwrap().shape(), [] as [usize; 0]);
    assert_eq!(planes(&source, "scalar")[0], 1.5f32.to_le_bytes());
    assert_eq!(source.tensor("empty").unwrap().shape(), [0, 3]);
    let one = read(&golden("npz/one.npy"));
    assert_eq!(planes(&one, "arr_0")[0], floats[..16]);
    let npz = container("npz").unwrap();
    assert_eq!(npz.verify(&source, &Limits::default()).unwrap(), []);
    assert!(npz.can_hold(&DType::BF16.into()) && !npz.can_hold(&DType::F8E4M3.into()));
    // The header of an array is that which NumPy wrote.
    let tensor = TargetTensor { name: "f4".into(), element: DType::F32.into(), shape: vec![2, 3] };
    let layout = npz.layout(&Target { tensors: vec![tensor], ..Target::default() }).unwrap();
    let values = layout.tensors[0][0].offset as usize;
    let theirs = std::fs::read(golden("npz/types.npz")).unwrap();
    let at = source.tensor("f4").unwrap().planes()[0].offset as usize;
    assert_eq!(layout.parts[0].head[values - 128..values], theirs[at - 128..at]);
}

#[test]
fn a_changed_value_breaks_the_checksum_of_an_archive() {
    let mut bytes = std::fs::read(golden("npz/types.npz")).unwrap();
    let source = read(&golden("npz/types.npz"));
    bytes[source.tensor("f8").unwrap().planes()[0].offset as usize] ^= 1;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let problems = container("npz").unwrap().verify(&read(file.path()), &Limits::default()).unwrap();
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].code, problems[0].tensor.as_deref()), ("checksum", Some("f8.npy")));
}
