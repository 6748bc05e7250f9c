//! Every kernel of the provider against the reference, at sizes that straddle its blocks, on every instruction set.
#![allow(clippy::unwrap_used)]

use windlass_cpu::isa::{Level, with_level};
use windlass_ops::library::{
    Attention, CACHE_WRITE, RMS_NORM, Rope, attention, embedding, layer_norm, linear, rope, softmax,
};
use windlass_ops::{Attributes, Context, Recorder, elementwise, zeros};
use windlass_runtime::random::Philox;
use windlass_tensor::{DType, Tensor, TypedTensor};

fn random(seed: u64, shape: &[usize]) -> Tensor {
    let mut values = vec![0.0f32; shape.iter().product()];
    Philox::new(seed).fill_normal(&mut values);
    Tensor::from_slice(&values, shape.to_vec()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    TypedTensor::<f32>::new(tensor.clone()).unwrap().to_vec().unwrap()
}

/// Runs `call` with the reference and, on each level, with the provider; they must agree.
fn agree(what: &str, relative: f32, absolute: f32, call: impl Fn(&Context) -> Tensor) {
    windlass_cpu::register();
    let expected = Context::here(|cx| values(&call(&Context::new(cx.session()).with_provider("reference"))));
    for level in Level::ALL {
        let recorder = Recorder::new();
        let found = with_level(level, || {
            Context::here(|cx| values(&call(&Context::new(cx.session()).with_recorder(&recorder))))
        });
        let receipts = recorder.take();
        assert!(receipts.iter().all(|r| r.provider == "simd"), "{what}: {receipts:?}");
        for (i, (e, f)) in expected.iter().zip(&found).enumerate() {
            let wrong = (e - f).abs() > absolute + relative * e.abs() && !(e.is_nan() && f.is_nan());
            assert!(!wrong, "{what} at {level:?}, value {i}: expected {e}, found {f}");
        }
    }
}

#[test]
fn norms() {
    for (rows, columns) in [(1, 1), (3, 31), (2, 33), (70, 1024)] {
        let (x, w, b) = (random(1, &[rows, columns]), random(2, &[columns]), random(3, &[columns]));
        let offset = Attributes::new().float("eps", 1e-6).float("offset", 1.0);
        agree("rms_norm", 1e-5, 1e-5, |cx| cx.one(&RMS_NORM, &[&x, &w], &offset).unwrap());
        agree("layer_norm", 1e-4, 1e-4, |cx| layer_norm(cx, &x, &w, &b, 1e-5).unwrap());
    }
}

#[test]
fn rotations() {
    for (dim, pairs, interleaved) in [(16, 8, false), (64, 32, true), (64, 16, false), (128, 64, false)] {
        let frequencies: Vec<f32> = (0..pairs).map(|i| 1.0 / 10_000f32.powf(i as f32 / pairs as f32)).collect();
        let frequencies = Tensor::from_slice(&frequencies, [pairs]).unwrap();
        let how = Rope { head_dim: dim, frequencies, factor: 1.1, interleaved };
        let x = random(4, &[37, 3 * dim]);
        agree("rope", 1e-5, 2e-5, |cx| rope(cx, &x, &how, 700).unwrap());
    }
}

#[test]
fn products_of_matrices() {
    for [rows, inside, columns] in [[1, 1, 1], [3, 17, 5], [9, 40, 70], [33, 530, 129]] {
        let (x, y) = (random(20, &[rows, inside]), random(21, &[inside, columns]));
        agree("matmul", 1e-5, 1e-4, |cx| windlass_ops::library::matmul(cx, &x, &y).unwrap());
    }
}

#[test]
fn softmaxes() {
    for columns in [1, 15, 16, 17, 1000] {
        let x = random(5, &[7, columns]);
        agree("softmax", 1e-5, 1e-7, |cx| softmax(cx, &x).unwrap());
    }
}

#[test]
fn every_elementwise_op() {
    for op in elementwise::ops() {
        let Some(kernel) = windlass_ops::provider("simd").ok().and_then(|p| p.kernel(op.name)) else { continue };
        assert_eq!(kernel.op, op.name);
        for shape in [vec![1], vec![3, 171], vec![9000]] {
            let inputs: Vec<Tensor> = (0..op.inputs.len()).map(|i| random(6 + i as u64, &shape)).collect();
            let inputs: Vec<&Tensor> = inputs.iter().collect();
            agree(op.name, 4e-6, 1e-6, |cx| {
                let out = cx.one(op, &inputs, &Attributes::NONE).unwrap();
                Context::here(|cx| {
                    windlass_ops::library::cast(
                        &Context::new(cx.session()).with_provider("reference"),
                        &out,
                        DType::F32,
                    )
                })
                .unwrap()
            });
        }
    }
}

#[test]
fn a_row_is_added_to_every_row() {
    let (x, bias) = (random(8, &[5, 300]), random(9, &[300]));
    agree("add", 0.0, 0.0, |cx| windlass_ops::library::elementwise(cx, "add", &[&x, &bias]).unwrap());
}

#[test]
fn attentions() {
    let cases = [(1, 1, 1, 16, 0), (1, 8, 2, 64, 200), (7, 4, 4, 80, 60), (70, 6, 2, 64, 3), (130, 4, 2, 128, 0)];
    for (tokens, heads, kv_heads, dim, start) in cases {
        for (causal, window, soft_cap) in [(true, 0, 0.0), (true, 50, 0.0), (true, 0, 30.0), (false, 0, 0.0)] {
            let context = start + tokens + 3;
            let q = random(10, &[tokens, heads * dim]);
            let keys = random(11, &[kv_heads, context, dim]);
            let cached = random(12, &[kv_heads, context, dim]);
            let how = Attention { start, scale: 1.0 / (dim as f32).sqrt(), causal, window, soft_cap };
            agree("attention", 1e-5, 2e-6, |cx| attention(cx, &q, &keys, &cached, &how).unwrap());
        }
    }
}

#[test]
fn caches_are_written_where_they_are_told() {
    let x = random(13, &[4, 2 * 32]);
    let attributes = Attributes::new().int("heads", 2).int("context", 9).int("start", 3).text("to", "F16");
    agree("cache_write", 0.0, 0.0, |cx| {
        let mut cache = zeros(DType::F16, [2, 9, 32]).unwrap();
        cx.call_into(&CACHE_WRITE, &[&x], &attributes, std::slice::from_mut(&mut cache)).unwrap();
        Context::here(|cx| {
            windlass_ops::library::cast(&Context::new(cx.session()).with_provider("reference"), &cache, DType::F32)
        })
        .unwrap()
    });
}

#[test]
fn embeddings_of_floats_and_schemes() {
    let table = random(14, &[40, 256]);
    let ids = Tensor::from_slice(&[3u32, 39, 0, 3], [4]).unwrap();
    agree("embedding", 0.0, 0.0, |cx| embedding(cx, &table, &ids).unwrap());
    for name in ["q4_0", "q6_k", "mlx4-g64", "nf4"] {
        let packed = pack(name, &table);
        agree(name, 0.0, 0.0, |cx| embedding(cx, &packed, &ids).unwrap());
    }
}

#[test]
fn products_with_weights_of_any_kind() {
    let weights = random(15, &[70, 512]);
    for m in [1, 3, 40] {
        let x = random(16, &[m, 512]);
        agree("f32", 1e-4, 1e-3, |cx| linear(cx, &x, &weights).unwrap());
        for name in ["q4_0", "q8_0", "q4_k", "q6_k", "mlx4-g64", "nf4", "int8"] {
            let packed = pack(name, &weights);
            // Activations of 8 bits: the error of a sum of 512 products grows with its length, not with its value.
            agree(name, 2e-2, 0.8, |cx| linear(cx, &x, &packed).unwrap());
        }
    }
}

fn pack(name: &str, tensor: &Tensor) -> Tensor {
    use std::sync::Arc;
    use windlass_quant::{Packing, scheme};
    use windlass_tensor::{PackedLayout, Storage};
    let packing = Packing { scheme: scheme(name).unwrap(), float: DType::F32 };
    let sizes = packing.plane_bytes(tensor.shape()).unwrap();
    let mut planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0; *n as usize]).collect();
    let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| p.as_mut_slice()).collect();
    packing.scheme.encode(&values(tensor), tensor.shape().columns(), None, DType::F32, &mut slices).unwrap();
    let planes = planes.iter().map(|p| Storage::copy_of(p).unwrap()).collect();
    Tensor::packed(Arc::new(packing), tensor.shape().to_vec(), planes).unwrap()
}
