//! Fixes every byte of safetensors files but the tensors' own.

use std::collections::HashSet;

use windlass_quant::Packing;
use windlass_tensor::{DType, Element, Metadata, Value};

use super::header::METADATA;
use super::index::{self, INDEX};
use crate::{Error, Extent, Layout, LayoutPart, Target, TargetTensor, adapter, expected_bytes};

/// The largest header that readers of the format accept.
const HEADER_BYTES: usize = 100_000_000;

/// How a container built on safetensors differs from the plain one.
pub struct Style {
    /// Whether the result is a folder even if it is one file alone.
    pub folder: bool,
    /// Whether one file alone gets an index too.
    pub index_always: bool,
    /// Spaces of the index's indentation.
    pub indent: usize,
    /// Name of the single part of an adapter.
    pub adapter: &'static str,
}

/// One tensor of the file: a plain tensor, or a plane of a packed one.
#[derive(Clone)]
pub struct Stored {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: u64,
    /// Its bytes, where they are known beforehand.
    pub content: Option<Vec<u8>>,
}

impl Stored {
    /// An array that holds values of a tensor.
    pub fn array(name: String, dtype: DType, shape: Vec<usize>) -> Result<Self, String> {
        let bytes = expected_bytes(&dtype.into(), &shape)?.iter().sum();
        Ok(Self { name, dtype, shape, bytes, content: None })
    }

    /// An array that describes others.
    pub fn constant(name: String, dtype: DType, shape: Vec<usize>, content: Vec<u8>) -> Self {
        Self { name, dtype, shape, bytes: content.len() as u64, content: Some(content) }
    }
}

/// Lays out a model whose tensors are stored under `stored(tensor)`, one or several tensors of the file for each.
pub fn layout(
    target: &Target,
    metadata: &Metadata,
    style: &Style,
    stored: impl Fn(&TargetTensor) -> Result<Vec<Stored>, Error>,
) -> Result<Layout, Error> {
    let planes: Vec<Vec<Stored>> = target.tensors.iter().map(stored).collect::<Result<_, _>>()?;
    check_names(&planes)?;
    let sizes: Vec<u64> = planes.iter().map(|p| p.iter().map(|s| s.bytes).sum()).collect();
    let adapter = adapter::is_described(&target.files);
    let split = split(&sizes, target.part_size.filter(|_| !adapter));
    if split.len() > 99_999 {
        let message = format!("a part size of {:?} bytes gives {} parts", target.part_size, split.len());
        return Err(Error::Layout(message));
    }
    let blank = |p: &Vec<Stored>| vec![Extent { part: 0, offset: 0, length: 0 }; p.len()];
    let mut tensors: Vec<Vec<Extent>> = planes.iter().map(blank).collect();
    let mut parts = Vec::new();
    for (number, members) in split.iter().enumerate() {
        let name = if adapter { style.adapter.into() } else { part_name(number, split.len()) };
        parts.push(lay_part(name, number, members, &planes, metadata, &mut tensors)?);
    }
    let mut files: Vec<_> = target.files.iter().filter(|(name, _)| name != INDEX).cloned().collect();
    let folder = style.folder || !files.is_empty() || parts.len() > 1;
    if parts.len() > 1 || (style.index_always && !adapter) {
        files.push((INDEX.into(), write_index(target, &planes, &split, &sizes, style).into_bytes()));
    }
    for (extents, planes) in tensors.iter_mut().zip(planes) {
        let all = std::mem::take(extents).into_iter().zip(planes);
        for (extent, stored) in all {
            match stored.content {
                Some(content) => parts[extent.part].constants.push((extent.offset, content)),
                None => extents.push(extent),
            }
        }
    }
    Ok(Layout { folder, parts, tensors, files, ..Layout::default() })
}

/// The one tensor of the file that holds a plain tensor.
pub fn plain(tensor: &TargetTensor, dtype: DType) -> Result<Stored, Error> {
    let bytes = expected_bytes(&Element::Plain(dtype), &tensor.shape)
        .map_err(|message| Error::Layout(format!("tensor {:?}: {message}", tensor.name)))?;
    let bytes = bytes.iter().sum();
    Ok(Stored { name: tensor.name.clone(), dtype, shape: tensor.shape.clone(), bytes, content: None })
}

/// The scheme and float type behind a packed element.
pub fn packing(element: &Element) -> Option<&Packing> {
    match element {
        Element::Packed(layout) => layout.as_any().downcast_ref(),
        Element::Plain(_) => None,
    }
}

fn check_names(planes: &[Vec<Stored>]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for stored in planes.iter().flatten() {
        let name = stored.name.as_str();
        if name.is_empty() || name == METADATA || name.contains('\0') {
            return Err(Error::Layout(format!("a tensor cannot be called {name:?} in a safetensors file")));
        }
        if !seen.insert(name) {
            return Err(Error::Layout(format!("two tensors would be called {name:?}")));
        }
    }
    Ok(())
}

