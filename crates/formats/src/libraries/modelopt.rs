//! NVIDIA ModelOpt: NVFP4 (`X.weight`, `X.weight_scale`, `X.weight_scale_2`) and FP8 (`X.weight`, `X.weight_scale`).

use serde_json::Value as Json;
use windlass_quant::{Family, Packing, nvfp4, scheme};
use windlass_tensor::DType;

use super::{Joined, Library, arranged, float_type, fp8, unsupported};
use crate::Problem;
use crate::arrays::{Checkpoint, Raw};

/// The library. It is read only: its scales come from calibration.
pub struct ModelOpt;

/// Kinds of `quant_algo` whose weights are read.
const KNOWN: [&str; 5] = ["NVFP4", "W4A16_NVFP4", "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "MIXED_PRECISION"];

impl Library for ModelOpt {
    fn name(&self) -> &'static str {
        "modelopt"
    }

    fn reads(&self) -> &'static [Family] {
        &[Family::ModelOpt, Family::Fp8]
    }

    fn detect(&self, checkpoint: &Checkpoint) -> bool {
        match checkpoint.method() {
            Some(method) => method == self.name(),
            None => checkpoint.arrays.iter().any(|array| array.name.ends_with(".weight_scale_2")),
        }
    }

    fn own_files(&self) -> &'static [&'static str] {
        &["hf_quant_config.json"]
    }

    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem> {
        let config = checkpoint.quantization().unwrap_or(&Json::Null);
        let kind = config.get("quant_algo").and_then(Json::as_str);
        if let Some(kind) = kind.filter(|kind| !KNOWN.contains(kind)) {
            let message = format!("config.json: quant_algo is {kind:?}, expected one of {}", KNOWN.join(", "));
            return Err(Problem::new("unsupported-scheme", message));
        }
        let mut joined = Vec::new();
        for array in checkpoint.arrays {
            if array.name.ends_with(".pre_quant_scale") {
                let message = "scales its input before the weight is applied (AWQ), which a plain weight cannot say";
                return Err(Problem::new("unsupported-scheme", message).tensor(&array.name));
            }
            if let Some(module) = array.name.strip_suffix(".weight_scale_2") {
                joined.push(nvfp4(checkpoint, module)?);
            } else if array.dtype == DType::F8E4M3 && array.name.ends_with(".weight") {
                joined.push(fp8::join(checkpoint, array)?);
            } else if let Some(module) = packed(checkpoint, array) {
                checkpoint.need(&format!("{module}.weight_scale_2"), &array.name)?;
            }
        }
        Ok(joined)
    }
}

/// The module of a weight in four bits.
fn packed<'a>(checkpoint: &Checkpoint, array: &'a Raw) -> Option<&'a str> {
    let module = array.name.strip_suffix(".weight").filter(|_| array.dtype == DType::U8)?;
    checkpoint.find(&format!("{module}.weight_scale")).map(|_| module)
}

fn nvfp4(checkpoint: &Checkpoint, module: &str) -> Result<Joined, Problem> {
    let name = format!("{module}.weight");
    let (_, weight) = checkpoint.need(&name, &name)?;
    let scheme = scheme("nvfp4-modelopt").map_err(|_| unsupported(&name, "nvfp4-modelopt"))?;
    let packing = Packing { scheme, float: float_type(checkpoint.config) };
    let mut joined = arranged(
        checkpoint,
        format!("{module}.weight"),
        &format!("{module}."),
        packing,
        nvfp4::model_opt(),
        super::wider(weight, 2, &name)?,
    )?;
    joined.constants = fp8::activations(checkpoint, module);
    Ok(joined)
}
