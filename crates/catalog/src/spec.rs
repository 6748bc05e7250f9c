//! The language architectures are written in: tables of tensors, each with its role, its shape in named dimensions, and the sites where
//! the three conventions store it. Also the tables that most decoders share.

use crate::{Hyper, piece::Role};

/// A dimension by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dim {
    Hidden,
    /// Query heads x head size.
    Query,
    /// Key heads x head size.
    Key,
    Head,
    Heads,
    Ffn,
    ExpertFfn,
    Experts,
    Vocab,
    Context,
    TokenTypes,
}

impl Dim {
    pub(crate) fn size(self, hyper: &Hyper) -> usize {
        match self {
            Dim::Hidden => hyper.hidden,
            Dim::Query => hyper.heads * hyper.head_dim,
            Dim::Key => hyper.kv_heads * hyper.head_dim,
            Dim::Head => hyper.head_dim,
            Dim::Heads => hyper.heads,
            Dim::Ffn => hyper.ffn,
            Dim::ExpertFfn => hyper.expert_ffn,
            Dim::Experts => hyper.experts,
            Dim::Vocab => hyper.vocab,
            Dim::Context => hyper.context,
            Dim::TokenTypes => hyper.token_types,
        }
    }
}

/// What a layer's tensor is to the linear map or norm that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The matrix of a linear map or embedding, or the gain of a norm.
    Weight,
    /// What is added.
    Bias,
}

/// How a name ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// `.weight` or `.bias`.
    Usual,
    /// Nothing: transformers' stacked experts.
    Bare,
    /// Nothing, or `_bias`: stacked experts with biases.
    Joined,
    /// `.gamma` or `.beta`: norms converted from TensorFlow.
    Greek,
}

/// Where one convention stores a tensor. In `name`, `{l}` is the layer, `{e}` the expert, and `@` each of the architecture's roots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) ending: Ending,
    /// Dimensions whose rows come first in the stored tensor, and all of them; both empty unless several pieces share it.
    pub(crate) before: &'static [Dim],
    pub(crate) total: &'static [Dim],
    /// Whether all experts of the layer share it, with the expert as the first dimension.
    pub(crate) stacked: bool,
    /// Whether rows and columns are exchanged.
    pub(crate) turned: bool,
    /// Where rows (or, turned, columns) of several pieces take turns: the first of this piece, and how far apart they are.
    pub(crate) offset: usize,
    pub(crate) step: usize,
}

/// A tensor of its own.
pub(crate) const fn own(name: &'static str) -> Site {
    Site { name, ending: Ending::Usual, before: &[], total: &[], stacked: false, turned: false, offset: 0, step: 1 }
}

/// Part of a tensor that also holds others: the rows of `before` precede it, `total` are all.
pub(crate) const fn fused(name: &'static str, before: &'static [Dim], total: &'static [Dim]) -> Site {
    Site { before, total, ..own(name) }
}

/// Part of a tensor that holds all experts of a layer.
pub(crate) const fn stacked(name: &'static str) -> Site {
    Site { stacked: true, ..own(name) }
}

impl Site {
    pub(crate) const fn bare(self) -> Self {
        Site { ending: Ending::Bare, ..self }
    }

    pub(crate) const fn greek(self) -> Self {
        Site { ending: Ending::Greek, ..self }
    }

    pub(crate) const fn stacked(self) -> Self {
        Site { stacked: true, ..self }
    }

    pub(crate) const fn joined(self) -> Self {
        Site { ending: Ending::Joined, ..self }
    }

    /// Of the rows of several pieces that take turns, every `step`-th from `offset` on.
    pub(crate) const fn every(self, step: usize, offset: usize) -> Self {
        Site { step, offset, ..self }
    }

    /// Stored with rows and columns exchanged.
    pub(crate) const fn turned(self) -> Self {
        Site { turned: true, ..self }
    }
}

/// Whether a model must hold a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Always,
    UnlessTied,
    IfAttentionBias,
    IfMlpBias,
    Never,
}

/// One tensor of an architecture; a layer's and an expert's stand for one per layer and expert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) role: Role,
    pub(crate) part: Part,
    /// Of the weight; a bias has the first of its dimensions.
    pub(crate) shape: &'static [Dim],
    pub(crate) hf: &'static [Site],
    pub(crate) gguf: &'static [Site],
    /// As `hf` where absent.
    pub(crate) mlx: Option<&'static [Site]>,
    pub(crate) need: Need,
}

pub(crate) const fn weight(role: Role, shape: &'static [Dim], hf: &'static [Site], gguf: &'static [Site]) -> Spec {
    Spec { role, part: Part::Weight, shape, hf, gguf, mlx: None, need: Need::Always }
}

impl Spec {
    pub(crate) const fn bias(self) -> Self {
        Spec { part: Part::Bias, ..self }
    }

    pub(crate) const fn need(self, need: Need) -> Self {
        Spec { need, ..self }
    }

    pub(crate) const fn mlx(self, sites: &'static [Site]) -> Self {
        Spec { mlx: Some(sites), ..self }
    }

    pub(crate) fn dims(&self) -> &'static [Dim] {
        match self.part {
            Part::Weight => self.shape,
            Part::Bias => &self.shape[..1],
        }
    }
}

