//! Laying out a model as version 3, in one file or several.

use std::collections::HashSet;

use windlass_tensor::{Limits, Metadata, Value};

use super::header::{alignment, check_alignment};
use super::{split, types, value};
use crate::{Error, Extent, Layout, LayoutPart, Target, TargetTensor, expected_bytes};

/// What llama.cpp reads: at most this many dimensions, names shorter than this.
pub(super) const DIMENSIONS: usize = 4;
pub(super) const NAME_BYTES: usize = 64;

/// A tensor with all that its info needs, but the place.
struct Planned<'a> {
    tensor: &'a TargetTensor,
    type_id: u32,
    bytes: u64,
    padded: u64,
}

/// Fixes header and extents. Several parts are named by what follows the target's stem: `-00001-of-00003.gguf`.
pub(super) fn layout(target: &Target) -> Result<Layout, Error> {
    if !target.files.is_empty() {
        let what = format!("side files such as {}", target.files[0].0);
        return Err(cannot_hold(what, vec!["keys and tensors".into()]));
    }
    let alignment = alignment(&target.metadata)
        .and_then(|alignment| check_alignment(alignment, &Limits::default()))
        .map_err(|problem| Error::Layout(problem.message))?;
    if target.metadata.iter().any(|(key, _)| key.is_empty()) {
        return Err(Error::Layout("a key is empty".into()));
    }
    let planned = plan(&target.tensors, alignment)?;
    let groups = groups(&planned, target.part_size);
    if groups.len() > usize::from(u16::MAX) {
        let message = format!("{} parts, at most {} can be numbered: choose larger parts", groups.len(), u16::MAX);
        return Err(Error::Layout(message));
    }
    let model = split::of_the_model(target.metadata.clone());
    let mut layout = Layout::default();
    for (number, group) in groups.iter().enumerate() {
        let metadata = part_metadata(&model, number, groups.len(), planned.len(), alignment);
        let name = if groups.len() == 1 { String::new() } else { split::suffix(number, groups.len()) };
        let (part, extents) = part(name, &metadata, &planned[group.clone()], number, alignment);
        layout.parts.push(part);
        layout.tensors.extend(extents);
    }
    Ok(layout)
}

fn cannot_hold(what: String, can: Vec<String>) -> Error {
    Error::CannotHold { container: "gguf", what, can }
}

fn plan(tensors: &[TargetTensor], alignment: u64) -> Result<Vec<Planned<'_>>, Error> {
    let mut names = HashSet::new();
    tensors
        .iter()
        .map(|tensor| {
            let TargetTensor { name, element, shape } = tensor;
            if name.is_empty() || name.len() >= NAME_BYTES || name.contains('\0') {
                let can = vec![format!("names of 1 to {} bytes", NAME_BYTES - 1)];
                return Err(cannot_hold(format!("a tensor called {name:?}"), can));
            }
            if !names.insert(name) {
                return Err(Error::Layout(format!("there are two tensors called {name:?}")));
            }
            if shape.len() > DIMENSIONS {
                let can = vec![format!("tensors of at most {DIMENSIONS} dimensions")];
                return Err(cannot_hold(format!("tensor {name:?} of {} dimensions", shape.len()), can));
            }
            let type_id = types::type_id(element)
                .ok_or_else(|| cannot_hold(format!("{} (tensor {name:?})", element.name()), types::holdable()))?;
            let bytes: u64 = expected_bytes(element, shape)
                .map_err(|message| Error::Layout(format!("tensor {name:?}: {message}")))?
                .iter()
                .sum();
            let padded = bytes.checked_next_multiple_of(alignment);
            let padded = padded.ok_or_else(|| Error::Layout(format!("tensor {name:?} is too large")))?;
            Ok(Planned { tensor, type_id, bytes, padded })
        })
        .collect()
}

/// Which tensors go into each part: as many as fit, at least one.
fn groups(planned: &[Planned], part_size: Option<u64>) -> Vec<std::ops::Range<usize>> {
    let mut groups = Vec::new();
    let (mut begin, mut size) = (0, 0u64);
    for (i, tensor) in planned.iter().enumerate() {
        let grown = size.saturating_add(tensor.padded);
        if i > begin && part_size.is_some_and(|limit| grown > limit) {
            groups.push(begin..i);
            (begin, size) = (i, tensor.padded);
        } else {
            size = grown;
        }
    }
    groups.push(begin..planned.len());
    groups
}

/// Keys of one part: the first has all of them; each says its place and how it is aligned.
fn part_metadata(model: &Metadata, number: usize, count: usize, tensors: usize, alignment: u64) -> Metadata {
    let mut metadata = if number == 0 { model.clone() } else { Metadata::new() };
    if count > 1 {
        if model.get("general.alignment").is_some() && number > 0 {
            metadata.set("general.alignment", alignment as u32);
        }
        // Numbers are below 65536, as the caller made sure; nobody has 2^31 tensors.
        metadata.set(split::NUMBER, number as u16);
        metadata.set(split::COUNT, count as u16);
        metadata.set(split::TENSORS, Value::I32(i32::try_from(tensors).unwrap_or(i32::MAX)));
    }
    metadata
}

fn part(
    name: String,
    metadata: &Metadata,
    planned: &[Planned],
    number: usize,
    alignment: u64,
) -> (LayoutPart, Vec<Vec<Extent>>) {
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((planned.len() as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    for (key, v) in metadata.iter() {
        value::write_string(&mut head, key);
        value::write(&mut head, v);
    }
    let mut offset = 0u64;
    let mut offsets = Vec::with_capacity(planned.len());
    for Planned { tensor, type_id, padded, .. } in planned {
        value::write_string(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        // The file begins with the innermost dimension.
        tensor.shape.iter().rev().for_each(|d| head.extend((*d as u64).to_le_bytes()));
        head.extend(type_id.to_le_bytes());
        head.extend(offset.to_le_bytes());
        offsets.push(offset);
        offset = offset.saturating_add(*padded);
    }
    let data = (head.len() as u64).next_multiple_of(alignment);
    let extent = |(planned, offset): (&Planned, u64)| {
        vec![Extent { part: number, offset: data.saturating_add(offset), length: planned.bytes }]
    };
    let extents = planned.iter().zip(offsets).map(extent).collect();
    (LayoutPart::new(name, head, data.saturating_add(offset)), extents)
}
