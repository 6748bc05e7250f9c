//! One file per architecture. Each is a table; what it is written in is explained in `spec`.

pub(crate) mod bert;
pub(crate) mod gemma2;
pub(crate) mod gemma3;
pub(crate) mod gptoss;
pub(crate) mod llama;
pub(crate) mod mistral;
pub(crate) mod mixtral;
pub(crate) mod phi3;
pub(crate) mod qwen2;
pub(crate) mod qwen3;
pub(crate) mod qwen3moe;
