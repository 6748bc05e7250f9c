//! One file of `torch.save`: the zip of today, and the row of pickles and storages that came before it.

use std::collections::HashMap;

use windlass_tensor::{DType, Element, Limits, Metadata};

use super::pickle::{Pickle, Tensor, Value};
use super::state;
use crate::zip::{self, Bytes, Member, Rules};
use crate::{Problem, expected_bytes};

/// PyTorch's writer puts sizes and checksums behind the data.
pub const ZIP: Rules = Rules { trailing: true, compressed: "load it and save it again with torch.save" };

/// Number at the beginning of the older form, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The only version of the older form.
const VERSION: i64 = 1001;
/// Bytes that are read at first to run pickles of the older form, whose length nothing says.
const WINDOW: u64 = 1 << 20;

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// In the order of the state dict. Two may be the same bytes.
    pub tensors: Vec<TensorInfo>,
    /// Numbers and texts beside the tensors, as text.
    pub metadata: Metadata,
    /// Entries that are neither, and why they are left out.
    pub skipped: Vec<Problem>,
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

/// Where the bytes of each storage are: offset and length.
type Places<'a> = HashMap<&'a str, (u64, u64)>;

/// Whether these first bytes are those of a file of `torch.save`, or of another pickle.
pub fn looks_like_one(head: &[u8]) -> bool {
    if let [0x80, version, code, ..] = head {
        // A safetensors file may begin like this too, but its length is below 2^24, and it was asked first.
        return (1..=5).contains(version) && *code != 0;
    }
    let name_length = head.get(26..28).map_or(0, |b| usize::from(b[0]) | usize::from(b[1]) << 8);
    let name = head.get(30..).and_then(|rest| rest.get(..name_length));
    let inner = name.and_then(|name| Some(&name[name.iter().position(|b| *b == b'/')? + 1..]));
    const FIRST: [&[u8]; 6] =
        [b"data.pkl", b"version", b".format_version", b".storage_alignment", b"byteorder", b"constants.pkl"];
    let known = |inner: &[u8]| FIRST.contains(&inner) || inner.starts_with(b"data/") || inner.starts_with(b"code/");
    head.starts_with(b"PK\x03\x04") && inner.is_some_and(known)
}

/// Reads the pickles and the directory of a file, and none of its tensors.
pub fn read(bytes: &dyn Bytes, limits: &Limits) -> Result<Checkpoint, Problem> {
    if is_zip(bytes)? { zipped(bytes, limits) } else { legacy(bytes, limits) }
}

/// Whether a file is of the zip form.
pub fn is_zip(bytes: &dyn Bytes) -> Result<bool, Problem> {
    Ok(bytes.length() >= 4 && bytes.read(0, 4)? == b"PK\x03\x04")
}

fn zipped(bytes: &dyn Bytes, limits: &Limits) -> Result<Checkpoint, Problem> {
    let members = zip::members(bytes, limits, &ZIP)?;
    let mut by_name: HashMap<&str, &Member> = HashMap::with_capacity(members.len());
    for member in &members {
        if by_name.insert(&member.name, member).is_some() {
            return Err(Problem::new("duplicate-member", "there are two members of this name").tensor(&member.name));
        }
    }
    let mut programs = members.iter().filter_map(|m| Some((m, m.name.strip_suffix("/data.pkl")?)));
    let (program, folder) = programs
        .next()
        .ok_or_else(|| Problem::new("no-pickle", "the zip has no data.pkl: it is not a file of torch.save"))?;
    if programs.next().is_some() {
        return Err(Problem::new("duplicate-member", "the zip has two members data.pkl"));
    }
    if by_name.contains_key(format!("{folder}/constants.pkl").as_str()) {
        let problem = Problem::new("torchscript", "is a TorchScript program and not a file of tensors");
        return Err(problem.help("save its state dict: torch.save(torch.jit.load(...).state_dict(), ...)"));
    }
    if let Some(order) = by_name.get(format!("{folder}/byteorder").as_str())
        && bytes.read(order.offset, order.length.min(16) as usize)? != b"little"
    {
        return Err(Problem::new("byte-order", "its values are not little-endian, which is not supported"));
    }
    if program.length > limits.header_bytes {
        return Err(too_large(program.length, limits).offset(program.offset));
    }
    let text = bytes.read(program.offset, program.length as usize)?;
    let pickle = Pickle::run(&text, program.offset, limits)?;
    if pickle.length != text.len() {
        let message = format!("{} bytes follow the pickle", text.len() - pickle.length);
        return Err(Problem::new("trailing-bytes", message).offset(program.offset + pickle.length as u64));
    }
    let prefix = format!("{folder}/data/");
    let storages = by_name.iter().filter_map(|(name, m)| Some((name.strip_prefix(&*prefix)?, (m.offset, m.length))));
    checkpoint(&pickle, &storages.collect(), limits)
}

