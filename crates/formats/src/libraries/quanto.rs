//! Quanto (optimum-quanto), as `QuantizedModelForCausalLM.save_pretrained` stores it: tensors of `X.weight._data` and
//! `X.weight._scale`, below 8 bits `X.weight._data._data` and `X.weight._shift`, and a file with the modules.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value as Json, json};
use windlass_catalog::Convention;
use windlass_quant::arrange::ArrangementRef;
use windlass_quant::{Family, Grid, Packing, quanto, scheme};
use windlass_tensor::{DType, PackedLayout};

use super::{Joined, Library, arranged, packings, unsupported};
use crate::Problem;
use crate::arrays::{Checkpoint, Raw};
use crate::safetensors::write::Stored;
use crate::{Target, TargetTensor};

/// The library.
pub struct Quanto;

const DATA: &str = ".weight._data";
const GROUPED: &str = ".weight._data._data";

/// Scales of activations, which are one where only weights are quantized.
const ACTIVATIONS: [&str; 2] = ["input_scale", "output_scale"];

/// The file that says which modules are quantized.
const MODULES: &str = "quanto_qmap.json";

impl Library for Quanto {
    fn name(&self) -> &'static str {
        "quanto"
    }

    fn reads(&self) -> &'static [Family] {
        &[Family::Quanto]
    }

    fn detect(&self, checkpoint: &Checkpoint) -> bool {
        let ours = |array: &Raw| array.name.ends_with(DATA) || array.name.ends_with(GROUPED);
        checkpoint.method() == Some(self.name()) || checkpoint.arrays.iter().any(ours)
    }

    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem> {
        let shapes = OnceLock::new();
        let mut joined = Vec::new();
        for array in checkpoint.arrays {
            if let Some(module) = array.name.strip_suffix(GROUPED) {
                let shapes = shapes.get_or_init(|| shapes_of(checkpoint));
                joined.push(grouped(checkpoint, module, array, shapes)?);
            } else if let Some(module) = array.name.strip_suffix(DATA) {
                joined.push(bytes(checkpoint, module, array)?);
            } else if let Some(weight) = array.name.strip_suffix("._scale") {
                let there = [DATA, GROUPED].iter().any(|data| {
                    checkpoint.find(&format!("{}{data}", weight.strip_suffix(".weight").unwrap_or(weight))).is_some()
                });
                if !there {
                    checkpoint.need(&format!("{weight}._data"), weight)?;
                }
            }
        }
        Ok(joined)
    }

    fn writes(&self) -> Option<Family> {
        Some(Family::Quanto)
    }

    fn store(&self, tensor: &TargetTensor, packing: &Packing) -> Result<(Vec<Stored>, Option<ArrangementRef>), String> {
        let module = tensor.name.strip_suffix(".weight");
        let module = module.ok_or("Quanto packs only tensors whose name ends in .weight")?;
        let [_, columns] = <[usize; 2]>::try_from(tensor.shape.as_slice())
            .map_err(|_| format!("Quanto packs matrices, not shape {:?}", tensor.shape))?;
        if let Grid::Affine { bits: 2 | 4, group, .. } = packing.scheme.grid() {
            let own = [128, 96, 64, 32].into_iter().find(|group| columns.is_multiple_of(*group));
            if own != Some(group) {
                let own = own.map_or("no groups".into(), |own| format!("groups of {own}"));
                return Err(format!("Quanto expects {own} in rows of {columns}, not groups of {group}"));
            }
        }
        let arrangement = quanto::arrangement();
        let mut stored = Vec::new();
        for array in arrangement.arrays(packing, &tensor.shape)? {
            stored.push(Stored::array(format!("{}.{}", tensor.name, array.name), array.dtype, array.shape)?);
        }
        let one = match packing.float {
            DType::F16 => 0x3c00u16.to_le_bytes().to_vec(),
            DType::BF16 => 0x3f80u16.to_le_bytes().to_vec(),
            _ => 1f32.to_le_bytes().to_vec(),
        };
        for name in ACTIVATIONS {
            stored.push(Stored::constant(format!("{module}.{name}"), packing.float, Vec::new(), one.clone()));
        }
        Ok((stored, Some(arrangement)))
    }

    fn files(&self, target: &Target) -> Vec<(&'static str, Vec<u8>)> {
        let about = |(tensor, packing): (&TargetTensor, &Packing)| {
            let module = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
            let kind = match packing.scheme.name().split('-').next().unwrap_or_default() {
                "qfloat8" => "qfloat8_e4m3fn",
                kind => kind,
            };
            (module.to_string(), json!({"weights": kind, "activations": "none"}))
        };
        let modules: Map<String, Json> = packings(target).map(about).collect();
        if modules.is_empty() {
            return Vec::new();
        }
        serde_json::to_vec_pretty(&modules).map(|text| vec![(MODULES, text)]).unwrap_or_default()
    }

    fn own_files(&self) -> &'static [&'static str] {
        &[MODULES]
    }
}

