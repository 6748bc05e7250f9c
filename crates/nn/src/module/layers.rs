//! Linear maps, embeddings, functions, dropout, feed-forward blocks.

use windlass_ops::{Attributes, library};

use super::{Builder, Fan, Init, Module, Run};
use crate::{Error, Var};

/// `x` times the transpose of a weight `[out, in]`, and a bias.
#[derive(Debug)]
pub struct Linear {
    pub weight: usize,
    pub bias: Option<usize>,
}

impl Linear {
    /// Values as torch draws them: evenly within 1 / sqrt(inputs).
    pub fn new(mut builder: Builder, inputs: usize, outputs: usize, bias: bool) -> Result<Self, Error> {
        let bound = 1.0 / (inputs.max(1) as f64).sqrt();
        let weight = builder.parameter("weight", &[outputs, inputs], Init::Uniform(-bound, bound))?;
        let bias = bias.then(|| builder.parameter("bias", &[outputs], Init::Uniform(-bound, bound))).transpose()?;
        Ok(Self { weight, bias })
    }
}

impl Module for Linear {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        let exact = Attributes::new().bool("exact", true);
        let y = run.tape.one(&library::LINEAR, &[x, run.parameter(self.weight)?], &exact)?;
        match self.bias {
            Some(bias) => run.tape.elementwise("add", &[&y, run.parameter(bias)?]),
            None => Ok(y),
        }
    }
}

/// Rows of a table by whole numbers.
#[derive(Debug)]
pub struct Embedding {
    pub weight: usize,
}

impl Embedding {
    /// `count` rows of `width` normal values.
    pub fn new(mut builder: Builder, count: usize, width: usize) -> Result<Self, Error> {
        Ok(Self { weight: builder.parameter("weight", &[count, width], Init::Normal(0.0, 1.0))? })
    }
}

impl Module for Embedding {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        run.tape.one(&library::EMBEDDING, &[run.parameter(self.weight)?, x], &Attributes::NONE)
    }
}

/// An elementwise op of one input, by its name.
#[derive(Debug)]
pub struct Activation(&'static str);

impl Activation {
    /// `relu`, `gelu`, `silu`, `tanh` ...
    pub fn new(name: &'static str) -> Self {
        Self(name)
    }
}

impl Module for Activation {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        run.tape.elementwise(self.0, &[x])
    }
}

/// Leaves values out in training, and scales the others.
#[derive(Debug)]
pub struct Dropout {
    probability: f64,
    stream: u64,
}

impl Dropout {
    /// With the probability that a value is left out.
    pub fn new(builder: Builder, probability: f64) -> Result<Self, Error> {
        if !(0.0..1.0).contains(&probability) {
            return Err(Error::Setting(format!("dropout must be from 0 to below 1, not {probability}")));
        }
        Ok(Self { probability, stream: builder.stream() })
    }
}

impl Module for Dropout {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        if !run.training || self.probability == 0.0 {
            return Ok(x.clone());
        }
        let how = Attributes::new()
            .float("p", self.probability)
            .int("seed", (self.stream >> 1) as usize)
            .int("counter", ((run.pass & 0x7fff_ffff) << 32) as usize);
        run.tape.one(&library::DROPOUT, &[x], &how)
    }
}

/// `down(function(gate(x)) * up(x))`, as decoders have it: `gated` is an op of two inputs such as `swiglu`.
#[derive(Debug)]
pub struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    gated: &'static str,
}

impl Mlp {
    /// Without biases, under `gate_proj`, `up_proj` and `down_proj`.
    pub fn new(mut builder: Builder, width: usize, inner: usize, gated: &'static str) -> Result<Self, Error> {
        Ok(Self {
            gate: Linear::new(builder.at("gate_proj"), width, inner, false)?,
            up: Linear::new(builder.at("up_proj"), width, inner, false)?,
            down: Linear::new(builder.at("down_proj"), inner, width, false)?,
            gated,
        })
    }
}

impl Module for Mlp {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        let (gate, up) = (self.gate.forward(run, x)?, self.up.forward(run, x)?);
        self.down.forward(run, &run.tape.elementwise(self.gated, &[&gate, &up])?)
    }
}

/// What weights of convolutions and linear maps begin with in torch: evenly within 1 / sqrt(inputs of a window).
pub(super) fn usual() -> Init {
    Init::KaimingUniform(1.0 / 3.0f64.sqrt(), Fan::Inputs)
}
