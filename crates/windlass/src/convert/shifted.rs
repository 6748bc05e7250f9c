//! Vectors that GGUF stores with one added (gains of Gemma's norms): adding rounds small values away, so those vectors that
//! would not come back equal travel as they were, in a key of their own.

use windlass_formats::Source;
use windlass_quant::float;
use windlass_tensor::{Array, Value};

use super::belongings::Originals;
use super::names::{Content, Output, Segment};
use crate::Result;

const KEY: &str = "windlass.original.";

/// Vectors are small: what is larger is not one of these.
const MOST_BYTES: u64 = 1 << 20;

/// Keys for the vectors of `source` that adding and subtracting again would change.
pub fn keep(source: &Source, outputs: &[Output]) -> Result<Vec<(String, Value)>> {
    let mut keys = Vec::new();
    for (segment, entry) in outputs.iter().filter_map(shifted).map(|s| (s, &source.tensors()[s.entry])) {
        let Some(dtype) = entry.element().dtype().filter(|d| d.is_float() && entry.bytes() <= MOST_BYTES) else {
            continue;
        };
        let mut bytes = vec![0; entry.bytes() as usize];
        source.read(entry, 0, 0, &mut bytes)?;
        let mut values = vec![0.0; entry.columns()];
        float::to_f32(dtype, &bytes, &mut values)?;
        values.iter_mut().for_each(|v| *v = (*v + segment.shift) - segment.shift);
        let mut back = vec![0; bytes.len()];
        float::from_f32(dtype, &values, &mut back)?;
        if back != bytes {
            keys.push((format!("{KEY}{}", entry.name()), Value::Array(Array::U8(bytes))));
        }
    }
    Ok(keys)
}

/// Puts kept vectors in the place of what the source's tensors would give.
pub fn restore(source: &Source, outputs: &mut [Output]) -> Result<()> {
    let originals = Originals::of(source);
    for output in outputs.iter_mut().filter(|o| shifted(o).is_some()) {
        let kept = source.metadata().get(&format!("{KEY}{}", output.name)).and_then(Value::as_array);
        let (Some(Array::U8(bytes)), Some(dtype)) = (kept, originals.get(&output.name)) else { continue };
        let count: usize = output.shape.iter().product();
        if dtype.is_float() && count.checked_mul(dtype.size()) == Some(bytes.len()) {
            let mut values = vec![0.0; count];
            float::to_f32(dtype, bytes, &mut values)?;
            if !is_stored(source, output, &values)? {
                continue;
            }
            output.content = Content::Values(values);
        }
    }
    Ok(())
}

/// Whether the source still holds these values with the shift added: a model that was changed since has newer ones.
fn is_stored(source: &Source, output: &Output, values: &[f32]) -> Result<bool> {
    let Some(segment) = shifted(output) else { return Ok(false) };
    let entry = &source.tensors()[segment.entry];
    if entry.element().dtype() != Some(windlass_tensor::DType::F32) || entry.values() != values.len() as u64 {
        return Ok(false);
    }
    let mut bytes = vec![0; values.len() * 4];
    source.read(entry, 0, 0, &mut bytes)?;
    let stored = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    Ok(values.iter().zip(stored).all(|(value, stored)| value - segment.shift == stored))
}

/// The single segment of a vector that is shifted on the way.
fn shifted(output: &Output) -> Option<&Segment> {
    match &output.content {
        Content::Rows(segments) if output.shape.len() == 1 => match segments.as_slice() {
            [segment] if segment.shift != 0.0 => Some(segment),
            _ => None,
        },
        _ => None,
    }
}
