//! Modules: parts of models with named parameters.
//!
//! A [`Builder`] adds parameters under the names that torch gives them (`0.weight`); a module keeps their places. A [`Run`] has
//! the parameters of one pass. State is what [`Parameters`] hold.
//!
//! ```
//! use windlass_nn::module::{Activation, Builder, Linear, Module, Run, Sequential};
//! use windlass_nn::{Parameters, Tape, Var};
//! use windlass_ops::Context;
//! use windlass_tensor::Tensor;
//!
//! let mut parameters = Parameters::new();
//! let builder = Builder::new(&mut parameters, 42);
//! let model = Sequential::new(builder, |layers| {
//!     layers.push(|b| Linear::new(b, 8, 16, true))?;
//!     layers.push(|_| Ok(Activation::new("gelu")))?;
//!     layers.push(|b| Linear::new(b, 16, 4, true))
//! })?;
//! let x = Var::constant(Tensor::from_slice(&[0.5f32; 24], [3, 8])?);
//! let y = Context::here(|cx| model.forward(&Run::new(&Tape::new(cx), &parameters, true, 0), &x))?;
//! assert_eq!((y.shape(), parameters.get(2).map(|p| p.name.as_str())), (&[3, 4][..], Some("2.weight")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use windlass_runtime::random::Philox;

use crate::{Error, Parameters, Tape, Var};

mod attention;
mod containers;
mod image;
mod init;
mod layers;
mod norms;

pub use attention::{Attention, AttentionOptions};
pub use containers::{Layers, ModuleDict, ModuleList, ParameterList, Sequential};
pub use image::{Conv1d, Conv2d, ConvOptions, Flatten, Pool};
pub use init::{Fan, Init, gain};
pub use layers::{Activation, Dropout, Embedding, Linear, Mlp};
pub use norms::{GroupNorm, LayerNorm, RmsNorm};

/// One value in, one out.
pub trait Module: Send + Sync {
    /// Computes the output, with the parameters of the run.
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error>;
}

/// What one pass works with.
pub struct Run<'t, 'a> {
    pub tape: &'t Tape<'a>,
    parameters: Vec<Var>,
    /// Whether dropout leaves values out.
    pub training: bool,
    /// Random numbers of this pass: the same number leaves the same values out.
    pub pass: u64,
}

impl<'t, 'a> Run<'t, 'a> {
    /// A pass with these parameters.
    pub fn new(tape: &'t Tape<'a>, parameters: &Parameters, training: bool, pass: u64) -> Self {
        Self { tape, parameters: parameters.iter().map(|p| p.var()).collect(), training, pass }
    }

    /// The parameter at a place.
    pub fn parameter(&self, place: usize) -> Result<&Var, Error> {
        let missing = || Error::Parameter { name: format!("number {place}"), message: "is not there".into() };
        self.parameters.get(place).ok_or_else(missing)
    }
}

/// Adds parameters under a path.
pub struct Builder<'p> {
    parameters: &'p mut Parameters,
    path: String,
    seed: u64,
}

impl<'p> Builder<'p> {
    /// At the root. The same seed gives the same values.
    pub fn new(parameters: &'p mut Parameters, seed: u64) -> Self {
        Self { parameters, path: String::new(), seed }
    }

    /// One level below.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Builder<'_> {
        let path = format!("{}{name}.", self.path);
        Builder { parameters: self.parameters, path, seed: self.seed }
    }

    /// Adds a parameter, and gives its place.
    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Result<usize, Error> {
        let random = Philox::new(self.seed).sequence(self.parameters.len() as u64);
        self.parameters.add(format!("{}{name}", self.path), init.make(shape, &random)?)
    }

    /// A number that no other module of the model has.
    fn stream(&self) -> u64 {
        // Of the path, so that modules without parameters have one each (FNV-1a).
        self.path.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}