/// Fills parts in the order of the tensors; a tensor larger than a part gets one of its own.
pub fn split(sizes: &[u64], part_size: Option<u64>) -> Vec<Vec<usize>> {
    let limit = part_size.unwrap_or(u64::MAX);
    let (mut parts, mut current, mut filled) = (Vec::new(), Vec::new(), 0u64);
    for (i, size) in sizes.iter().enumerate() {
        if *size > limit {
            parts.push(vec![i]);
            continue;
        }
        if filled.saturating_add(*size) > limit {
            parts.push(std::mem::take(&mut current));
            filled = 0;
        }
        current.push(i);
        filled += size;
    }
    if !current.is_empty() || parts.is_empty() {
        parts.push(current);
    }
    parts
}

fn part_name(number: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".into(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    }
}

/// Orders the planes of one part, writes its header and notes where each plane goes.
fn lay_part(
    name: String,
    number: usize,
    members: &[usize],
    planes: &[Vec<Stored>],
    metadata: &Metadata,
    extents: &mut [Vec<Extent>],
) -> Result<LayoutPart, Error> {
    let mut order: Vec<(usize, usize)> = members.iter().flat_map(|t| (0..planes[*t].len()).map(|p| (*t, p))).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&planes[a.0][a.1], &planes[b.0][b.1]);
        rank(b.dtype).cmp(&rank(a.dtype)).then_with(|| a.name.cmp(&b.name))
    });
    let mut json = String::from("{");
    if !metadata.is_empty() {
        json.push_str(&format!("{}:{}", quote(METADATA), metadata_json(metadata)?));
    }
    let mut end = 0u64;
    for (t, p) in &order {
        let stored = &planes[*t][*p];
        let begin = end;
        let too_large = || Error::Layout(format!("part {name:?} would have more bytes than a file can"));
        end = begin.checked_add(stored.bytes).ok_or_else(too_large)?;
        let shape: Vec<String> = stored.shape.iter().map(usize::to_string).collect();
        let comma = if json.len() > 1 { "," } else { "" };
        json.push_str(&format!(
            "{comma}{}:{{\"dtype\":{},\"shape\":[{}],\"data_offsets\":[{begin},{end}]}}",
            quote(&stored.name),
            quote(stored.dtype.name()),
            shape.join(",")
        ));
    }
    json.push('}');
    let padded = json.len().next_multiple_of(8);
    if padded > HEADER_BYTES {
        return Err(Error::Layout(format!(
            "the header of {name:?} has {padded} bytes, at most {HEADER_BYTES} are read"
        )));
    }
    let mut head = (padded as u64).to_le_bytes().to_vec();
    head.extend(json.bytes());
    head.resize(8 + padded, b' ');
    let mut offset = head.len() as u64;
    for (t, p) in order {
        let length = planes[t][p].bytes;
        extents[t][p] = Extent { part: number, offset, length };
        offset = offset.checked_add(length).ok_or_else(|| Error::Layout(format!("part {name:?} is too large")))?;
    }
    Ok(LayoutPart::new(name, head, offset))
}

fn metadata_json(metadata: &Metadata) -> Result<String, Error> {
    let member = |(key, value): (&str, &Value)| match value {
        Value::String(text) => Ok(format!("{}:{}", quote(key), quote(text))),
        _ => Err(Error::Layout(format!("safetensors metadata is text, {key:?} is {value}"))),
    };
    Ok(format!("{{{}}}", metadata.iter().map(member).collect::<Result<Vec<_>, _>>()?.join(",")))
}

fn write_index(target: &Target, planes: &[Vec<Stored>], split: &[Vec<usize>], sizes: &[u64], style: &Style) -> String {
    let names: Vec<String> = (0..split.len()).map(|i| part_name(i, split.len())).collect();
    let mut map = Vec::new();
    for (members, part) in split.iter().zip(&names) {
        let stored = members.iter().flat_map(|t| &planes[*t]);
        map.extend(stored.map(|s| (s.name.as_str(), part.as_str())));
    }
    let values = target.tensors.iter().map(|t| t.shape.iter().map(|d| *d as u64).product::<u64>()).sum();
    index::write(&map, sizes.iter().sum(), values, style.indent)
}

/// Place of a type in the order of a file: larger alignment first, then as the safetensors library sorts them.
fn rank(dtype: DType) -> (usize, usize) {
    const ORDER: [DType; 17] = [
        DType::Bool,
        DType::U8,
        DType::I8,
        DType::F8E5M2,
        DType::F8E4M3,
        DType::F8E8M0,
        DType::I16,
        DType::U16,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::U32,
        DType::F32,
        DType::C64,
        DType::F64,
        DType::I64,
        DType::U64,
    ];
    (dtype.size(), ORDER.iter().position(|d| *d == dtype).unwrap_or(ORDER.len()))
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_up_in_order_and_a_large_tensor_stands_alone() {
        assert_eq!(split(&[6, 6, 2, 6, 2, 2], Some(10)), [vec![0], vec![1, 2], vec![3, 4, 5]]);
        assert_eq!(split(&[1, 20, 1], Some(10)), [vec![1], vec![0, 2]]);
        assert_eq!(split(&[], None), [Vec::<usize>::new()]);
    }
}
