//! The schemes of HQQ against what it packed and decoded on a CPU (see `golden/make_hqq.py`).

#![allow(clippy::unwrap_used)]

mod support;

use std::cell::RefCell;

use safetensors::SafeTensors;
use support::*;
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{Family, Grid, Packing, SchemeRef, float, hqq, scheme, schemes};
use windlass_tensor::{DType, PackedLayout};

fn family() -> Vec<SchemeRef> {
    schemes().into_iter().filter(|s| s.family() == Family::Hqq).collect()
}

fn each_level(f: impl Fn(Level)) {
    for level in [Level::Avx512, Level::Avx2, Level::Portable] {
        with_level(level, || f(level));
    }
}

/// Codes, scales and zeros as HQQ stores them.
fn assert_stored(file: &SafeTensors, keys: [String; 3], scheme: SchemeRef, shape: [usize; 2], planes: &[Vec<u8>]) {
    let packing = Packing { scheme, float: DType::F32 };
    let memory = scatter(&hqq::arrangement(), &packing, &shape, planes, &[1, 3]);
    let arrays = hqq::arrangement().arrays(&packing, &shape).unwrap();
    for ((key, array), bytes) in keys.iter().zip(arrays).zip(&memory.0).rev() {
        let expected = file.tensor(key).unwrap();
        assert_eq!(array.shape, expected.shape(), "{key}");
        assert_bytes(key, &bytes.borrow(), expected.data());
    }
    let mut back = gather(&hqq::arrangement(), &packing, &shape, &memory, &[2, 5]);
    back[3].copy_from_slice(&planes[3]);
    assert_eq!(back, planes, "{scheme:?}");
}

#[test]
fn vectors_equal_hqq() {
    let bytes = golden("hqq");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["f32", "bf16"] {
        let input = floats(&file, &format!("{name}/input"));
        for scheme in [8, 4, 3, 2, 1].map(|bits| scheme(&format!("hqq{bits}-g64")).unwrap()) {
            let key = |part: &str| format!("{name}/{}.{part}", scheme.name());
            each_level(|_| {
                let planes = encode(scheme, &input, 512, DType::F32);
                assert_stored(&file, ["packed", "scale", "zero"].map(key), scheme, [8, 512], &planes);
                let decoded = decode(scheme, &planes, input.len(), 512, DType::F32);
                assert_same(&key("decoded"), &decoded, &floats(&file, &key("decoded")));
            });
        }
    }
}

/// Whether errors are so large that powers of them are taken.
fn shrinks(scheme: SchemeRef, factor: f32) -> bool {
    factor > 1.0 || matches!(scheme.grid(), Grid::Affine { bits: 1 | 2, .. })
}

/// Powers are rounded correctly here, and to an ulp by the library that torch takes them from, so that some of the zeros are
/// the next `f32` or the one after. Codes are the same. Returns what HQQ stored.
fn near(file: &SafeTensors, key: &str, scheme: SchemeRef, shape: [usize; 2], planes: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let packing = Packing { scheme, float: DType::F32 };
    let stored =
        ["W_q", "scale", "zero"].map(|p| RefCell::new(file.tensor(&format!("{key}.{p}")).unwrap().data().to_vec()));
    let mut theirs = gather(&hqq::arrangement(), &packing, &shape, &Memory(stored.into()), &[]);
    theirs[3].copy_from_slice(&planes[3]);
    let zeros = |planes: &[Vec<u8>]| {
        let mut zeros = vec![0.0; planes[2].len() / 4];
        float::to_f32(DType::F32, &planes[2], &mut zeros).unwrap();
        zeros
    };
    assert_eq!(planes[1], theirs[1], "{key}");
    let (ours, expected) = (zeros(&planes), zeros(&theirs));
    let differ = ours.iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert!(differ * 12 <= ours.len(), "{key}: {differ} of {} zeros", ours.len());
    for (a, b) in ours.iter().zip(&expected) {
        assert!((a - b).abs() <= b.abs() * 2.4e-7 + 1e-7, "{key}: {a:e} {b:e}");
    }
    assert_bytes(key, &planes[0], &theirs[0]);
    theirs
}

