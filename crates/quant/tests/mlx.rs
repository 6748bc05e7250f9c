//! MLX schemes against what mlx.core packed and decoded (see `golden/`).

#![allow(clippy::unwrap_used)]

use safetensors::SafeTensors;
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{Error, Family, Packing, SchemeRef, float, scheme, schemes};
use windlass_tensor::{DType, PackedLayout};

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn floats(file: &SafeTensors, key: &str) -> Vec<f32> {
    let view = file.tensor(key).unwrap();
    let dtype = DType::from_name(&format!("{:?}", view.dtype())).unwrap();
    let mut values = vec![0.0; view.data().len() / dtype.size()];
    float::to_f32(dtype, view.data(), &mut values).unwrap();
    values
}

fn mlx() -> impl Iterator<Item = SchemeRef> {
    schemes().into_iter().filter(|s| s.family() == Family::Mlx)
}

fn encode(scheme: SchemeRef, values: &[f32], columns: usize, float: DType) -> Vec<Vec<u8>> {
    let shape = [values.len() / columns, columns];
    let sizes = Packing { scheme, float }.plane_bytes(&shape).unwrap();
    let mut planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0xa5; *n as usize]).collect();
    let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
    scheme.encode(values, columns, None, float, &mut slices).unwrap();
    planes
}

fn decode(scheme: SchemeRef, planes: &[Vec<u8>], count: usize, columns: usize, float: DType) -> Vec<f32> {
    let slices: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
    let mut values = vec![f32::NAN; count];
    scheme.decode(&slices, columns, float, &mut values).unwrap();
    values
}

/// Compares every scheme that the file has; `key` gives a scheme's name there.
fn compare(file: &str, float: DType, key: impl Fn(SchemeRef) -> String) -> usize {
    let bytes = golden(file);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let input = floats(&file, "input");
    let columns = file.tensor("input").unwrap().shape()[1];
    let mut compared = 0;
    for scheme in mlx() {
        let key = key(scheme);
        if file.tensor(&format!("{key}.packed")).is_err() {
            continue;
        }
        for level in [Level::Avx512, Level::Avx2, Level::Portable] {
            with_level(level, || {
                let planes = encode(scheme, &input, columns, float);
                for (plane, bytes) in scheme.planes().iter().zip(&planes) {
                    let expected = file.tensor(&format!("{key}.{}", plane.name)).unwrap();
                    let per_row = bytes.len() / (input.len() / columns);
                    let bad = bytes.iter().zip(expected.data()).position(|(a, b)| a != b);
                    assert_eq!(bad.map(|i| i / per_row), None, "{key} {level:?}: row of {} that differs", plane.name);
                    assert_eq!(bytes.len(), expected.data().len());
                }
                let decoded = decode(scheme, &planes, input.len(), columns, float);
                let expected = floats(&file, &format!("{key}.decoded"));
                for (i, (a, b)) in decoded.iter().zip(&expected).enumerate() {
                    assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{key} {level:?} {i}: {a:e} {b:e}");
                }
            });
        }
        compared += 1;
    }
    compared
}

fn vector_key(scheme: SchemeRef) -> String {
    let name = scheme.name();
    match name.strip_prefix("mlx-") {
        Some(_) => format!("{name}-g{}", scheme.block()),
        None => name.replace("mlx", "mlx-affine"),
    }
}

#[test]
fn f32_matrix_equals_mlx() {
    assert_eq!(compare("mlx-f32", DType::F32, vector_key), 21);
}

#[test]
fn bf16_matrix_equals_mlx() {
    assert_eq!(compare("mlx-bf16", DType::BF16, vector_key), 21);
}

#[test]
fn edges_of_rounding_equal_mlx() {
    for (name, dtype) in [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)] {
        assert_eq!(compare(&format!("mlx-edges-{name}"), dtype, |s| s.name().to_string()), 11);
    }
}

#[test]
fn errors_stay_below_their_ceilings() {
    // Sums of twelve uniform numbers are near enough to normal.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let values: Vec<f32> = (0..64 * 1024).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
    for scheme in mlx() {
        let relative = [DType::F32, DType::F16, DType::BF16].map(|float| {
            let planes = encode(scheme, &values, 1024, float);
            let decoded = decode(scheme, &planes, values.len(), 1024, float);
            let error: f64 = values.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let power: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
            (error / power).sqrt() as f32
        });
        let (worst, ceiling) = (relative.into_iter().fold(0.0, f32::max), scheme.error_ceiling());
        println!("{} {relative:.5?} of {ceiling}", scheme.name());
        assert!(worst <= ceiling && worst > ceiling * 0.85, "{}: {relative:?} against {ceiling}", scheme.name());
    }
}

#[test]
fn wrong_sizes_and_types_are_refused() {
    let scheme = scheme("mlx4-g64").unwrap();
    let mut planes = encode(scheme, &[1.0; 128], 128, DType::F16);
    let refused = |planes: &mut Vec<Vec<u8>>, count: usize, columns: usize, float| {
        let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
        let encoded = scheme.encode(&vec![1.0; count], columns, None, float, &mut slices);
        let slices: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
        let decoded = scheme.decode(&slices, columns, float, &mut vec![0.0; count]);
        matches!(encoded, Err(Error::Shape { .. })) && matches!(decoded, Err(Error::Shape { .. }))
    };
    assert!(!refused(&mut planes, 128, 128, DType::BF16));
    assert!(refused(&mut planes, 128, 0, DType::F16));
    assert!(refused(&mut planes, 128, 96, DType::F16));
    assert!(refused(&mut planes, 192, 192, DType::F16));
    assert!(refused(&mut planes, 128, 128, DType::F32));
    assert!(refused(&mut planes, 128, 128, DType::F64));
    planes.pop();
    assert!(refused(&mut planes, 128, 128, DType::F16));
}

#[test]
fn values_that_are_not_finite_do_not_panic() {
    for scheme in mlx() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -f32::MAX, f32::MIN_POSITIVE / 2.0] {
            for float in [DType::F32, DType::F16, DType::BF16] {
                let mut values = vec![0.5; 256];
                values[3] = value;
                values[128..].fill(value);
                let planes = encode(scheme, &values, 256, float);
                decode(scheme, &planes, 256, 256, float);
            }
        }
        let sizes = Packing { scheme, float: DType::F16 }.plane_bytes(&[1, 256]).unwrap();
        let planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0xff; *n as usize]).collect();
        decode(scheme, &planes, 256, 256, DType::F16);
    }
}
