//! Small nets trained as torch trains them, from the same values; initialisers; selective checkpoints.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use windlass_nn::module::*;
use windlass_nn::optim::optimizer;
use windlass_nn::{Error, Parameters, Tape, Var};
use windlass_ops::{Attributes, Context, library};
use windlass_runtime::random::Philox;
use windlass_tensor::{Tensor, TypedTensor};

fn plain(number: usize, shape: &[usize], scale: f32, shift: f32) -> Tensor {
    let value = |i: usize| (((i * 7919 + number * 104_729 + 13) % 1009) as f64 / 1009.0 - 0.5) as f32;
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| value(i) * scale + shift).collect();
    Tensor::from_slice(&values, shape).unwrap()
}

fn golden() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/modules.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Trains 20 steps and compares names of parameters and losses.
fn train(name: &str, mut parameters: Parameters, net: &dyn Fn(&Run) -> Result<Var, Error>, targets: &[i64]) {
    let golden = golden();
    let names: Vec<&str> =
        golden[format!("{name}.names")].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert_eq!(parameters.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), names);
    for (number, parameter) in parameters.iter_mut().enumerate() {
        let shape = parameter.tensor.shape().to_vec();
        let one = shape.len() == 1 && parameter.name.ends_with("weight");
        parameter.tensor = plain(number, &shape, 0.6, if one { 1.0 } else { 0.0 });
    }
    let targets = Var::constant(Tensor::from_slice(targets, [targets.len()]).unwrap());
    let mut adam = optimizer("adamw", &BTreeMap::new()).unwrap();
    for (step, expected) in golden[name].as_array().unwrap().iter().enumerate() {
        let (loss, gradients) = Context::here(|cx| {
            let tape = Tape::new(cx);
            let logits = net(&Run::new(&tape, &parameters, true, step as u64)).unwrap();
            let loss = tape.one(&library::CROSS_ENTROPY, &[&logits, &targets], &Attributes::NONE).unwrap();
            let number = TypedTensor::<f32>::new(loss.tensor().clone()).unwrap().get(&[]).unwrap();
            (f64::from(number), loss.backward(cx).unwrap())
        });
        let expected = expected.as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-4 * expected, "{name} step {step}: expected {expected}, found {loss}");
        Context::here(|cx| adam.step(cx, &mut parameters, &gradients, 1e-2).unwrap());
    }
}

#[test]
fn a_perceptron_learns_as_in_torch() {
    let mut parameters = Parameters::new();
    let model = Sequential::new(Builder::new(&mut parameters, 1), |layers| {
        layers.push(|b| Linear::new(b, 8, 16, true))?;
        layers.push(|_| Ok(Activation::new("gelu")))?;
        layers.push(|b| LayerNorm::new(b, 16, 1e-5))?;
        layers.push(|b| Linear::new(b, 16, 5, true))
    })
    .unwrap();
    let x = Var::constant(plain(900, &[12, 8], 1.0, 0.0));
    let targets: Vec<i64> = (0..12).map(|i| i % 5).collect();
    train("mlp", parameters, &|run| model.forward(run, &x), &targets);
}

#[test]
fn convolutions_learn_as_in_torch() {
    let mut parameters = Parameters::new();
    let model = Sequential::new(Builder::new(&mut parameters, 1), |layers| {
        layers.push(|b| Conv2d::new(b, 2, 4, ConvOptions { padding: 1, ..ConvOptions::new(3) }))?;
        layers.push(|b| GroupNorm::new(b, 2, 4, 1e-5))?;
        layers.push(|_| Ok(Activation::new("relu")))?;
        layers.push(|_| Ok(Pool::max2d(2)))?;
        layers.push(|b| Conv2d::new(b, 4, 6, ConvOptions { groups: 2, ..ConvOptions::new(3) }))?;
        layers.push(|_| Ok(Activation::new("silu")))?;
        layers.push(|_| Ok(Pool::adaptive2d(2)))?;
        layers.push(|_| Ok(Flatten))?;
        layers.push(|b| Linear::new(b, 24, 3, true))
    })
    .unwrap();
    let x = Var::constant(plain(900, &[6, 2, 10, 10], 1.0, 0.0));
    let targets: Vec<i64> = (0..6).map(|i| i % 3).collect();
    train("images", parameters, &|run| model.forward(run, &x), &targets);

    let mut parameters = Parameters::new();
    let model = Sequential::new(Builder::new(&mut parameters, 1), |layers| {
        layers.push(|b| Conv1d::new(b, 3, 4, ConvOptions { stride: 2, ..ConvOptions::new(3) }))?;
        layers.push(|_| Ok(Activation::new("tanh")))?;
        layers.push(|_| Ok(Pool::mean1d(2)))?;
        layers.push(|_| Ok(Flatten))?;
        layers.push(|b| Linear::new(b, 16, 4, true))
    })
    .unwrap();
    let x = Var::constant(plain(900, &[5, 3, 18], 1.0, 0.0));
    train("sequences", parameters, &|run| model.forward(run, &x), &[0, 1, 2, 3, 0]);
}

