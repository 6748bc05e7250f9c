//! gpt-oss: experts with biases, attention with sinks, a window in every other layer.
//!
//! transformers stores plain experts with rows and columns exchanged, gate and up taking turns; published checkpoints have them in
//! MXFP4, row by row, as `gate_up_proj.weight` when their blocks and scales are joined.

use crate::Activation;
use crate::architecture::{Architecture, DECODER_IGNORABLE, DECODER_ROOTS, Defaults, GgufKey, Sliding};
use crate::piece::Role;
use crate::spec::{ATTENTION, ATTENTION_BIASES, Dim, ENDS, Spec, fused, own, stacked, weight};

pub(crate) static GPT_OSS: Architecture = Architecture {
    name: "gpt-oss",
    classes: &["GptOssForCausalLM", "GptOssModel"],
    model_types: &["gpt_oss"],
    gguf_name: "gpt-oss",
    gguf_marker: None,
    gguf_keys: &[GgufKey::KvHeads, GgufKey::HeadDim, GgufKey::RopeTheta, GgufKey::FfnAsExpertFfn],
    gguf_interleaves_heads: false,
    gguf_norm_shift: 0.0,
    scales_embeddings: false,
    defaults: Defaults {
        norm_eps: 1e-5,
        rope_theta: 150_000.0,
        kv_heads: Some(8),
        head_dim: Some(64),
        context: 131_072,
        sliding: Sliding::AllBut(2),
        sliding_window: Some(128),
        experts_normalized: Some(true),
        activation: Activation::ClampedSwiglu,
        ..Defaults::DECODER
    },
    roots: DECODER_ROOTS,
    ignorable: DECODER_IGNORABLE,
    inventory: &[ENDS, NORMS, ATTENTION, ATTENTION_BIASES, SINKS, EXPERTS],
};

const NORMS: &[Spec] = &[
    weight(Role::AttentionNorm, &[Dim::Hidden], &[own("@layers.{l}.input_layernorm")], &[own("blk.{l}.attn_norm")]),
    weight(
        Role::FfnNorm,
        &[Dim::Hidden],
        &[own("@layers.{l}.post_attention_layernorm")],
        &[own("blk.{l}.post_attention_norm")],
    ),
];

const SINKS: &[Spec] = &[weight(
    Role::AttentionSinks,
    &[Dim::Heads],
    &[own("@layers.{l}.self_attn.sinks").bare()],
    &[own("blk.{l}.attn_sinks")],
)];

const GATE_UP: &[Dim] = &[Dim::ExpertFfn, Dim::ExpertFfn];
const GATE_UP_HF: &str = "@layers.{l}.mlp.experts.gate_up_proj";
const GATE_UP_GGUF: &str = "blk.{l}.ffn_gate_up_exps";

const ROUTER: Spec = weight(
    Role::Router,
    &[Dim::Experts, Dim::Hidden],
    &[own("@layers.{l}.mlp.router")],
    &[own("blk.{l}.ffn_gate_inp")],
);

const GATE: Spec = weight(
    Role::ExpertGate,
    &[Dim::ExpertFfn, Dim::Hidden],
    &[
        fused(GATE_UP_HF, &[], GATE_UP).stacked().joined().turned().every(2, 0),
        fused(GATE_UP_HF, &[], GATE_UP).stacked().every(2, 0),
    ],
    &[stacked("blk.{l}.ffn_gate_exps"), fused(GATE_UP_GGUF, &[], GATE_UP).stacked()],
)
.mlx(&[stacked("@layers.{l}.mlp.experts.gate_proj")]);

const UP: Spec = weight(
    Role::ExpertUp,
    &[Dim::ExpertFfn, Dim::Hidden],
    &[
        fused(GATE_UP_HF, &[], GATE_UP).stacked().joined().turned().every(2, 1),
        fused(GATE_UP_HF, &[], GATE_UP).stacked().every(2, 1),
    ],
    &[stacked("blk.{l}.ffn_up_exps"), fused(GATE_UP_GGUF, &[Dim::ExpertFfn], GATE_UP).stacked()],
)
.mlx(&[stacked("@layers.{l}.mlp.experts.up_proj")]);

const DOWN: Spec = weight(
    Role::ExpertDown,
    &[Dim::Hidden, Dim::ExpertFfn],
    &[stacked("@layers.{l}.mlp.experts.down_proj").joined().turned(), stacked("@layers.{l}.mlp.experts.down_proj")],
    &[stacked("blk.{l}.ffn_down_exps")],
)
.mlx(&[stacked("@layers.{l}.mlp.experts.down_proj")]);

const EXPERTS: &[Spec] = &[ROUTER, ROUTER.bias(), GATE, GATE.bias(), UP, UP.bias(), DOWN, DOWN.bias()];
