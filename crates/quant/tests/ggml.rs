//! Every GGML scheme against llama.cpp's packed bytes and gguf-py's decoded values, at every instruction set.

#![allow(clippy::unwrap_used)]

use safetensors::SafeTensors;
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{Family, Grid, Importance, SchemeRef, schemes};
use windlass_tensor::DType;

const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

fn ggml() -> Vec<SchemeRef> {
    schemes().into_iter().filter(|s| s.family() == Family::Ggml).collect()
}

/// One file of golden data: a matrix, weights of its columns, and what the oracles made of them.
struct Golden {
    file: Vec<u8>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self { file: std::fs::read(path).unwrap() }
    }

    fn bytes(&self, key: &str) -> Option<(Vec<usize>, Vec<u8>)> {
        let tensors = SafeTensors::deserialize(&self.file).unwrap();
        tensors.tensor(key).ok().map(|t| (t.shape().to_vec(), t.data().to_vec()))
    }

    fn floats(&self, key: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let tensors = SafeTensors::deserialize(&self.file).unwrap();
        let tensor = tensors.tensor(key).ok()?;
        let dtype = if tensor.dtype() == safetensors::Dtype::BF16 { DType::BF16 } else { DType::F32 };
        let mut values = vec![0.0; tensor.data().len() / dtype.size()];
        windlass_quant::float::to_f32(dtype, tensor.data(), &mut values).unwrap();
        Some((tensor.shape().to_vec(), values))
    }
}

fn packed_len(scheme: SchemeRef, values: usize) -> usize {
    values / scheme.block() * scheme.planes()[0].per_block
}

fn encode(scheme: SchemeRef, values: &[f32], columns: usize, importance: Option<&[f32]>) -> Vec<u8> {
    let mut bytes = vec![0xa5; packed_len(scheme, values.len())];
    scheme.encode(values, columns, importance, DType::F32, &mut [&mut bytes]).unwrap();
    bytes
}

fn decode(scheme: SchemeRef, bytes: &[u8], columns: usize, count: usize) -> Vec<f32> {
    let mut values = vec![f32::NAN; count];
    scheme.decode(&[bytes], columns, DType::F32, &mut values).unwrap();
    values
}

fn differing_blocks(scheme: SchemeRef, got: &[u8], expected: &[u8]) -> usize {
    let size = scheme.planes()[0].per_block;
    assert_eq!(got.len(), expected.len(), "{}", scheme.name());
    got.chunks(size).zip(expected.chunks(size)).filter(|(a, b)| a != b).count()
}

/// Normally distributed values from a fixed seed.
fn normal(count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 + 0.5) / (1 << 24) as f32
    };
    (0..count).map(|_| (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos()).collect()
}