/// Planes with scales and zeros of another type.
fn rounded(scheme: SchemeRef, planes: &[Vec<u8>], shape: [usize; 2], dtype: DType) -> Vec<Vec<u8>> {
    let sizes = Packing { scheme, float: dtype }.plane_bytes(&shape).unwrap();
    let mut planes = planes.to_vec();
    for i in [1, 2] {
        let mut values = vec![0.0; planes[i].len() / 4];
        float::to_f32(DType::F32, &planes[i], &mut values).unwrap();
        planes[i].resize(sizes[i] as usize, 0);
        float::from_f32(dtype, &values, &mut planes[i]).unwrap();
    }
    planes
}

#[test]
fn groups_shapes_and_wide_ranges_equal_hqq() {
    let bytes = golden("hqq");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for key in file.names().into_iter().filter_map(|k| k.strip_suffix(".W_q")) {
        let parts: Vec<&str> = key.split('/').collect();
        let (scheme, factor): (_, f32) = (scheme(parts[0]).unwrap(), parts[1].parse().unwrap());
        let (rows, columns) = parts[2].split_once('x').unwrap();
        let shape: [usize; 2] = [rows.parse().unwrap(), columns.parse().unwrap()];
        let input: Vec<f32> = synthetic(shape[0], shape[1], DType::F32).iter().map(|v| v * factor).collect();
        each_level(|_| {
            let mut planes = encode(scheme, &input, shape[1], DType::F32);
            assert_eq!(planes[3], file.tensor(&format!("{key}.steps")).unwrap().data(), "{key}: steps");
            if shrinks(scheme, factor) {
                planes = near(&file, key, scheme, shape, planes);
            }
            assert_stored(&file, ["W_q", "scale", "zero"].map(|p| format!("{key}.{p}")), scheme, shape, &planes);
            for (name, dtype) in [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)] {
                let planes = rounded(scheme, &planes, shape, dtype);
                let decoded = decode(scheme, &planes, input.len(), shape[1], dtype);
                let expected = file.tensor(&format!("{key}.{name}")).unwrap();
                assert_eq!(hash(&decoded, dtype).to_le_bytes(), expected.data(), "{key}.{name}");
            }
        });
        compared += 1;
    }
    assert_eq!(compared, 25);
}

#[test]
fn cuts_give_the_same_bytes_as_the_whole() {
    for name in ["hqq8-g16", "hqq4-g64", "hqq3-g32", "hqq2-g128", "hqq1-g64"] {
        let scheme = scheme(name).unwrap();
        let input = synthetic(11, 640, DType::F32);
        let planes = encode(scheme, &input, 640, DType::F16);
        assert_eq!(encode_cut(scheme, &input, 640, DType::F16, &[1, 4, 9]), planes, "{name}");
        let whole = decode(scheme, &planes, input.len(), 640, DType::F16);
        assert_same(name, &decode_cut(scheme, &planes, (input.len(), 640), DType::F16, &[2, 3]), &whole);
    }
}

#[test]
fn groups_that_do_not_fill_words_are_refused_as_hqq_does() {
    let packing = |name| Packing { scheme: scheme(name).unwrap(), float: DType::F16 };
    assert!(hqq::arrangement().arrays(&packing("hqq4-g64"), &[3, 64]).is_err());
    assert!(hqq::arrangement().arrays(&packing("hqq1-g64"), &[4, 64]).is_err());
    assert!(hqq::arrangement().arrays(&packing("hqq3-g64"), &[3, 64]).is_ok());
    assert!(hqq::arrangement().arrays(&packing("hqq4-g64"), &[4, 96]).is_err());
    assert!(hqq::arrangement().arrays(&packing("hqq4-g64"), &[usize::MAX, 64]).is_err());
    assert!(hqq::arrangement().arrays(&packing("nf4"), &[4, 64]).is_err());
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
        assert_refuses(scheme, 256);
        assert_survives(scheme, 256);
    }
}
