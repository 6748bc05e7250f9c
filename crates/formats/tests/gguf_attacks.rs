//! Hostile files: each is refused with a message that says why, and none is a panic.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/attacks.rs"]
mod attacks;
#[path = "support/gguf.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod gguf;

use std::path::{Path, PathBuf};

use windlass_formats::{Error, container, open};
use windlass_tensor::Limits;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../attacks/gguf")
}

/// The page that lists the attacks.
fn page() -> String {
    let mut page = String::from(
        "# Attacks on the GGUF reader\n\nMade by `crates/formats/tests/support/attacks.rs`; do not edit. After a change \
         there run `WINDLASS_BLESS=1 cargo test -p windlass-formats --test gguf_attacks`.\n\n\
         | file | idea | the message that stops it |\n|---|---|---|\n",
    );
    for attack in attacks::all() {
        page += &format!("| `{}` | {} | {} |\n", attack.name, attack.idea, attack.stopped_by);
    }
    page
}

#[test]
fn the_committed_files_are_those_of_the_list() {
    let bless = std::env::var_os("WINDLASS_BLESS").is_some();
    let mut expected: Vec<(String, Vec<u8>)> = attacks::all().into_iter().map(|a| (a.name, a.bytes)).collect();
    expected.push(("README.md".into(), page().into_bytes()));
    for (name, bytes) in &expected {
        let path = folder().join(name);
        if bless {
            std::fs::write(&path, bytes).unwrap();
        }
        assert_eq!(&std::fs::read(&path).unwrap(), bytes, "{name} differs from its builder");
    }
    let files = std::fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, expected.len(), "a file has no builder, or two builders have one name");
}

#[test]
fn every_attack_is_refused_with_its_reason() {
    for attack in attacks::all() {
        let path = folder().join(&attack.name);
        let error = open(&path, &Limits::default()).expect_err(&attack.name);
        assert!(matches!(error, Error::Refused { .. }), "{}: {error:?}", attack.name);
        let message = error.to_string();
        assert!(message.contains(attack.stopped_by), "{}: {message}", attack.name);
        assert!(message.contains("split-") || message.contains(&attack.name), "no file named: {message}");
        assert!(message.len() < 1000, "{}: {message}", attack.name);
    }
}

#[test]
fn every_attack_on_the_header_is_refused_from_memory_too() {
    for attack in attacks::all().iter().filter(|a| !a.name.starts_with("split-")) {
        let error = windlass_formats::gguf::parse(&attack.bytes, &Limits::default()).unwrap_err();
        assert!(error.to_string().contains(attack.stopped_by), "{}: {error}", attack.name);
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let reader = container("gguf").unwrap();
    for version in [1, 2, 3] {
        let whole = gguf::valid(version).bytes();
        // The last tensor has 8 of the last 32 bytes; the rest is padding.
        for length in 0..whole.len() - 24 {
            std::fs::write(file.path(), &whole[..length]).unwrap();
            let error = reader.open(file.path(), &Limits::default()).unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{length}: {error:?}");
            let message = error.to_string();
            assert!(message.contains("truncated"), "{length}: {message}");
        }
        std::fs::write(file.path(), &whole[..whole.len() - 24]).unwrap();
        assert!(reader.open(file.path(), &Limits::default()).is_ok());
    }
}

#[test]
fn limits_are_those_of_the_caller() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), gguf::valid(3).bytes()).unwrap();
    let default = Limits::default();
    let cases = [
        (Limits { tensors: 2, ..default.clone() }, "at most 2 are allowed"),
        (Limits { metadata_keys: 4, ..default.clone() }, "at most 4 are allowed"),
        (Limits { string_bytes: 1, ..default.clone() }, "at most 1 are allowed"),
        (Limits { array_items: 2, ..default.clone() }, "at most 2 are allowed"),
        (Limits { nesting: 1, ..default.clone() }, "deeper than 1 levels"),
        (Limits { name_bytes: 5, ..default.clone() }, "at most 5 are allowed"),
        (Limits { dimensions: 2, ..default.clone() }, "at most 2 are allowed"),
        (Limits { alignment: 16, ..default.clone() }, "power of two up to 16, found 32"),
        (Limits { total_bytes: 30, ..default.clone() }, "more than 30 bytes"),
        (Limits { parts: 0, ..default.clone() }, "more than 0 parts"),
        (Limits { header_bytes: 100, ..default.clone() }, "in a header of 100 bytes, the limit"),
    ];
    for (limits, phrase) in cases {
        let message = open(file.path(), &limits).unwrap_err().to_string();
        assert!(message.contains(phrase), "expected {phrase:?}: {message}");
    }
    open(file.path(), &default).unwrap();
}
