//! Gemma 2: norms around both blocks, soft caps, a window in every other layer.

use crate::Activation;
use crate::architecture::{Architecture, DECODER_IGNORABLE, DECODER_ROOTS, Defaults, GgufKey, QueryScalar, Sliding};
use crate::spec::{ATTENTION, ATTENTION_BIASES, ENDS, GATED_FFN, SANDWICH_NORMS};

pub(crate) static GEMMA2: Architecture = Architecture {
    name: "gemma2",
    classes: &["Gemma2ForCausalLM", "Gemma2Model"],
    model_types: &["gemma2"],
    gguf_name: "gemma2",
    gguf_marker: None,
    gguf_keys: &[GgufKey::KvHeads, GgufKey::HeadDim, GgufKey::SoftCaps],
    gguf_interleaves_heads: false,
    gguf_norm_shift: 1.0,
    scales_embeddings: true,
    defaults: Defaults {
        kv_heads: Some(4),
        head_dim: Some(256),
        context: 8192,
        sliding: Sliding::AllBut(2),
        sliding_window: Some(4096),
        tied: true,
        activation: Activation::GeluTanh,
        attention_soft_cap: Some(50.0),
        output_soft_cap: Some(30.0),
        query_scalar: QueryScalar::Configured { depth: 46 },
        ..Defaults::DECODER
    },
    roots: DECODER_ROOTS,
    ignorable: DECODER_IGNORABLE,
    inventory: &[ENDS, SANDWICH_NORMS, ATTENTION, ATTENTION_BIASES, GATED_FFN],
};
