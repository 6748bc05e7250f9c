//! Schedules: how the learning rate changes with steps.

use crate::Error;

/// A learning rate for every step.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub kind: Kind,
    pub learning_rate: f64,
    /// Steps in which it rises from zero.
    pub warmup: u64,
    /// Steps in all.
    pub steps: u64,
}

/// The shape after the rise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Kind {
    #[default]
    Constant,
    /// To zero in a straight line.
    Linear,
    /// Along half a wave, to this share of the rate.
    Cosine { floor: f64 },
}

impl Kind {
    /// The kind of this name, with its defaults.
    pub fn named(name: &str) -> Result<Self, Error> {
        match name {
            "constant" => Ok(Kind::Constant),
            "linear" => Ok(Kind::Linear),
            "cosine" => Ok(Kind::Cosine { floor: 0.0 }),
            other => {
                Err(Error::Setting(format!("no schedule is called {other:?}; there are constant, linear, cosine")))
            }
        }
    }
}

impl Schedule {
    /// The rate of step `step`, from 0 on, as transformers has it.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.learning_rate * step as f64 / self.warmup as f64;
        }
        let rest = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let done = ((step - self.warmup) as f64 / rest).min(1.0);
        let share = match self.kind {
            Kind::Constant => 1.0,
            Kind::Linear => 1.0 - done,
            Kind::Cosine { floor } => floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        self.learning_rate * share
    }
}
