//! Files as torch.save writes them: every type, form and protocol, with all values.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/model.rs"]
mod model;

use std::collections::BTreeMap;

use model::{fnv, golden, planes, target, write};
use serde_json::Value;
use windlass_formats::{Error, Source, container, detect, open};
use windlass_tensor::{DType, Limits};

fn read(name: &str) -> Source {
    let path = golden("pytorch").join(name);
    assert_eq!(detect(&path).unwrap().name(), "pytorch", "{name}");
    open(&path, &Limits::default()).unwrap()
}

fn list(name: &str) -> BTreeMap<String, Value> {
    serde_json::from_slice(&std::fs::read(golden("pytorch").join(name)).unwrap()).unwrap()
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

fn problems(source: &Source) -> Vec<String> {
    let found = container("pytorch").unwrap().verify(source, &Limits::default()).unwrap();
    found.into_iter().map(|p| format!("{}: {p}", p.code)).collect()
}

#[test]
fn all_types_are_read_in_every_protocol() {
    let expected = list("types.json");
    for name in ["types.bin", "types-protocol3.bin", "types-protocol4.bin", "types-protocol5.bin"] {
        let source = read(name);
        assert_same(&source, &expected);
        let types: Vec<_> = source.tensors().iter().filter_map(|t| t.element().dtype()).collect();
        assert!(DType::built_in().all(|dtype| types.contains(&dtype)));
        assert_eq!(problems(&source), [""; 0], "{name}");
    }
    assert!(read("nothing.bin").tensors().is_empty());
}

#[test]
fn the_older_form_is_read() {
    for name in ["legacy-protocol2.pt", "legacy-protocol4.pt"] {
        let source = read(name);
        assert_same(&source, &list("legacy.json"));
        assert_eq!(problems(&source), [""; 0], "{name}");
    }
    assert_same(&read("views-legacy.pt"), &list("views.json"));
}

#[test]
fn views_and_parameters_share_storages() {
    for name in ["views.pt", "views-legacy.pt", "views-unchecked.pt", "views-rezipped.pt"] {
        let source = read(name);
        assert_same(&source, &list("views.json"));
        assert_eq!(source.tensor("embed").unwrap().planes(), source.tensor("head").unwrap().planes(), "{name}");
        assert_eq!(problems(&source), [""; 0], "{name}");
    }
}

#[test]
fn a_nested_state_dict_is_found_and_what_is_around_it_is_told() {
    let source = read("nested.pth");
    assert_same(&source, &list("views.json"));
    let metadata: BTreeMap<_, _> = source.metadata().iter().map(|(k, v)| (k, v.as_str().unwrap())).collect();
    let expected = [
        ("best", "true"),
        ("epoch", "3"),
        ("format", "pt"),
        ("loss", "0.125"),
        ("name", "caf\u{e9}"),
        ("step", "-1099511627776"),
    ];
    assert_eq!(metadata, BTreeMap::from(expected));
    let skipped = [
        r#"skipped-entry: tensor "config": is a dictionary of 1 members, which is not taken along"#,
        r#"skipped-entry: tensor "optimizer": is a dictionary of 2 members, which is not taken along"#,
        r#"skipped-entry: tensor "huge": is a number, which is not taken along"#,
    ];
    assert_eq!(problems(&source), skipped);
}

#[test]
fn a_transposed_tensor_is_refused_by_name() {
    let error = open(&golden("pytorch/transposed.pt"), &Limits::default()).unwrap_err();
    let Error::Refused { problem, .. } = error else { panic!("{error}") };
    assert_eq!((problem.code, problem.tensor.as_deref()), ("not-contiguous", Some("w")));
    assert!(problem.help.as_deref().unwrap().contains("contiguous()"), "{problem}");
}

#[test]
fn folders_are_read_whole_and_in_parts() {
    for (name, parts) in [("single", 1), ("parts", 2)] {
        let source = read(name);
        assert_eq!(source.parts().len(), parts);
        assert_same(&source, &list("model.json"));
        assert_eq!(source.side_files().keys().collect::<Vec<_>>(), ["config.json"]);
        assert_eq!(problems(&source), [""; 0], "{name}");
    }
}

#[test]
fn damaged_values_are_found_by_their_checksum() {
    let mut bytes = std::fs::read(golden("pytorch/views.pt")).unwrap();
    let tail = read("views.pt").tensor("tail").unwrap().planes()[0];
    bytes[tail.offset as usize] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("views.pt");
    std::fs::write(&path, bytes).unwrap();
    let found = problems(&open(&path, &Limits::default()).unwrap());
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("checksum: tensor \"views/data/0\""), "{found:?}");
}

#[test]
fn safetensors_in_the_same_folder_go_first() {
    let folder = tempfile::tempdir().unwrap();
    for (from, name) in
        [("pytorch/views.pt", "pytorch_model.bin"), ("safetensors/types.safetensors", "model.safetensors")]
    {
        std::fs::copy(golden(from), folder.path().join(name)).unwrap();
    }
    assert_eq!(detect(folder.path()).unwrap().name(), "safetensors");
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert_eq!(detect(folder.path()).unwrap().name(), "pytorch");
}

#[test]
fn a_safetensors_file_of_it_has_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("types.safetensors");
    let source = read("types-protocol4.bin");
    write(container("safetensors").unwrap(), &source, &target(&source, None), &path);
    let written = std::fs::read(&path).unwrap();
    assert_eq!(written, std::fs::read(golden("safetensors/types.safetensors")).unwrap());
}

#[test]
fn every_type_can_be_written_and_names_are_unique() {
    let pytorch = container("pytorch").unwrap();
    assert!(DType::built_in().all(|dtype| pytorch.can_hold(&windlass_tensor::Element::Plain(dtype))));
    let mut model = target(&read("types.bin"), None);
    model.metadata.set("epoch", "3");
    assert_eq!(pytorch.layout(&model).unwrap().left_out, ["epoch"], "a text would be a key that no module knows");
    model.tensors.push(model.tensors[0].clone());
    assert!(matches!(pytorch.layout(&model), Err(Error::Layout(_))));
}
