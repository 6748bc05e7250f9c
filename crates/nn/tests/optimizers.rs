//! Twenty steps of every optimizer against torch and bitsandbytes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use windlass_nn::optim::{LossScaler, OPTIMIZERS, Optimizer, optimizer};
use windlass_nn::{Group, Parameters, Tape};
use windlass_ops::{Context, library};
use windlass_tensor::{Tensor, TypedTensor};

/// From -0.5 to 0.5, every fourth value a power of ten smaller than the one before.
fn noise(step: usize, shape: &[usize]) -> Tensor {
    let value = |i: usize| {
        let value = ((i * 7919 + step * 104_729 + 13) % 1009) as f64 / 1009.0 - 0.5;
        (value * [1.0, 0.1, 0.01, 0.001][i % 4]) as f32
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_slice(&values, shape).unwrap()
}

fn doubled(tensor: &Tensor) -> Tensor {
    let values: Vec<f32> = values(tensor).iter().map(|v| v * 2.0).collect();
    Tensor::from_slice(&values, tensor.shape().to_vec()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    TypedTensor::<f32>::new(tensor.clone()).unwrap().to_vec().unwrap()
}

const SMALL: [(&str, &[usize]); 3] = [("matrix", &[6, 10]), ("tall", &[9, 4]), ("vector", &[17])];

fn parameters(shapes: &[(&str, &[usize])]) -> Parameters {
    let mut parameters = Parameters::new();
    for (name, shape) in shapes {
        parameters.add(*name, doubled(&noise(1000, shape))).unwrap();
    }
    parameters
}

/// One step along the noise of step `number`: the gradient of the sum of its products with the parameters.
fn step(cx: &Context, optimizer: &mut dyn Optimizer, parameters: &mut Parameters, number: usize) {
    let tape = Tape::new(cx);
    let mut sum = None;
    for parameter in parameters.iter() {
        let slope = windlass_nn::Var::constant(noise(number, parameter.tensor.shape()));
        let product = tape.elementwise("mul", &[&parameter.var(), &slope]).unwrap();
        let part = tape.sum(&product).unwrap();
        sum = Some(match sum {
            None => part,
            Some(sum) => tape.elementwise("add", &[&sum, &part]).unwrap(),
        });
    }
    let gradients = sum.unwrap().backward(cx).unwrap();
    optimizer.step(cx, parameters, &gradients, 1e-2).unwrap();
}

fn settings(given: &[(&str, f64)]) -> BTreeMap<String, f64> {
    given.iter().map(|(name, value)| (name.to_string(), *value)).collect()
}

fn golden() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/optimizers.safetensors")).unwrap()
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data().to_vec();
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Name in the file, name of the optimizer, settings, how far a value may be off.
type Run = (&'static str, &'static str, &'static [(&'static str, f64)], f32);

const DECAY: (&str, f64) = ("weight_decay", 0.1);

#[test]
fn twenty_steps_equal_those_of_torch() {
    let runs: [Run; 14] = [
        ("sgd", "sgd", &[], 1e-6),
        ("sgd-momentum", "sgd", &[("momentum", 0.9), ("dampening", 0.2), DECAY], 1e-6),
        ("sgd-nesterov", "sgd", &[("momentum", 0.9), ("nesterov", 1.0)], 1e-6),
        ("adam", "adam", &[DECAY], 1e-6),
        ("adamw", "adamw", &[("beta1", 0.8), ("beta2", 0.95), DECAY], 1e-6),
        ("rmsprop", "rmsprop", &[DECAY], 1e-5),
        ("rmsprop-centered", "rmsprop", &[("centered", 1.0), ("momentum", 0.9)], 2e-5),
        ("adagrad", "adagrad", &[("rate_decay", 0.1), ("initial", 0.1), DECAY], 1e-6),
        ("adadelta", "adadelta", &[DECAY], 1e-6),
        ("lion", "lion", &[DECAY], 1e-6),
        ("adafactor", "adafactor", &[DECAY], 1e-6),
        ("muon", "muon", &[], 1e-5),
        ("muon-rms", "muon", &[("nesterov", 0.0), ("match_rms", 1.0)], 1e-5),
        // torch multiplies with half of the digits.
        ("muon-half", "muon", &[], 1.5e-2),
    ];
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tried: Vec<&str> = vec!["adamw8bit"];
    for (run, name, given, tolerance) in runs {
        tried.push(name);
        let mut parameters = parameters(&SMALL);
        let mut optimizer = optimizer(name, &settings(given)).unwrap();
        Context::here(|cx| (1..=20).for_each(|number| step(cx, &mut *optimizer, &mut parameters, number)));
        for parameter in parameters.iter() {
            let off = worst(&floats(&file, &format!("{run}.{}", parameter.name)), &values(&parameter.tensor));
            assert!(off <= tolerance, "{run} {}: {off:e}", parameter.name);
        }
    }
    let missing: Vec<&str> = OPTIMIZERS.iter().map(|o| o.name).filter(|name| !tried.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} are compared with nothing");
}

