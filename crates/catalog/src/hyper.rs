//! Hyper-parameters: the numbers that, with the architecture, determine every tensor and the graph.

use crate::{Error, rope::RopeScaling};

/// Most layers of a model.
pub const MAX_LAYERS: usize = 1024;
/// Most experts of a layer.
pub const MAX_EXPERTS: usize = 4096;
/// Most entries of a vocabulary.
pub const MAX_VOCAB: usize = 1 << 24;
/// Longest row: hidden size, feed-forward size, heads x head size.
pub const MAX_WIDTH: usize = 1 << 22;
/// Longest context, in tokens.
pub const MAX_CONTEXT: usize = u32::MAX as usize;
/// Most pieces (see [`crate::Piece`]) of a model.
pub const MAX_PIECES: usize = 1_000_000;

/// The function between the two halves of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// gpt-oss: gate g at most 7, other half u within 7: (u + 1) * g * sigmoid(1.702 g).
    ClampedSwiglu,
    /// The Gaussian error linear unit, with the error function.
    Gelu,
    /// The same with the hyperbolic tangent in place of the error function.
    GeluTanh,
}

/// Validated hyper-parameters. Made only by [`crate::from_hf_config`] and [`crate::from_gguf`], so every value is within its bound and
/// the products of any three of them fit in 64 bits. Real numbers are f32, as GGUF keeps them.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyper {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) rotary_dim: usize,
    pub(crate) ffn: usize,
    pub(crate) vocab: usize,
    pub(crate) context: usize,
    pub(crate) original_context: usize,
    pub(crate) experts: usize,
    pub(crate) experts_used: usize,
    pub(crate) expert_ffn: usize,
    pub(crate) experts_normalized: bool,
    pub(crate) norm_eps: f32,
    pub(crate) rope_theta: f32,
    pub(crate) rope_theta_sliding: f32,
    pub(crate) rope_scaling: Option<RopeScaling>,
    pub(crate) rope_attention_factor: Option<f32>,
    pub(crate) sliding_window: Option<usize>,
    pub(crate) sliding: Vec<bool>,
    pub(crate) tied: bool,
    pub(crate) attention_bias: bool,
    pub(crate) mlp_bias: bool,
    pub(crate) attention_soft_cap: Option<f32>,
    pub(crate) output_soft_cap: Option<f32>,
    pub(crate) query_scalar: f32,
    pub(crate) activation: Activation,
    pub(crate) token_types: usize,
    pub(crate) causal: bool,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> $type {
            self.$name
        }
    )*};
}

impl Hyper {
    getters! {
        /// Width of the residual stream.
        hidden: usize,
        /// Number of blocks.
        layers: usize,
        /// Query heads.
        heads: usize,
        /// Key and value heads; divides `heads`.
        kv_heads: usize,
        /// Width of one head.
        head_dim: usize,
        /// How many of the head's dimensions are rotated.
        rotary_dim: usize,
        /// Width inside a dense feed-forward block.
        ffn: usize,
        /// Entries of the vocabulary.
        vocab: usize,
        /// Longest context in tokens.
        context: usize,
        /// The context the model was first trained with, which rotary scalings refer to; else equal to `context`.
        original_context: usize,
        /// Experts per layer; 0 for a dense model.
        experts: usize,
        /// Experts that each token visits.
        experts_used: usize,
        /// Width inside one expert.
        expert_ffn: usize,
        /// Whether the weights of the chosen experts are made to sum to one.
        experts_normalized: bool,
        /// Added to the variance by the norms.
        norm_eps: f32,
        /// Base of the rotary frequencies, in layers that see the whole context.
        rope_theta: f32,
        /// Base of the rotary frequencies in layers that see a window. Not scaled there.
        rope_theta_sliding: f32,
        /// Window of the layers for which `is_sliding` holds, in tokens.
        sliding_window: Option<usize>,
        /// Whether the output projection is the token embedding.
        tied: bool,
        /// Whether all four attention projections have a bias, in architectures where that is a choice.
        attention_bias: bool,
        /// Whether the feed-forward projections have a bias, in architectures where that is a choice.
        mlp_bias: bool,
        /// Attention scores s become cap * tanh(s / cap).
        attention_soft_cap: Option<f32>,
        /// Logits s become cap * tanh(s / cap).
        output_soft_cap: Option<f32>,
        /// The activation of the feed-forward block.
        activation: Activation,
        /// Number of token types (BERT's segments); 0 where there are none.
        token_types: usize,
        /// Whether a token sees only those before it.
        causal: bool,
    }