#[test]
fn a_decoder_learns_as_in_torch() {
    let mut parameters = Parameters::new();
    let mut builder = Builder::new(&mut parameters, 1);
    let embed = Embedding::new(builder.at("embed"), 11, 16).unwrap();
    let norm1 = RmsNorm::new(builder.at("norm1"), 16, 1e-6).unwrap();
    let how = AttentionOptions { width: 16, heads: 4, kv_heads: 2, causal: true, bias: true };
    let attention = Attention::new(builder.at("attention"), how).unwrap();
    let norm2 = RmsNorm::new(builder.at("norm2"), 16, 1e-6).unwrap();
    let mlp = Mlp::new(builder.at("mlp"), 16, 24, "swiglu").unwrap();
    let norm = RmsNorm::new(builder.at("norm"), 16, 1e-6).unwrap();
    let head = Linear::new(builder.at("head"), 16, 11, false).unwrap();
    let token = |s: i64, i: i64| (3 * i * i + 5 * s) % 11;
    let row = |first: i64| -> Vec<i64> { (0..2).flat_map(|s| (first..first + 7).map(move |i| token(s, i))).collect() };
    let tokens = Var::constant(Tensor::from_slice(&row(0), [14]).unwrap());
    let bounds = Tensor::from_slice(&[0i64, 7, 14], [3]).unwrap();
    let net = |run: &Run| {
        let x = embed.forward(run, &tokens)?;
        let mixed = attention.forward_sequences(run, &norm1.forward(run, &x)?, &bounds)?;
        let x = run.tape.elementwise("add", &[&x, &mixed])?;
        let fed = mlp.forward(run, &norm2.forward(run, &x)?)?;
        let x = run.tape.elementwise("add", &[&x, &fed])?;
        head.forward(run, &norm.forward(run, &x)?)
    };
    train("decoder", parameters, &net, &row(1));
}

