//! Files that gguf-py wrote, and hand-built ones of the older versions, read and verified.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/gguf.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod support;

use std::path::{Path, PathBuf};

use windlass_formats::gguf::{self, Imatrix, ImatrixEntry};
use windlass_formats::{Entry, Error, Source, container, detect, open};
use windlass_tensor::{Array, Limits, Value};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open_golden(name: &str) -> Source {
    open(&golden(name), &Limits::default()).unwrap()
}

fn bytes(source: &Source, entry: &Entry) -> Vec<u8> {
    let mut bytes = vec![0; entry.bytes() as usize];
    source.read(entry, 0, 0, &mut bytes).unwrap();
    bytes
}

fn pattern(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|i| ((31 * i + seed) % 256) as u8).collect()
}

fn verify(source: &Source) -> Vec<&'static str> {
    let problems = container("gguf").unwrap().verify(source, &Limits::default()).unwrap();
    problems.iter().map(|p| p.code).collect()
}

#[test]
fn every_value_type_keeps_its_type_and_value() {
    let source = open_golden("values.gguf");
    assert_eq!((source.container(), source.version()), ("gguf", "3"));
    let expected: Vec<(&str, Value, Array)> = vec![
        ("uint8", 200u8.into(), Array::U8(vec![0, 200, 255])),
        ("int8", (-1i8).into(), Array::I8(vec![-128, -1, 127])),
        ("uint16", 40000u16.into(), Array::U16(vec![0, 40000, 65535])),
        ("int16", (-1i16).into(), Array::I16(vec![i16::MIN, -1, i16::MAX])),
        ("uint32", 3_000_000_000u32.into(), Array::U32(vec![0, 3_000_000_000, u32::MAX])),
        ("int32", (-1i32).into(), Array::I32(vec![i32::MIN, -1, i32::MAX])),
        ("float32", (-1.25f32).into(), Array::F32(vec![0.5, -1.25, 2f32.powi(100)])),
        ("bool", false.into(), Array::Bool(vec![true, false, true])),
        ("string", "plain".into(), Array::strings(["", "plain", "größer ▁世界 🜚"])),
        ("uint64", (1u64 << 63).into(), Array::U64(vec![0, 1 << 63, u64::MAX])),
        ("int64", (-1i64).into(), Array::I64(vec![i64::MIN, -1, i64::MAX])),
        ("float64", (-1e300f64).into(), Array::F64(vec![0.1, -1e300, 2.5])),
    ];
    let metadata = source.metadata();
    for (name, scalar, array) in expected {
        assert_eq!(metadata.get(&format!("scalar.{name}")), Some(&scalar));
        assert_eq!(metadata.get(&format!("array.{name}")), Some(&Value::Array(array)));
    }
    let nested = Array::Array(vec![Array::I32(vec![1, 2]), Array::I32(vec![3])]);
    assert_eq!(metadata.get("array.array"), Some(&Value::Array(nested)));
    let strings = |items: &[&str]| Array::strings(items);
    let nested = Array::Array(vec![Array::Array(vec![strings(&["a"]), strings(&["b", "c"])])]);
    assert_eq!(metadata.get("array.array.array"), Some(&Value::Array(nested)));
    assert_eq!(metadata.len(), 1 + 24 + 2);
    assert_eq!(verify(&source), ["nested-array", "nested-array"]);
}

#[test]
fn every_tensor_type_has_its_element_and_bytes() {
    let source = open_golden("types.gguf");
    assert_eq!(source.tensors().len(), 31);
    for entry in source.tensors() {
        let id = gguf::type_id(entry.element()).unwrap();
        assert!(entry.element().name().eq_ignore_ascii_case(entry.name()), "{entry:?}");
        assert_eq!(entry.shape(), [2, 256]);
        assert_eq!(bytes(&source, entry), pattern(entry.bytes() as usize, id as usize), "{}", entry.name());
    }
    assert_eq!(verify(&source), [] as [&str; 0]);
}

fn check_numbered(source: &Source) {
    let shapes: [&[usize]; 5] = [&[3], &[2, 5], &[2, 3, 4], &[2, 1, 3, 5], &[17]];
    assert_eq!(source.tensors().len(), shapes.len());
    for (n, shape) in shapes.iter().enumerate() {
        let entry = source.tensor(&format!("t.{n}")).unwrap();
        assert_eq!(entry.shape(), *shape);
        assert_eq!(bytes(source, entry), pattern(entry.bytes() as usize, n));
    }
}

#[test]
fn alignment_is_read_from_the_keys() {
    let source = open_golden("align64.gguf");
    check_numbered(&source);
    assert!(source.tensors().iter().all(|t| t.planes()[0].offset % 64 == 0));
    assert_eq!(verify(&source), [] as [&str; 0]);
}

#[test]
fn any_part_of_a_split_model_opens_all() {
    for part in 1..=3 {
        let source = open_golden(&format!("split-0000{part}-of-00003.gguf"));
        check_numbered(&source);
        assert_eq!(source.parts().len(), 3);
        assert_eq!(source.metadata().get("general.name"), Some(&"in three files".into()));
        assert_eq!(source.metadata().get("split.count"), None);
        assert_eq!(verify(&source), [] as [&str; 0]);
    }
}

/// The split golden in a folder of its own, with one file changed.
fn split_with(change: impl Fn(&Path)) -> Result<Source, Error> {
    let folder = tempfile::tempdir().unwrap();
    for part in 1..=3 {
        let name = format!("split-0000{part}-of-00003.gguf");
        std::fs::copy(golden(&name), folder.path().join(name)).unwrap();
    }
    change(folder.path());
    open(folder.path(), &Limits::default())
}

