//! The schemes of bitsandbytes against what it packed and decoded on a CPU (see `golden/make_bnb.py`).

#![allow(clippy::unwrap_used)]

mod support;

use safetensors::SafeTensors;
use support::*;
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{Family, SchemeRef, bnb, scheme, schemes};
use windlass_tensor::DType;

fn family() -> Vec<SchemeRef> {
    schemes().into_iter().filter(|s| s.family() == Family::BitsAndBytes).collect()
}

fn each_level(f: impl Fn(Level)) {
    for level in [Level::Avx512, Level::Avx2, Level::Portable] {
        with_level(level, || f(level));
    }
}

/// Every plane that the file has under `key`.
fn assert_planes(file: &SafeTensors, key: &str, scheme: SchemeRef, planes: &[Vec<u8>]) {
    for (plane, bytes) in scheme.planes().iter().zip(planes) {
        let expected = file.tensor(&format!("{key}.{}", plane.name)).unwrap();
        assert_bytes(&format!("{key}.{}", plane.name), bytes, expected.data());
    }
}

#[test]
fn vectors_equal_bitsandbytes() {
    let bytes = golden("bnb");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, dtype) in [("f32", DType::F32), ("bf16", DType::BF16)] {
        let input = floats(&file, &format!("{name}/input"));
        for scheme in ["nf4", "nf4-dq", "fp4", "fp4-dq"].map(|name| scheme(name).unwrap()) {
            let key = format!("{name}/bnb-{}", scheme.name());
            each_level(|_| {
                let planes = encode(scheme, &input, 512, dtype);
                assert_planes(&file, &key, scheme, &planes);
                let decoded = decode(scheme, &planes, input.len(), 512, dtype);
                assert_same(&key, &decoded, &floats(&file, &format!("{key}.decoded")));
            });
        }
    }
}

/// The vectors' values of `int8` were divided by 127, which bitsandbytes itself does not do: its codes are compared here,
/// its values in the next test.
#[test]
fn row_wise_codes_equal_bitsandbytes() {
    let bytes = golden("bnb");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let scheme = scheme("int8").unwrap();
    for (name, dtype) in [("f32", DType::F32), ("bf16", DType::BF16)] {
        let input = floats(&file, &format!("{name}/input"));
        let key = format!("{name}/bnb-int8-rowwise");
        each_level(|_| assert_planes(&file, &key, scheme, &encode(scheme, &input, 512, dtype)));
        let decoded = decode(scheme, &encode(scheme, &input, 512, dtype), input.len(), 512, DType::F32);
        for (a, b) in decoded.iter().zip(floats(&file, &format!("{key}.decoded"))) {
            assert!((a - b).abs() <= b.abs() * 2f32.powi(-22), "{a:e} {b:e}");
        }
    }
}

#[test]
fn other_shapes_blocks_and_types_equal_bitsandbytes() {
    let bytes = golden("bnb");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for key in file.names().into_iter().filter_map(|k| k.strip_suffix(".decoded")) {
        let parts: Vec<&str> = key.split('/').collect();
        let [name, dtype, shape] = parts[..] else { continue };
        let (scheme, dtype) = (scheme(name).unwrap(), DType::from_name(dtype).unwrap());
        let (rows, columns) = shape.split_once('x').unwrap();
        let (rows, columns): (usize, usize) = (rows.parse().unwrap(), columns.parse().unwrap());
        let input = synthetic(rows, columns, dtype);
        let expected = file.tensor(&format!("{key}.decoded")).unwrap();
        each_level(|_| {
            let mut planes = encode(scheme, &input, columns, dtype);
            if let Ok(offset) = file.tensor(&format!("{key}.offset")) {
                planes = with_offset(scheme, &input, columns, dtype, planes, offset.data());
            }
            assert_planes(&file, key, scheme, &planes);
            let decoded = decode(scheme, &planes, input.len(), columns, dtype);
            assert_eq!(hash(&decoded, dtype).to_le_bytes(), expected.data(), "{key}");
        });
        compared += 1;
    }
    assert_eq!(compared, 41);
}

/// The mean of scales depends on the order of adding: ours is within one ulp, and with that of bitsandbytes every byte is
/// the same.
fn with_offset(
    scheme: SchemeRef,
    input: &[f32],
    columns: usize,
    dtype: DType,
    mut planes: Vec<Vec<u8>>,
    offset: &[u8],
) -> Vec<Vec<u8>> {
    let bits = |bytes: &[u8]| i64::from(u32::from_le_bytes(bytes.try_into().unwrap()));
    assert!((bits(&planes[3]) - bits(offset)).abs() <= 1, "{scheme:?}");
    planes[3].copy_from_slice(offset);
    let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
    scheme.encode(input, columns, None, dtype, &mut slices).unwrap();
    planes
}

#[test]
fn the_dynamic_map_equals_that_of_bitsandbytes() {
    let bytes = golden("bnb");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_same("map", bnb::dynamic_map(), &floats(&file, "dynamic_map"));
}

#[test]
fn cuts_give_the_same_bytes_as_the_whole() {
    for (name, rows, columns, cuts) in [
        ("nf4", 9, 192, &[1, 2, 7][..]),
        ("fp4-b32", 9, 96, &[4]),
        ("int8", 9, 77, &[3, 5]),
        ("nf4-dq", 520, 832, &[256, 512]),
        ("fp4-dq", 35, 1024, &[16, 32]),
        ("nf4-dq", 5, 16384, &[1, 2, 4]),
    ] {
        let scheme = scheme(name).unwrap();
        let granularity = scheme.row_granularity(columns);
        assert!(cuts.iter().all(|c| c % granularity == 0), "{name}: {granularity}");
        let input = synthetic(rows, columns, DType::F32);
        let planes = encode(scheme, &input, columns, DType::F32);
        assert_eq!(encode_cut(scheme, &input, columns, DType::F32, cuts), planes, "{name}");
        let whole = decode(scheme, &planes, input.len(), columns, DType::F32);
        assert_same(name, &decode_cut(scheme, &planes, (input.len(), columns), DType::F32, cuts), &whole);
    }
}

#[test]
fn errors_stay_below_their_ceilings() {
    let mut wrong = Vec::new();
    for scheme in family() {
        let relative = errors(scheme, 4096);
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
        assert_refuses(scheme, 4096);
        assert_survives(scheme, 4096);
    }
}
