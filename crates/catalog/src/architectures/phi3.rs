//! Phi 3 and 4: query, key and value in one matrix, gate and up in another, everywhere.

use crate::architecture::{Architecture, DECODER_IGNORABLE, DECODER_ROOTS, Defaults, GgufKey, Sliding};
use crate::piece::Role;
use crate::spec::{Dim, ENDS, NORMS, Spec, fused, own, weight};

pub(crate) static PHI3: Architecture = Architecture {
    name: "phi3",
    classes: &["Phi3ForCausalLM", "Phi3Model"],
    model_types: &["phi3"],
    gguf_name: "phi3",
    gguf_marker: None,
    gguf_keys: &[
        GgufKey::KvHeads,
        GgufKey::RopeTheta,
        GgufKey::RotaryDim,
        GgufKey::OriginalContext,
        GgufKey::SlidingWindowOrZero,
    ],
    gguf_interleaves_heads: false,
    gguf_norm_shift: 0.0,
    scales_embeddings: false,
    defaults: Defaults {
        norm_eps: 1e-5,
        context: 4096,
        original_context: Some(4096),
        sliding: Sliding::Always,
        ..Defaults::DECODER
    },
    roots: DECODER_ROOTS,
    ignorable: DECODER_IGNORABLE,
    inventory: &[ENDS, NORMS, FUSED],
};

const QKV: &[Dim] = &[Dim::Query, Dim::Key, Dim::Key];
const GATE_UP: &[Dim] = &[Dim::Ffn, Dim::Ffn];
const QKV_HF: &str = "@layers.{l}.self_attn.qkv_proj";
const QKV_GGUF: &str = "blk.{l}.attn_qkv";
const GATE_UP_HF: &str = "@layers.{l}.mlp.gate_up_proj";
const GATE_UP_GGUF: &str = "blk.{l}.ffn_up";

const FUSED: &[Spec] = &[
    weight(Role::AttentionQuery, &[Dim::Query, Dim::Hidden], &[fused(QKV_HF, &[], QKV)], &[fused(QKV_GGUF, &[], QKV)]),
    weight(
        Role::AttentionKey,
        &[Dim::Key, Dim::Hidden],
        &[fused(QKV_HF, &[Dim::Query], QKV)],
        &[fused(QKV_GGUF, &[Dim::Query], QKV)],
    ),
    weight(
        Role::AttentionValue,
        &[Dim::Key, Dim::Hidden],
        &[fused(QKV_HF, &[Dim::Query, Dim::Key], QKV)],
        &[fused(QKV_GGUF, &[Dim::Query, Dim::Key], QKV)],
    ),
    weight(
        Role::AttentionOutput,
        &[Dim::Hidden, Dim::Query],
        &[own("@layers.{l}.self_attn.o_proj")],
        &[own("blk.{l}.attn_output")],
    ),
    weight(
        Role::FfnGate,
        &[Dim::Ffn, Dim::Hidden],
        &[fused(GATE_UP_HF, &[], GATE_UP)],
        &[fused(GATE_UP_GGUF, &[], GATE_UP)],
    ),
    weight(
        Role::FfnUp,
        &[Dim::Ffn, Dim::Hidden],
        &[fused(GATE_UP_HF, &[Dim::Ffn], GATE_UP)],
        &[fused(GATE_UP_GGUF, &[Dim::Ffn], GATE_UP)],
    ),
    weight(Role::FfnDown, &[Dim::Hidden, Dim::Ffn], &[own("@layers.{l}.mlp.down_proj")], &[own("blk.{l}.ffn_down")]),
];
