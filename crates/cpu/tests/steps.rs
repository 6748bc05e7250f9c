//! Steps of optimizers from a state that is not zero, against the reference.
#![allow(clippy::unwrap_used)]

use windlass_cpu::isa::{Level, with_level};
use windlass_ops::library::OPS;
use windlass_ops::{Attributes, Context, Op};
use windlass_runtime::random::Philox;
use windlass_tensor::{DType, Tensor, TypedTensor};

/// Values that straddle strips and blocks.
const VALUES: usize = 1000;

/// A parameter and a state of positive values (or bytes and scales), made of `seed`.
fn tensors(cx: &Context, op: &'static Op, gradient: &Tensor, how: &Attributes) -> Vec<Tensor> {
    let mut all = cx.call(op, &[gradient], how).unwrap();
    for (k, tensor) in all.iter_mut().enumerate() {
        let shape = tensor.shape().to_vec();
        let count = tensor.shape().values();
        let mut values = vec![0.0f32; count];
        Philox::new(k as u64).fill_uniform(&mut values);
        *tensor = match tensor.element().dtype() {
            Some(DType::U8) => {
                let bytes: Vec<u8> = values.iter().map(|v| (v * 256.0) as u8).collect();
                Tensor::from_slice(&bytes, shape).unwrap()
            }
            // Squares are larger than squares of means.
            _ => {
                let values: Vec<f32> = values.iter().map(|v| if k == 1 { v + 1.0 } else { *v }).collect();
                Tensor::from_slice(&values, shape).unwrap()
            }
        };
    }
    all
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    match tensor.element().dtype() {
        Some(DType::U8) => {
            let bytes = TypedTensor::<u8>::new(tensor.clone()).unwrap().to_vec().unwrap();
            bytes.into_iter().map(f32::from).collect()
        }
        _ => TypedTensor::<f32>::new(tensor.clone()).unwrap().to_vec().unwrap(),
    }
}

#[test]
fn steps_equal_the_reference_on_every_level() {
    windlass_cpu::register();
    let mut values = vec![0.0f32; VALUES];
    Philox::new(9).fill_normal(&mut values);
    let gradient = Tensor::from_slice(&values, [VALUES]).unwrap();
    let is_step = |op: &&Op| op.attributes.iter().any(|attribute| attribute.name == "learning_rate");
    let steps: Vec<&'static Op> = OPS.iter().copied().filter(is_step).collect();
    assert!(steps.len() >= 9);
    for op in steps {
        let known = |name: &str| op.attributes.iter().any(|attribute| attribute.name == name);
        let mut how = Attributes::new().float("learning_rate", 1e-2).float("weight_decay", 0.1);
        how = if known("step") { how.int("step", 5) } else { how };
        how = if known("momentum") { how.float("momentum", 0.9) } else { how };
        let run = |provider: &'static str| {
            Context::here(|cx| {
                let cx = Context::new(cx.session()).with_provider(provider);
                let mut all = tensors(&cx, op, &gradient, &how);
                cx.call_into(op, &[&gradient], &how, &mut all).unwrap();
                all
            })
        };
        let expected = run("reference");
        for level in Level::ALL {
            let found = with_level(level, || run("simd"));
            for (k, (expected, found)) in expected.iter().zip(&found).enumerate() {
                let near = |(e, f): (&f32, &f32)| (e - f).abs() <= 1e-6 + 1e-5 * e.abs();
                let (expected, found) = (numbers(expected), numbers(found));
                let wrong = expected.iter().zip(&found).position(|pair| !near(pair));
                assert!(wrong.is_none(), "{level:?} {} output {k} at {wrong:?}", op.name);
            }
        }
    }
}
