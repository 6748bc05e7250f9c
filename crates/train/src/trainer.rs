//! The trainer: one step after the other.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use windlass_models::{Pass, Randomness, Trainable};
use windlass_nn::optim::Optimizer;
use windlass_nn::{Gradients, Parameters, Tape, Var};
use windlass_ops::Context;
use windlass_tensor::TypedTensor;

use crate::Error;
use crate::data::{Cursor, Data, Example, Examples, batch};

/// How steps are taken.
#[derive(Clone, Debug)]
pub struct Options {
    /// Units of the data that are run together: examples, or packs of them.
    pub batch_size: usize,
    /// Batches whose gradients make one step.
    pub accumulate: usize,
    pub max_grad_norm: Option<f64>,
    pub seed: u64,
    pub shuffle: bool,
    /// Whether layers are computed again on the way back, which takes less memory and more time.
    pub checkpoint: bool,
}

/// What a step did.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// From 1 on.
    pub step: u64,
    /// The mean over the step's targets.
    pub loss: f64,
    pub learning_rate: f64,
    /// The length of the gradient, before it was cut.
    pub grad_norm: f64,
    /// Tokens of the step.
    pub tokens: usize,
    pub tokens_per_second: f64,
    pub peak_memory_bytes: u64,
}

/// A model in training.
pub struct Trainer {
    pub model: Arc<Trainable>,
    pub parameters: Parameters,
    pub optimizer: Box<dyn Optimizer>,
    options: Options,
    cursor: Cursor,
    step: u64,
}

impl Trainer {
    /// Begins with so many units of data.
    pub fn new(
        model: Trainable,
        parameters: Parameters,
        optimizer: Box<dyn Optimizer>,
        units: usize,
        options: Options,
    ) -> Result<Self, Error> {
        if options.batch_size == 0 || options.accumulate == 0 {
            return Err(Error::Setting("batch size and accumulation must be at least 1".into()));
        }
        let cursor = Cursor::new(units, options.shuffle, options.seed);
        Ok(Self { model: Arc::new(model), parameters, optimizer, options, cursor, step: 0 })
    }

    /// Steps that were taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One step: batches forward and back, then the optimizer.
    pub fn step(&mut self, cx: &Context, data: &Data, learning_rate: f64) -> Result<StepReport, Error> {
        let start = Instant::now();
        let (mut rows, mut chosen) = (Vec::new(), Vec::new());
        for _ in 0..self.options.batch_size * self.options.accumulate {
            let unit = self.cursor.take();
            rows.extend(data.members(unit));
            chosen.push(data.unit(unit)?);
        }
        let targets: usize = chosen.iter().flatten().map(|example| example.targets()).sum();
        let tokens = chosen.iter().flatten().map(|example| example.tokens.len()).sum();
        let (mut gradients, mut loss) = (Gradients::new(), 0.0);
        for (part, units) in chosen.chunks(self.options.batch_size).enumerate() {
            let examples: Vec<&Example> = units.iter().flatten().collect();
            let number = self.step * self.options.accumulate as u64 + part as u64;
            let (sum, found) = self.pass(cx, &examples, number, targets.max(1))?;
            loss += sum;
            gradients.add(cx, found)?;
        }
        let loss = loss / targets.max(1) as f64;
        let number = self.step + 1;
        if !loss.is_finite() {
            return Err(Error::NotANumber { step: number, what: "the loss".into(), rows });
        }
        let grad_norm = match self.options.max_grad_norm {
            Some(most) => self.parameters.clip_gradients(cx, &mut gradients, most)?,
            None => self.parameters.gradient_norm(cx, &gradients)?,
        };
        if !grad_norm.is_finite() {
            let what = self.first_odd(cx, &gradients)?;
            return Err(Error::NotANumber { step: number, what, rows });
        }
        self.optimizer.step(cx, &mut self.parameters, &gradients, learning_rate)?;
        self.step = number;
        Ok(StepReport {
            step: number,
            loss,
            learning_rate,
            grad_norm,
            tokens,
            tokens_per_second: tokens as f64 / start.elapsed().as_secs_f64().max(1e-9),
            peak_memory_bytes: windlass_runtime::system::peak_memory().unwrap_or(0),
        })
    }

    /// The sum of the losses of a batch, and its gradients divided by `targets`.
    fn pass(
        &self,
        cx: &Context,
        examples: &[&Example],
        number: u64,
        targets: usize,
    ) -> Result<(f64, Gradients), Error> {
        let tape = Tape::new(cx);
        let pass = Pass {
            batch: Arc::new(batch(examples)?),
            parameters: Arc::new(self.parameters.iter().map(|p| p.var()).collect::<Vec<Var>>()),
            random: Randomness { seed: self.options.seed, batch: number, training: true },
            checkpoint: self.options.checkpoint,
        };
        let loss = self.model.loss(&tape, &pass)?;
        let sum = f64::from(TypedTensor::<f32>::new(loss.tensor().clone())?.get(&[])?);
        let mean = tape.scale(&loss, 1.0 / targets as f64)?;
        drop(loss);
        Ok((sum, mean.backward(cx)?))
    }

    /// The mean loss of examples, without training.
    pub fn evaluate(&self, cx: &Context, data: &Examples) -> Result<f64, Error> {
        let (mut sum, mut targets) = (0.0, 0);
        let all: Vec<usize> = (0..data.len()).collect();
        for indices in all.chunks(self.options.batch_size) {
            let examples = indices.iter().map(|index| data.get(*index)).collect::<Result<Vec<Example>, Error>>()?;
            let examples: Vec<&Example> = examples.iter().collect();
            let tape = Tape::new(cx);
            let pass = Pass {
                batch: Arc::new(batch(&examples)?),
                parameters: Arc::new(self.parameters.iter().map(|p| p.var().detach()).collect::<Vec<Var>>()),
                random: Randomness::default(),
                checkpoint: false,
            };
            let loss = self.model.loss(&tape, &pass)?;
            sum += f64::from(TypedTensor::<f32>::new(loss.into_tensor())?.get(&[])?);
            targets += examples.iter().map(|example| example.targets()).sum::<usize>();
        }
        Ok(sum / targets.max(1) as f64)
    }

    /// The first parameter whose gradient is not a number.
    fn first_odd(&self, cx: &Context, gradients: &Gradients) -> Result<String, Error> {
        for parameter in self.parameters.iter() {
            let Some(gradient) = parameter.gradient(gradients) else { continue };
            let finite = windlass_ops::library::elementwise(cx, "isfinite", &[gradient])?;
            let all = cx.one(&windlass_ops::library::ALL, &[&finite], &windlass_ops::Attributes::NONE)?;
            if all.bytes().is_some_and(|bytes| bytes.first() == Some(&0)) {
                return Ok(format!("the gradient of {}", parameter.name));
            }
        }
        Ok("the length of the gradient".into())
    }
}
