//! MXFP4 of gpt-oss: stacks of expert matrices, `X_blocks` and `X_scales`.
//!
//! A stack is read as it is stored, `[experts, rows, columns]`, and called `X.weight`: transformers' plain `X` has rows and columns
//! exchanged.

use windlass_quant::{Family, Packing, nvfp4, scheme};

use super::{Joined, Library, arranged, float_type, unsupported};
use crate::Problem;
use crate::arrays::Checkpoint;

/// The library. It is read only.
pub struct Mxfp4;

/// Values of a block.
const BLOCK: usize = 32;

impl Library for Mxfp4 {
    fn name(&self) -> &'static str {
        "mxfp4"
    }

    fn reads(&self) -> &'static [Family] {
        &[Family::Mlx]
    }

    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem> {
        let mut joined = Vec::new();
        for array in checkpoint.arrays {
            if let Some(name) = array.name.strip_suffix("_scales") {
                checkpoint.need(&format!("{name}_blocks"), name)?;
            }
            let Some(name) = array.name.strip_suffix("_blocks") else { continue };
            let refuse = |message: String| Problem::new("bad-planes", message).tensor(name);
            let [above @ .., blocks, 16] = array.shape.as_slice() else {
                return Err(refuse(format!(
                    "{}: expected shape [.., blocks, 16], found {:?}",
                    array.name, array.shape
                )));
            };
            let columns = blocks.checked_mul(BLOCK).ok_or_else(|| refuse(format!("{:?} is too large", array.shape)))?;
            let scheme = scheme("mlx-mxfp4").map_err(|_| unsupported(name, "mlx-mxfp4"))?;
            let packing = Packing { scheme, float: float_type(checkpoint.config) };
            let shape = [above, &[columns]].concat();
            if checkpoint.find(name).is_some() {
                return Err(refuse("is stored plain and packed".into()));
            }
            let (prefix, weight) = (format!("{name}_"), format!("{name}.weight"));
            joined.push(arranged(checkpoint, weight, &prefix, packing, nvfp4::gpt_oss(), shape)?);
        }
        Ok(joined)
    }
}
