//! Qwen 3 with a mixture of experts in every layer.

use crate::architecture::{Architecture, DECODER_IGNORABLE, DECODER_ROOTS, Defaults, GgufKey};
use crate::piece::Role;
use crate::spec::{ATTENTION, ATTENTION_BIASES, Dim, ENDS, HEAD_NORMS, NORMS, Spec, fused, own, stacked, weight};

pub(crate) static QWEN3MOE: Architecture = Architecture {
    name: "qwen3moe",
    classes: &["Qwen3MoeForCausalLM", "Qwen3MoeModel"],
    model_types: &["qwen3_moe"],
    gguf_name: "qwen3moe",
    gguf_marker: None,
    gguf_keys: &[GgufKey::KvHeads, GgufKey::HeadDim, GgufKey::RopeTheta, GgufKey::ExpertFfn],
    gguf_interleaves_heads: false,
    gguf_norm_shift: 0.0,
    scales_embeddings: false,
    defaults: Defaults {
        context: 32768,
        kv_heads: Some(4),
        sliding_window: Some(4096),
        experts_normalized: Some(false),
        ..Defaults::DECODER
    },
    roots: DECODER_ROOTS,
    ignorable: DECODER_IGNORABLE,
    inventory: &[ENDS, NORMS, ATTENTION, ATTENTION_BIASES, HEAD_NORMS, EXPERTS],
};

const GATE_UP: &[Dim] = &[Dim::ExpertFfn, Dim::ExpertFfn];

const EXPERTS: &[Spec] = &[
    weight(Role::Router, &[Dim::Experts, Dim::Hidden], &[own("@layers.{l}.mlp.gate")], &[own("blk.{l}.ffn_gate_inp")]),
    weight(
        Role::ExpertGate,
        &[Dim::ExpertFfn, Dim::Hidden],
        &[
            own("@layers.{l}.mlp.experts.{e}.gate_proj"),
            fused("@layers.{l}.mlp.experts.gate_up_proj", &[], GATE_UP).stacked().bare(),
        ],
        &[stacked("blk.{l}.ffn_gate_exps"), fused("blk.{l}.ffn_gate_up_exps", &[], GATE_UP).stacked()],
    )
    .mlx(&[stacked("@layers.{l}.mlp.switch_mlp.gate_proj"), own("@layers.{l}.mlp.experts.{e}.gate_proj")]),
    weight(
        Role::ExpertUp,
        &[Dim::ExpertFfn, Dim::Hidden],
        &[
            own("@layers.{l}.mlp.experts.{e}.up_proj"),
            fused("@layers.{l}.mlp.experts.gate_up_proj", &[Dim::ExpertFfn], GATE_UP).stacked().bare(),
        ],
        &[stacked("blk.{l}.ffn_up_exps"), fused("blk.{l}.ffn_gate_up_exps", &[Dim::ExpertFfn], GATE_UP).stacked()],
    )
    .mlx(&[stacked("@layers.{l}.mlp.switch_mlp.up_proj"), own("@layers.{l}.mlp.experts.{e}.up_proj")]),
    weight(
        Role::ExpertDown,
        &[Dim::Hidden, Dim::ExpertFfn],
        &[own("@layers.{l}.mlp.experts.{e}.down_proj"), stacked("@layers.{l}.mlp.experts.down_proj").bare()],
        &[stacked("blk.{l}.ffn_down_exps")],
    )
    .mlx(&[stacked("@layers.{l}.mlp.switch_mlp.down_proj"), own("@layers.{l}.mlp.experts.{e}.down_proj")]),
];
