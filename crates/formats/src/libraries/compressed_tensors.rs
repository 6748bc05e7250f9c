//! compressed-tensors, as llm-compressor saves it: integers (packed or in bytes), FP8, NVFP4, MXFP4, MXFP8.
//!
//! config.json has groups of modules, chosen by class or pattern, with the widths of their weights. The arrays of a
//! module say the same; what they say must be what one of the groups says.

use serde_json::Value as Json;
use windlass_quant::arrange::ArrangementRef;
use windlass_quant::compressed::{Integers, arrangement};
use windlass_quant::{Family, Packing, nvfp4, scheme};
use windlass_tensor::DType;

use super::grouped::{group_of, named, two};
use super::{Joined, Library, arranged, float_type, fp8, unsupported, wider};
use crate::Problem;
use crate::arrays::{Checkpoint, Raw};

/// The library. It is read only: its scales come from calibration.
pub struct CompressedTensors;

/// Values of `format` whose arrays are read.
const FORMATS: [&str; 9] = [
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "mixed-precision",
    "dense",
];

/// `config_groups.*.weights` of one group, as far as arrays can be compared with it.
struct Weights {
    bits: Option<u64>,
    /// `int` or `float`.
    kind: Option<String>,
    group: Option<i64>,
}

impl Library for CompressedTensors {
    fn name(&self) -> &'static str {
        "compressed-tensors"
    }

    fn reads(&self) -> &'static [Family] {
        &[Family::CompressedTensors, Family::Fp8, Family::Mlx]
    }

    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem> {
        let groups = groups(checkpoint.quantization().unwrap_or(&Json::Null))?;
        let mut joined = Vec::new();
        for array in checkpoint.arrays {
            if let Some(module) = array.name.strip_suffix(".weight_packed") {
                joined.push(packed(checkpoint, module, array, &groups)?);
            } else if let Some(module) = array.name.strip_suffix(".weight_scale") {
                if checkpoint.find(&format!("{module}.weight_packed")).is_none() {
                    let weight = format!("{module}.weight");
                    let (_, array) = checkpoint.need(&weight, &weight)?;
                    joined.push(in_bytes(checkpoint, module, array, &groups)?);
                }
            } else if let (Some(module), DType::I8 | DType::F8E4M3) = (array.name.strip_suffix(".weight"), array.dtype)
            {
                checkpoint.need(&format!("{module}.weight_scale"), &array.name)?;
            } else if array.name.ends_with(".bitmask") {
                let message = "is stored sparse, which is not supported";
                return Err(Problem::new("unsupported-scheme", message).tensor(&array.name));
            }
        }
        Ok(joined)
    }
}

/// The groups of a config, after its formats were checked.
fn groups(config: &Json) -> Result<Vec<Weights>, Problem> {
    let groups = config.get("config_groups").and_then(Json::as_object);
    let groups: Vec<&Json> = groups.map(|groups| groups.values().collect()).unwrap_or_default();
    let sparse = config.get("sparsity_config");
    let formats = groups.iter().copied().chain([config]).chain(sparse).filter_map(|json| json.get("format")?.as_str());
    for format in formats {
        if !FORMATS.contains(&format) {
            let message = format!("config.json: format {format:?} is not supported, {} are", FORMATS.join(", "));
            return Err(Problem::new("unsupported-scheme", message));
        }
    }
    let weights = groups.into_iter().filter_map(|group| group.get("weights").filter(|w| w.is_object()));
    let of = |weights: &Json| Weights {
        bits: weights.get("num_bits").and_then(Json::as_u64),
        kind: weights.get("type").and_then(Json::as_str).map(String::from),
        group: weights.get("group_size").and_then(Json::as_i64),
    };
    Ok(weights.map(of).collect())
}

/// Refuses a module that is unlike all groups. `columns` of a group are 0 where a scheme has but one size.
fn agree(groups: &[Weights], tensor: &str, kind: &str, bits: u64, columns: usize) -> Result<(), Problem> {
    let size = |group: &Weights| match group.group {
        Some(size) if size > 0 && columns > 0 => size as usize == columns,
        _ => true,
    };
    let same = |group: &Weights| {
        group.bits.is_none_or(|b| b == bits) && group.kind.as_deref().is_none_or(|k| k == kind) && size(group)
    };
    if groups.is_empty() || groups.iter().any(same) {
        return Ok(());
    }
    let said = |group: &Weights| {
        let size = group.group.map_or(String::new(), |size| format!(" in groups of {size}"));
        format!("{}-bit {}{size}", group.bits.unwrap_or(0), group.kind.as_deref().unwrap_or("?"))
    };
    let said: Vec<String> = groups.iter().map(said).collect();
    let size = if columns > 0 { format!(" in groups of {columns}") } else { String::new() };
    let message = format!("its arrays hold {bits}-bit {kind}{size}, config.json says {}", said.join("; "));
    Err(Problem::new("bad-planes", message).tensor(tensor))
}

