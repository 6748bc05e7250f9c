//! SafeTensors files and folders as their own libraries write them: what is read, and what is written back.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/model.rs"]
mod model;

use std::collections::BTreeMap;
use std::path::Path;

use model::{fnv, golden, planes, target, write};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::Value;
use windlass_formats::{Error, Source, Target, TargetTensor, container, detect, open, safetensors::parse};
use windlass_quant::{Packing, scheme};
use windlass_tensor::{DType, Limits};

fn read(name: &str) -> Source {
    open(&golden(name), &Limits::default()).unwrap()
}

fn list(name: &str) -> BTreeMap<String, Value> {
    serde_json::from_slice(&std::fs::read(golden(name)).unwrap()).unwrap()
}

/// Every tensor has the name, type, shape and bytes that the script noted.
fn assert_same(source: &Source, expected: &BTreeMap<String, Value>) {
    let names: Vec<&str> = expected.keys().map(String::as_str).collect();
    let mut found: Vec<&str> = source.tensors().iter().map(|t| t.name()).collect();
    found.sort_unstable();
    assert_eq!(found, names);
    for (name, facts) in expected {
        let tensor = source.tensor(name).unwrap();
        assert_eq!(tensor.element().name(), facts["dtype"], "{name}");
        assert_eq!(serde_json::json!(tensor.shape()), facts["shape"], "{name}");
        assert_eq!(fnv(&planes(source, name)[0]), facts["fnv"], "{name}");
    }
}

#[test]
fn all_types_are_read_as_torch_wrote_them() {
    let source = read("safetensors/types.safetensors");
    assert_eq!(source.container(), "safetensors");
    assert_eq!(source.metadata().get("format").unwrap().as_str(), Some("pt"));
    assert_same(&source, &list("safetensors/types.json"));
    let read: Vec<_> = source.tensors().iter().filter_map(|t| t.element().dtype()).collect();
    assert!(DType::built_in().all(|dtype| read.contains(&dtype)));
    assert!(read_nothing().tensors().is_empty());
}

fn read_nothing() -> Source {
    read("safetensors/nothing.safetensors")
}

#[test]
fn folders_are_read_whole_and_in_parts() {
    let expected = list("safetensors/llama.json");
    for (name, parts) in [("safetensors/llama", 1), ("safetensors/llama-parts", 4)] {
        let source = read(name);
        assert_eq!(source.container(), "safetensors");
        assert_eq!(source.parts().len(), parts);
        assert_same(&source, &expected);
        let side: Vec<_> = source.side_files().keys().map(String::as_str).collect();
        assert_eq!(side, ["config.json", "generation_config.json"]);
        assert_eq!(container("safetensors").unwrap().verify(&source, &Limits::default()).unwrap(), []);
    }
}

#[test]
fn what_is_written_back_is_equal_to_the_last_byte() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("safetensors");
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out).unwrap();
    let safetensors = container("safetensors").unwrap();
    for name in ["types.safetensors", "nothing.safetensors", "llama"] {
        let source = read(&format!("safetensors/{name}"));
        let layout = write(safetensors, &source, &target(&source, None), &out.join(name));
        assert_eq!(layout.folder, name == "llama");
        for file in ["", "model.safetensors", "config.json"].iter().filter(|f| layout.folder != f.is_empty()) {
            let (ours, theirs) = (out.join(name).join(file), golden("safetensors").join(name).join(file));
            let (ours, theirs) =
                if file.is_empty() { (out.join(name), golden("safetensors").join(name)) } else { (ours, theirs) };
            assert!(std::fs::read(&ours).unwrap() == std::fs::read(&theirs).unwrap(), "{}", ours.display());
        }
    }
}

