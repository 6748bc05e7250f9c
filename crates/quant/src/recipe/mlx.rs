//! What `mlx_lm.convert -q` quantizes, and how wide.

use windlass_tensor::Element;

use super::mixture::more_bits;
use super::{ModelFacts, TensorFacts, is_real, llama, packed};
use crate::{Error, SchemeRef, scheme};

/// Mixtures of mlx_lm: name, width, and width of the sensitive tensors.
pub const MIXED: [(&str, &str, &str); 4] = [
    ("mixed_2_6", "mlx2-g64", "mlx6-g64"),
    ("mixed_3_4", "mlx3-g64", "mlx4-g64"),
    ("mixed_3_6", "mlx3-g64", "mlx6-g64"),
    ("mixed_4_6", "mlx4-g64", "mlx6-g64"),
];

/// Architectures whose router gets 8 bits.
const WIDE_ROUTER: [&str; 17] = [
    "afmoe",
    "bailingmoe",
    "bailingmoe2",
    "bailingmoe3",
    "gemma4",
    "gpt-oss",
    "granitehybrid",
    "granitemoe",
    "jamba",
    "kimi-linear",
    "lfm2moe",
    "minimax-m2",
    "qwen35moe",
    "qwen3moe",
    "qwen3next",
    "qwen3vlmoe",
    "step35",
];

/// Architectures whose router is a module of its own there, which is not quantized.
const PLAIN_ROUTER: [&str; 9] =
    ["deepseek", "deepseek2", "deepseek2-ocr", "dots1", "exaone-moe", "glm-dsa", "glm4moe", "mimo2", "nemotron_h_moe"];

/// One scheme, or two.
#[derive(Clone, Copy, Debug)]
pub struct Widths {
    /// For most tensors.
    pub low: SchemeRef,
    high: Option<SchemeRef>,
}

impl Widths {
    /// The same for all.
    pub fn one(scheme: SchemeRef) -> Widths {
        Widths { low: scheme, high: None }
    }

    /// A mixture by name.
    pub fn mixed(name: &str) -> Result<Option<Widths>, Error> {
        let Some((_, low, high)) = MIXED.iter().find(|m| m.0 == name) else { return Ok(None) };
        Ok(Some(Widths { low: scheme(low)?, high: Some(scheme(high)?) }))
    }

    /// Linear layers and embeddings whose rows are whole groups; `None` for the rest.
    pub fn choose(&self, tensor: &TensorFacts, model: &ModelFacts) -> Option<Element> {
        let columns = *tensor.shape.last()?;
        if !is_module(tensor) || columns % self.low.block() != 0 {
            return None;
        }
        let wanted = match self.high {
            Some(high) if wide(tensor, model) => high,
            Some(_) => self.low,
            None => exception(tensor.name, &model.architecture, self.low)?,
        };
        (columns % wanted.block() == 0).then(|| packed(tensor, wanted))
    }
}

/// A linear layer or an embedding; these have a `weight` of two dimensions, three if experts are stacked.
fn is_module(tensor: &TensorFacts) -> bool {
    let name = tensor.name;
    let other =
        ["_norm.weight", "ssm_conv1d", "shortconv.conv.weight", "time_mix_first", "time_mix_lerp", ".patch_embd"];
    is_real(tensor)
        && llama::dimensions(tensor.shape) >= 2
        && name.ends_with(".weight")
        && !other.iter().any(|o| name.contains(o))
}

/// Values, down projections and the head are the sensitive tensors of a mixture.
fn wide(tensor: &TensorFacts, model: &ModelFacts) -> bool {
    let name = tensor.name;
    let sensitive = ["attn_v.weight", "attn_v_b.weight", "ffn_down"].iter().any(|part| name.contains(part));
    let more = llama::block(name).is_some_and(|layer| more_bits(layer, model.layers));
    name == "output.weight" || sensitive && more
}

/// The scheme, unless a model says otherwise: 8 bits for some, none for others.
fn exception(name: &str, architecture: &str, scheme: SchemeRef) -> Option<SchemeRef> {
    let router = name.contains("ffn_gate_inp");
    if router && PLAIN_ROUTER.contains(&architecture) {
        return None;
    }
    let granite = ["granite", "granitemoe"].contains(&architecture)
        && (name == "output.weight" || name.ends_with("attn_output.weight") || name.ends_with("ffn_down.weight"));
    // The gate of the shared expert counts as a router in these alone.
    let shared = name.contains("ffn_gate_inp_shexp");
    let wide = router && WIDE_ROUTER.contains(&architecture) && (!shared || architecture.starts_with("qwen3"));
    if wide || granite { crate::scheme("mlx8-g64").ok() } else { Some(scheme) }
}
