//! HQQ, as its `save_to_safetensors` stores it: modules of `W_q`, `scale` and `zero`, and a small array for each setting.

use serde_json::{Value as Json, json};
use windlass_quant::arrange::ArrangementRef;
use windlass_quant::{Family, Grid, Packing, hqq, scheme};
use windlass_tensor::DType;

use super::{Joined, Library, arranged, packings, skipped, torch_name, unsupported};
use crate::Problem;
use crate::arrays::Checkpoint;
use crate::safetensors::write::Stored;
use crate::{Target, TargetTensor};

/// The library.
pub struct Hqq;

/// Every setting that is stored as an array of its own.
const SETTINGS: [&str; 16] = [
    "nbits",
    "group_size",
    "shape",
    "axis",
    "packing",
    "unpack_view_dtype",
    "view_as_float",
    "quant_scale",
    "quant_zero",
    "compute_dtype",
    "offload_meta",
    "encoded_state_dict",
    "stores_quant_config",
    "channel_wise",
    "optimize",
    "round_zero",
];

impl Library for Hqq {
    fn name(&self) -> &'static str {
        "hqq"
    }

    fn reads(&self) -> &'static [Family] {
        &[Family::Hqq]
    }

    fn detect(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.method() == Some(self.name()) || checkpoint.arrays.iter().any(|array| array.name.ends_with(".W_q"))
    }

    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem> {
        let modules = checkpoint.arrays.iter().filter_map(|array| array.name.strip_suffix(".W_q"));
        modules.map(|module| join(checkpoint, module)).collect()
    }

    fn writes(&self) -> Option<Family> {
        Some(Family::Hqq)
    }

    fn store(&self, tensor: &TargetTensor, packing: &Packing) -> Result<(Vec<Stored>, Option<ArrangementRef>), String> {
        let module = tensor.name.strip_suffix(".weight").ok_or("HQQ packs only tensors whose name ends in .weight")?;
        let [rows, columns] = <[usize; 2]>::try_from(tensor.shape.as_slice())
            .map_err(|_| format!("HQQ packs matrices, not shape {:?}", tensor.shape))?;
        let (bits, group) = widths(packing)?;
        let arrangement = hqq::arrangement();
        let mut stored = Vec::new();
        for array in arrangement.arrays(packing, &tensor.shape)? {
            stored.push(Stored::array(format!("{module}.{}", array.name), array.dtype, array.shape)?);
        }
        let mut set = |name: &str, dtype, shape, content| {
            stored.push(Stored::constant(format!("{module}.{name}"), dtype, shape, content));
        };
        for (name, number) in [("nbits", bits as i32), ("group_size", group as i32), ("axis", 1)] {
            set(name, DType::I32, Vec::new(), number.to_le_bytes().to_vec());
        }
        let shape = [rows as i64, columns as i64];
        set("shape", DType::I64, vec![2], shape.iter().flat_map(|d| d.to_le_bytes()).collect());
        let compute = format!("torch.{}", torch_name(packing.float));
        let (words, view) = kind(bits)?;
        for (name, text) in [("packing", words), ("unpack_view_dtype", view), ("compute_dtype", &compute)] {
            set(name, DType::U8, vec![text.len()], text.as_bytes().to_vec());
        }
        let on = ["encoded_state_dict", "stores_quant_config", "channel_wise", "optimize"].map(|name| (name, true));
        let off = ["view_as_float", "quant_scale", "quant_zero", "offload_meta"].map(|name| (name, false));
        for (name, yes) in on.into_iter().chain(off).chain([("round_zero", bits == 4)]) {
            set(name, DType::U8, Vec::new(), vec![u8::from(yes)]);
        }
        Ok((stored, Some(arrangement)))
    }

    fn describe(&self, target: &Target, before: Option<&Json>) -> Json {
        let widths = packings(target).next().and_then(|(_, packing)| widths(packing).ok());
        let (bits, group) = widths.unwrap_or((4, 64));
        let weights = json!({
            "nbits": bits,
            "channel_wise": true,
            "group_size": group,
            "optimize": true,
            "round_zero": bits == 4,
            "axis": 1,
            "view_as_float": false,
        });
        let new = json!({
            "quant_config": {
                "weight_quant_params": weights,
                "scale_quant_params": null,
                "zero_quant_params": null,
                "offload_meta": false,
            },
            "quant_method": "hqq",
            "skip_modules": skipped(target),
        });
        let same = |before: &Json| before.pointer("/quant_config/weight_quant_params") == Some(&weights);
        before.filter(|before| same(before)).cloned().unwrap_or(new)
    }
}