#[test]
fn parts_are_split_and_indexed_as_transformers_does() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("safetensors-parts");
    let _ = std::fs::remove_dir_all(&out);
    let parts = read("safetensors/llama-parts");
    // In the order of the model, in which transformers fills its parts: that of its parameters.
    let mut wanted = target(&parts, Some(3000));
    let place = |name: &str| {
        const ORDER: [&str; 11] = [
            "embed_tokens",
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
            "input_layernorm",
            "post_attention",
            "",
        ];
        let layer = name.split('.').find_map(|p| p.parse::<usize>().ok()).map_or(99, |l| l);
        let layer = if name.contains("embed") { 0 } else { layer };
        let last = usize::from(name.contains("lm_head"));
        (layer, last, ORDER.iter().position(|o| name.contains(o)).unwrap())
    };
    wanted.tensors.sort_by_key(|t| place(&t.name));
    let layout = write(container("safetensors").unwrap(), &parts, &wanted, &out);
    assert!(layout.folder);
    for part in parts.parts() {
        let name = part.path().file_name().unwrap();
        assert!(std::fs::read(out.join(name)).unwrap() == std::fs::read(part.path()).unwrap(), "{name:?}");
    }
    let index = |folder: &Path| std::fs::read_to_string(folder.join("model.safetensors.index.json")).unwrap();
    assert_eq!(index(&out), index(&golden("safetensors/llama-parts")));
}