const QUERY: Spec = weight(
    Role::AttentionQuery,
    &[Dim::Query, Dim::Hidden],
    &[own("@layers.{l}.self_attn.q_proj")],
    &[own("blk.{l}.attn_q")],
);
const KEY: Spec = weight(
    Role::AttentionKey,
    &[Dim::Key, Dim::Hidden],
    &[own("@layers.{l}.self_attn.k_proj")],
    &[own("blk.{l}.attn_k")],
);
const VALUE: Spec = weight(
    Role::AttentionValue,
    &[Dim::Key, Dim::Hidden],
    &[own("@layers.{l}.self_attn.v_proj")],
    &[own("blk.{l}.attn_v")],
);
const ATTENTION_OUTPUT: Spec = weight(
    Role::AttentionOutput,
    &[Dim::Hidden, Dim::Query],
    &[own("@layers.{l}.self_attn.o_proj")],
    &[own("blk.{l}.attn_output")],
);
const GATE: Spec =
    weight(Role::FfnGate, &[Dim::Ffn, Dim::Hidden], &[own("@layers.{l}.mlp.gate_proj")], &[own("blk.{l}.ffn_gate")]);
const UP: Spec =
    weight(Role::FfnUp, &[Dim::Ffn, Dim::Hidden], &[own("@layers.{l}.mlp.up_proj")], &[own("blk.{l}.ffn_up")]);
const DOWN: Spec =
    weight(Role::FfnDown, &[Dim::Hidden, Dim::Ffn], &[own("@layers.{l}.mlp.down_proj")], &[own("blk.{l}.ffn_down")]);

/// Token embedding, final norm and output projection of decoders.
pub(crate) const ENDS: &[Spec] = &[
    weight(Role::TokenEmbedding, &[Dim::Vocab, Dim::Hidden], &[own("@embed_tokens")], &[own("token_embd")]),
    weight(Role::OutputNorm, &[Dim::Hidden], &[own("@norm")], &[own("output_norm")]),
    weight(
        Role::Output,
        &[Dim::Vocab, Dim::Hidden],
        &[own("lm_head"), own("language_model.lm_head")],
        &[own("output")],
    )
    .need(Need::UnlessTied),
];

/// The norms before attention and before the feed-forward block.
pub(crate) const NORMS: &[Spec] = &[
    weight(Role::AttentionNorm, &[Dim::Hidden], &[own("@layers.{l}.input_layernorm")], &[own("blk.{l}.attn_norm")]),
    weight(Role::FfnNorm, &[Dim::Hidden], &[own("@layers.{l}.post_attention_layernorm")], &[own("blk.{l}.ffn_norm")]),
];

/// The norms before and after attention and the feed-forward block, as Gemma has them since its second version.
pub(crate) const SANDWICH_NORMS: &[Spec] = &[
    weight(Role::AttentionNorm, &[Dim::Hidden], &[own("@layers.{l}.input_layernorm")], &[own("blk.{l}.attn_norm")]),
    weight(
        Role::PostAttentionNorm,
        &[Dim::Hidden],
        &[own("@layers.{l}.post_attention_layernorm")],
        &[own("blk.{l}.post_attention_norm")],
    ),
    weight(Role::FfnNorm, &[Dim::Hidden], &[own("@layers.{l}.pre_feedforward_layernorm")], &[own("blk.{l}.ffn_norm")]),
    weight(
        Role::PostFfnNorm,
        &[Dim::Hidden],
        &[own("@layers.{l}.post_feedforward_layernorm")],
        &[own("blk.{l}.post_ffw_norm")],
    ),
];

/// The four projections of attention.
pub(crate) const ATTENTION: &[Spec] = &[QUERY, KEY, VALUE, ATTENTION_OUTPUT];

/// Biases of all four, which `attention_bias` asks for.
pub(crate) const ATTENTION_BIASES: &[Spec] = &[
    QUERY.bias().need(Need::IfAttentionBias),
    KEY.bias().need(Need::IfAttentionBias),
    VALUE.bias().need(Need::IfAttentionBias),
    ATTENTION_OUTPUT.bias().need(Need::IfAttentionBias),
];

/// Biases of three, always there.
pub(crate) const QKV_BIASES: &[Spec] = &[QUERY.bias(), KEY.bias(), VALUE.bias()];

/// Norms of every query and key head.
pub(crate) const HEAD_NORMS: &[Spec] = &[
    weight(
        Role::AttentionQueryNorm,
        &[Dim::Head],
        &[own("@layers.{l}.self_attn.q_norm")],
        &[own("blk.{l}.attn_q_norm")],
    ),
    weight(Role::AttentionKeyNorm, &[Dim::Head], &[own("@layers.{l}.self_attn.k_norm")], &[own("blk.{l}.attn_k_norm")]),
];

/// The gated feed-forward block.
pub(crate) const GATED_FFN: &[Spec] = &[GATE, UP, DOWN];

/// Biases of its three maps, which `mlp_bias` asks for.
pub(crate) const GATED_FFN_BIASES: &[Spec] =
    &[GATE.bias().need(Need::IfMlpBias), UP.bias().need(Need::IfMlpBias), DOWN.bias().need(Need::IfMlpBias)];
