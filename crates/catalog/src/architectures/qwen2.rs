//! Qwen 2 and 2.5.

use crate::architecture::{Architecture, DECODER_IGNORABLE, DECODER_ROOTS, Defaults, GgufKey};
use crate::spec::{ATTENTION, ENDS, GATED_FFN, NORMS, QKV_BIASES};

pub(crate) static QWEN2: Architecture = Architecture {
    name: "qwen2",
    classes: &["Qwen2ForCausalLM", "Qwen2Model"],
    model_types: &["qwen2"],
    gguf_name: "qwen2",
    gguf_marker: None,
    gguf_keys: &[GgufKey::KvHeads, GgufKey::RopeTheta],
    gguf_interleaves_heads: false,
    gguf_norm_shift: 0.0,
    scales_embeddings: false,
    defaults: Defaults { context: 32768, sliding_window: Some(4096), ..Defaults::DECODER },
    roots: DECODER_ROOTS,
    ignorable: DECODER_IGNORABLE,
    inventory: &[ENDS, NORMS, ATTENTION, QKV_BIASES, GATED_FFN],
};