#[test]
fn encoders_equal_llama_cpp() {
    let mut failures = Vec::new();
    for name in ["ggml-f32", "ggml-bf16"] {
        let golden = Golden::open(name);
        let (shape, input) = golden.floats("input").unwrap();
        let (_, importance) = golden.floats("importance").unwrap();
        for scheme in ggml().into_iter().filter(|s| s.can_encode()) {
            let ones = vec![1.0; shape[1]];
            // The golden bytes of these two were made with ones, although they can do without.
            let required = scheme.importance() == Importance::Required || ["iq1_m", "iq2_s"].contains(&scheme.name());
            for (suffix, weights) in [("", required.then_some(&ones)), ("+imatrix", Some(&importance))] {
                let key = format!("ggml-{}{suffix}.packed", scheme.name());
                let (_, expected) = golden.bytes(&key).unwrap_or_else(|| panic!("no {key}"));
                for level in LEVELS {
                    let got = with_level(level, || encode(scheme, &input, shape[1], weights.map(Vec::as_slice)));
                    match differing_blocks(scheme, &got, &expected) {
                        0 => {}
                        n => failures
                            .push(format!("{name} {key} {level:?}: {n} blocks of {}", input.len() / scheme.block())),
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// IQ1, IQ2 and IQ3 on rows at the edges of their searches.
#[test]
fn lattices_equal_llama_cpp() {
    let golden = Golden::open("lattice");
    let (shape, input) = golden.floats("input").unwrap();
    let (_, importance) = golden.floats("importance").unwrap();
    let mut failures = Vec::new();
    for scheme in ggml().into_iter().filter(|s| matches!(s.grid(), Grid::Lattice { .. }) && s.name().starts_with("iq"))
    {
        for (suffix, weights) in [("", None), ("+imatrix", Some(importance.as_slice()))] {
            let expected = golden.bytes(&format!("{}{suffix}.packed", scheme.name()));
            let needs_weights = weights.is_none() && scheme.importance() == Importance::Required;
            assert_eq!(expected.is_none(), needs_weights, "{}{suffix}", scheme.name());
            let Some((_, expected)) = expected else { continue };
            for level in LEVELS {
                let got = with_level(level, || encode(scheme, &input, shape[1], weights));
                let row = expected.len() / shape[0];
                for (i, (got, expected)) in got.chunks(row).zip(expected.chunks(row)).enumerate() {
                    if differing_blocks(scheme, got, expected) > 0 {
                        failures.push(format!("{}{suffix} {level:?} row {i}", scheme.name()));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn schemes_that_need_importance_say_so() {
    for scheme in ggml().into_iter().filter(|s| s.importance() == Importance::Required) {
        let mut bytes = vec![0; packed_len(scheme, 256)];
        let error = scheme.encode(&[1.0; 256], 256, None, DType::F32, &mut [&mut bytes]).unwrap_err();
        assert!(error.to_string().contains("needs an importance matrix"), "{error}");
    }
}

#[test]
fn decoders_equal_gguf_py() {
    let golden = Golden::open("ggml-f32");
    for scheme in ggml() {
        let key = format!("ggml-{}", scheme.name());
        let (_, packed) = golden.bytes(&format!("{key}.packed")).unwrap();
        let (shape, expected) = golden.floats(&format!("{key}.decoded")).unwrap();
        let bytes = &packed[..packed_len(scheme, expected.len())];
        for level in LEVELS {
            let got = with_level(level, || decode(scheme, bytes, shape[1], expected.len()));
            for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
                assert!(a.to_bits() == b.to_bits(), "{key} {level:?} value {i}: {a:e}, not {b:e}");
            }
        }
    }
}

/// Importance for the schemes that cannot do without.
fn needed(scheme: SchemeRef, columns: usize) -> Option<Vec<f32>> {
    (scheme.importance() == Importance::Required).then(|| vec![1.0; columns])
}

fn writable() -> impl Iterator<Item = SchemeRef> {
    ggml().into_iter().filter(|s| s.can_encode())
}

#[test]
fn the_list_is_complete() {
    let names: Vec<&str> = ggml().iter().map(|s| s.name()).collect();
    for name in [
        "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs", "mxfp4", "nvfp4", "tq1_0", "tq2_0", "iq1_s",
        "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s",
    ] {
        assert!(windlass_quant::scheme(name).unwrap().can_encode(), "{name} is not among {names:?}");
    }
}

#[test]
fn error_on_normal_values_is_below_the_ceiling() {
    let columns = 2048;
    let values = normal(16 * columns);
    let power: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
    for scheme in writable() {
        let bytes = encode(scheme, &values, columns, needed(scheme, columns).as_deref());
        let decoded = decode(scheme, &bytes, columns, values.len());
        let error: f64 = values.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let relative = (error / power).sqrt() as f32;
        let ceiling = scheme.error_ceiling();
        assert!(relative < ceiling && relative > ceiling / 2.0, "{}: {relative} against {ceiling}", scheme.name());
    }
}

/// Rows that end inside a group of 16 blocks, encoded together, one by one, and at each level.
#[test]
fn blocks_do_not_depend_on_their_neighbours() {
    for scheme in writable() {
        for (rows, blocks) in [(1, 1), (1, 15), (3, 7), (1, 17), (5, 1), (2, 33)] {
            let columns = blocks * scheme.block();
            let values = normal(rows * columns);
            let importance: Vec<f32> = normal(columns).iter().map(|v| v.abs() + 0.1).collect();
            for weights in [needed(scheme, columns), Some(importance)] {
                let weights = weights.as_deref();
                let together = encode(scheme, &values, columns, weights);
                let alone: Vec<u8> =
                    values.chunks(columns).flat_map(|row| encode(scheme, row, columns, weights)).collect();
                assert_eq!(together, alone, "{} {rows} x {columns}", scheme.name());
                for level in LEVELS {
                    let bytes = with_level(level, || encode(scheme, &values, columns, weights));
                    assert_eq!(bytes, together, "{} {rows} x {columns} {level:?}", scheme.name());
                }
            }
        }
    }
}

#[test]
fn importance_matters_only_where_it_is_used() {
    let columns = 1024;
    let values = normal(4 * columns);
    let importance: Vec<f32> = normal(columns).iter().map(|v| v * v + 0.01).collect();
    for scheme in writable().filter(|s| s.importance() != Importance::Required) {
        let same = encode(scheme, &values, columns, None) == encode(scheme, &values, columns, Some(&importance));
        assert_eq!(same, scheme.importance() == Importance::Ignored, "{}", scheme.name());
    }
}

#[test]
fn zeros_stay_zeros() {
    for scheme in writable() {
        let columns = 3 * scheme.block();
        for zero in [0.0, -0.0] {
            let mut values = normal(columns);
            values[scheme.block()..2 * scheme.block()].fill(zero);
            for weights in [needed(scheme, columns), Some(vec![1.0; columns])] {
                let bytes = encode(scheme, &values, columns, weights.as_deref());
                let decoded = decode(scheme, &bytes, columns, columns);
                let block = &decoded[scheme.block()..2 * scheme.block()];
                assert!(block.iter().all(|v| *v == 0.0), "{} {zero}: {block:?}", scheme.name());
            }
        }
    }
}

#[test]
fn extreme_finite_values_give_the_same_bytes_at_every_level() {
    let fills = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-40, -1e-45, 1e-20, 65504.0, 1e30];
    for scheme in writable() {
        let columns = 2 * scheme.block();
        for (i, fill) in fills.iter().cycle().take(24).enumerate() {
            let mut values: Vec<f32> =
                normal(columns).iter().map(|v| v * if i < 16 { 1.0 } else { fill.abs() }).collect();
            values.iter_mut().step_by(1 + i).for_each(|v| *v = *fill);
            values.iter_mut().for_each(|v| *v = v.clamp(f32::MIN, f32::MAX));
            for weights in [needed(scheme, columns), Some(vec![0.5; columns])] {
                let weights = weights.as_deref();
                let [portable, avx2, avx512] =
                    LEVELS.map(|l| with_level(l, || encode(scheme, &values, columns, weights)));
                assert!(portable == avx2 && portable == avx512, "{} {fill:e}", scheme.name());
                decode(scheme, &portable, columns, columns);
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_do_not_panic() {
    for scheme in writable() {
        let columns = 2 * scheme.block();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for step in [1, 5, columns] {
                let mut values = normal(columns);
                values.iter_mut().step_by(step).for_each(|v| *v = bad);
                for weights in [needed(scheme, columns), Some(vec![1.0; columns]), Some(vec![bad; columns])] {
                    for level in LEVELS {
                        let bytes = with_level(level, || encode(scheme, &values, columns, weights.as_deref()));
                        with_level(level, || decode(scheme, &bytes, columns, columns));
                    }
                }
            }
        }
    }
}

#[test]
fn lengths_that_disagree_are_errors() {
    for scheme in ggml() {
        let (block, size) = (scheme.block(), scheme.planes()[0].per_block);
        let decode = |bytes: usize, columns: usize, values: usize| {
            scheme.decode(&[&vec![0; bytes]], columns, DType::F32, &mut vec![0.0; values])
        };
        assert!(decode(size, block, block).is_ok(), "{}", scheme.name());
        assert!(decode(0, block, 0).is_ok());
        for (bytes, columns, values) in
            [(size - 1, block, block), (size + 1, block, block), (0, block, block), (size, 0, block), (size, 1, block)]
        {
            assert!(decode(bytes, columns, values).is_err(), "{} {bytes} {columns} {values}", scheme.name());
        }
        assert!(decode(size, block, block - 1).is_err() && decode(size, 2 * block, block).is_err());
        assert!(scheme.decode(&[], block, DType::F32, &mut vec![0.0; block]).is_err());

        let encode = |values: usize, columns: usize, weights: Option<usize>, bytes: usize| {
            let weights = weights.map(|n| vec![1.0; n]);
            let mut bytes = vec![0; bytes];
            scheme.encode(&vec![1.0; values], columns, weights.as_deref(), DType::F32, &mut [&mut bytes])
        };
        assert_eq!(encode(block, block, Some(block), size).is_ok(), scheme.can_encode(), "{}", scheme.name());
        assert!(encode(block, block, Some(block + 1), size).is_err(), "{}", scheme.name());
        assert!(encode(block, block, Some(block), size - 1).is_err());
        assert!(encode(block - 1, block, Some(block), size).is_err());
        assert!(encode(block, block - 1, Some(block - 1), size).is_err());
        assert!(encode(block, 0, Some(0), size).is_err());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Any bytes are a packed tensor; each level reads the same values.
    #[test]
    fn any_bytes_decode(seed in proptest::collection::vec(proptest::num::u8::ANY, 64..512), blocks in 1usize..5) {
        for scheme in ggml() {
            let columns = blocks * scheme.block();
            let bytes: Vec<u8> = seed.iter().copied().cycle().take(packed_len(scheme, columns)).collect();
            let bits = |level| {
                let values = with_level(level, || decode(scheme, &bytes, columns, columns));
                values.iter().map(|v| if v.is_nan() { 0 } else { v.to_bits() }).collect::<Vec<u32>>()
            };
            proptest::prop_assert_eq!(bits(Level::Portable), bits(Level::Avx2), "{}", scheme.name());
            proptest::prop_assert_eq!(bits(Level::Portable), bits(Level::Avx512), "{}", scheme.name());
        }
    }
}
