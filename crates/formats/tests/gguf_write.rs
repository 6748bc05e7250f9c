//! What is laid out is, byte for byte, what gguf-py writes, and reads back as what it was made from.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use windlass_formats::{Error, Layout, Source, Target, TargetTensor, container, open};
use windlass_tensor::{DType, Element, Limits, Metadata};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn target(source: &Source) -> Target {
    let tensors = source.tensors().iter().map(|t| TargetTensor {
        name: t.name().into(),
        element: t.element().clone(),
        shape: t.shape().to_vec(),
    });
    Target { tensors: tensors.collect(), metadata: source.metadata().clone(), ..Target::default() }
}

fn layout(target: &Target) -> Result<Layout, Error> {
    container("gguf").unwrap().layout(target)
}

fn contents(source: &Source) -> Vec<Vec<u8>> {
    let read = |t| {
        let t: &windlass_formats::Entry = t;
        let mut bytes = vec![0; t.bytes() as usize];
        source.read(t, 0, 0, &mut bytes).unwrap();
        bytes
    };
    source.tensors().iter().map(read).collect()
}

/// The files of a layout, filled with the tensors of a source.
fn files(layout: &Layout, source: &Source) -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = Vec::new();
    for part in &layout.parts {
        let mut bytes = part.head.clone();
        bytes.resize(part.length as usize, 0);
        files.push(bytes);
    }
    for (extents, bytes) in layout.tensors.iter().zip(contents(source)) {
        let [extent] = extents[..] else { panic!("one plane") };
        let at = extent.offset as usize;
        assert_eq!(extent.length, bytes.len() as u64);
        files[extent.part][at..at + bytes.len()].copy_from_slice(&bytes);
    }
    files
}

fn assert_same(a: &Source, b: &Source) {
    assert_eq!(a.metadata(), b.metadata());
    let describe = |s: &Source| -> Vec<_> {
        s.tensors().iter().map(|t| (t.name().to_string(), t.element().clone(), t.shape().to_vec())).collect()
    };
    assert_eq!(describe(a), describe(b));
    assert_eq!(contents(a), contents(b));
}

#[test]
fn single_files_equal_those_of_gguf_py() {
    for name in ["values.gguf", "types.gguf", "align64.gguf", "imatrix.gguf"] {
        let source = open(&golden(name), &Limits::default()).unwrap();
        let layout = layout(&target(&source)).unwrap();
        assert_eq!(layout.parts.len(), 1);
        assert_eq!(layout.parts[0].name, "");
        let written = files(&layout, &source).remove(0);
        assert!(written == std::fs::read(golden(name)).unwrap(), "{name} differs");
    }
}

#[test]
fn split_files_open_as_the_model_they_were_made_from() {
    let limits = Limits::default();
    for (name, parts) in [("split-00001-of-00003.gguf", 4), ("align64.gguf", 4), ("types.gguf", 31)] {
        let source = open(&golden(name), &limits).unwrap();
        let layout = layout(&Target { part_size: Some(128), ..target(&source) }).unwrap();
        assert_eq!(layout.parts.len(), parts);
        assert_eq!(layout.parts[1].name, format!("-00002-of-{parts:05}.gguf"));
        let folder = tempfile::tempdir().unwrap();
        for (part, bytes) in layout.parts.iter().zip(files(&layout, &source)) {
            std::fs::write(folder.path().join(format!("model{}", part.name)), bytes).unwrap();
        }
        let written = open(&folder.path().join(format!("model-00003-of-{parts:05}.gguf")), &limits).unwrap();
        assert_eq!(written.parts().len(), parts);
        assert_same(&source, &written);
        assert_eq!(container("gguf").unwrap().verify(&written, &limits).unwrap(), []);
    }
}

#[test]
fn a_split_is_merged_into_one_file() {
    let limits = Limits::default();
    let source = open(&golden("split-00002-of-00003.gguf"), &limits).unwrap();
    let layout = layout(&target(&source)).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), files(&layout, &source).remove(0)).unwrap();
    let written = open(file.path(), &limits).unwrap();
    assert_same(&source, &written);
    assert_eq!(container("gguf").unwrap().verify(&written, &limits).unwrap(), []);
}

#[test]
fn what_cannot_be_held_is_refused_with_what_can() {
    let tensor = |name: &str, element: Element, shape: &[usize]| Target {
        tensors: vec![TargetTensor { name: name.into(), element, shape: shape.into() }],
        ..Target::default()
    };
    let f32 = || Element::from(DType::F32);
    let twice = Target { tensors: vec![tensor("a", f32(), &[1]).tensors.remove(0); 2], ..Target::default() };
    let with_key = |key: &str, value: u32| {
        let mut metadata = Metadata::new();
        metadata.set(key, value);
        Target { metadata, ..Target::default() }
    };
    let files = Target { files: vec![("config.json".into(), vec![])], ..Target::default() };
    let cases = [
        (tensor("a", DType::Bool.into(), &[1]), "gguf cannot hold BOOL (tensor \"a\"); it can hold: f32, f16, q4_0"),
        (tensor("a", DType::F8E4M3.into(), &[1]), "cannot hold F8_E4M3"),
        (tensor("a", DType::U32.into(), &[1]), "cannot hold U32"),
        (tensor("a", f32(), &[1; 5]), "tensor \"a\" of 5 dimensions; it can hold: tensors of at most 4 dimensions"),
        (tensor("", f32(), &[1]), "it can hold: names of 1 to 63 bytes"),
        (tensor(&"n".repeat(64), f32(), &[1]), "it can hold: names of 1 to 63 bytes"),
        (tensor("a", f32(), &[usize::MAX, 2]), "too large"),
        (twice, "two tensors called \"a\""),
        (with_key("general.alignment", 48), "power of two"),
        (with_key("", 1), "a key is empty"),
        (files, "cannot hold side files such as config.json"),
    ];
    for (target, phrase) in cases {
        let message = layout(&target).unwrap_err().to_string();
        assert!(message.contains(phrase), "expected {phrase:?}: {message}");
    }
    let gguf = container("gguf").unwrap();
    assert!(gguf.can_hold(&DType::BF16.into()) && !gguf.can_hold(&DType::C64.into()));
}
