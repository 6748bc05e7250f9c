//! What the checkpoints of GPTQ and AWQ have in common: integer arrays that replace the weight of a module.
//!
//! A module `X` has `X.qweight`, `X.qzeros` and `X.scales` in place of `X.weight`. Which scheme they hold follows from
//! their shapes; what config.json says must agree with that.

use serde_json::Value as Json;
use windlass_quant::{Packing, scheme};
use windlass_tensor::DType;

use super::unsupported;
use crate::Problem;
use crate::arrays::{Checkpoint, Raw};

/// Sizes of groups that are known here, beside one group for each row.
const GROUPS: [usize; 3] = [32, 64, 128];

/// What one module looks like.
pub struct Module<'a> {
    /// `model.layers.0.mlp.up_proj`.
    pub name: &'a str,
    /// Name of the tensor that it stands for.
    pub weight: String,
    pub qweight: &'a Raw,
    pub qzeros: &'a Raw,
    pub scales: &'a Raw,
}

/// What config.json says of all modules.
pub struct Said {
    pub bits: Option<u64>,
    /// -1 for one group for each row.
    pub group: Option<i64>,
    /// Whether it names modules that differ.
    pub exceptions: bool,
}

impl Said {
    /// Reads numbers under any of their names.
    pub fn of(config: &Json, bits: &[&str], group: &[&str], exceptions: bool) -> Said {
        let first = |keys: &[&str]| keys.iter().find_map(|key| config.get(*key)?.as_i64());
        let bits = first(bits).map(|bits| u64::try_from(bits).unwrap_or(0));
        Said { bits, group: first(group), exceptions }
    }

    /// The scheme `FAMILYbits-gN` of a module with this many bits, columns and groups.
    pub fn packing(&self, family: &str, module: &Module, bits: usize, columns: usize) -> Result<Packing, Problem> {
        let refuse = |message: String| Problem::new("bad-planes", message).tensor(&module.weight);
        let found = two(module.scales, &module.weight)?[0];
        if let Some(said) = self.bits.filter(|said| !self.exceptions && *said != bits as u64) {
            let message = format!("config.json says {said} bits, the shapes of qweight and qzeros say {bits}");
            return Err(refuse(message));
        }
        let group = match self.group.filter(|_| !self.exceptions) {
            Some(said) => usize::try_from(said).ok().filter(|group| *group > 0).unwrap_or(columns),
            None => group_of(columns, found).unwrap_or(0),
        };
        let groups = if group > 0 { columns.div_ceil(group) } else { found };
        if groups != found {
            let message = format!("scales: {columns} columns in groups of {group} have {groups} rows, found {found}");
            return Err(refuse(message));
        }
        named(family, bits, columns, group, module.scales, &module.weight)
    }
}

/// Columns of a group where rows of `columns` values have so many groups.
pub fn group_of(columns: usize, groups: usize) -> Option<usize> {
    if groups == 1 {
        return Some(columns);
    }
    GROUPS.into_iter().find(|group| columns.div_ceil(*group) == groups)
}

/// The scheme `FAMILYbits-gN`, or `FAMILYbits-row` where a row is one group.
pub fn named(
    family: &str,
    bits: usize,
    columns: usize,
    group: usize,
    scales: &Raw,
    tensor: &str,
) -> Result<Packing, Problem> {
    let size = if group >= columns { "row".into() } else { format!("g{group}") };
    let name = format!("{family}{bits}-{size}");
    let scheme = scheme(&name).map_err(|_| unsupported(tensor, &name))?;
    let float = scales.dtype;
    if !matches!(float, DType::F16 | DType::BF16 | DType::F32) {
        let message = format!("{}: expected F16, BF16 or F32, found {float}", scales.name);
        return Err(Problem::new("bad-planes", message).tensor(tensor));
    }
    Ok(Packing { scheme, float })
}

/// All modules of a checkpoint. An array without the others of its module is refused.
pub fn modules<'a>(checkpoint: &'a Checkpoint<'a>) -> Result<Vec<Module<'a>>, Problem> {
    const OTHERS: [&str; 3] = [".qzeros", ".scales", ".g_idx"];
    let mut modules = Vec::new();
    for array in checkpoint.arrays {
        if let Some(module) = OTHERS.iter().find_map(|other| array.name.strip_suffix(other)) {
            checkpoint.need(&format!("{module}.qweight"), &format!("{module}.weight"))?;
        }
        let Some(name) = array.name.strip_suffix(".qweight") else { continue };
        let weight = format!("{name}.weight");
        let (_, qzeros) = checkpoint.need(&format!("{name}.qzeros"), &weight)?;
        let (_, scales) = checkpoint.need(&format!("{name}.scales"), &weight)?;
        modules.push(Module { name, weight, qweight: array, qzeros, scales });
    }
    Ok(modules)
}

/// The dimensions of an array that must be a matrix.
pub fn two(array: &Raw, tensor: &str) -> Result<[usize; 2], Problem> {
    <[usize; 2]>::try_from(array.shape.as_slice()).map_err(|_| {
        let message = format!("{}: expected a matrix, found shape {:?}", array.name, array.shape);
        Problem::new("bad-planes", message).tensor(tensor)
    })
}