    /// How rotary frequencies are stretched beyond the original context.
    pub fn rope_scaling(&self) -> Option<&RopeScaling> {
        self.rope_scaling.as_ref()
    }

    /// What rotated queries and keys are multiplied with: as configured, else what the scaling's formula gives, else 1.
    pub fn rope_attention_factor(&self) -> f32 {
        self.rope_attention_factor.unwrap_or_else(|| crate::rope::attention_factor(self))
    }

    /// Radians per position of each pair of a head's dimensions that rotates, in layers that see the whole context or
    /// (`sliding`) a window, for texts of up to `positions` tokens.
    pub fn rope_frequencies(&self, sliding: bool, positions: usize) -> Vec<f32> {
        crate::rope::frequencies(self, sliding, positions)
    }

    /// Whether layer `layer` sees only `sliding_window` tokens.
    pub fn is_sliding(&self, layer: usize) -> bool {
        self.sliding.get(layer).copied().unwrap_or(false)
    }

    /// What queries are multiplied with before their product with the keys.
    pub fn attention_scale(&self) -> f32 {
        1.0 / self.query_scalar.sqrt()
    }

    /// Checks what no single value shows. `names` says how the source calls things.
    pub(crate) fn checked(self, names: Names) -> Result<Self, Error> {
        let fault = |hf, gguf, expected: String, found: usize| {
            Err(Error::Invalid { key: names.of(hf, gguf), expected, found: found.to_string() })
        };
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of the {} heads", self.heads);
            return fault("num_key_value_heads", "attention.head_count_kv", expected, self.kv_heads);
        }
        if self.heads.checked_mul(self.head_dim).is_none_or(|n| n > MAX_WIDTH) {
            let expected = format!("at most {MAX_WIDTH} over all {} heads together", self.heads);
            return fault("head_dim", "attention.key_length", expected, self.head_dim);
        }
        if !self.head_dim.is_multiple_of(2) {
            return fault("head_dim", "attention.key_length", "an even number".into(), self.head_dim);
        }
        if self.rotary_dim > self.head_dim || !self.rotary_dim.is_multiple_of(2) || self.rotary_dim == 0 {
            let expected = format!("an even number of dimensions, at most {}", self.head_dim);
            return fault("partial_rotary_factor", "rope.dimension_count", expected, self.rotary_dim);
        }
        if self.experts_used > self.experts || (self.experts > 0 && self.experts_used == 0) {
            let expected = format!("1 to {}", self.experts);
            return fault("num_experts_per_tok", "expert_used_count", expected, self.experts_used);
        }
        if self.layers * (3 * self.experts + 32) > MAX_PIECES {
            let expected =
                format!("experts in all {} layers of which there are at most {MAX_PIECES} matrices", self.layers);
            return fault("num_experts", "expert_count", expected, self.experts);
        }
        if let Some(scaling) = &self.rope_scaling {
            scaling.check(self.rotary_dim, names)?;
        }
        Ok(self)
    }
}

/// How a source calls its settings.
#[derive(Clone, Copy)]
pub(crate) enum Names {
    Hf,
    Gguf(&'static str),
}

impl Names {
    pub(crate) fn of(self, hf: &str, gguf: &str) -> String {
        match self {
            Names::Hf => hf.into(),
            Names::Gguf(architecture) => format!("{architecture}.{gguf}"),
        }
    }
}
