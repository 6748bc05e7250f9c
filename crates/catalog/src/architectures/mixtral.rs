//! Mixtral: Mistral with a mixture of experts. In GGUF it is Llama with experts.

use crate::architecture::{Architecture, DECODER_IGNORABLE, DECODER_ROOTS, Defaults, GgufKey, Sliding};
use crate::piece::Role;
use crate::spec::{ATTENTION, Dim, ENDS, NORMS, Spec, fused, own, stacked, weight};

pub(crate) static MIXTRAL: Architecture = Architecture {
    name: "mixtral",
    classes: &["MixtralForCausalLM", "MixtralModel"],
    model_types: &["mixtral"],
    gguf_name: "llama",
    gguf_marker: Some("expert_count"),
    gguf_keys: &[GgufKey::KvHeads, GgufKey::Vocab, GgufKey::RopeTheta, GgufKey::RotaryDim],
    gguf_interleaves_heads: true,
    gguf_norm_shift: 0.0,
    scales_embeddings: false,
    defaults: Defaults {
        norm_eps: 1e-5,
        rope_theta: 1e6,
        kv_heads: Some(8),
        context: 4096 * 32,
        sliding: Sliding::Always,
        experts_normalized: Some(true),
        ..Defaults::DECODER
    },
    roots: DECODER_ROOTS,
    ignorable: DECODER_IGNORABLE,
    inventory: &[ENDS, NORMS, ATTENTION, EXPERTS],
};

const GATE_UP: &[Dim] = &[Dim::ExpertFfn, Dim::ExpertFfn];

const EXPERTS: &[Spec] = &[
    weight(
        Role::Router,
        &[Dim::Experts, Dim::Hidden],
        &[own("@layers.{l}.block_sparse_moe.gate"), own("@layers.{l}.mlp.gate")],
        &[own("blk.{l}.ffn_gate_inp")],
    ),
    weight(
        Role::ExpertGate,
        &[Dim::ExpertFfn, Dim::Hidden],
        &[
            own("@layers.{l}.block_sparse_moe.experts.{e}.w1"),
            fused("@layers.{l}.mlp.experts.gate_up_proj", &[], GATE_UP).stacked().bare(),
        ],
        &[stacked("blk.{l}.ffn_gate_exps"), own("blk.{l}.ffn_gate.{e}")],
    )
    .mlx(&[
        stacked("@layers.{l}.block_sparse_moe.switch_mlp.gate_proj"),
        own("@layers.{l}.block_sparse_moe.experts.{e}.w1"),
    ]),
    weight(
        Role::ExpertUp,
        &[Dim::ExpertFfn, Dim::Hidden],
        &[
            own("@layers.{l}.block_sparse_moe.experts.{e}.w3"),
            fused("@layers.{l}.mlp.experts.gate_up_proj", &[Dim::ExpertFfn], GATE_UP).stacked().bare(),
        ],
        &[stacked("blk.{l}.ffn_up_exps"), own("blk.{l}.ffn_up.{e}")],
    )
    .mlx(&[
        stacked("@layers.{l}.block_sparse_moe.switch_mlp.up_proj"),
        own("@layers.{l}.block_sparse_moe.experts.{e}.w3"),
    ]),
    weight(
        Role::ExpertDown,
        &[Dim::Hidden, Dim::ExpertFfn],
        &[own("@layers.{l}.block_sparse_moe.experts.{e}.w2"), stacked("@layers.{l}.mlp.experts.down_proj").bare()],
        &[stacked("blk.{l}.ffn_down_exps"), own("blk.{l}.ffn_down.{e}")],
    )
    .mlx(&[
        stacked("@layers.{l}.block_sparse_moe.switch_mlp.down_proj"),
        own("@layers.{l}.block_sparse_moe.experts.{e}.w2"),
    ]),
];
