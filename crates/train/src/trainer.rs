//! The trainer: one step after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Deserializer, Serialize};
use windlass_models::{Pass, Randomness, Trainable};
use windlass_nn::optim::Optimizer;
use windlass_nn::{Gradients, Parameters, Tape, Var};
use windlass_ops::Context;
use windlass_runtime::monitor;
use windlass_tensor::{Tensor, TypedTensor};

use crate::data::{Cursor, Data, Example, Examples, batch};
use crate::{Error, guard};

/// How steps are taken.
#[derive(Clone, Debug)]
pub struct Options {
    /// Units of the data that are run together: examples, or packs of them.
    pub batch_size: usize,
    /// Batches whose gradients make one step.
    pub accumulate: usize,
    pub max_grad_norm: Option<f64>,
    /// Largest value of a gradient, before its length is cut.
    pub max_grad_value: Option<f64>,
    pub seed: u64,
    pub shuffle: bool,
    /// Whether layers are computed again on the way back, which takes less memory and more time.
    pub checkpoint: bool,
    /// Whether a step whose loss or gradient is not a number is left out instead of an error.
    pub skip_nan: bool,
}

/// Steps in a row that may be left out.
const MOST_SKIPPED: u64 = 10;

/// What a step did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StepReport {
    /// From 1 on.
    pub step: u64,
    /// The mean over the step's targets.
    #[serde(deserialize_with = "or_not_a_number")]
    pub loss: f64,
    pub learning_rate: f64,
    /// The length of the gradient, before it was cut.
    #[serde(deserialize_with = "or_not_a_number")]
    pub grad_norm: f64,
    /// Tokens of the step.
    pub tokens: usize,
    pub tokens_per_second: f64,
    pub peak_memory_bytes: u64,
    /// The mean loss of the examples that are kept apart, where it was measured after this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Whether the step was left out, because its loss or gradient was not a number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

/// JSON has `null` for what is not a number.
fn or_not_a_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// A model in training.
pub struct Trainer {
    pub model: Arc<Trainable>,
    pub parameters: Parameters,
    pub optimizer: Box<dyn Optimizer>,
    options: Options,
    cursor: Cursor,
    step: u64,
    /// Steps in a row that were left out.
    skipped: u64,
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
        Ok(Self { model: Arc::new(model), parameters, optimizer, options, cursor, step: 0, skipped: 0 })
    }

    /// Steps that were taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Where in the data it is.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Continues after so many steps and units.
    pub(crate) fn go_on(&mut self, steps: u64, taken: u64) {
        self.step = steps;
        self.cursor.skip_to(taken);
    }

    /// One step: batches forward and back, then the optimizer. `None` where `stop` was set before it was done: then
    /// nothing has changed.
    pub fn step(
        &mut self,
        cx: &Context,
        data: &Data,
        learning_rate: f64,
        stop: &AtomicBool,
    ) -> Result<Option<StepReport>, Error> {
        let (start, taken) = (Instant::now(), self.cursor.taken());
        let (mut rows, mut chosen) = (Vec::new(), Vec::new());
        for _ in 0..self.options.batch_size * self.options.accumulate {
            let unit = self.cursor.take();
            rows.push(data.members(unit));
            chosen.push(data.unit(unit)?);
        }
        let targets: usize = chosen.iter().flatten().map(|example| example.targets()).sum();
        let tokens = chosen.iter().flatten().map(|example| example.tokens.len()).sum();
        let parts: Vec<Vec<&Example>> =
            chosen.chunks(self.options.batch_size).map(|units| units.iter().flatten().collect()).collect();
        let (mut gradients, mut loss) = (Gradients::new(), 0.0);
        for (part, examples) in parts.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                self.cursor.skip_to(taken);
                return Ok(None);
            }
            let (sum, found) = self.pass(cx, examples, part, targets.max(1))?;
            loss += sum;
            gradients.add(cx, found)?;
        }
        let loss = loss / targets.max(1) as f64;
        if let Some(most) = self.options.max_grad_value {
            self.parameters.clip_gradient_values(cx, &mut gradients, most)?;
        }
        let grad_norm = match self.options.max_grad_norm {
            Some(most) => self.parameters.clip_gradients(cx, &mut gradients, most)?,
            None => self.parameters.gradient_norm(cx, &gradients)?,
        };
        let number = self.step + 1;
        let skipped = !loss.is_finite() || !grad_norm.is_finite();
        self.skipped = if skipped { self.skipped + 1 } else { 0 };
        if skipped && (!self.options.skip_nan || self.skipped > MOST_SKIPPED) {
            drop(gradients);
            let (what, part) = self.culprit(cx, &parts, targets.max(1))?;
            let size = self.options.batch_size;
            let rows = part.map_or(&rows[..], |part| &rows[part * size..rows.len().min((part + 1) * size)]).concat();
            return Err(Error::NotANumber { step: number, what, rows });
        }
        if !skipped {
            let _span = monitor::span("optimizer", "pass").with("step", number);
            self.optimizer.step(cx, &mut self.parameters, &gradients, learning_rate)?;
        }
        self.step = number;
        Ok(Some(StepReport {
            step: number,
            loss,
            learning_rate,
            grad_norm,
            tokens,
            tokens_per_second: tokens as f64 / start.elapsed().as_secs_f64().max(1e-9),
            peak_memory_bytes: windlass_runtime::system::peak_memory().unwrap_or(0),
            eval_loss: None,
            skipped,
        }))
    }

    /// The sum of the losses of a batch, and its gradients divided by `targets`.
    fn pass(
        &self,
        cx: &Context,
        examples: &[&Example],
        part: usize,
        targets: usize,
    ) -> Result<(f64, Gradients), Error> {
        let number = self.step * self.options.accumulate as u64 + part as u64;
        let tape = Tape::new(cx).forgetting(windlass_nn::is_cheap);
        let pass = Pass {
            batch: Arc::new(batch(examples)?),
            parameters: Arc::new(self.parameters.iter().map(|p| p.var()).collect::<Vec<Var>>()),
            random: Randomness { seed: self.options.seed, batch: number, training: true },
            checkpoint: self.options.checkpoint,
        };
        let forward = monitor::span("forward", "pass").with("step", self.step + 1);
        let loss = self.model.loss(&tape, &pass)?;
        drop(forward);
        let sum = f64::from(TypedTensor::<f32>::new(loss.tensor().clone())?.get(&[])?);
        let _span = monitor::span("backward", "pass").with("step", self.step + 1);
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

    /// What became not a number first in a step that failed, and in which of its batches.
    fn culprit(&self, cx: &Context, parts: &[Vec<&Example>], targets: usize) -> Result<(String, Option<usize>), Error> {
        let places: HashMap<*const u8, &str> =
            self.parameters.iter().filter_map(|p| Some((p.tensor.bytes()?.as_ptr(), p.name.as_str()))).collect();
        let name = |tensor: &Tensor| Some(places.get(&tensor.bytes()?.as_ptr())?.to_string());
        for (part, examples) in parts.iter().enumerate() {
            let again = |cx: &Context| self.pass(cx, examples, part, targets).map(|_| ());
            if let Some(what) = guard::first_odd(cx, name, again)? {
                return Ok((what, Some(part)));
            }
        }
        Ok(("the gradients together are too large for a number".into(), None))
    }
}
