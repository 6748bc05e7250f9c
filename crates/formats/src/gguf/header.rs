//! The header: counts, keys and tensor infos, checked against the length of the file.

use std::path::Path;

use windlass_tensor::{Element, Limits, Metadata, Value};

use super::input::{ReadAt, Reader};
use super::{types, value};
use crate::{Error, Problem, expected_bytes};

/// Alignment of tensor data where the file does not say another.
pub(super) const ALIGNMENT: u64 = 32;

/// What one file says, all of it checked: keys and names are unique, tensors lie inside the file, aligned and apart.
#[derive(Debug)]
pub struct Header {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    alignment: u64,
    data_offset: u64,
}

/// One tensor of a [`Header`].
#[derive(Debug)]
pub struct TensorInfo {
    name: String,
    element: Element,
    shape: Vec<usize>,
    offset: u64,
    bytes: u64,
}

impl Header {
    /// 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All keys in the order of the file.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What offsets of tensors are multiples of: a power of two.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where tensor data begins, in bytes from the beginning of the file.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    pub(super) fn into_parts(self) -> (Metadata, Vec<TensorInfo>) {
        (self.metadata, self.tensors)
    }
}

impl TensorInfo {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn element(&self) -> &Element {
        &self.element
    }

    /// Row-major, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Bytes from the beginning of the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn into_parts(self) -> (String, Element, Vec<usize>) {
        (self.name, self.element, self.shape)
    }
}

/// Parses the header of `input`, which has `length` bytes; `path` is for messages.
pub(super) fn parse(input: &dyn ReadAt, length: u64, path: &Path, limits: &Limits) -> Result<Header, Error> {
    let mut reader = Reader::new(input, length, path, limits);
    let version = version(&mut reader)?;
    let tensors = reader.count()?;
    let keys = reader.count()?;
    let metadata = metadata(&mut reader, keys)?;
    let alignment = alignment(&metadata).map_err(|problem| reader.refuse(problem))?;
    let alignment = check_alignment(alignment, limits).map_err(|problem| reader.refuse(problem))?;
    let mut tensors = tensor_infos(&mut reader, tensors)?;
    let end = reader.position();
    // A header is at most as long as a file, an alignment at most 2^32: no overflow.
    let data_offset = if tensors.is_empty() { end } else { end.next_multiple_of(alignment) };
    for info in &mut tensors {
        place(info, data_offset, alignment, length).map_err(|problem| reader.refuse(problem.tensor(&info.name)))?;
    }
    apart(&tensors).map_err(|problem| reader.refuse(problem))?;
    Ok(Header { version, metadata, tensors, alignment, data_offset })
}

fn version(reader: &mut Reader) -> Result<u32, Error> {
    let magic: u32 = reader.number()?;
    if magic.to_le_bytes() != *b"GGUF" {
        let message = format!("expected the magic bytes \"GGUF\", found {:?}", magic.to_le_bytes().escape_ascii());
        return Err(reader.refuse(Problem::new("bad-magic", message).offset(0)));
    }
    let version: u32 = reader.number()?;
    let problem = match version {
        1..=3 => {
            reader.narrow = version == 1;
            return Ok(version);
        }
        v if v & 0xffff == 0 && v != 0 => Problem::new("big-endian", "the file is big-endian, expected little-endian")
            .help("convert it with gguf-py's gguf_convert_endian.py"),
        v => Problem::new("bad-version", format!("expected version 1, 2 or 3, found {v}"))
            .help("a newer version needs a newer program"),
    };
    Err(reader.refuse(problem.offset(4)))
}

fn bounded(reader: &Reader, count: u64, limit: u64, smallest: u64, what: &str) -> Result<usize, Error> {
    if count > limit {
        let message = format!("{count} {what} were announced, at most {limit} are allowed");
        return Err(reader.refuse(Problem::new("too-many", message).offset(8)));
    }
    reader.expect(count, smallest, what)?;
    // Not more than the bytes left, so it fits in memory's own type.
    Ok(count as usize)
}

