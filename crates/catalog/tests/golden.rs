//! The catalog against transformers, llama.cpp's converter and mlx-lm: see golden/make.py.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{as_transformers_4, cases};
use serde_json::Value as Json;
use windlass_catalog::{Architecture, Convention, Hyper, Piece, from_hf_config, rows};
use windlass_tensor::{Metadata, Value};

/// A row of a stored tensor: which row of which tensor of the checkpoint it is, and what was added to it.
type Origin = (String, usize, i64);

fn shape(json: &Json) -> Vec<usize> {
    json.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn stored_by_oracle(stored: &Json, names: &[String]) -> BTreeMap<String, (Vec<usize>, Vec<Origin>)> {
    let tensor = |(name, found): (&String, &Json)| {
        let mut origins = Vec::new();
        for run in found[1].as_array().unwrap() {
            let at = |i: usize| run[i].as_i64().unwrap();
            origins.extend((0..at(2)).map(|r| (names[at(0) as usize].clone(), (at(1) + r) as usize, at(3))));
        }
        (name.clone(), (shape(&found[0]), origins))
    };
    stored.as_object().unwrap().iter().map(tensor).collect()
}

/// What the catalog says is stored, put together piece by piece; a row that two pieces claim, or none, fails.
fn stored_by_catalog(pieces: &[Piece], convention: Convention) -> BTreeMap<String, (Vec<usize>, Vec<Origin>)> {
    let mut all: BTreeMap<String, (Vec<usize>, Vec<Option<Origin>>)> = BTreeMap::new();
    for piece in pieces {
        let source = &piece.places(Convention::Hf)[0];
        let Some(place) = piece.places(convention).into_iter().next() else { continue };
        let (shape, origins) =
            all.entry(place.tensor.clone()).or_insert_with(|| (place.shape.clone(), vec![None; rows(&place.shape)]));
        assert_eq!(*shape, place.shape, "{}", place.tensor);
        for stored in 0..piece.rows() {
            let row = source.row + place.order.plain_row(stored);
            let slot = &mut origins[place.row + stored];
            assert!(slot.is_none(), "{} row {} is claimed twice", place.tensor, place.row + stored);
            *slot = Some((source.tensor.clone(), row, place.shift as i64));
        }
    }
    let whole = |(name, (shape, origins)): (String, (Vec<usize>, Vec<Option<Origin>>))| {
        let origins = origins.into_iter().map(|o| o.unwrap_or_else(|| panic!("{name} has a gap"))).collect();
        (name, (shape, origins))
    };
    all.into_iter().map(whole).collect()
}

fn read(config: &Json) -> (&'static Architecture, Hyper, Vec<Piece>) {
    let (architecture, hyper) = from_hf_config(config).unwrap();
    let all = architecture.pieces(&hyper).unwrap();
    (architecture, hyper, all)
}

#[test]
fn the_inventory_is_what_transformers_saves() {
    for case in cases() {
        let (_, _, pieces) = read(case.config());
        let expected: BTreeMap<String, Vec<usize>> =
            case.data["hf"].as_object().unwrap().iter().map(|(n, s)| (n.clone(), shape(s))).collect();
        let mut required = BTreeMap::new();
        let mut all = BTreeSet::new();
        for piece in &pieces {
            let place = piece.places(Convention::Hf).remove(0);
            all.insert(place.tensor.clone());
            if piece.required {
                required.insert(place.tensor, place.shape);
            }
        }
        for (name, shape) in &required {
            assert_eq!(expected.get(name), Some(shape), "{}: {name}", case.name);
        }
        for name in expected.keys() {
            assert!(all.contains(name), "{}: {name} is not in the inventory", case.name);
        }
    }
}

fn compare_rows(convention: Convention, key: &str) -> usize {
    let mut compared = 0;
    for case in cases() {
        let Some(stored) = case.data.get(key) else { continue };
        let names: Vec<String> = case.data["hf"].as_object().unwrap().keys().cloned().collect();
        let (_, _, pieces) = read(case.config());
        let present = |p: &Piece| names.contains(&p.places(Convention::Hf)[0].tensor);
        let pieces: Vec<Piece> = pieces.into_iter().filter(present).collect();
        let expected = stored_by_oracle(stored, &names);
        let found = stored_by_catalog(&pieces, convention);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{}: names of stored tensors",
            case.name
        );
        for (name, tensor) in &expected {
            assert!(found[name] == *tensor, "{}: {name}: expected {tensor:?}, found {:?}", case.name, found[name]);
            compared += 1;
        }
    }
    compared
}

#[test]
fn every_row_goes_where_llama_cpp_puts_it() {
    assert!(compare_rows(Convention::Gguf, "gguf") > 350);
}

#[test]
fn every_row_goes_where_mlx_puts_it() {
    assert!(compare_rows(Convention::Mlx, "mlx") > 300);
}

/// Keys that are added where llama.cpp's would lose something; see `Architecture::to_gguf`.
const ADDED: [&str; 2] = ["llama.attention.sliding_window", "tokenizer.ggml.token_type_count"];

fn compare_keys(metadata: &Metadata, expected: &Json, case: &str) {
    let expected = expected.as_object().unwrap();
    for (key, value) in metadata.iter() {
        let Some(wanted) = expected.get(key) else {
            assert!(ADDED.contains(&key), "{case}: {key} is not what llama.cpp writes");
            continue;
        };
        let (kind, wanted) = (wanted[0].as_str().unwrap(), &wanted[1]);
        match value {
            Value::U32(n) => assert_eq!((kind, wanted.as_u64()), ("uint32", Some(u64::from(*n))), "{case}: {key}"),
            Value::F32(n) => {
                let wanted = wanted.as_f64().unwrap() as f32;
                assert!(kind == "float32" && (n - wanted).abs() <= 1e-6 * wanted, "{case}: {key}: {n} for {wanted}");
            }
            Value::String(s) => assert_eq!((kind, wanted.as_str()), ("string", Some(s.as_str())), "{case}: {key}"),
            Value::Bool(b) => assert_eq!((kind, wanted.as_bool()), ("bool", Some(*b)), "{case}: {key}"),
            other => panic!("{case}: {key}: {other}"),
        }
    }
    for key in expected.keys() {
        assert!(metadata.get(key).is_some(), "{case}: {key} is not written");
    }
}

#[test]
fn metadata_are_what_llama_cpp_writes() {
    for case in cases() {
        let (architecture, hyper, _) = read(case.config());
        compare_keys(&architecture.to_gguf(&hyper), &case.data["keys"], &case.name);
    }
}

#[test]
fn generated_tensors_are_what_llama_cpp_writes() {
    for case in cases() {
        let (architecture, hyper, _) = read(case.config());
        let expected = case.data["values"].as_object().unwrap();
        let found = architecture.generated(&hyper, Convention::Gguf);
        assert_eq!(found.len(), expected.len(), "{}", case.name);
        for (name, values) in found {
            let wanted = expected[&name].as_array().unwrap();
            assert_eq!(values.len(), wanted.len(), "{}: {name}", case.name);
            for (v, w) in values.iter().zip(wanted) {
                let w = w.as_f64().unwrap() as f32;
                assert!((v - w).abs() <= 1e-6 * w.abs(), "{}: {name}: {v} for {w}", case.name);
            }
            assert!(architecture.ignorable(Convention::Gguf, &name));
        }
    }
}

#[test]
fn both_generations_of_transformers_say_the_same() {
    for case in cases() {
        let old = as_transformers_4(case.config());
        assert_eq!(from_hf_config(&old).unwrap().1, from_hf_config(case.config()).unwrap().1, "{}", case.name);
    }
}
