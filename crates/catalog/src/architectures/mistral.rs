//! Mistral: Llama with a window in every layer. In GGUF the window is what tells the two apart.

use super::llama::LLAMA_KEYS;
use crate::architecture::{Architecture, DECODER_IGNORABLE, DECODER_ROOTS, Defaults, Sliding};
use crate::spec::{ATTENTION, ENDS, GATED_FFN, NORMS};

pub(crate) static MISTRAL: Architecture = Architecture {
    name: "mistral",
    classes: &["MistralForCausalLM", "MistralModel"],
    model_types: &["mistral"],
    gguf_name: "llama",
    gguf_marker: Some("attention.sliding_window"),
    gguf_keys: LLAMA_KEYS,
    gguf_interleaves_heads: true,
    gguf_norm_shift: 0.0,
    scales_embeddings: false,
    defaults: Defaults {
        kv_heads: Some(8),
        context: 4096 * 32,
        sliding: Sliding::Always,
        sliding_window: Some(4096),
        ..Defaults::DECODER
    },
    roots: DECODER_ROOTS,
    ignorable: DECODER_IGNORABLE,
    inventory: &[ENDS, NORMS, ATTENTION, GATED_FFN],
};