fn legacy(bytes: &dyn Bytes, limits: &Limits) -> Result<Checkpoint, Problem> {
    let length = bytes.length();
    let most = limits.header_bytes.min(length);
    let mut window = WINDOW.min(most);
    loop {
        let text = bytes.read(0, window as usize)?;
        match Row::run(&text, limits) {
            Ok(row) => {
                let places = places(bytes, row.end, &row.keys, &row.object)?;
                return checkpoint(&row.object, &places, limits);
            }
            Err(problem) if problem.code == "truncated" && window < most => window = (window * 16).min(most),
            Err(problem) if problem.code == "truncated" && window < length => return Err(too_large(length, limits)),
            Err(problem) => return Err(problem),
        }
    }
}

/// The pickles of the older form. Behind them comes each storage, after the number of its values.
struct Row<'a> {
    object: Pickle<'a>,
    /// Keys of the storages in their order.
    keys: Vec<&'a str>,
    /// Bytes of all pickles.
    end: u64,
}

impl<'a> Row<'a> {
    /// Runs the pickles of the magic number, the version, the machine, the object and the keys. `text` is the beginning
    /// of the file.
    fn run(text: &'a [u8], limits: &Limits) -> Result<Row<'a>, Problem> {
        let mut at = 0;
        let mut next = || {
            let pickle = Pickle::run(text.get(at..).unwrap_or_default(), at as u64, limits)?;
            at += pickle.length;
            Ok::<_, Problem>(pickle)
        };
        let magic = next()?;
        if !matches!(magic.root, Value::Long(span) if magic.raw(span) == MAGIC) {
            return Err(Problem::new("not-torch", "is a pickle, but not one of torch.save"));
        }
        if next()?.root != Value::Int(VERSION) {
            let message = format!("the file is not of version {VERSION}, the only one known");
            return Err(Problem::new("unknown-version", message));
        }
        let machine = next()?;
        let order = machine.dict(machine.root).unwrap_or_default().iter();
        let little = order.filter(|(key, _)| machine.text(*key) == Some("little_endian")).map(|(_, value)| *value);
        if little.collect::<Vec<_>>() != [Value::Bool(true)] {
            return Err(Problem::new("byte-order", "the file does not say that its values are little-endian"));
        }
        let (object, keys) = (next()?, next()?);
        let list = keys.list(keys.root).map(|list| list.iter().map(|key| keys.text(*key)).collect::<Option<_>>());
        let bad = || Problem::new("bad-pickle", "the keys of the storages are no list of texts").offset(at as u64);
        Ok(Row { object, keys: list.flatten().ok_or_else(bad)?, end: at as u64 })
    }
}

/// Walks along the storages, which must reach exactly to the end of the file.
fn places<'k>(bytes: &dyn Bytes, start: u64, keys: &[&'k str], object: &Pickle) -> Result<Places<'k>, Problem> {
    let (mut places, mut at) = (HashMap::with_capacity(keys.len()), start);
    let sizes: HashMap<&str, u64> = object.storages().map(|s| (object.span(s.key), s.value_bytes())).collect();
    for key in keys {
        let fail = |code, message: &str| Err(Problem::new(code, message).tensor(key).offset(at));
        let Some(size) = sizes.get(key) else { return fail("unknown-storage", "is a storage that no tensor has") };
        let count = i64::from_le_bytes(bytes.read(at, 8)?.try_into().unwrap_or_default());
        let length = u64::try_from(count).ok().and_then(|n| n.checked_mul(*size));
        // The 8 bytes were read, so `at + 8` is inside of the file.
        let rest = bytes.length() - (at + 8);
        let Some(length) = length.filter(|n| *n <= rest) else {
            let message =
                format!("the storage has {count} values of {size} bytes, {rest} bytes are left: it is truncated");
            return fail("truncated", &message);
        };
        if places.insert(*key, (at + 8, length)).is_some() {
            return fail("duplicate-member", "there are two storages of this key");
        }
        at += 8 + length;
    }
    if at != bytes.length() {
        let message = format!("{} bytes follow the last storage", bytes.length() - at);
        return Err(Problem::new("trailing-bytes", message).offset(at));
    }
    Ok(places)
}

