//! Loss scaling: small gradients of half precision are kept from vanishing (arXiv 1710.03740).

use windlass_ops::library::{ALL, elementwise};
use windlass_ops::{Attributes, Context};

use crate::{Error, Gradients, Parameters};

/// A factor for losses that shrinks when gradients overflow and grows when they have not for a while, as torch's `GradScaler`.
#[derive(Clone, Debug, PartialEq)]
pub struct LossScaler {
    /// Losses are multiplied with it.
    pub scale: f64,
    pub growth: f64,
    pub backoff: f64,
    /// Steps without overflow after which it grows.
    pub interval: u64,
    /// Steps since the last change.
    pub good: u64,
}

impl Default for LossScaler {
    fn default() -> Self {
        Self { scale: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000, good: 0 }
    }
}

impl LossScaler {
    /// Divides gradients by the scale. Gives whether all of them are numbers: otherwise the step is to be left out.
    pub fn unscale(&self, cx: &Context, parameters: &Parameters, gradients: &mut Gradients) -> Result<bool, Error> {
        parameters.scale_gradients(cx, gradients, 1.0 / self.scale)?;
        for gradient in parameters.iter().filter_map(|parameter| parameter.gradient(gradients)) {
            let finite = elementwise(cx, "isfinite", &[gradient])?;
            let all = cx.one(&ALL, &[&finite], &Attributes::NONE)?;
            if all.bytes().is_some_and(|bytes| bytes.first() == Some(&0)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adapts the scale after a step, of which the gradients were numbers or not.
    pub fn update(&mut self, finite: bool) {
        if !finite {
            self.scale *= self.backoff;
            self.good = 0;
            return;
        }
        self.good += 1;
        if self.good >= self.interval {
            let grown = self.scale * self.growth;
            self.scale = if (grown as f32).is_finite() { grown } else { self.scale };
            self.good = 0;
        }
    }
}
