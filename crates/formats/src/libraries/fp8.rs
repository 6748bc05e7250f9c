//! FP8 checkpoints of Hugging Face (DeepSeek, Qwen, Mistral): `X.weight` in E4M3 and `X.weight_scale_inv`.
//!
//! Scales of activations (`X.input_scale`) are for kernels that compute in FP8 too; weights do not need them.

use serde_json::Value as Json;
use windlass_quant::fp8::arrangement;
use windlass_quant::{Family, Packing, scheme};
use windlass_tensor::DType;

use super::{Joined, Library, arranged, float_type, unsupported};
use crate::Problem;
use crate::arrays::{Checkpoint, Raw};

/// The library. It is read only.
pub struct Fp8;

/// Names of scales, and whether they are the inverse of what values were multiplied by.
const SCALES: [(&str, bool); 2] = [("weight_scale_inv", true), ("weight_scale", false)];

/// Rows and columns of a block.
const SIDE: usize = 128;

impl Library for Fp8 {
    fn name(&self) -> &'static str {
        "fp8"
    }

    fn reads(&self) -> &'static [Family] {
        &[Family::Fp8]
    }

    fn detect(&self, checkpoint: &Checkpoint) -> bool {
        let scaled = |array: &Raw| array.dtype == DType::F8E4M3 && scale_of(checkpoint, module(array)).is_some();
        match checkpoint.method() {
            Some(method) => method == self.name(),
            None => checkpoint.arrays.iter().any(scaled),
        }
    }

    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem> {
        let config = checkpoint.quantization().unwrap_or(&Json::Null);
        let block = config.get("weight_block_size").filter(|block| !block.is_null());
        if let Some(block) = block.filter(|block| **block != serde_json::json!([SIDE, SIDE])) {
            let message = format!("config.json: weight_block_size is {block}, expected [{SIDE},{SIDE}]");
            return Err(Problem::new("unsupported-scheme", message));
        }
        let format = config.get("fmt").and_then(Json::as_str).unwrap_or("e4m3");
        if format != "e4m3" {
            return Err(Problem::new("unsupported-scheme", format!("config.json: fmt is {format:?}, expected e4m3")));
        }
        for array in checkpoint.arrays {
            if let Some(module) = array.name.strip_suffix(".weight_scale_inv") {
                let weight = format!("{module}.weight");
                checkpoint.need(&weight, &weight)?;
            }
        }
        let packed = checkpoint.arrays.iter().filter(|a| a.dtype == DType::F8E4M3 && a.name.ends_with(".weight"));
        packed.map(|weight| join(checkpoint, weight)).collect()
    }
}

/// One weight in E4M3 with its scales: a scale for each block, each row, or all.
pub fn join(checkpoint: &Checkpoint, weight: &Raw) -> Result<Joined, Problem> {
    let module = module(weight);
    let refuse = |message: String| Problem::new("bad-planes", message).tensor(&weight.name);
    let Some((scale, inverse)) = scale_of(checkpoint, module) else {
        let message = format!("there is no {module}.weight_scale_inv, nor {module}.weight_scale");
        return Err(Problem::new("missing-plane", message).tensor(&weight.name));
    };
    let [.., rows, columns] = *weight.shape.as_slice() else {
        return Err(refuse(format!("has scales, so it should be a matrix, not of shape {:?}", weight.shape)));
    };
    let name = match scale.values() {
        _ if scale.shape.ends_with(&[rows.div_ceil(SIDE), columns.div_ceil(SIDE)]) => "fp8-b128",
        Some(1) => "fp8",
        Some(n) if n == rows && weight.shape.len() == 2 => "fp8-row",
        _ => {
            let message = format!(
                "{}: shape {:?} is not one scale for all, for each row, or for each block of {SIDE} x {SIDE} of {:?}",
                scale.name, scale.shape, weight.shape
            );
            return Err(refuse(message));
        }
    };
    let scheme = scheme(name).map_err(|_| unsupported(&weight.name, name))?;
    let packing = Packing { scheme, float: float_type(checkpoint.config) };
    let arrangement = arrangement(inverse, scale.dtype).map_err(refuse)?;
    let mut joined = arranged(
        checkpoint,
        format!("{module}.weight"),
        &format!("{module}."),
        packing,
        arrangement,
        weight.shape.clone(),
    )?;
    joined.constants = activations(checkpoint, module);
    Ok(joined)
}

/// Scales of activations and of the cache that belong to a module.
pub fn activations(checkpoint: &Checkpoint, module: &str) -> Vec<usize> {
    let own = ["input_scale", "output_scale", "activation_scale", "input_global_scale", "k_scale", "v_scale"];
    let own = own.iter().filter_map(|name| checkpoint.find(&format!("{module}.{name}")));
    let cache = ["q", "k", "v"].into_iter().filter_map(|which| {
        let attention = module.strip_suffix(&format!("{which}_proj"))?;
        checkpoint.find(&format!("{attention}{which}_scale"))
    });
    own.chain(cache).collect()
}

/// The scales of a module.
pub fn scale_of<'a>(checkpoint: &'a Checkpoint, module: &str) -> Option<(&'a Raw, bool)> {
    SCALES.iter().find_map(|(name, inverse)| {
        let at = checkpoint.find(&format!("{module}.{name}"))?;
        Some((checkpoint.arrays.get(at)?, *inverse))
    })
}

/// The module of a weight.
pub fn module(weight: &Raw) -> &str {
    weight.name.strip_suffix(".weight").unwrap_or(&weight.name)
}
