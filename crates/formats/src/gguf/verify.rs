//! Rules of the format and of its main reader, llama.cpp, that a model can break and still be read by this program.

use std::path::Path;

use windlass_tensor::{Array, Element, Limits, Metadata, Value};

use super::header::Header;
use super::write::{DIMENSIONS, NAME_BYTES};
use super::{load, split};
use crate::{Error, Problem, Source};

/// All problems of all parts.
pub(super) fn verify(source: &Source, limits: &Limits) -> Result<Vec<Problem>, Error> {
    let mut problems = Vec::new();
    for part in source.parts() {
        let (file, header) = load(part.path(), limits)?;
        let length = file.metadata().map_err(|e| Error::io(part.path(), e))?.len();
        let mut found = Vec::new();
        check_file(&header, length, &mut found);
        if source.parts().len() > 1 {
            found.iter_mut().for_each(|problem| name_part(problem, part.path()));
        }
        problems.append(&mut found);
    }
    check_model(source, &mut problems);
    Ok(problems)
}

fn name_part(problem: &mut Problem, path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    problem.message = format!("{name}: {}", problem.message);
}

fn check_file(header: &Header, length: u64, problems: &mut Vec<Problem>) {
    if header.version() == 1 {
        let problem = Problem::new("old-version", "version 1 is no longer read by llama.cpp, expected 2 or 3");
        problems.push(problem.offset(4).help("convert it: the output is version 3"));
    }
    for (key, value) in header.metadata().iter() {
        check_key(key, value, problems);
    }
    check_split_types(header.metadata(), problems);
    for info in header.tensors() {
        if info.name().len() >= NAME_BYTES {
            let message = format!("its name has {} bytes, expected less than {NAME_BYTES}", info.name().len());
            problems.push(Problem::new("long-name", message).tensor(info.name()));
        }
        if info.shape().len() > DIMENSIONS {
            let message = format!("{} dimensions, expected at most {DIMENSIONS}", info.shape().len());
            problems.push(Problem::new("too-many-dimensions", message).tensor(info.name()));
        }
    }
    check_order(header, length, problems);
}

fn check_key(key: &str, value: &Value, problems: &mut Vec<Problem>) {
    if !key.is_ascii() {
        problems.push(Problem::new("bad-key", format!("key {key:?} has characters other than ASCII")));
    }
    if let Value::Array(Array::Array(_)) = value {
        let message = format!("key {key:?} is an array of arrays, which llama.cpp does not read");
        problems.push(Problem::new("nested-array", message));
    }
}

/// llama.cpp asks for these with their exact types.
fn check_split_types(metadata: &Metadata, problems: &mut Vec<Problem>) {
    let right = |key: &str, value: &Value| match key {
        split::TENSORS => matches!(value, Value::I32(_)),
        _ => matches!(value, Value::U16(_)),
    };
    for (key, value) in metadata.iter().filter(|(key, _)| split::is_split_key(key)) {
        if !right(key, value) {
            let message = format!("{key} must be a {}", if key == split::TENSORS { "i32" } else { "u16" });
            problems.push(Problem::new("bad-split", message));
        }
    }
}

/// Tensors must follow each other in the order of their infos, each padded to the alignment, up to the end of the file.
fn check_order(header: &Header, length: u64, problems: &mut Vec<Problem>) {
    let mut expected = header.data_offset();
    let mut end = expected;
    for info in header.tensors() {
        if info.offset() != expected {
            let message = format!("its data begins at {}, expected {expected}: a gap, or out of order", info.offset());
            let problem = Problem::new("not-contiguous", message).tensor(info.name()).offset(info.offset());
            problems.push(problem.help("convert it to GGUF again: tensors are written one after the other"));
        }
        // Offsets and sizes lie inside the file: no overflow.
        end = end.max(info.offset() + info.bytes());
        expected = (info.offset() + info.bytes()).next_multiple_of(header.alignment());
    }
    if length > end.next_multiple_of(header.alignment()) {
        let message = format!("{} bytes follow the last tensor", length - end);
        problems.push(Problem::new("trailing-bytes", message).offset(end));
    }
}

fn check_model(source: &Source, problems: &mut Vec<Problem>) {
    let metadata = source.metadata();
    let imatrix = metadata.get("general.type").and_then(Value::as_str) == Some("imatrix");
    match metadata.get("general.architecture") {
        Some(Value::String(name)) if !name.is_empty() => {}
        None if imatrix => {}
        Some(_) => problems.push(Problem::new("no-architecture", "general.architecture must be a string with a name")),
        None => problems.push(Problem::new("no-architecture", "general.architecture is missing")),
    }
    for key in ["general.file_type", "general.quantization_version"] {
        if metadata.get(key).is_some_and(|value| !matches!(value, Value::U32(_))) {
            problems.push(Problem::new("bad-key-type", format!("{key} must be a u32")));
        }
    }
    let packed = source.tensors().iter().find(|t| matches!(t.element(), Element::Packed(_)));
    if let Some(entry) = packed {
        let is = format!("is {} quantized", entry.element().name());
        if metadata.get("general.quantization_version").is_none() {
            let message = format!("it {is}, but general.quantization_version is missing");
            problems.push(Problem::new("no-quantization-version", message).tensor(entry.name()));
        }
        if metadata.get("general.file_type").and_then(Value::as_u64) == Some(0) {
            let message = format!("it {is}, but general.file_type says that all tensors are F32");
            problems.push(Problem::new("wrong-file-type", message).tensor(entry.name()));
        }
    }
}
