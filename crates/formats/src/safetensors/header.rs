//! The header of one file: eight bytes of length, then JSON that says where each tensor lies.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use windlass_tensor::{DType, Element, Limits, Metadata, Value};

use crate::json::{self, Unique, short};
use crate::{Problem, expected_bytes};

/// The key that is not a tensor.
pub const METADATA: &str = "__metadata__";

/// Types of the format that have less than a byte per value.
const SUB_BYTE: [&str; 5] = ["F4", "F6_E2M3", "F6_E3M2", "F4_E2M1", "I4"];

/// A checked header. Tensors lie behind each other in the order of the list and cover the file to its last byte.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// `__metadata__`, in its order.
    pub metadata: Metadata,
    /// In the order in which they lie in the file.
    pub tensors: Vec<TensorInfo>,
    /// Where tensor bytes begin.
    pub data_start: u64,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// From the beginning of the file.
    pub offset: u64,
    pub length: u64,
}

/// Parses a whole file held in memory.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Header, Problem> {
    let length = header_length(bytes, bytes.len() as u64, limits)?;
    let text = bytes.get(8..).and_then(|b| b.get(..length)).unwrap_or_default();
    parse_header(text, bytes.len() as u64, limits)
}

/// Bytes of the JSON, from the first bytes of a file of `file_length` bytes.
pub fn header_length(head: &[u8], file_length: u64, limits: &Limits) -> Result<usize, Problem> {
    if let Some(problem) = not_a_model(head, file_length) {
        return Err(problem);
    }
    let Some(length) = head.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) else {
        let message = format!("a safetensors file begins with 8 bytes of length, this one has {file_length} bytes");
        return Err(Problem::new("truncated", message).help("download it again"));
    };
    if length > limits.header_bytes {
        let message = format!("the header says it has {length} bytes, the limit is {}", limits.header_bytes);
        return Err(Problem::new("header-too-large", message).offset(0));
    }
    if length > file_length.saturating_sub(8) {
        let message = format!("the header says it has {length} bytes, the file has {file_length}");
        return Err(Problem::new("truncated", message).offset(0).help("download it again"));
    }
    usize::try_from(length).map_err(|_| Problem::new("header-too-large", "the header does not fit in memory"))
}

/// Parses the JSON of a file of `file_length` bytes.
pub fn parse_header(text: &[u8], file_length: u64, limits: &Limits) -> Result<Header, Problem> {
    let bad = |message: String| Problem::new("bad-header", message).offset(8);
    json::check_depth(text, limits.nesting).map_err(bad)?;
    let utf8 = std::str::from_utf8(text).map_err(|e| bad(format!("the header is not UTF-8: {e}")))?;
    let mut json = serde_json::Deserializer::from_str(utf8);
    let raw = HeaderSeed(limits).deserialize(&mut json).and_then(|raw| json.end().map(|()| raw));
    let (metadata, mut raw) = raw.map_err(|e| bad(format!("the header is not valid: {e}")))?;
    raw.sort_by_key(|(_, info)| info.data_offsets);
    let data_start = 8 + text.len() as u64;
    let (mut end, mut tensors) = (0, Vec::with_capacity(raw.len()));
    for (name, info) in raw {
        let tensor = check(&name, &info, end, data_start).map_err(|p| p.tensor(&name))?;
        end = info.data_offsets.1;
        tensors.push(tensor);
    }
    let expected = data_start.saturating_add(end);
    if expected > file_length {
        let message = format!("expected {expected} bytes, the file has {file_length}: it is half downloaded");
        return Err(Problem::new("truncated", message).help("download it again"));
    }
    if expected < file_length {
        let message = format!("{} bytes follow the last tensor", file_length - expected);
        return Err(Problem::new("trailing-bytes", message).offset(expected));
    }
    Ok(Header { metadata, tensors, data_start })
}

/// What the first bytes of a file say if it is what failed downloads leave behind.
pub fn not_a_model(head: &[u8], file_length: u64) -> Option<Problem> {
    if file_length == 0 {
        let problem = Problem::new("empty", "the file is empty: its download did not start, or failed");
        return Some(problem.help("download it again"));
    }
    if head.starts_with(b"version https://git-lfs") {
        let problem = Problem::new("lfs-pointer", "this is a Git LFS pointer, not the weights");
        return Some(problem.help("run `git lfs pull` in its folder"));
    }
    if head.starts_with(b"<!DOCTYPE") || head.starts_with(b"<html") {
        let problem = Problem::new("web-page", "this is a web page, not a model");
        return Some(problem.help("the download was redirected, or needs a login: download it again"));
    }
    None
}