#[test]
fn states_of_bytes_are_those_of_bitsandbytes() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, codes) in [("signed", library::steps::Codes::signed()), ("unsigned", library::steps::Codes::unsigned())]
    {
        let table = floats(&file, &format!("map.{name}"));
        assert_eq!(table, codes.values, "{name}");
        // Every value is nearest to itself, and what lies between two goes to the nearer one.
        for (code, pair) in table.windows(2).enumerate() {
            assert_eq!(codes.encode(pair[0]), code as u8, "{name} {}", pair[0]);
            let at = |share: f32| codes.encode(pair[0] + (pair[1] - pair[0]) * share);
            assert_eq!((at(0.499), at(0.501)), (code as u8, code as u8 + 1), "{name} after {code}");
        }
        assert_eq!((codes.encode(f32::NAN), codes.encode(2.0)), (codes.encode(0.0), 255));
    }
    let mut parameters = parameters(&[("large", &[80, 72])]);
    let mut optimizer = optimizer("adamw8bit", &settings(&[("weight_decay", 0.1)])).unwrap();
    Context::here(|cx| (1..=20).for_each(|number| step(cx, &mut *optimizer, &mut parameters, number)));
    let off = worst(&floats(&file, "adamw8bit.large"), &values(&parameters.get(0).unwrap().tensor));
    assert!(off < 1e-4, "{off:e}");
    let state = optimizer.state();
    for name in ["mean", "square"] {
        let expected = file.tensor(&format!("adamw8bit.{name}")).unwrap().data().to_vec();
        let found = TypedTensor::<u8>::new(state[&format!("large.{name}")].clone()).unwrap().to_vec().unwrap();
        let other = expected.iter().zip(&found).filter(|(a, b)| a != b).count();
        assert!(other <= 5, "{other} of {} codes of the {name} are others", found.len());
        let scales = floats(&file, &format!("adamw8bit.{name}_scale"));
        assert!(worst(&scales, &values(&state[&format!("large.{name}_scale")])) < 1e-6);
    }
    let bytes: usize = state.values().map(|t| t.shape().values() * t.element().dtype().unwrap().size()).sum();
    assert!(bytes < 80 * 72 * 9 / 4, "{bytes} bytes of state");
}

/// As checkpoints do: what is remembered leaves and comes back, and nothing else is needed.
#[test]
fn every_optimizer_goes_on_from_its_state() {
    let shapes: [(&str, &[usize]); 2] = [("matrix", &[72, 64]), ("vector", &[17])];
    for entry in OPTIMIZERS {
        let with: &[(&str, f64)] = if entry.name == "sgd" { &[("momentum", 0.9)] } else { &[] };
        let new = || optimizer(entry.name, &settings(with)).unwrap();
        Context::here(|cx| {
            let (mut whole, mut half) = (parameters(&shapes), parameters(&shapes));
            let (mut a, mut b) = (new(), new());
            (1..=6).for_each(|number| step(cx, &mut *a, &mut whole, number));
            (1..=3).for_each(|number| step(cx, &mut *b, &mut half, number));
            // Somebody still holds the state, such as a checkpoint that is being written.
            let kept = b.state();
            let mut c = new();
            c.restore(kept.clone()).unwrap();
            assert_eq!(c.state().keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>());
            (4..=6).for_each(|number| step(cx, &mut *c, &mut half, number));
            for (x, y) in whole.iter().zip(half.iter()) {
                assert_eq!(values(&x.tensor), values(&y.tensor), "{} {}", entry.name, x.name);
            }
            drop(kept);
        });
    }
}