#[test]
fn a_wrong_total_and_a_stale_index_are_problems() {
    let folder = tempfile::tempdir().unwrap();
    let safetensors = container("safetensors").unwrap();
    for entry in std::fs::read_dir(golden("safetensors/llama-parts")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let codes = || {
        let source = safetensors.open(folder.path(), &Limits::default()).unwrap();
        let problems = safetensors.verify(&source, &Limits::default()).unwrap();
        problems.iter().map(|p| p.code).collect::<Vec<_>>()
    };
    let index = folder.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("\"total_size\": 8", "\"total_size\": 9")).unwrap();
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    assert_eq!(codes(), ["no-config", "wrong-total-size"]);
    std::fs::write(&index, text).unwrap();
    std::fs::copy(golden("safetensors/llama/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    assert_eq!(codes(), ["no-config", "stale-index"]);
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    std::fs::remove_file(&index).unwrap();
    assert_eq!(codes(), ["no-config", "no-index"]);
}

#[test]
fn what_it_cannot_hold_is_an_error() {
    let safetensors = container("safetensors").unwrap();
    let packed = Packing { scheme: scheme("mlx4-g64").unwrap(), float: DType::F16 }.element();
    assert!(!safetensors.can_hold(&packed));
    let tensor = |name: &str, element| TargetTensor { name: name.into(), element, shape: vec![1, 64] };
    let layout = |tensors| safetensors.layout(&Target { tensors, ..Target::default() }).unwrap_err();
    assert!(matches!(layout(vec![tensor("w", packed)]), Error::CannotHold { .. }));
    for names in [&["w", "w"][..], &[""], &["__metadata__"], &["a\0"]] {
        let tensors = names.iter().map(|name| tensor(name, DType::U8.into())).collect();
        assert!(matches!(layout(tensors), Error::Layout(_)), "{names:?}");
    }
}

#[test]
fn a_registered_type_goes_there_and_back() {
    let dtype = DType::register("F8_E4M3FNUZ", 1).unwrap();
    let tensors = vec![TargetTensor { name: "w".into(), element: dtype.into(), shape: vec![3] }];
    let layout = container("safetensors").unwrap().layout(&Target { tensors, ..Target::default() }).unwrap();
    let mut bytes = layout.parts[0].head.clone();
    bytes.resize(layout.parts[0].length as usize, 1);
    assert_eq!(parse(&bytes, &Limits::default()).unwrap().tensors[0].dtype, dtype);
    assert_eq!(safetensors::SafeTensors::deserialize(&bytes).unwrap().len(), 1);
}

#[test]
fn a_large_model_opens_in_milliseconds() {
    let tensors = (0..400).map(|i| TargetTensor {
        name: format!("model.layers.{i}.weight"),
        element: DType::BF16.into(),
        shape: vec![1500, 1000],
    });
    let layout = container("safetensors").unwrap().layout(&Target { tensors: tensors.collect(), ..Target::default() });
    let part = &layout.unwrap().parts[0];
    assert!(part.length > 1_200_000_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &part.head).unwrap();
    file.as_file().set_len(part.length).unwrap();
    let best = (0..20).map(|_| {
        let start = std::time::Instant::now();
        assert_eq!(detect(file.path()).unwrap().name(), "safetensors");
        assert_eq!(open(file.path(), &Limits::default()).unwrap().tensors().len(), 400);
        start.elapsed()
    });
    let best = best.min().unwrap();
    println!("1.2 GB in 400 tensors open in {best:?}");
    // Twenty times the promise, which a loaded machine must still keep: only reading the data would take longer.
    assert!(best.as_millis() < 100, "{best:?}");
}

/// A header that may be right or wrong in one of many ways, and its data.
fn files() -> impl Strategy<Value = Vec<u8>> {
    let dtype = prop_oneof![
        8 => Just("F32"), 4 => Just("BF16"), 4 => Just("U8"), 1 => Just("I64"), 1 => Just("F9"), 1 => Just("f32"),
    ];
    let number = prop_oneof![
        30 => (0u64..5).prop_map(|n| n.to_string()),
        1 => proptest::sample::select(vec!["-1", "1.0", "1e0", "18446744073709551615", "4294967296", "\"1\"", "null", "01"])
            .prop_map(String::from),
    ];
    let tensor = (dtype, proptest::collection::vec(number, 0..4), 0u64..60, -2i64..3);
    let space = proptest::sample::select(vec!["", " ", "  \n", "\0", "x"]);
    let metadata = prop_oneof![
        4 => Just(""),
        1 => proptest::sample::select(vec![
            "\"__metadata__\":{\"a\":\"b\"},", "\"__metadata__\":null,", "\"__metadata__\":{\"a\":1},", "\"__metadata__\":{},",
        ]),
    ];
    let parts = (proptest::collection::vec(tensor, 0..5), space, metadata, -1i64..2, any::<bool>());
    parts.prop_map(|(tensors, space, metadata, tail, extra)| {
        let (mut end, mut members) = (0i64, Vec::new());
        for (i, (dtype, shape, wild, slip)) in tensors.iter().enumerate() {
            let size = match *dtype {
                "U8" => 1,
                "BF16" => 2,
                "I64" => 8,
                _ => 4,
            };
            let values = shape.iter().map(|d| d.parse::<i64>().unwrap_or(1)).try_fold(1i64, i64::checked_mul);
            let bytes = values.and_then(|v| v.checked_mul(size)).unwrap_or(0);
            let begin = if *wild == 0 { end + slip } else { end };
            let more = if extra { ",\"note\":[{}]" } else { "" };
            members.push(format!(
                "\"t{i}\":{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{begin},{}]{more}}}",
                shape.join(","),
                begin + bytes
            ));
            end = begin + bytes;
        }
        // Members need not be in the order of their data.
        members.reverse();
        let members = members.join(",");
        let metadata = if members.is_empty() { metadata.trim_end_matches(',') } else { metadata };
        let header = format!("{{{metadata}{members}}}{space}");
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.resize((file.len() as i64 + end.clamp(0, 4096) + if tensors.len() == 3 { tail } else { 0 }) as usize, 0);
        file
    })
}

/// Otherwise agreement with the library would say little.
#[test]
fn about_as_many_of_the_files_are_right_as_wrong() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let file = |_| files().new_tree(&mut runner).unwrap().current();
    let right = (0..1000).map(file).filter(|file| parse(file, &Limits::default()).is_ok()).count();
    assert!((200..800).contains(&right), "{right} of 1000 are right");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The library and this reader accept the same files and read the same from them.
    #[test]
    fn it_agrees_with_the_library(file in files()) {
        let header = String::from_utf8_lossy(&file);
        match (parse(&file, &Limits::default()), safetensors::SafeTensors::deserialize(&file)) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!(ours.tensors.len(), theirs.len());
                for tensor in &ours.tensors {
                    let view = theirs.tensor(&tensor.name).unwrap();
                    prop_assert_eq!(view.shape(), &tensor.shape[..]);
                    prop_assert_eq!(format!("{:?}", view.dtype()), tensor.dtype.name());
                    let place = tensor.offset as usize..(tensor.offset + tensor.length) as usize;
                    prop_assert_eq!(view.data().as_ptr(), file[place].as_ptr());
                }
            }
            (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => prop_assert!(false, "only the library refuses ({}): {}", error, header),
            (Err(error), Ok(_)) => prop_assert!(false, "only we refuse ({}): {}", error, header),
        }
    }
}
