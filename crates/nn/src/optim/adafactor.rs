//! Adafactor.

use windlass_ops::library::{MATMUL, MEAN, NORM, elementwise, elementwise_with};
use windlass_ops::{Attributes, Context, zeros};
use windlass_tensor::{DType, Tensor, TypedTensor};

use super::Entry;
use super::adam::DECAY;
use super::each::{Each, Rule, State, Step, mixed, plus, scaled, zeros_like};
use crate::{Error, Parameter, Setting};

pub(super) const ENTRY: Entry = Entry {
    name: "adafactor",
    about: "mean squares as rows times columns (arXiv 1804.04235), as torch has it",
    settings: &[
        DECAY,
        Setting::new("beta2_decay", -0.8, "mean squares take in a gradient with this power of the step"),
        Setting::new("epsilon1", f32::EPSILON as f64, "least mean square, as its root"),
        Setting::new("epsilon2", 1e-3, "least size of a parameter"),
        Setting::new("clip", 1.0, "root of the mean square that a step may have"),
    ],
    make: |settings| {
        let rule = Adafactor {
            beta2_decay: settings.within("beta2_decay", ..=0.0)?,
            epsilon1: settings.within("epsilon1", 0.0..)?,
            epsilon2: settings.within("epsilon2", 0.0..)?,
            clip: settings.within("clip", 1e-9..)?,
        };
        Ok(Box::new(Each::new(rule, settings.get("weight_decay"))))
    },
};

struct Adafactor {
    beta2_decay: f64,
    epsilon1: f64,
    epsilon2: f64,
    clip: f64,
}

impl Rule for Adafactor {
    fn name(&self) -> &'static str {
        "adafactor"
    }

    fn begin(&self, parameter: &Parameter) -> Result<State, Error> {
        match parameter.tensor.shape().dims() {
            [rows, columns] => {
                Ok(vec![("rows", zeros(DType::F32, [*rows, 1])?), ("columns", zeros(DType::F32, [1, *columns])?)])
            }
            [] | [_] => zeros_like(parameter, &["square"]),
            shape => {
                let message = format!("has the shape {shape:?}; adafactor takes vectors and matrices");
                Err(Error::Setting(message))
            }
        }
    }

    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error> {
        let number = step.number as f64;
        let share = number.powf(self.beta2_decay);
        let [parameter, state @ ..] = all else { return Ok(()) };
        let size = root_mean_square(cx, parameter)?.max(self.epsilon2);
        let rate = size * step.learning_rate.min(1.0 / number.sqrt());
        if step.weight_decay != 0.0 {
            let kept = 1.0 - step.learning_rate * step.weight_decay;
            *parameter = scaled(cx, parameter, kept)?;
        }
        let squares = elementwise(cx, "square", &[gradient])?;
        let variance = match state {
            [rows, columns] => {
                *rows = mixed(cx, rows, &mean(cx, &squares, -1)?, share)?;
                *columns = mixed(cx, columns, &mean(cx, &squares, -2)?, share)?;
                let all = cx.one(&MEAN, &[rows], &Attributes::NONE)?;
                let all = f64::from(TypedTensor::<f32>::new(all)?.get(&[])?).max(self.epsilon1);
                cx.one(&MATMUL, &[&scaled(cx, rows, 1.0 / all)?, columns], &Attributes::NONE)?
            }
            [square] => {
                *square = mixed(cx, square, &squares, share)?;
                square.clone()
            }
            _ => return Ok(()),
        };
        let least = Attributes::new().float("low", self.epsilon1.powi(2)).float("high", f64::INFINITY);
        let inverse = elementwise(cx, "rsqrt", &[&elementwise_with(cx, "clamp", &[&variance], &least)?])?;
        let update = elementwise(cx, "mul", &[&inverse, gradient])?;
        let by = -rate / (root_mean_square(cx, &update)? / self.clip).max(1.0);
        *parameter = plus(cx, parameter, by, &update)?;
        Ok(())
    }
}

fn mean(cx: &Context, x: &Tensor, dim: i64) -> Result<Tensor, Error> {
    Ok(cx.one(&MEAN, &[x], &Attributes::new().ints("dim", &[dim]).bool("keepdim", true))?)
}

fn root_mean_square(cx: &Context, x: &Tensor) -> Result<f64, Error> {
    let norm = cx.one(&NORM, &[x], &Attributes::NONE)?;
    Ok(f64::from(TypedTensor::<f32>::new(norm)?.get(&[])?) / (x.shape().values().max(1) as f64).sqrt())
}