fn metadata(reader: &mut Reader, count: u64) -> Result<Metadata, Error> {
    let smallest = reader.count_size() + 4 + 1;
    let count = bounded(reader, count, reader.limits.metadata_keys, smallest, "keys")?;
    let mut entries: Vec<(String, Value)> = Vec::with_capacity(count);
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        let offset = reader.position();
        let key = reader.string("a key", reader.limits.name_bytes as u64)?;
        if key.is_empty() {
            return Err(reader.refuse(Problem::new("empty-key", "a key is empty").offset(offset)));
        }
        let value = value::read(reader).map_err(|e| within(e, &key))?;
        entries.push((key, value));
        places.push(offset);
    }
    if let Some(second) = repeated(entries.iter().map(|(key, _)| key.as_str())) {
        let message = format!("the key {:?} is there twice", entries[second].0);
        return Err(reader.refuse(Problem::new("duplicate-key", message).offset(places[second])));
    }
    // The keys were just found to be unique.
    Ok(Metadata::from_entries(entries).unwrap_or_default())
}

/// Says in which key's value something is wrong.
fn within(mut error: Error, key: &str) -> Error {
    if let Error::Refused { problem, .. } = &mut error {
        let key: String = key.chars().take(256).collect();
        problem.message = format!("key {key:?}: {}", problem.message);
    }
    error
}

/// Index of the first name that was there before, in O(n log n).
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Option<usize> {
    let mut sorted: Vec<(&str, usize)> = names.enumerate().map(|(i, name)| (name, i)).collect();
    sorted.sort_unstable();
    sorted.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1).min()
}

/// The alignment that the keys ask for.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64, Problem> {
    match metadata.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(Value::U32(alignment)) => Ok(u64::from(*alignment)),
        Some(_) => Err(Problem::new("bad-alignment", "general.alignment must be a u32")),
    }
}

/// Only powers of two up to the limit are alignments.
pub(super) fn check_alignment(alignment: u64, limits: &Limits) -> Result<u64, Problem> {
    if alignment.is_power_of_two() && alignment <= limits.alignment {
        return Ok(alignment);
    }
    let message = format!("general.alignment must be a power of two up to {}, found {alignment}", limits.alignment);
    Err(Problem::new("bad-alignment", message))
}

fn tensor_infos(reader: &mut Reader, count: u64) -> Result<Vec<TensorInfo>, Error> {
    let smallest = reader.count_size() + 4 + 4 + 8;
    let count = bounded(reader, count, reader.limits.tensors, smallest, "tensors")?;
    let mut elements = Elements::default();
    let mut infos = Vec::with_capacity(count);
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        places.push(reader.position());
        infos.push(tensor_info(reader, &mut elements)?);
    }
    if let Some(second) = repeated(infos.iter().map(|info| info.name.as_str())) {
        let problem = Problem::new("duplicate-tensor", "there are two tensors of this name");
        return Err(reader.refuse(problem.tensor(&infos[second].name).offset(places[second])));
    }
    Ok(infos)
}

/// Elements by type id: a model has few, and looking one up for each of its tensors would cost more than the parsing.
#[derive(Default)]
struct Elements(Vec<(u32, Element)>);

impl Elements {
    fn get(&mut self, id: u32) -> Result<Element, String> {
        if let Some((_, element)) = self.0.iter().find(|(known, _)| *known == id) {
            return Ok(element.clone());
        }
        let element = types::element(id)?;
        self.0.push((id, element.clone()));
        Ok(element)
    }
}

