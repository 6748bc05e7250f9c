//! Gemma 3, the text model, alone or within the one with vision: a window in five layers of six.

use crate::Activation;
use crate::architecture::{Architecture, Defaults, GgufKey, QueryScalar, Sliding};
use crate::spec::{ATTENTION, ATTENTION_BIASES, ENDS, GATED_FFN, HEAD_NORMS, SANDWICH_NORMS};

pub(crate) static GEMMA3: Architecture = Architecture {
    name: "gemma3",
    classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    model_types: &["gemma3_text", "gemma3"],
    gguf_name: "gemma3",
    gguf_marker: None,
    gguf_keys: &[GgufKey::KvHeads, GgufKey::HeadDim, GgufKey::RopeTheta, GgufKey::RopeThetaSliding, GgufKey::SoftCaps],
    gguf_interleaves_heads: false,
    gguf_norm_shift: 1.0,
    scales_embeddings: true,
    defaults: Defaults {
        rope_theta: 1e6,
        rope_theta_sliding: Some(10_000.0),
        heads: Some(8),
        kv_heads: Some(4),
        head_dim: Some(256),
        vocab: Some(262_208),
        context: 131_072,
        sliding: Sliding::AllBut(6),
        sliding_window: Some(4096),
        tied: true,
        activation: Activation::GeluTanh,
        query_scalar: QueryScalar::Configured { depth: 62 },
        ..Defaults::DECODER
    },
    roots: &["model.", "language_model.model.", "model.language_model.", ""],
    ignorable: &[
        "*.rotary_emb.inv_freq",
        "vision_tower.*",
        "model.vision_tower.*",
        "multi_modal_projector.*",
        "model.multi_modal_projector.*",
    ],
    inventory: &[ENDS, SANDWICH_NORMS, ATTENTION, ATTENTION_BIASES, HEAD_NORMS, GATED_FFN],
};
