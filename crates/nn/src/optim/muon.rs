//! Muon.

use windlass_ops::library::{NORM, matmul};
use windlass_ops::{Attributes, Context};
use windlass_tensor::{Tensor, TypedTensor};

use super::Entry;
use super::adam::{Adam, BETA1, BETA2, EPSILON};
use super::each::{Each, Rule, State, Step, mixed, plus, scaled, zeros_like};
use crate::{Error, Parameter, Setting};

pub(super) const ENTRY: Entry = Entry {
    name: "muon",
    about: "steps that are orthogonal matrices, as torch has it; vectors, embeddings and heads by AdamW",
    settings: &[
        Setting::new("weight_decay", 0.1, "how much weights shrink"),
        Setting::new("momentum", 0.95, "how much of the mean of gradients stays"),
        Setting::new("nesterov", 1.0, "1: steps look ahead"),
        Setting::new("iterations", 5.0, "of Newton and Schulz"),
        Setting::new("match_rms", 0.0, "1: steps are as large as AdamW's"),
        Setting::new("plain_rate", 1.0, "the learning rate of AdamW is that of all times this"),
        BETA1,
        BETA2,
        EPSILON,
    ],
    make: |settings| {
        let rule = Muon {
            adam: Adam::of(settings, true)?,
            plain_rate: settings.within("plain_rate", 0.0..)?,
            momentum: settings.within("momentum", 0.0..1.0)?,
            nesterov: settings.is("nesterov"),
            iterations: settings.within("iterations", 1.0..100.0)? as usize,
            match_rms: settings.is("match_rms"),
        };
        Ok(Box::new(Each::new(rule, settings.get("weight_decay"))))
    },
};

/// The polynomial of an iteration: a x + b x^3 + c x^5.
const POLYNOMIAL: [f64; 3] = [3.4445, -4.775, 2.0315];

struct Muon {
    adam: Adam,
    plain_rate: f64,
    momentum: f64,
    nesterov: bool,
    iterations: usize,
    match_rms: bool,
}

impl Rule for Muon {
    fn name(&self) -> &'static str {
        "muon"
    }

    fn begin(&self, parameter: &Parameter) -> Result<State, Error> {
        let matrix = parameter.tensor.shape().rank() == 2 && !parameter.group.plain;
        if matrix { zeros_like(parameter, &["momentum"]) } else { self.adam.begin(parameter) }
    }

    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error> {
        let [parameter, mean] = all else {
            let step = Step { learning_rate: step.learning_rate * self.plain_rate, ..*step };
            return self.adam.change(cx, &step, gradient, all);
        };
        *mean = mixed(cx, mean, gradient, 1.0 - self.momentum)?;
        let way = if self.nesterov { mixed(cx, gradient, mean, self.momentum)? } else { mean.clone() };
        let way = orthogonal(cx, &way, self.iterations)?;
        let (rows, columns) = (parameter.shape().rows() as f64, parameter.shape().columns() as f64);
        let ratio = match self.match_rms {
            true => 0.2 * rows.max(columns).sqrt(),
            false => (rows / columns).max(1.0).sqrt(),
        };
        let kept = scaled(cx, parameter, 1.0 - step.learning_rate * step.weight_decay)?;
        *parameter = plus(cx, &kept, -step.learning_rate * ratio, &way)?;
        Ok(())
    }
}

/// Nearly the orthogonal matrix closest to `x`, by iterations of Newton and Schulz, in single precision (torch has half of that).
fn orthogonal(cx: &Context, x: &Tensor, iterations: usize) -> Result<Tensor, Error> {
    let [a, b, c] = POLYNOMIAL;
    let tall = x.shape().rows() > x.shape().columns();
    let turned = |x: &Tensor| -> Result<Tensor, Error> { Ok(x.transpose(0, 1)?.contiguous()?) };
    let mut x = if tall { turned(x)? } else { x.clone() };
    let norm = cx.one(&NORM, &[&x], &Attributes::NONE)?;
    let norm = f64::from(TypedTensor::<f32>::new(norm)?.get(&[])?);
    x = scaled(cx, &x, 1.0 / norm.max(1e-7))?;
    for _ in 0..iterations {
        let gram = matmul(cx, &x, &turned(&x)?)?;
        let polynomial = plus(cx, &scaled(cx, &gram, b)?, c, &matmul(cx, &gram, &gram)?)?;
        x = plus(cx, &matmul(cx, &polynomial, &x)?, a, &x)?;
    }
    if tall { turned(&x) } else { Ok(x) }
}
