//! GPTQ, as GPTQModel, AutoGPTQ and transformers save it: modules of `qweight`, `qzeros`, `scales` and `g_idx`.

use serde_json::Value as Json;
use windlass_quant::Family;
use windlass_quant::gptq::{Version, arrangement};

use super::grouped::{Module, Said, modules, two};
use super::{Joined, Library, arranged};
use crate::Problem;
use crate::arrays::Checkpoint;

/// The library. It is read only: its codes come from calibration.
pub struct Gptq;

impl Library for Gptq {
    fn name(&self) -> &'static str {
        "gptq"
    }

    fn reads(&self) -> &'static [Family] {
        &[Family::Gptq]
    }

    fn own_files(&self) -> &'static [&'static str] {
        &["quantize_config.json"]
    }

    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem> {
        let config = checkpoint.quantization().unwrap_or(&Json::Null);
        let version = version(config)?;
        // Names of modules are patterns there; the arrays themselves say what each module has.
        let exceptions = config.get("dynamic").and_then(Json::as_object).is_some_and(|dynamic| !dynamic.is_empty());
        let said = Said::of(config, &["bits"], &["group_size"], exceptions);
        modules(checkpoint)?.into_iter().map(|module| join(checkpoint, module, &said, version)).collect()
    }
}

/// How zeros are stored. Kernels have formats of their own, which are not these arrays.
fn version(config: &Json) -> Result<Version, Problem> {
    let text = |key: &str| config.get(key).and_then(Json::as_str);
    let found = text("checkpoint_format").or_else(|| text("format")).unwrap_or("gptq");
    let marlin = config.get("is_marlin_format").and_then(Json::as_bool) == Some(true);
    let words = text("pack_dtype").unwrap_or("int32");
    match found {
        "gptq" if !marlin && words == "int32" => Ok(Version::V1),
        "gptq_v2" if !marlin && words == "int32" => Ok(Version::V2),
        _ => {
            let kind = if marlin { "marlin" } else { found };
            let message = format!(
                "config.json: GPTQ's checkpoint_format {kind:?} with pack_dtype {words:?} is not supported: expected gptq \
                 or gptq_v2 with int32"
            );
            Err(Problem::new("unsupported-scheme", message).help("save it again with GPTQModel in the format gptq"))
        }
    }
}

fn join(checkpoint: &Checkpoint, module: Module, said: &Said, version: Version) -> Result<Joined, Problem> {
    let ([words, rows], [_, zeros]) = (two(module.qweight, &module.weight)?, two(module.qzeros, &module.weight)?);
    let refuse = |message: String| Problem::new("bad-planes", message).tensor(&module.weight);
    // Each of the rows has `bits` bits in a row of qzeros; each word of qweight is of one row.
    let bits = zeros.checked_mul(32).filter(|_| rows > 0).map_or(0, |n| n / rows);
    let columns = words.checked_mul(32).filter(|_| bits > 0).map_or(0, |n| n / bits);
    if !(1..=8).contains(&bits) || columns == 0 {
        let message = format!(
            "qweight of shape {:?} and qzeros of shape {:?} do not belong together",
            module.qweight.shape, module.qzeros.shape
        );
        return Err(refuse(message));
    }
    let packing = said.packing("gptq", &module, bits, columns)?;
    let ordered = checkpoint.find(&format!("{}.g_idx", module.name)).is_some();
    arranged(
        checkpoint,
        module.weight,
        &format!("{}.", module.name),
        packing,
        arrangement(version, ordered),
        vec![rows, columns],
    )
}