/// `X.weight_packed`: integers in words of 32 bits, or pairs of small floats in bytes.
fn packed(checkpoint: &Checkpoint, module: &str, array: &Raw, groups: &[Weights]) -> Result<Joined, Problem> {
    let name = format!("{module}.weight");
    if array.dtype != DType::I32 {
        let two_scales = checkpoint.find(&format!("{module}.weight_global_scale")).is_some();
        let (scheme, arrangement, group) = match two_scales {
            true => ("nvfp4-ct", nvfp4::compressed_tensors(), 16),
            false => ("mlx-mxfp4", nvfp4::compressed_mxfp4(), 32),
        };
        agree(groups, &name, "float", 4, group)?;
        return small_float(checkpoint, module, scheme, arrangement, wider(array, 2, &name)?);
    }
    let (_, scales) = checkpoint.need(&format!("{module}.weight_scale"), &name)?;
    let shape = shape_of(checkpoint, module, &name)?;
    let [rows, words] = two(array, &name)?;
    let columns = shape[1];
    let refuse = |message: String| Problem::new("bad-planes", message).tensor(&name);
    let bits = words.checked_mul(32).filter(|_| columns > 0).map_or(0, |bits| bits / columns);
    if rows != shape[0] || !(1..=8).contains(&bits) {
        let message = format!("{}: shape {:?} does not hold a matrix of shape {shape:?}", array.name, array.shape);
        return Err(refuse(message));
    }
    integers(checkpoint, module, scales, bits, [rows, columns], true, groups)
}

/// `X.weight` in bytes: integers, or floats of 8 bits.
fn in_bytes(checkpoint: &Checkpoint, module: &str, array: &Raw, groups: &[Weights]) -> Result<Joined, Problem> {
    let name = format!("{module}.weight");
    let (_, scales) = checkpoint.need(&format!("{module}.weight_scale"), &name)?;
    match array.dtype {
        DType::I8 => {
            let shape = two(array, &name)?;
            integers(checkpoint, module, scales, 8, shape, false, groups)
        }
        DType::F8E4M3 if scales.dtype == DType::U8 => {
            agree(groups, &name, "float", 8, 32)?;
            small_float(checkpoint, module, "mlx-mxfp8", nvfp4::compressed_mxfp8(), array.shape.clone())
        }
        DType::F8E4M3 => {
            agree(groups, &name, "float", 8, 0)?;
            let mut joined = fp8::join(checkpoint, array)?;
            joined.constants.extend(no_zeros(checkpoint, module, &name)?);
            Ok(joined)
        }
        other => {
            let message = format!("has scales, so it should be I8 or F8_E4M3, not {other}");
            Err(Problem::new("wrong-type", message).tensor(&name))
        }
    }
}

fn integers(
    checkpoint: &Checkpoint,
    module: &str,
    scales: &Raw,
    bits: usize,
    [rows, columns]: [usize; 2],
    packed: bool,
    groups: &[Weights],
) -> Result<Joined, Problem> {
    let name = format!("{module}.weight");
    let has = |part: &str| checkpoint.find(&format!("{module}.{part}")).is_some();
    let one_scale = scales.values() == Some(1) && rows > 1;
    let found = if one_scale { 1 } else { two(scales, &name)?[1] };
    let group = group_of(columns, found).ok_or_else(|| {
        let message = format!("{}: {columns} columns in {found} groups are not groups of 32, 64 or 128", scales.name);
        Problem::new("bad-planes", message).tensor(&name)
    })?;
    // Codes of fewer bits may lie in bytes.
    let said = groups.iter().filter_map(|group| group.bits).find(|said| !packed && *said < 8);
    agree(groups, &name, "int", said.unwrap_or(bits as u64), if group < columns { group } else { 0 })?;
    let packing = named("ct", bits, columns, group, scales, &name)?;
    let of = Integers { packed, symmetric: !has("weight_zero_point"), one_scale, g_idx: has("weight_g_idx") };
    let mut joined = arranged(
        checkpoint,
        format!("{module}.weight"),
        &format!("{module}."),
        packing,
        arrangement(of),
        vec![rows, columns],
    )?;
    joined.constants = fp8::activations(checkpoint, module);
    Ok(joined)
}

fn small_float(
    checkpoint: &Checkpoint,
    module: &str,
    name: &str,
    arrangement: ArrangementRef,
    shape: Vec<usize>,
) -> Result<Joined, Problem> {
    let scheme = scheme(name).map_err(|_| unsupported(module, name))?;
    let packing = Packing { scheme, float: float_type(checkpoint.config) };
    let mut joined =
        arranged(checkpoint, format!("{module}.weight"), &format!("{module}."), packing, arrangement, shape)?;
    joined.constants = fp8::activations(checkpoint, module);
    Ok(joined)
}

/// `X.weight_shape`: rows and columns of a matrix in words.
fn shape_of(checkpoint: &Checkpoint, module: &str, tensor: &str) -> Result<[usize; 2], Problem> {
    let (_, array) = checkpoint.need(&format!("{module}.weight_shape"), tensor)?;
    super::same(tensor, array, DType::I64, &[2])?;
    let bytes = checkpoint.read(array)?;
    let mut numbers = bytes.as_chunks::<8>().0.iter().map(|b| usize::try_from(i64::from_le_bytes(*b)));
    match (numbers.next(), numbers.next()) {
        (Some(Ok(rows)), Some(Ok(columns))) => Ok([rows, columns]),
        _ => Err(Problem::new("bad-planes", format!("{}: a dimension is negative", array.name)).tensor(tensor)),
    }
}

/// Zero points of floats, which some writers store, are zero.
fn no_zeros(checkpoint: &Checkpoint, module: &str, tensor: &str) -> Result<Option<usize>, Problem> {
    let Some(at) = checkpoint.find(&format!("{module}.weight_zero_point")) else { return Ok(None) };
    let Some(array) = checkpoint.arrays.get(at) else { return Ok(None) };
    if checkpoint.read(array)?.iter().any(|byte| *byte & 0x7f != 0) {
        let message = format!("{}: expected zeros beside floats", array.name);
        return Err(Problem::new("bad-planes", message).tensor(tensor));
    }
    Ok(Some(at))
}