/// Whether these first bytes are those of a safetensors file.
pub fn looks_like_header(head: &[u8]) -> bool {
    let text = head.get(8..).unwrap_or_default().trim_ascii_start();
    let inner = text.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    inner.is_some_and(|inner| matches!(inner.first(), None | Some(b'"' | b'}')))
}

fn check(name: &str, info: &RawInfo, previous_end: u64, data_start: u64) -> Result<TensorInfo, Problem> {
    let (begin, end) = info.data_offsets;
    let at = data_start.saturating_add(begin);
    if end < begin {
        let message = format!("its bytes end ({end}) before they begin ({begin})");
        return Err(Problem::new("bad-offsets", message));
    }
    if begin < previous_end {
        let message = format!("it begins at {begin}, inside the tensor before it, which ends at {previous_end}");
        return Err(Problem::new("overlap", message).offset(at));
    }
    if begin > previous_end {
        let message = format!("bytes {previous_end} to {begin} before it belong to no tensor");
        return Err(Problem::new("hole", message).offset(at));
    }
    let dtype = known_dtype(&info.dtype)?;
    let too_large = || Problem::new("bad-shape", format!("shape {:?} is too large", info.shape.0));
    let shape: Result<Vec<usize>, _> = info.shape.0.iter().map(|d| usize::try_from(*d)).collect();
    let shape = shape.map_err(|_| too_large())?;
    let bytes = expected_bytes(&Element::Plain(dtype), &shape).map_err(|_| too_large())?;
    let length = end - begin;
    if bytes != [length] {
        let message = format!("{dtype} of shape {shape:?} has {} bytes, found {length}", bytes.first().unwrap_or(&0));
        return Err(Problem::new("wrong-size", message).offset(at));
    }
    Ok(TensorInfo { name: name.into(), dtype, shape, offset: at, length })
}

fn known_dtype(name: &str) -> Result<DType, Problem> {
    match DType::from_name(name).filter(|dtype| dtype.name() == name) {
        Some(dtype) => Ok(dtype),
        None if SUB_BYTE.contains(&name) => {
            let message = format!("values of type {name} have less than a byte each, which is not supported");
            Err(Problem::new("sub-byte-type", message))
        }
        None => {
            let problem = Problem::new("unknown-type", format!("element type {:?} is not known", short(name)));
            Err(problem.help("a program can make it known with DType::register"))
        }
    }
}

type RawHeader = (Metadata, Vec<(String, RawInfo)>);

#[derive(serde::Deserialize)]
struct RawInfo {
    dtype: String,
    shape: Dimensions,
    data_offsets: (u64, u64),
}

/// A list that cannot be made long enough to fill memory.
struct Dimensions(Vec<u64>);

impl<'de> Deserialize<'de> for Dimensions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Dimensions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Dimensions, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    if all.len() == 64 {
                        return Err(A::Error::custom("a shape has more than 64 dimensions"));
                    }
                    all.push(item);
                }
                Ok(Dimensions(all))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

struct HeaderSeed<'a>(&'a Limits);

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = RawHeader;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawHeader, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let (mut metadata, mut tensors, mut seen) = (Metadata::new(), Vec::new(), HashSet::new());
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("the name {:?} comes twice", short(&name))));
            }
            if name == METADATA {
                let members = map.next_value::<Option<Unique<String>>>()?.map_or(Vec::new(), |m| m.0);
                if members.len() as u64 > self.0.metadata_keys {
                    return Err(A::Error::custom(format!("more than {} metadata keys", self.0.metadata_keys)));
                }
                metadata = members.into_iter().map(|(key, value)| (key, Value::String(value))).collect();
                continue;
            }
            if tensors.len() as u64 >= self.0.tensors {
                return Err(A::Error::custom(format!("more than {} tensors", self.0.tensors)));
            }
            tensors.push((name, map.next_value()?));
        }
        Ok((metadata, tensors))
    }
}
