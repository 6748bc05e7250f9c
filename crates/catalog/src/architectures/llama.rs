//! Llama 1 to 3, and the many models of its shape.

use crate::architecture::{Architecture, DECODER_IGNORABLE, DECODER_ROOTS, Defaults, GgufKey};
use crate::spec::{ATTENTION, ATTENTION_BIASES, ENDS, GATED_FFN, GATED_FFN_BIASES, NORMS};

pub(crate) static LLAMA: Architecture = Architecture {
    name: "llama",
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"],
    model_types: &["llama"],
    gguf_name: "llama",
    gguf_marker: None,
    gguf_keys: LLAMA_KEYS,
    gguf_interleaves_heads: true,
    gguf_norm_shift: 0.0,
    scales_embeddings: false,
    defaults: Defaults::DECODER,
    roots: DECODER_ROOTS,
    ignorable: DECODER_IGNORABLE,
    inventory: &[ENDS, NORMS, ATTENTION, ATTENTION_BIASES, GATED_FFN, GATED_FFN_BIASES],
};

/// The keys of models that llama.cpp's converter treats as Llama.
pub(super) const LLAMA_KEYS: &[GgufKey] =
    &[GgufKey::KvHeads, GgufKey::HeadDim, GgufKey::Vocab, GgufKey::RopeTheta, GgufKey::RotaryDim];
