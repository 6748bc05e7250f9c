//! AWQ, as AutoAWQ and GPTQModel save it: modules of `qweight`, `qzeros` and `scales`.

use serde_json::Value as Json;
use windlass_quant::Family;
use windlass_quant::awq::arrangement;

use super::grouped::{Module, Said, modules, two};
use super::{Joined, Library, arranged};
use crate::Problem;
use crate::arrays::Checkpoint;

/// The library. It is read only: its codes come from calibration.
pub struct Awq;

/// Codes in a word.
const WORD: usize = 8;

impl Library for Awq {
    fn name(&self) -> &'static str {
        "awq"
    }

    fn reads(&self) -> &'static [Family] {
        &[Family::Awq]
    }

    fn own_files(&self) -> &'static [&'static str] {
        &["quant_config.json"]
    }

    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem> {
        let config = checkpoint.quantization().unwrap_or(&Json::Null);
        let said = Said::of(config, &["bits", "w_bit"], &["group_size", "q_group_size"], false);
        let keys = ["version", "checkpoint_format", "format"];
        let version = keys.iter().find_map(|key| config.get(*key)?.as_str()).unwrap_or("gemm");
        modules(checkpoint)?.into_iter().map(|module| join(checkpoint, module, &said, version)).collect()
    }
}

fn join(checkpoint: &Checkpoint, module: Module, said: &Said, version: &str) -> Result<Joined, Problem> {
    let refuse = |message: String| Problem::new("unsupported-scheme", message).tensor(&module.weight);
    let arrangement = arrangement(version).map_err(|message| {
        refuse(message).help("save it again with AutoAWQ as GEMM: the other versions are layouts of single kernels")
    })?;
    let ([columns, words], [_, rows]) = (two(module.qweight, &module.weight)?, two(module.scales, &module.weight)?);
    let bits = said.bits.unwrap_or(4) as usize;
    if bits == 4 && words.checked_mul(WORD) != Some(rows) {
        let message = format!("qweight has {words} words of {WORD} rows each, scales have {rows} rows");
        return Err(Problem::new("bad-planes", message).tensor(&module.weight));
    }
    let packing = said.packing("awq", &module, bits, columns)?;
    arranged(checkpoint, module.weight, &format!("{}.", module.name), packing, arrangement, vec![rows, columns])
}
