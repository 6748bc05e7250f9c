//! A rate that falls where the loss does not.

use crate::{Error, Setting, Settings};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("factor", 0.1, "what the rate is multiplied with"),
    Setting::new("patience", 10.0, "losses without progress that are borne"),
    Setting::new("threshold", 1e-4, "share of the best loss that is progress"),
    Setting::new("cooldown", 0.0, "losses after a change that do not count"),
    Setting::new("least", 0.0, "lowest learning rate"),
];

/// As torch's `ReduceLROnPlateau`.
#[derive(Clone, Debug)]
pub(super) struct Plateau {
    factor: f64,
    patience: u64,
    threshold: f64,
    cooldown: u64,
    least: f64,
    /// Share of the learning rate.
    share: f64,
    best: f64,
    bad: u64,
    cooling: u64,
}

impl Plateau {
    pub(super) fn of(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            factor: settings.within("factor", 0.0..1.0)?,
            patience: settings.count("patience")?,
            threshold: settings.within("threshold", 0.0..1.0)?,
            cooldown: settings.count("cooldown")?,
            least: settings.within("least", 0.0..)?,
            share: 1.0,
            best: f64::INFINITY,
            bad: 0,
            cooling: 0,
        })
    }

    pub(super) fn rate(&self, learning_rate: f64) -> f64 {
        learning_rate * self.share
    }

    pub(super) fn observe(&mut self, loss: f64, learning_rate: f64) {
        if loss < self.best * (1.0 - self.threshold) || (self.best.is_infinite() && loss.is_finite()) {
            (self.best, self.bad) = (loss, 0);
        } else {
            self.bad += 1;
        }
        if self.cooling > 0 {
            (self.cooling, self.bad) = (self.cooling - 1, 0);
        }
        if self.bad > self.patience {
            let lower = (self.share * self.factor).max(self.least / learning_rate).min(self.share);
            // Changes below the digits of a rate are none.
            self.share = if (self.share - lower) * learning_rate > 1e-8 { lower } else { self.share };
            (self.cooling, self.bad) = (self.cooldown, 0);
        }
    }

    pub(super) fn state(&self) -> Vec<f64> {
        vec![self.share, self.best, self.bad as f64, self.cooling as f64]
    }

    pub(super) fn restore(&mut self, state: &[f64]) -> Result<(), Error> {
        let [share, best, bad, cooling] = state else {
            let message = format!("reduce_on_plateau remembers 4 numbers, found {}", state.len());
            return Err(Error::Setting(message));
        };
        (self.share, self.best, self.bad, self.cooling) = (*share, *best, *bad as u64, *cooling as u64);
        Ok(())
    }
}