fn checkpoint(pickle: &Pickle, places: &Places, limits: &Limits) -> Result<Checkpoint, Problem> {
    let state = state::find(pickle, limits)?;
    if state.tensors.len() as u64 > limits.tensors {
        return Err(Problem::new("too-many-tensors", format!("more than {} tensors", limits.tensors)));
    }
    let tensors = state.tensors.iter().map(|(name, tensor)| {
        let found = place(pickle, name, tensor, places, limits);
        found.map_err(|problem| problem.tensor(name))
    });
    let tensors = tensors.collect::<Result<_, _>>()?;
    Ok(Checkpoint { tensors, metadata: state.metadata, skipped: state.skipped })
}

/// Compares a view with the bytes of its storage.
fn place(
    pickle: &Pickle,
    name: &str,
    tensor: &Tensor,
    places: &Places,
    limits: &Limits,
) -> Result<TensorInfo, Problem> {
    let refuse = |code, message: String| Problem::new(code, message);
    if name.len() > limits.name_bytes || tensor.shape.len() > limits.dimensions {
        let message =
            format!("a name has at most {} bytes and a shape {} dimensions", limits.name_bytes, limits.dimensions);
        return Err(refuse("too-large", message));
    }
    let key = pickle.span(tensor.storage.key);
    let (start, stored) = *places.get(key).ok_or_else(|| {
        refuse("missing-storage", format!("its bytes (storage {:?}) are not in the file", crate::json::short(key)))
    })?;
    let said = tensor.storage.count.checked_mul(tensor.storage.value_bytes());
    if said != Some(stored) {
        let message = format!("its storage has {} values in {stored} bytes", tensor.storage.count);
        return Err(refuse("wrong-size", message).offset(start));
    }
    let size = tensor.dtype.size() as u64;
    if tensor.storage.dtype.is_some_and(|dtype| dtype.size() as u64 != size) {
        return Err(refuse("wrong-type", format!("is {} in a storage of another size", tensor.dtype)));
    }
    let shape: Option<Vec<usize>> = tensor.shape.iter().map(|d| usize::try_from(*d).ok()).collect();
    let shape = shape.ok_or_else(|| refuse("bad-shape", format!("shape {:?} is too large", tensor.shape)))?;
    let length = expected_bytes(&Element::Plain(tensor.dtype), &shape).map_err(|m| refuse("bad-shape", m))?;
    let length: u64 = length.iter().sum();
    if length > 0 && !is_contiguous(tensor) {
        let message =
            format!("is a view with strides {:?} on shape {shape:?}: its values do not lie in order", tensor.strides);
        return Err(refuse("not-contiguous", message).offset(start).help("save tensor.contiguous() of it"));
    }
    let offset = tensor.offset.checked_mul(size);
    let end = offset.and_then(|offset| offset.checked_add(length));
    let (Some(offset), Some(_)) = (offset, end.filter(|end| *end <= stored)) else {
        let message = format!("{length} bytes from value {} on reach past its storage of {stored}", tensor.offset);
        return Err(refuse("bad-view", message).offset(start));
    };
    Ok(TensorInfo { name: name.into(), dtype: tensor.dtype, shape, offset: start + offset, length })
}

/// Whether the values lie row by row without gaps. The product of the shape was found not to overflow.
fn is_contiguous(tensor: &Tensor) -> bool {
    let mut expected = 1u64;
    tensor.shape.iter().zip(&tensor.strides).rev().all(|(dimension, stride)| {
        let fits = *dimension == 1 || *stride == expected;
        expected = expected.saturating_mul(*dimension);
        fits
    })
}

fn too_large(length: u64, limits: &Limits) -> Problem {
    let message = format!("the pickle has {length} bytes or more, the limit is {}", limits.header_bytes.min(length));
    Problem::new("header-too-large", message)
}
