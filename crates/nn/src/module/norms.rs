//! Norms.

use windlass_ops::{Attributes, library};

use super::{Builder, Init, Module, Run};
use crate::{Error, Var};

/// `x` over the root of its mean square, times a weight (arXiv 1910.07467).
#[derive(Debug)]
pub struct RmsNorm {
    pub weight: usize,
    epsilon: f64,
}

impl RmsNorm {
    /// Over a last dimension of `width`.
    pub fn new(mut builder: Builder, width: usize, epsilon: f64) -> Result<Self, Error> {
        Ok(Self { weight: builder.parameter("weight", &[width], Init::Ones)?, epsilon })
    }
}

impl Module for RmsNorm {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        let how = Attributes::new().float("eps", self.epsilon);
        run.tape.one(&library::RMS_NORM, &[x, run.parameter(self.weight)?], &how)
    }
}

/// `x` less its mean, over its deviation, times a weight, plus a bias (arXiv 1607.06450).
#[derive(Debug)]
pub struct LayerNorm {
    pub weight: usize,
    pub bias: usize,
    epsilon: f64,
}

impl LayerNorm {
    /// Over a last dimension of `width`.
    pub fn new(mut builder: Builder, width: usize, epsilon: f64) -> Result<Self, Error> {
        let weight = builder.parameter("weight", &[width], Init::Ones)?;
        Ok(Self { weight, bias: builder.parameter("bias", &[width], Init::Zeros)?, epsilon })
    }
}

impl Module for LayerNorm {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        let how = Attributes::new().float("eps", self.epsilon);
        run.tape.one(&library::LAYER_NORM, &[x, run.parameter(self.weight)?, run.parameter(self.bias)?], &how)
    }
}

/// The same over groups of channels (arXiv 1803.08494).
#[derive(Debug)]
pub struct GroupNorm {
    pub weight: usize,
    pub bias: usize,
    groups: usize,
    epsilon: f64,
}

impl GroupNorm {
    /// `channels` in `groups` equal groups.
    pub fn new(mut builder: Builder, groups: usize, channels: usize, epsilon: f64) -> Result<Self, Error> {
        let weight = builder.parameter("weight", &[channels], Init::Ones)?;
        Ok(Self { weight, bias: builder.parameter("bias", &[channels], Init::Zeros)?, groups, epsilon })
    }
}

impl Module for GroupNorm {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        let how = Attributes::new().int("groups", self.groups).float("eps", self.epsilon);
        run.tape.one(&library::GROUP_NORM, &[x, run.parameter(self.weight)?, run.parameter(self.bias)?], &how)
    }
}