fn widths(packing: &Packing) -> Result<(usize, usize), String> {
    match packing.scheme.grid() {
        Grid::Affine { bits, group, .. } => Ok((bits.into(), group)),
        _ => Err(format!("{} is not a scheme of HQQ", packing.scheme.name())),
    }
}

/// How HQQ calls words of so many bits, and their type.
fn kind(bits: usize) -> Result<(&'static str, &'static str), String> {
    Ok(match bits {
        1 => ("1bit_u8", "torch.uint8"),
        2 => ("2bit_u8", "torch.uint8"),
        3 => ("3bit_32", "torch.int32"),
        4 => ("4bit_u8", "torch.uint8"),
        8 => ("8bit_u8", "torch.uint8"),
        _ => return Err(format!("HQQ has no codes of {bits} bits here")),
    })
}

fn join(checkpoint: &Checkpoint, module: &str) -> Result<Joined, Problem> {
    let name = format!("{module}.weight");
    let refuse = |message: String| Problem::new("bad-planes", message).tensor(&name);
    let read = |setting: &str| {
        let (_, array) = checkpoint.need(&format!("{module}.{setting}"), &name)?;
        checkpoint.read(array)
    };
    // Little-endian whatever the width: a count is not negative.
    let number = |setting: &str| -> Result<usize, Problem> {
        let bytes = read(setting)?;
        let value = bytes.iter().rev().try_fold(0usize, |n, b| n.checked_mul(256)?.checked_add(usize::from(*b)));
        value.filter(|_| bytes.len() <= 8).ok_or_else(|| refuse(format!("{module}.{setting} is not a count")))
    };
    let (bits, group) = (number("nbits")?, number("group_size")?);
    let shape = read("shape")?;
    let shape: Vec<usize> =
        shape.as_chunks::<8>().0.iter().filter_map(|b| usize::try_from(i64::from_le_bytes(*b)).ok()).collect();
    if shape.len() != 2 {
        return Err(refuse(format!("{module}.shape is not that of a matrix")));
    }
    let full = format!("hqq{bits}-g{group}");
    let scheme = scheme(&full).map_err(|_| unsupported(&name, &full))?;
    let words = String::from_utf8_lossy(&read("packing")?).into_owned();
    let expected = kind(bits).map_err(refuse)?.0;
    if words != expected {
        return Err(refuse(format!("{module}.packing is {words:?}, expected {expected:?} for {bits} bits")));
    }
    for (setting, expected, what) in [
        ("axis", 1, "groups along columns"),
        ("view_as_float", 0, "codes viewed as floats"),
        ("quant_scale", 0, "scales that are quantized in turn"),
        ("quant_zero", 0, "zeros that are quantized in turn"),
    ] {
        let found = number(setting)?;
        if found != expected {
            let message = format!("{module}.{setting} is {found}, expected {expected}: {what} are not supported");
            return Err(Problem::new("unsupported-scheme", message).tensor(&name));
        }
    }
    let float = checkpoint.need(&format!("{module}.scale"), &name)?.1.dtype;
    if !matches!(float, DType::F16 | DType::BF16 | DType::F32) {
        return Err(refuse(format!("{module}.scale: expected F16, BF16 or F32, found {float}")));
    }
    let mut joined = arranged(
        checkpoint,
        format!("{module}.weight"),
        &format!("{module}."),
        Packing { scheme, float },
        hqq::arrangement(),
        shape,
    )?;
    let settings = SETTINGS.iter().filter_map(|setting| checkpoint.find(&format!("{module}.{setting}")));
    joined.constants = settings.collect();
    Ok(joined)
}
