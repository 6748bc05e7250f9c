//! Schedules: how the learning rate changes with steps.
//!
//! A schedule is a shape, by its name, after a rise from zero. Adding one costs a line in [`SHAPES`].

use std::collections::BTreeMap;

use crate::settings::find;
use crate::{Error, Setting, Settings};

mod plateau;
mod shapes;

use plateau::Plateau;
pub use shapes::SHAPES;

/// A learning rate for every step.
#[derive(Clone, Debug)]
pub struct Schedule {
    shape: &'static Shape,
    settings: Settings,
    learning_rate: f64,
    warmup: u64,
    steps: u64,
    plateau: Option<Plateau>,
}

/// A shape that can be asked for by name.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    /// In a few words.
    pub about: &'static str,
    pub settings: &'static [Setting],
    share: fn(&Settings, &At) -> f64,
    /// Whether the rate depends on what was observed.
    observes: bool,
}

/// Where a step is. Steps in which the rate rises are not counted.
struct At {
    step: f64,
    steps: f64,
    /// The share of the steps that is done, up to 1.
    done: f64,
    learning_rate: f64,
}

impl Schedule {
    /// The shape of this name, up to `learning_rate`, after `warmup` steps in which it rises from zero, for `steps` in all. An
    /// unknown name or setting is an error that names the nearest known one.
    pub fn new(
        name: &str,
        settings: &BTreeMap<String, f64>,
        learning_rate: f64,
        warmup: u64,
        steps: u64,
    ) -> Result<Self, Error> {
        let shape = find("schedule", name, SHAPES, |shape| shape.name)?;
        let settings = Settings::new(shape.name, shape.settings, settings)?;
        for name in ["every", "cycles"] {
            if shape.settings.iter().any(|setting| setting.name == name) {
                settings.within(name, 1e-9..)?;
            }
        }
        let plateau = shape.observes.then(|| Plateau::of(&settings)).transpose()?;
        Ok(Self { shape, settings, learning_rate, warmup, steps, plateau })
    }

    /// As the registry has it: `cosine`.
    pub fn name(&self) -> &'static str {
        self.shape.name
    }

    /// Steps in all.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The rate of step `step`, from 0 on.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.learning_rate * step as f64 / self.warmup as f64;
        }
        let steps = self.steps.saturating_sub(self.warmup) as f64;
        let step = (step - self.warmup) as f64;
        let at = At { step, steps, done: (step / steps.max(1.0)).min(1.0), learning_rate: self.learning_rate };
        let share = (self.shape.share)(&self.settings, &at);
        match &self.plateau {
            Some(plateau) => plateau.rate(self.learning_rate),
            None => self.learning_rate * share,
        }
    }

    /// Tells a loss: a schedule that waits for plateaus lowers the rate where it does not fall any more.
    pub fn observe(&mut self, loss: f64) {
        if let Some(plateau) = &mut self.plateau {
            plateau.observe(loss, self.learning_rate);
        }
    }

    /// Whether [`Schedule::observe`] matters.
    pub fn observes(&self) -> bool {
        self.shape.observes
    }

    /// What it learned from losses: to be kept with checkpoints.
    pub fn state(&self) -> Vec<f64> {
        self.plateau.as_ref().map(Plateau::state).unwrap_or_default()
    }

    /// Goes on from what [`Schedule::state`] gave.
    pub fn restore(&mut self, state: &[f64]) -> Result<(), Error> {
        match &mut self.plateau {
            Some(plateau) => plateau.restore(state),
            None if state.is_empty() => Ok(()),
            None => Err(Error::Setting(format!("the schedule {} remembers nothing", self.name()))),
        }
    }
}