fn tensor_info(reader: &mut Reader, elements: &mut Elements) -> Result<TensorInfo, Error> {
    let begin = reader.position();
    let name = reader.string("a tensor's name", reader.limits.name_bytes as u64)?;
    let refuse = |reader: &Reader, problem: Problem| Err(reader.refuse(problem.tensor(&name)));
    if name.is_empty() || name.contains('\0') {
        let problem = Problem::new("bad-name", "a tensor's name must not be empty and has no zero byte");
        return refuse(reader, problem.offset(begin));
    }
    let offset = reader.position();
    let dimensions: u32 = reader.number()?;
    if dimensions as usize > reader.limits.dimensions {
        let message = format!("{dimensions} dimensions, at most {} are allowed", reader.limits.dimensions);
        return refuse(reader, Problem::new("too-many-dimensions", message).offset(offset));
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        shape.push(reader.count()?);
    }
    // The file begins with the innermost dimension.
    shape.reverse();
    let shape = match usable(&shape, reader.limits) {
        Ok(shape) => shape,
        Err(message) => return refuse(reader, Problem::new("bad-shape", message).offset(offset)),
    };
    let offset = reader.position();
    let id: u32 = reader.number()?;
    let element = match elements.get(id) {
        Ok(element) => element,
        Err(message) => return refuse(reader, Problem::new("bad-type", message).offset(offset)),
    };
    let bytes = match expected_bytes(&element, &shape).as_deref() {
        Ok([bytes]) => *bytes,
        Ok(planes) => {
            let message = format!("{} has {} planes, expected one", element.name(), planes.len());
            return refuse(reader, Problem::new("bad-type", message).offset(offset));
        }
        Err(message) => return refuse(reader, Problem::new("bad-shape", message.clone()).offset(begin)),
    };
    if bytes > reader.limits.total_bytes {
        let message = format!("shape {shape:?} has {bytes} bytes, at most {} are allowed", reader.limits.total_bytes);
        return refuse(reader, Problem::new("bad-shape", message).offset(begin));
    }
    let offset = reader.number()?;
    Ok(TensorInfo { name, element, shape, offset, bytes })
}

/// A shape whose products all fit, those that leave out a zero too: later layers count rows.
fn usable(shape: &[u64], limits: &Limits) -> Result<Vec<usize>, String> {
    let product = shape.iter().try_fold(1u64, |n, d| n.checked_mul((*d).max(1)));
    // No scheme packs a value in less than a bit.
    if product.is_none_or(|n| n > limits.total_bytes.saturating_mul(8)) {
        return Err(format!("shape {shape:?} is too large"));
    }
    shape.iter().map(|d| usize::try_from(*d).map_err(|_| format!("shape {shape:?} is too large"))).collect()
}

/// Turns an offset from the beginning of the data into one from the beginning of the file.
fn place(info: &mut TensorInfo, data_offset: u64, alignment: u64, length: u64) -> Result<(), Problem> {
    if !info.offset.is_multiple_of(alignment) {
        let message = format!("its offset {} in the data is not a multiple of {alignment}", info.offset);
        return Err(Problem::new("unaligned", message));
    }
    let begin = data_offset.checked_add(info.offset);
    let end = begin.and_then(|begin| begin.checked_add(info.bytes));
    match (begin, end) {
        (Some(begin), Some(end)) if end <= length => {
            info.offset = begin;
            Ok(())
        }
        _ => {
            let message = format!(
                "{} bytes at offset {} of the data (which begins at {data_offset}) reach past the end of the file \
                 ({length} bytes): it is truncated or half downloaded",
                info.bytes, info.offset
            );
            Err(Problem::new("truncated", message).help("download the file again, or compare its checksum"))
        }
    }
}

/// Tensors must not share bytes, whatever their order.
fn apart(tensors: &[TensorInfo]) -> Result<(), Problem> {
    let mut sorted: Vec<&TensorInfo> = tensors.iter().filter(|info| info.bytes > 0).collect();
    sorted.sort_unstable_by_key(|info| info.offset);
    for pair in sorted.windows(2) {
        if pair[0].offset + pair[0].bytes > pair[1].offset {
            let message = format!("its bytes overlap those of tensor {:?}", pair[0].name);
            return Err(Problem::new("overlap", message).tensor(&pair[1].name).offset(pair[1].offset));
        }
    }
    Ok(())
}
