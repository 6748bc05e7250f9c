//! Every GGML scheme against llama.cpp's packed bytes and gguf-py's decoded values, at every instruction set.

use safetensors::SafeTensors;
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{Family, Importance, SchemeRef, schemes};
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
        let path = format!("{}/tests/golden/ggml-{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
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
    for name in ["f32", "bf16"] {
        let golden = Golden::open(name);
        let (shape, input) = golden.floats("input").unwrap();
        let (_, importance) = golden.floats("importance").unwrap();
        for scheme in ggml().into_iter().filter(|s| s.can_encode()) {
            let ones = vec![1.0; shape[1]];
            let required = scheme.importance() == Importance::Required;
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

#[test]
fn decoders_equal_gguf_py() {
    let golden = Golden::open("f32");
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
