//! What llama.cpp says of tensors whatever the file type: which may be quantized, which stay `F32`, what fits a shape.

use super::{ModelFacts, TensorFacts, is_real};
use crate::Error;

/// Names with one of these in them are left as they are: small, sensitive, or not weights of a product.
const UNTOUCHED: [&str; 36] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
    "token_types.weight",
];

/// Matrices that the converter writes as `F32`, by the part of the name that tells.
const F32_MATRICES: [&str; 17] = [
    ".ffn_gate_inp.weight",
    ".ffn_gate_inp_shexp.weight",
    "position_embd.weight",
    "token_types.weight",
    ".ssm_conv1d",
    ".shortconv.conv.weight",
    ".time_mix_first.weight",
    ".time_mix_w1.weight",
    ".time_mix_w2.weight",
    ".time_mix_decay_w1.weight",
    ".time_mix_decay_w2.weight",
    ".time_mix_lerp_fused.weight",
    ".norm1.weight",
    ".norm2.weight",
    ".altup_correct_coef.weight",
    ".altup_predict_coef.weight",
    ".indexer.proj.weight",
];

/// Number of the block that a name starts with.
pub fn block(name: &str) -> Option<usize> {
    let (number, _) = name.strip_prefix("blk.")?.split_once('.')?;
    number.parse().ok()
}

/// Dimensions as GGML counts them: without outer ones of length 1.
pub fn dimensions(shape: &[usize]) -> usize {
    let outer = shape.iter().position(|n| *n > 1).unwrap_or(shape.len());
    (shape.len() - outer).max(1)
}

/// Whether a tensor may be quantized at all.
pub fn may_quantize(tensor: &TensorFacts) -> bool {
    let name = tensor.name;
    is_real(tensor)
        && dimensions(tensor.shape) >= 2
        && name.ends_with("weight")
        && name != "position_embd.weight"
        && !UNTOUCHED.iter().any(|part| name.contains(part))
}

/// Whether the converter writes a tensor as `F32` when it is not packed: vectors, norms, what is no weight, some matrices.
pub fn always_f32(tensor: &TensorFacts) -> bool {
    let name = tensor.name;
    dimensions(tensor.shape) < 2
        || name.ends_with("_norm.weight")
        || !name.ends_with(".weight")
        || F32_MATRICES.iter().any(|part| name.contains(part))
}

/// Values of a block of a GGML type.
pub fn block_size(name: &str) -> usize {
    match name {
        "q4_0" | "q4_1" | "q5_0" | "q5_1" | "q8_0" | "iq4_nl" | "mxfp4" => 32,
        "nvfp4" => 64,
        _ => 256,
    }
}

/// The type itself if rows of `columns` are whole blocks of it, or what llama.cpp takes in its place.
pub fn fitting(name: &'static str, columns: usize) -> &'static str {
    let fits = |name: &str| columns.is_multiple_of(block_size(name));
    let next = match name {
        name if fits(name) => return name,
        "iq1_s" | "iq1_m" | "iq2_xxs" | "iq2_xs" | "iq2_s" | "iq3_xxs" | "iq3_s" | "iq4_xs" => "iq4_nl",
        "q2_k" | "q3_k" | "tq1_0" | "tq2_0" => "q4_0",
        "q4_k" => "q5_0",
        "q5_k" => "q5_1",
        "q6_k" => "q8_0",
        _ => "f16",
    };
    if fits(next) { next } else { "f16" }
}

/// Refuses types that are of no use without an importance matrix. `small` is true in a Q2_K_S file, whose Q2_K is one.
pub fn check_importance(
    tensor: &TensorFacts,
    name: &'static str,
    small: bool,
    model: &ModelFacts,
) -> Result<(), Error> {
    let needs = needs_importance(name, tensor.name) || small && name == "q2_k" && !is_outside(tensor.name);
    if needs && !model.has_imatrix && tensor.element.name() != name {
        return Err(Error::NeedsImportance(name));
    }
    Ok(())
}

/// Whether a scheme is of no use to a tensor, by its GGUF name, without importance. Embeddings and heads get by.
pub fn needs_importance(scheme: &str, tensor: &str) -> bool {
    matches!(scheme, "iq3_xxs" | "iq2_xxs" | "iq2_xs" | "iq2_s" | "iq1_m" | "iq1_s") && !is_outside(tensor)
}

fn is_outside(tensor: &str) -> bool {
    is_embedding(tensor) || tensor == "output.weight"
}

/// Token embeddings.
pub fn is_embedding(name: &str) -> bool {
    name == "token_embd.weight" || name == "per_layer_token_embd.weight"
}
