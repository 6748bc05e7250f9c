//! Every gradient against finite differences, in double precision, with the arguments that the survey tries.
#![allow(clippy::unwrap_used)]

use windlass_ops::survey::{Kind, Profile, Sample, Surveyed};
use windlass_ops::{Backward, Context, Gradient, Op, Reads, Saved, all_ops};
use windlass_runtime::random::Philox;
use windlass_tensor::{DType, Tensor};

/// Values of each input that are moved.
const MOVED: usize = 12;

fn values(tensor: &Tensor) -> Vec<f64> {
    let mut bytes = vec![0; tensor.shape().values() * 8];
    tensor.read(&mut bytes).unwrap();
    bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

/// The sum of what is in the domain.
fn weighted(outputs: &[Tensor], weights: &[Option<Tensor>]) -> f64 {
    let each = outputs.iter().zip(weights).filter_map(|(output, w)| Some((output, w.as_ref()?)));
    each.map(|(output, w)| {
        values(output).iter().zip(values(w)).map(|(y, w)| y * w).filter(|v| v.is_finite()).sum::<f64>()
    })
    .sum()
}

/// A loss that moves by more than rounding, and alike for two steps; else there is a kink.
fn slope(loss: &dyn Fn(f64) -> f64) -> Option<f64> {
    let central = |h: f64| (loss(h) - loss(-h)) / (2.0 * h);
    let (wide, narrow) = (central(2e-5), central(1e-5));
    let sides = ((loss(1e-5) - loss(0.0)) / 1e-5, (loss(0.0) - loss(-1e-5)) / 1e-5);
    let smooth = (wide - narrow).abs() <= 1e-5 * (1.0 + narrow.abs())
        && (sides.0 - sides.1).abs() <= 1e-2 * (1.0 + narrow.abs());
    (narrow.is_finite() && smooth).then(|| (4.0 * narrow - wide) / 3.0)
}

/// Compares, and says how many values were compared.
fn check(cx: &Context, op: &'static Op, profile: &Profile) -> usize {
    let Gradient::Rule { reads, rule } = op.gradient else { return 0 };
    let double = |sample: &Sample| Sample {
        kind: if sample.kind == Kind::Weight { Kind::Surveyed } else { sample.kind },
        ..sample.clone()
    };
    let make = |(i, sample): (usize, &Sample)| {
        double(sample).make(i as u64 + 1, Surveyed::Plain(DType::F64)).unwrap().unwrap()
    };
    let inputs: Vec<Tensor> = profile.inputs.iter().enumerate().map(make).collect();
    let call = |inputs: &[Tensor]| cx.call(op, &inputs.iter().collect::<Vec<_>>(), &profile.attributes).unwrap();
    let outputs = call(&inputs);
    let upstream = |(i, output): (usize, &Tensor)| {
        // The logarithms of sums of attention are there for the gradient alone.
        let flows = output.element().dtype() == Some(DType::F64) && !(op.name == "sequence_attention" && i == 1);
        let mut values = vec![0.0; output.shape().values()];
        Philox::new(77 + i as u64).fill_normal_f64(&mut values);
        flows.then(|| Tensor::from_slice(&values, output.shape().to_vec()).unwrap())
    };
    let upstream: Vec<Option<Tensor>> = outputs.iter().enumerate().map(upstream).collect();
    if upstream.iter().all(Option::is_none) {
        return 0;
    }
    let wanted: Vec<bool> = inputs.iter().map(|t| t.element().dtype() == Some(DType::F64)).collect();
    let read = (0..inputs.len()).filter(|i| wanted[*i]).fold(Reads::NOTHING, |all, i| all.and(reads(op, i)));
    let backward = Backward {
        cx,
        op,
        inputs: &inputs.iter().enumerate().map(|(i, t)| Saved::new(t, read.reads_input(i))).collect::<Vec<_>>(),
        outputs: &outputs.iter().enumerate().map(|(i, t)| Saved::new(t, read.reads_output(i))).collect::<Vec<_>>(),
        attributes: &profile.attributes,
        gradients: &upstream,
        wanted: &wanted,
    };
    let found = rule(&backward).unwrap_or_else(|e| panic!("{} {}: {e}", op.name, profile.name));
    assert_eq!(found.len(), inputs.len(), "{}: gradients", op.name);
    let mut compared = 0;
    for (i, input) in inputs.iter().enumerate().filter(|(i, _)| wanted[*i]) {
        let original = values(input);
        let flowed = match &found[i] {
            Some(gradient) => {
                assert_eq!(gradient.shape().dims(), input.shape().dims(), "{} {}: input {i}", op.name, profile.name);
                values(gradient)
            }
            None => vec![0.0; original.len()],
        };
        for at in (0..original.len()).step_by(original.len().div_ceil(MOVED).max(1)) {
            let loss = |h: f64| {
                let mut moved = original.clone();
                moved[at] += h;
                let mut all = inputs.clone();
                all[i] = Tensor::from_slice(&moved, input.shape().to_vec()).unwrap();
                weighted(&call(&all), &upstream)
            };
            let Some(expected) = slope(&loss) else { continue };
            // Outside of the domain nothing moves, and a sum over it is not a number.
            let outside = values(&outputs[0]).iter().any(|y| y.is_nan());
            if outside && (expected == 0.0 || flowed[at].is_nan()) {
                continue;
            }
            let near = (flowed[at] - expected).abs() <= 2e-5 * (1.0 + expected.abs());
            assert!(near, "{} {}: input {i} at {at}: expected {expected}, found {}", op.name, profile.name, flowed[at]);
            compared += 1;
        }
    }
    compared
}

#[test]
fn gradients_equal_finite_differences() {
    Context::here(|cx| {
        let cx = Context::new(cx.session()).with_provider("reference");
        for op in all_ops().filter(|op| matches!(op.gradient, Gradient::Rule { .. })) {
            let profiles = (op.profiles)(op);
            let small = profiles.iter().filter(|p| p.values() <= 1 << 12 && !p.name.contains("extremes"));
            let compared: usize = small.map(|profile| check(&cx, op, profile)).sum();
            // Casts leave double precision.
            let none = op.name == "cast";
            assert!(compared > 0 || none, "{}: nothing was compared", op.name);
        }
    });
}