/// Codes of 8 bits, whose shape is that of the matrix.
fn bytes(checkpoint: &Checkpoint, module: &str, data: &Raw) -> Result<Joined, Problem> {
    let name = match data.dtype {
        DType::I8 => "qint8",
        DType::F8E4M3 => "qfloat8",
        other => {
            let message = format!("{}: expected I8 or F8_E4M3, found {other}", data.name);
            return Err(Problem::new("unsupported-scheme", message).tensor(&format!("{module}.weight")));
        }
    };
    join(checkpoint, module, name, data.shape.clone())
}

/// Codes of fewer bits. How many codes a byte holds follows from the number of groups; the shape of the matrix is not
/// stored, so the model's configuration must say it.
fn grouped(
    checkpoint: &Checkpoint,
    module: &str,
    data: &Raw,
    shapes: &HashMap<String, Vec<usize>>,
) -> Result<Joined, Problem> {
    let weight = format!("{module}.weight");
    let refuse = |message: String| Problem::new("bad-planes", message).tensor(&weight);
    let (_, scales) = checkpoint.need(&format!("{weight}._scale"), &weight)?;
    let [step, group] = super::grouped::two(data, &weight)?;
    let groups = scales.values().unwrap_or(0);
    let holds = |codes: usize| groups > 2 && groups.div_ceil(codes) == step;
    let bits = [(4, 2), (2, 4)].into_iter().find(|(_, codes)| holds(*codes)).map(|(bits, _)| bits);
    let bits = bits.ok_or_else(|| {
        refuse(format!("{} rows of {} do not hold {groups} groups in two or four codes a byte", step, data.name))
    })?;
    let size = if group == 128 { String::new() } else { format!("-g{group}") };
    let shape = shapes.get(&weight).ok_or_else(|| {
        refuse("is stored without its shape, and config.json does not say it".into())
            .help("put config.json of the model beside the weights")
    })?;
    join(checkpoint, module, &format!("qint{bits}{size}"), shape.clone())
}

fn join(checkpoint: &Checkpoint, module: &str, name: &str, shape: Vec<usize>) -> Result<Joined, Problem> {
    let weight = format!("{module}.weight");
    let scheme = scheme(name).map_err(|_| unsupported(&weight, name))?;
    let (_, scales) = checkpoint.need(&format!("{weight}._scale"), &weight)?;
    let float = scales.dtype;
    if !matches!(float, DType::F16 | DType::BF16 | DType::F32) {
        let message = format!("{}: expected F16, BF16 or F32, found {float}", scales.name);
        return Err(Problem::new("bad-planes", message).tensor(&weight));
    }
    let packing = Packing { scheme, float };
    packing.plane_bytes(&shape).map_err(|message| Problem::new("bad-planes", message).tensor(&weight))?;
    let prefix = format!("{weight}.");
    let mut joined = arranged(checkpoint, weight, &prefix, packing, quanto::arrangement(), shape)?;
    let activations = ACTIVATIONS.iter().filter_map(|scale| checkpoint.find(&format!("{module}.{scale}")));
    joined.constants = activations.collect();
    Ok(joined)
}

/// Shapes of all tensors of the architecture, by their names.
fn shapes_of(checkpoint: &Checkpoint) -> HashMap<String, Vec<usize>> {
    let Ok((architecture, hyper)) = windlass_catalog::from_hf_config(checkpoint.config) else { return HashMap::new() };
    let has = |name: &str| {
        ["", "._data", "._data._data"].iter().any(|part| checkpoint.find(&format!("{name}{part}")).is_some())
    };
    let hyper = architecture.settle(hyper, Convention::Hf, has);
    let pieces = architecture.pieces(&hyper).unwrap_or_default();
    let places = pieces.iter().flat_map(|piece| piece.places(Convention::Hf));
    places.map(|place| (place.tensor, place.shape)).collect()
}
