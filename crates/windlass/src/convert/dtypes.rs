//! What config.json says of the tensors' float type.

use std::collections::BTreeMap;

use windlass_formats::{Source, json};
use windlass_tensor::{DType, Element, Limits};

use super::belongings::{Originals, dominant_float};
use super::names::Output;

/// How config.json calls the key, by newer and by older programs.
const KEYS: [&str; 2] = ["dtype", "torch_dtype"];

/// Makes a config.json say the float type that most values have after a conversion that changed it, or unpacked them.
/// Everything else of the text stays as it is. Programs load a model in the type that its configuration says.
pub fn agree(
    source: &Source,
    files: &mut [(String, Vec<u8>)],
    outputs: &[Output],
    elements: &[Element],
    limits: &Limits,
) {
    let Some((_, config)) = files.iter_mut().find(|(name, _)| name == "config.json") else { return };
    let Some(dtype) = dominant(outputs, elements) else { return };
    let before = Originals::of(source).most().or_else(|| dominant_float(source));
    let packed = source.tensors().iter().any(|entry| entry.element().dtype().is_none());
    // A configuration that never agreed with its tensors is left as its author wrote it.
    let Some(name) = torch_name(dtype).filter(|_| packed || before != Some(dtype)) else { return };
    let Ok(members) = json::members(config, limits.nesting) else { return };
    for member in members.into_iter().rev().filter(|m| KEYS.contains(&m.key.as_str())) {
        let said = config.get(member.value.clone()).and_then(|text| serde_json::from_slice::<String>(text).ok());
        let known = said.as_deref().is_some_and(|said| ["float32", "float16", "bfloat16"].contains(&said));
        if known && said.as_deref() != Some(name) {
            config.splice(member.value, format!("{name:?}").into_bytes());
        }
    }
}

/// The float type of most values, if nothing is packed: what is packed says its type in its own way.
fn dominant(outputs: &[Output], elements: &[Element]) -> Option<DType> {
    let mut counts: BTreeMap<DType, usize> = BTreeMap::new();
    for (output, element) in outputs.iter().zip(elements) {
        let dtype = element.dtype()?;
        if dtype.is_float() {
            *counts.entry(dtype).or_default() += output.shape.iter().product::<usize>();
        }
    }
    counts.into_iter().max_by_key(|(_, n)| *n).map(|(dtype, _)| dtype)
}

fn torch_name(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("float32"),
        DType::F16 => Some("float16"),
        DType::BF16 => Some("bfloat16"),
        _ => None,
    }
}
