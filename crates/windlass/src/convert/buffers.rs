//! Small tensors of integers that carry no weight and have no name in GGUF (BERT's position numbers): they travel in keys of their own, so that there
//! and back is equal.

use std::collections::HashSet;

use windlass_catalog::Convention;
use windlass_formats::{Source, expected_bytes};
use windlass_tensor::{Array, DType, Value};

use super::names::{Content, Output};
use crate::model::Identity;
use crate::{Error, Result};

/// What stands before the name of such a tensor; the key's value is its bytes.
const KEY: &str = "windlass.buffer.";
/// What stands before its name where its type and shape are said: `I64 1 512`.
const ABOUT: &str = "windlass.buffer_type.";

/// Such tensors are small; what is larger is left behind.
const MOST_BYTES: u64 = 1 << 20;

/// Keys for the tensors of `source` that no output has and that carry no weight.
pub fn keep(source: &Source, identity: &Identity, outputs: &[Output]) -> Result<Vec<(String, Value)>> {
    let used: HashSet<usize> = outputs.iter().flat_map(|output| output.content.entries()).collect();
    let mut keys = Vec::new();
    for (_, entry) in source.tensors().iter().enumerate().filter(|(i, _)| !used.contains(i)) {
        let Some(dtype) = entry.element().dtype().filter(|d| !d.is_float() && entry.bytes() <= MOST_BYTES) else {
            continue;
        };
        if identity.architecture.ignorable(Convention::Hf, entry.name()) {
            let mut bytes = vec![0; entry.bytes() as usize];
            source.read(entry, 0, 0, &mut bytes)?;
            let shape: String = entry.shape().iter().map(|d| format!(" {d}")).collect();
            keys.push((format!("{ABOUT}{}", entry.name()), Value::from(format!("{dtype}{shape}"))));
            keys.push((format!("{KEY}{}", entry.name()), Value::Array(Array::U8(bytes))));
        }
    }
    Ok(keys)
}

/// Adds the tensors that the keys of a GGUF hold.
pub fn restore(source: &Source, outputs: &mut Vec<Output>) -> Result<()> {
    let there: HashSet<String> = outputs.iter().map(|output| output.name.clone()).collect();
    for (key, value) in source.metadata().iter() {
        let Some(name) = key.strip_prefix(KEY).filter(|name| !there.contains(*name)) else { continue };
        let about = source.metadata().get(&format!("{ABOUT}{name}")).and_then(Value::as_str);
        let refuse = || {
            let message = "is not the bytes of a tensor of the type and shape that are said of it";
            let problem = windlass_formats::Problem::new("bad-buffer", format!("key {key:?} {message}"));
            Error::refused(source.path(), problem)
        };
        let (dtype, shape) = about.and_then(read).ok_or_else(refuse)?;
        let expected = expected_bytes(&dtype.into(), &shape).map_err(|_| refuse())?;
        let Some(Array::U8(bytes)) = value.as_array() else { return Err(refuse()) };
        if expected != [bytes.len() as u64] || bytes.len() as u64 > MOST_BYTES || shape.is_empty() {
            return Err(refuse());
        }
        let content = Content::Bytes(dtype, bytes.clone());
        outputs.push(Output { name: name.into(), gguf_name: name.into(), layer: None, shape, content });
    }
    Ok(())
}

/// `I64 1 512`.
fn read(about: &str) -> Option<(DType, Vec<usize>)> {
    let mut words = about.split(' ');
    let name = words.next()?;
    let dtype = DType::built_in().find(|dtype| dtype.name() == name)?;
    let shape = words.take(9).map(|word| word.parse().ok()).collect::<Option<Vec<usize>>>()?;
    Some((dtype, shape)).filter(|(_, shape)| shape.len() <= 8)
}
