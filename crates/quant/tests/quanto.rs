//! The schemes of Quanto against what it packed and decoded on a CPU (see `golden/make_quanto.py`).

#![allow(clippy::unwrap_used)]

mod support;

use safetensors::SafeTensors;
use support::*;
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{Family, Packing, SchemeRef, quanto, scheme, schemes};
use windlass_tensor::DType;

fn family() -> Vec<SchemeRef> {
    schemes().into_iter().filter(|s| s.family() == Family::Quanto).collect()
}

fn each_level(f: impl Fn(Level)) {
    for level in [Level::Avx512, Level::Avx2, Level::Portable] {
        with_level(level, || f(level));
    }
}

/// The planes as Quanto stores them, there and back.
fn assert_stored(file: &SafeTensors, key: &str, packing: &Packing, shape: [usize; 2], planes: &[Vec<u8>]) {
    let memory = scatter(&quanto::arrangement(), packing, &shape, planes, &[1, 3]);
    let arrays = quanto::arrangement().arrays(packing, &shape).unwrap();
    for ((part, array), bytes) in ["scale", "shift"].iter().zip(&arrays[1..]).zip(&memory.0[1..]).rev() {
        let expected = file.tensor(&format!("{key}.{part}")).unwrap();
        assert_eq!(array.shape, expected.shape(), "{key}.{part}");
        assert_bytes(&format!("{key}.{part}"), &bytes.borrow(), expected.data());
    }
    let expected = file.tensor(&format!("{key}.data")).unwrap();
    assert_eq!(arrays[0].shape, expected.shape(), "{key}");
    assert_bytes(key, &memory.0[0].borrow(), expected.data());
    assert_eq!(gather(&quanto::arrangement(), packing, &shape, &memory, &[2, 4]), planes, "{key}");
}

#[test]
fn vectors_equal_quanto() {
    let bytes = golden("quanto");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["f32", "bf16"] {
        let input = floats(&file, &format!("{name}/input"));
        for (scheme, key) in [("qint8", "qint8"), ("qint4", "qint4"), ("qint2", "qint2"), ("qfloat8", "qfloat8_e4m3fn")]
        {
            let (packing, key) = (Packing { scheme: self::scheme(scheme).unwrap(), float: DType::F32 }, key);
            let key = format!("{name}/quanto-{key}");
            each_level(|_| {
                let planes = encode(packing.scheme, &input, 512, DType::F32);
                assert_stored(&file, &key, &packing, [8, 512], &planes);
                let decoded = decode(packing.scheme, &planes, input.len(), 512, DType::F32);
                assert_same(&key, &decoded, &floats(&file, &format!("{key}.decoded")));
            });
        }
    }
}

#[test]
fn groups_shapes_and_types_equal_quanto() {
    let bytes = golden("quanto");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for key in file.names().into_iter().filter_map(|k| k.strip_suffix(".decoded")) {
        let parts: Vec<&str> = key.split('/').collect();
        let [name, dtype, shape] = parts[..] else { continue };
        let packing = Packing { scheme: scheme(name).unwrap(), float: DType::from_name(dtype).unwrap() };
        let (rows, columns) = shape.split_once('x').unwrap();
        let shape: [usize; 2] = [rows.parse().unwrap(), columns.parse().unwrap()];
        let input = synthetic(shape[0], shape[1], packing.float);
        let expected = file.tensor(&format!("{key}.decoded")).unwrap();
        each_level(|_| {
            let planes = encode(packing.scheme, &input, shape[1], packing.float);
            assert_stored(&file, key, &packing, shape, &planes);
            let decoded = decode(packing.scheme, &planes, input.len(), shape[1], packing.float);
            assert_eq!(hash(&decoded, packing.float).to_le_bytes(), expected.data(), "{key}");
        });
        compared += 1;
    }
    assert_eq!(compared, 30);
}

#[test]
fn rows_of_zeros_stay_zero() {
    for scheme in family() {
        let planes = encode(scheme, &[0.0; 3 * 384], 384, DType::BF16);
        assert_eq!(decode(scheme, &planes, 3 * 384, 384, DType::BF16), [0.0; 3 * 384], "{scheme:?}");
    }
}

#[test]
fn cuts_give_the_same_bytes_as_the_whole() {
    for scheme in family() {
        let input = synthetic(11, 384, DType::BF16);
        let planes = encode(scheme, &input, 384, DType::BF16);
        assert_eq!(encode_cut(scheme, &input, 384, DType::BF16, &[1, 4, 9]), planes, "{scheme:?}");
        let whole = decode(scheme, &planes, input.len(), 384, DType::BF16);
        let cut = decode_cut(scheme, &planes, (input.len(), 384), DType::BF16, &[2, 3]);
        assert_same(scheme.name(), &cut, &whole);
    }
}

#[test]
fn errors_stay_below_their_ceilings() {
    let mut wrong = Vec::new();
    for scheme in family() {
        let relative = errors(scheme, if scheme.block() == 96 { 96 } else { 1024 });
        let (worst, ceiling) = (relative.into_iter().fold(0.0, f32::max), scheme.error_ceiling());
        println!("{} {relative:.5?} of {ceiling}", scheme.name());
        if !(worst <= ceiling && worst > ceiling * 0.85) {
            wrong.push(scheme);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_panics() {
    for scheme in family() {
        assert_refuses(scheme, 384);
        assert_survives(scheme, 384);
    }
}
