//! Attention.

use windlass_ops::{Attributes, library};
use windlass_tensor::Tensor;

use super::{Builder, Linear, Module, Run};
use crate::{Error, Var};

/// How heads look at each other's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionOptions {
    pub width: usize,
    pub heads: usize,
    /// Heads of keys and values, each for as many of the queries'.
    pub kv_heads: usize,
    /// Whether tokens see those before them only.
    pub causal: bool,
    pub bias: bool,
}

/// Attention of the tokens of a sequence to each other (arXiv 1706.03762), with `q_proj`, `k_proj`, `v_proj` and `o_proj`.
#[derive(Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    head_dim: usize,
    causal: bool,
}

impl Attention {
    /// Refuses widths that are not in equal heads.
    pub fn new(mut builder: Builder, options: AttentionOptions) -> Result<Self, Error> {
        let AttentionOptions { width, heads, kv_heads, causal, bias } = options;
        if heads == 0 || kv_heads == 0 || width % heads != 0 || heads % kv_heads != 0 {
            let message = format!("a width of {width} is not in {heads} heads over {kv_heads} of keys");
            return Err(Error::Setting(message));
        }
        let head_dim = width / heads;
        Ok(Self {
            query: Linear::new(builder.at("q_proj"), width, width, bias)?,
            key: Linear::new(builder.at("k_proj"), width, kv_heads * head_dim, bias)?,
            value: Linear::new(builder.at("v_proj"), width, kv_heads * head_dim, bias)?,
            output: Linear::new(builder.at("o_proj"), width, width, bias)?,
            head_dim,
            causal,
        })
    }

    /// For sequences that stand one after the other in `x` `[tokens, width]`; `bounds` (I64) says where each begins, and where
    /// the last one ends.
    pub fn forward_sequences(&self, run: &Run, x: &Var, bounds: &Tensor) -> Result<Var, Error> {
        let (q, k, v) = (self.query.forward(run, x)?, self.key.forward(run, x)?, self.value.forward(run, x)?);
        let how = Attributes::new()
            .int("head_dim", self.head_dim)
            .float("scale", 1.0 / (self.head_dim as f64).sqrt())
            .bool("causal", self.causal);
        let bounds = Var::constant(bounds.clone());
        let mixed = run.tape.one(&library::SEQUENCE_ATTENTION, &[&q, &k, &v, &bounds], &how)?;
        self.output.forward(run, &mixed)
    }
}

impl Module for Attention {
    /// For one sequence `[tokens, width]`.
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        let tokens = x.shape().first().copied().unwrap_or(0) as i64;
        self.forward_sequences(run, x, &Tensor::from_slice(&[0, tokens], [2])?)
    }
}