#[test]
fn initialisers_fill_as_they_say() {
    let values = |init: Init, shape: &[usize]| {
        let made = init.make(shape, &Philox::new(7)).unwrap();
        assert_eq!(made.shape().dims(), shape);
        TypedTensor::<f32>::new(made).unwrap().to_vec().unwrap()
    };
    assert_eq!(values(Init::Eye, &[2, 3]), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(values(Init::Constant(0.5), &[2]), [0.5, 0.5]);
    assert_eq!(values(Init::Dirac(1), &[2, 2, 3]), [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    let moments = |values: &[f32]| {
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        (mean, (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt())
    };
    let most = |values: &[f32]| values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    // 40 outputs of 50 * 3 inputs: deviations as torch's formulas have them; uniform ones reach their bound.
    let shape = [40, 50, 3];
    for (init, deviation, bound) in [
        (Init::Uniform(-0.5, 0.5), 0.5 / 3f64.sqrt(), Some(0.5)),
        (Init::Normal(0.0, 0.3), 0.3, None),
        (Init::XavierUniform(2.0), 2.0 * (2.0 / 270f64).sqrt(), Some(2.0 * (6.0 / 270f64).sqrt())),
        (Init::XavierNormal(1.0), (2.0 / 270f64).sqrt(), None),
        (
            Init::KaimingUniform(gain("relu", 0.0).unwrap(), Fan::Inputs),
            (2.0 / 150f64).sqrt(),
            Some((6.0 / 150f64).sqrt()),
        ),
        (Init::KaimingNormal(gain("tanh", 0.0).unwrap(), Fan::Outputs), 5.0 / 3.0 / 120f64.sqrt(), None),
        // A normal cut at two deviations has 0.8796 of the deviation.
        (Init::TruncatedNormal(0.0, 0.1, -0.2, 0.2), 0.08796, Some(0.2)),
    ] {
        let values = values(init, &shape);
        let (mean, found) = moments(&values);
        assert!(mean.abs() < 0.05 * deviation && (found / deviation - 1.0).abs() < 0.03, "{init:?}: {mean} {found}");
        if let Some(bound) = bound {
            let most = f64::from(most(&values));
            assert!(most <= bound && most > 0.99 * bound, "{init:?}: {most}");
        }
    }
    for (rows, columns) in [(5, 8), (8, 5)] {
        let q = values(Init::Orthogonal(2.0), &[rows, columns]);
        let (small, wide) = (rows.min(columns), rows < columns);
        let at = |i: usize, k: usize| if wide { q[i * columns + k] } else { q[k * columns + i] };
        for i in 0..small {
            for j in 0..small {
                let product: f32 = (0..rows.max(columns)).map(|k| at(i, k) * at(j, k)).sum();
                assert!((product - if i == j { 4.0 } else { 0.0 }).abs() < 1e-5);
            }
        }
    }
    let sparse = values(Init::Sparse(0.3, 0.01), &[10, 6]);
    assert!((0..6).all(|column| (0..10).filter(|row| sparse[row * 6 + column] == 0.0).count() == 3));
    assert!(Init::Eye.make(&[2], &Philox::new(1)).is_err());
    assert!(Init::TruncatedNormal(0.0, 1.0, 8.0, 9.0).make(&[2], &Philox::new(1)).is_err());
    assert_ne!(values(Init::Normal(0.0, 1.0), &[4]), {
        let other = Init::Normal(0.0, 1.0).make(&[4], &Philox::new(8)).unwrap();
        TypedTensor::<f32>::new(other).unwrap().to_vec().unwrap()
    });
}

#[test]
fn containers_find_what_they_hold_and_dropout_is_counted() {
    let mut parameters = Parameters::new();
    let mut builder = Builder::new(&mut parameters, 3);
    let mut dict = ModuleDict::new();
    dict.insert("a", Linear::new(builder.at("a"), 4, 2, false).unwrap());
    let list = ModuleList::new(builder.at("list"), |layers| layers.push(|b| Linear::new(b, 4, 3, true))).unwrap();
    let own = ParameterList::new(builder.at("own"), &[&[2], &[3]], Init::Ones).unwrap();
    let dropout = Dropout::new(builder.at("drop"), 0.5).unwrap();
    assert!(Dropout::new(builder.at("drop"), 1.0).is_err());
    let names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a.weight", "list.0.weight", "list.0.bias", "own.0", "own.1"]);
    let x = Var::constant(plain(5, &[64, 4], 1.0, 2.0));
    Context::here(|cx| {
        let tape = Tape::new(cx);
        let run = |training, pass| Run::new(&tape, &parameters, training, pass);
        assert_eq!(dict.get("a").unwrap().forward(&run(true, 0), &x).unwrap().shape(), [64, 2]);
        assert_eq!(list.get(0).unwrap().forward(&run(true, 0), &x).unwrap().shape(), [64, 3]);
        assert!(dict.get("b").is_none() && list.get(1).is_none() && own.get(&run(true, 0), 2).is_err());
        assert_eq!(own.get(&run(true, 0), 1).unwrap().shape(), [3]);
        let values = |var: Var| TypedTensor::<f32>::new(var.into_tensor()).unwrap().to_vec().unwrap();
        let dropped = |training, pass| values(dropout.forward(&run(training, pass), &x).unwrap());
        assert_eq!(dropped(true, 1), dropped(true, 1));
        assert_ne!(dropped(true, 1), dropped(true, 2));
        assert_eq!(dropped(false, 1), values(x.clone()));
        let zeros = dropped(true, 1).iter().filter(|v| **v == 0.0).count();
        assert!((90..166).contains(&zeros), "{zeros} of 256");
    });
}

/// What is kept is not computed again, and gradients are the same to the last digit.
#[test]
fn checkpoints_keep_what_they_are_told_to() {
    let x = Var::leaf(plain(1, &[3, 4], 1.0, 0.0));
    let w = Var::leaf(plain(2, &[5, 4], 1.0, 0.0));
    let run = |policy: Option<windlass_nn::Policy>| {
        let recorder = windlass_ops::Recorder::new();
        let found = Context::here(|cx| {
            let cx = Context::new(cx.session()).with_recorder(&recorder);
            let tape = Tape::new(&cx);
            let leaf = w.clone();
            let segment = move |tape: &Tape, inputs: &[Var]| {
                let y = tape.one(&library::LINEAR, &[&inputs[0], &leaf], &Attributes::NONE)?;
                Ok(vec![tape.elementwise("tanh", &[&tape.elementwise("tanh", &[&y])?])?])
            };
            let y = match policy {
                Some(policy) => tape.checkpoint_keeping(&[&x], policy, segment),
                None => segment(&tape, std::slice::from_ref(&x)),
            };
            let mut all = tape.sum(&y.unwrap()[0]).unwrap().backward(&cx).unwrap();
            [all.take(&x).unwrap(), all.take(&w).unwrap()]
                .map(|t| TypedTensor::<f32>::new(t).unwrap().to_vec().unwrap())
        });
        let receipts = recorder.take();
        let calls = |name: &str| receipts.iter().filter(|receipt| receipt.op == name).count();
        (found, calls("linear"), calls("tanh"))
    };
    let plain = run(None);
    assert_eq!((plain.1, plain.2), (1, 2));
    for (policy, linears, tanhs) in [
        ((|_| false) as windlass_nn::Policy, 2, 4),
        (|op| op.name == "linear", 1, 4),
        (|op| op.name == "tanh", 2, 2),
        (|_| true, 1, 2),
    ] {
        let found = run(Some(policy));
        assert_eq!((&found.0, found.1, found.2), (&plain.0, linears, tanhs));
    }
}