#[test]
fn a_folder_with_one_model_opens_and_with_two_is_refused() {
    check_numbered(&split_with(|_| ()).unwrap());
    let second = |folder: &Path| {
        std::fs::copy(golden("align64.gguf"), folder.join("other.gguf")).unwrap();
    };
    let message = split_with(second).unwrap_err().to_string();
    assert!(message.contains("2 models: other.gguf, split-00001-of-00003.gguf"), "{message}");
}

#[test]
fn a_missing_part_is_named() {
    let error = split_with(|folder| std::fs::remove_file(folder.join("split-00002-of-00003.gguf")).unwrap());
    let message = error.unwrap_err().to_string();
    assert!(message.contains("split-00002-of-00003.gguf: part 2 of 3 is missing"), "{message}");
}

#[test]
fn a_part_of_another_model_is_refused() {
    let replace = |bytes: Vec<u8>| {
        split_with(|folder| std::fs::write(folder.join("split-00002-of-00003.gguf"), &bytes).unwrap()).unwrap_err()
    };
    let keys = |tensors: i32| {
        support::Builder::new(3)
            .key("split.no", support::U16, &1u16.to_le_bytes())
            .key("split.count", support::U16, &3u16.to_le_bytes())
            .key("split.tensors.count", support::I32, &tensors.to_le_bytes())
    };
    let cases = [
        (std::fs::read(golden("align64.gguf")).unwrap(), "it is a whole model"),
        (std::fs::read(golden("split-00003-of-00003.gguf")).unwrap(), "expected split.no 1 of 3"),
        (keys(6).bytes(), "found split.no 1 of 3 with 6 tensors"),
        (keys(5).text("general.architecture", "other").bytes(), "expected general.architecture golden, found other"),
        (keys(5).bytes(), "3 tensors together, expected 5"),
    ];
    for (bytes, phrase) in cases {
        let message = replace(bytes).to_string();
        assert!(message.contains(phrase), "{message}");
    }
}

#[test]
fn old_versions_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for version in [1, 2, 3] {
        let path = folder.path().join(format!("v{version}"));
        std::fs::write(&path, support::valid(version).bytes()).unwrap();
        assert_eq!(detect(&path).unwrap().name(), "gguf");
        let source = open(&path, &Limits::default()).unwrap();
        assert_eq!(source.version(), version.to_string());
        assert_eq!(source.tensor("third").unwrap().shape(), [2, 2, 2]);
        assert_eq!(source.tensor("first").unwrap().shape(), [2, 3]);
        let tokens = source.metadata().get("tokenizer.ggml.tokens").and_then(Value::as_array).unwrap();
        assert_eq!(tokens, &Array::strings(["a", "bc", "é"]));
        let expected: &[&str] = if version == 1 { &["old-version", "nested-array"] } else { &["nested-array"] };
        assert_eq!(verify(&source), expected);
    }
}

#[test]
fn verify_lists_every_broken_rule() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad");
    let long = "n".repeat(64);
    let file = support::Builder::new(3)
        .text("kéy", "x")
        .key("general.file_type", support::U8, &[0])
        .tensor("late", &[32], 2, 64)
        .tensor(&long, &[1, 1, 1, 1, 1], 0, 0)
        .data(200);
    std::fs::write(&path, file.bytes()).unwrap();
    let source = open(&path, &Limits::default()).unwrap();
    assert_eq!(
        verify(&source),
        [
            "bad-key",
            "long-name",
            "too-many-dimensions",
            "not-contiguous",
            "not-contiguous",
            "trailing-bytes",
            "no-architecture",
            "bad-key-type",
            "no-quantization-version",
            "wrong-file-type",
        ]
    );
}

#[test]
fn importance_matrices_of_both_kinds() {
    let limits = Limits::default();
    let entry = |name: &str, values: &[f32], rows| ImatrixEntry { name: name.into(), values: values.into(), rows };
    let dense = entry("blk.0.attn_q.weight", &[1.0, 2.0, 4.0], 1);
    let experts = [1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.0, 1.0, 3.0, 1.0, 2.0, 4.0];
    let expected = Imatrix {
        entries: vec![dense.clone(), entry("blk.0.ffn_up_exps.weight", &experts, 3)],
        datasets: vec!["a.txt".into(), "b.txt".into()],
        chunks: Some(7),
        chunk_size: Some(512),
    };
    assert_eq!(gguf::read_imatrix(&golden("imatrix.gguf"), &limits).unwrap(), expected);
    let expected = Imatrix { entries: vec![dense], datasets: vec!["a.txt".into()], chunks: Some(7), chunk_size: None };
    assert_eq!(gguf::read_imatrix(&golden("imatrix.dat"), &limits).unwrap(), expected);
    assert_eq!(verify(&open_golden("imatrix.gguf")), [] as [&str; 0]);

    let message = gguf::read_imatrix(&golden("align64.gguf"), &limits).unwrap_err().to_string();
    assert!(message.contains("no tensors called NAME.in_sum2"), "{message}");
    let whole = std::fs::read(golden("imatrix.dat")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    // What follows the entries may be missing, but not in the middle of a field.
    let entries = whole.len() - 4 - 4 - "a.txt".len();
    for length in 0..whole.len() {
        std::fs::write(file.path(), &whole[..length]).unwrap();
        let readable = (entries..entries + 8).contains(&length);
        assert_eq!(gguf::read_imatrix(file.path(), &limits).is_ok(), readable, "{length}");
    }
}
