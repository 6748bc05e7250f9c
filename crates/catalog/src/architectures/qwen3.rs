//! Qwen 3, dense.

use crate::architecture::{Architecture, DECODER_IGNORABLE, DECODER_ROOTS, Defaults, GgufKey};
use crate::spec::{ATTENTION, ATTENTION_BIASES, ENDS, GATED_FFN, HEAD_NORMS, NORMS};

pub(crate) static QWEN3: Architecture = Architecture {
    name: "qwen3",
    classes: &["Qwen3ForCausalLM", "Qwen3Model"],
    model_types: &["qwen3"],
    gguf_name: "qwen3",
    gguf_marker: None,
    gguf_keys: &[GgufKey::KvHeads, GgufKey::HeadDim, GgufKey::RopeTheta],
    gguf_interleaves_heads: false,
    gguf_norm_shift: 0.0,
    scales_embeddings: false,
    defaults: Defaults { context: 32768, head_dim: Some(128), sliding_window: Some(4096), ..Defaults::DECODER },
    roots: DECODER_ROOTS,
    ignorable: DECODER_IGNORABLE,
    inventory: &[ENDS, NORMS, ATTENTION, ATTENTION_BIASES, HEAD_NORMS, GATED_FFN],
};