#[test]
fn groups_have_rates_and_decays_of_their_own() {
    let mut parameters = parameters(&SMALL);
    let still = Group { rate: 0.0, ..Group::default() };
    assert_eq!(parameters.regroup("m*", &still), 1);
    assert_eq!(parameters.regroup("vector", &Group { weight_decay: Some(0.0), rate: 0.5, plain: false }), 1);
    let before: Vec<Vec<f32>> = parameters.iter().map(|p| values(&p.tensor)).collect();
    let mut sgd = optimizer("sgd", &settings(&[("weight_decay", 0.1)])).unwrap();
    Context::here(|cx| step(cx, &mut *sgd, &mut parameters, 1));
    let after: Vec<Vec<f32>> = parameters.iter().map(|p| values(&p.tensor)).collect();
    assert_eq!(before[0], after[0]);
    for (i, name, rate, decay) in [(1, "tall", 1e-2f32, 0.1f32), (2, "vector", 5e-3, 0.0)] {
        let slope = values(&noise(1, SMALL[i].1));
        let expected: Vec<f32> = before[i].iter().zip(slope).map(|(p, g)| p - rate * (g + decay * p)).collect();
        assert!(worst(&expected, &after[i]) < 1e-7, "{name}");
    }
}

#[test]
fn gradients_are_clipped_and_scaled() {
    Context::here(|cx| {
        let mut parameters = Parameters::new();
        parameters.add("x", Tensor::from_slice(&[1.0f32, 1.0, 1.0], [3]).unwrap()).unwrap();
        let flow = |slope: &[f32]| {
            let tape = Tape::new(cx);
            let slope = windlass_nn::Var::constant(Tensor::from_slice(slope, [3]).unwrap());
            let x = parameters.get(0).unwrap().var();
            tape.sum(&tape.elementwise("mul", &[&x, &slope]).unwrap()).unwrap().backward(cx).unwrap()
        };
        let of = |gradients: &windlass_nn::Gradients| values(parameters.get(0).unwrap().gradient(gradients).unwrap());
        let mut gradients = flow(&[3.0, -4.0, 0.5]);
        parameters.clip_gradient_values(cx, &mut gradients, 1.0).unwrap();
        assert_eq!(of(&gradients), [1.0, -1.0, 0.5]);
        let mut scaler = LossScaler { interval: 2, ..LossScaler::default() };
        let mut gradients = flow(&[65536.0, 131_072.0, -65536.0]);
        assert!(scaler.unscale(cx, &parameters, &mut gradients).unwrap());
        assert_eq!(of(&gradients), [1.0, 2.0, -1.0]);
        assert!(!scaler.unscale(cx, &parameters, &mut flow(&[f32::INFINITY, 0.0, 0.0])).unwrap());
        assert!(!scaler.unscale(cx, &parameters, &mut flow(&[0.0, f32::NAN, 0.0])).unwrap());
        // torch: 65536, halved once, doubled after two good steps.
        let scales: Vec<f64> = [false, true, true, true].map(|good| (scaler.update(good), scaler.scale).1).to_vec();
        assert_eq!(scales, [32768.0, 32768.0, 65536.0, 65536.0]);
    });
}

#[test]
fn what_is_not_known_is_told_with_the_nearest() {
    let wrong = |name: &str, given: &[(&str, f64)]| optimizer(name, &settings(given)).err().unwrap().to_string();
    assert!(wrong("adafctor", &[]).contains("did you mean \"adafactor\"?"));
    assert!(wrong("sgd", &[("momentun", 0.5)]).contains("\"momentum\""), "{}", wrong("sgd", &[("momentun", 0.5)]));
    assert!(wrong("sgd", &[("nesterov", 1.0)]).contains("needs momentum"));
    assert!(wrong("adamw", &[("beta1", 1.5)]).contains("beta1 must be"));
    assert!(wrong("adamw8bit", &[("smallest", 0.5)]).contains("whole number"));
}

#[test]
fn the_reference_names_every_setting() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    let page = std::fs::read_to_string(page).unwrap();
    let optimizers = OPTIMIZERS.iter().map(|entry| (entry.name, entry.about, entry.settings));
    let schedules = windlass_nn::schedule::SHAPES.iter().map(|shape| (shape.name, shape.about, shape.settings));
    for (name, about, settings) in optimizers.chain(schedules) {
        let number = |v: f64| if v != 0.0 && v.abs() < 1e-4 { format!("{v:e}") } else { v.to_string() };
        let all: Vec<String> = settings.iter().map(|s| format!("`{}` {}", s.name, number(s.default))).collect();
        let row = format!("| `{name}` | {about} | {} |", all.join(", "));
        assert!(page.contains(&row), "docs/reference.md lacks\n{row}");
    }
}
