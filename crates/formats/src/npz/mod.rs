//! NumPy arrays (`.npy`) and archives of them (`.npz`).

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use windlass_catalog::Convention;
use windlass_tensor::{Element, Limits};

use crate::archive::{self, Member};
use crate::{Container, Error, Extent, Layout, Probe, Problem, Source, SourceBuilder, Target};

pub mod npy;

use crate::zip::{self, Bytes, Rules};
pub use npy::Npy;

/// NumPy's writer knows the sizes before the data.
const ZIP: Rules = Rules {
    trailing: false,
    compressed: "load it and save it again with numpy.savez instead of numpy.savez_compressed",
};

/// What arrays begin at a multiple of, as NumPy aligns the values behind their headers.
const ALIGNMENT: u64 = 64;

/// Name of a lone array, which has none of its own: that which NumPy gives to unnamed ones.
const UNNAMED: &str = "arr_0";

/// The container.
pub struct Npz;

/// One array of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    pub name: String,
    pub header: Npy,
    /// Where its values begin in the file.
    pub offset: u64,
}

/// Parses a whole `.npy` or `.npz` file held in memory.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Vec<Array>, Problem> {
    arrays(&bytes, limits)
}

/// Arrays of the file at `path`, whose part number in `builder` comes first.
pub(crate) fn read(path: &Path, limits: &Limits, builder: &mut SourceBuilder) -> Result<(usize, Vec<Array>), Error> {
    let file = crate::files::open(path)?;
    let found = arrays(&file, limits).map_err(|p| Error::refused(path, p))?;
    Ok((builder.part(path, Arc::new(file))?, found))
}

fn arrays(bytes: &dyn Bytes, limits: &Limits) -> Result<Vec<Array>, Problem> {
    if bytes.length() >= 6 && bytes.read(0, 6)? == b"\x93NUMPY" {
        return Ok(vec![array(bytes, UNNAMED, 0, bytes.length())?]);
    }
    let each = zip::members(bytes, limits, &ZIP)?.into_iter().map(|member| {
        let name = member.name.strip_suffix(".npy").ok_or_else(|| {
            Problem::new("not-npy", "is not the name of an array, which ends in .npy").tensor(&member.name)
        })?;
        array(bytes, name, member.offset, member.length)
    });
    each.collect()
}

fn array(bytes: &dyn Bytes, name: &str, start: u64, length: u64) -> Result<Array, Problem> {
    let place = |problem: Problem| problem.tensor(name).offset(start);
    let head = bytes.read(start, length.min(12) as usize)?;
    let whole = npy::header_length(&head, length).map_err(place)?;
    let header = npy::parse(&bytes.read(start, whole)?, length).map_err(place)?;
    Ok(Array { name: name.into(), offset: start + header.data_start, header })
}

impl Container for Npz {
    fn name(&self) -> &'static str {
        "npz"
    }

    fn description(&self) -> &'static str {
        "NumPy: one array (.npy) or an uncompressed archive of them (.npz)"
    }

    fn convention(&self) -> Convention {
        Convention::Hf
    }

    fn detect(&self, probe: &Probe) -> bool {
        // Other zips (PyTorch's) begin with a member of another kind.
        let name_length = probe.head.get(26..28).map_or(0, |b| usize::from(b[0]) | usize::from(b[1]) << 8);
        let name = probe.head.get(30..).and_then(|rest| rest.get(..name_length));
        let archive = probe.head.starts_with(b"PK\x03\x04") && name.is_some_and(|n| n.ends_with(b".npy"));
        archive || probe.head.starts_with(b"\x93NUMPY")
    }

    fn open(&self, path: &Path, limits: &Limits) -> Result<Source, Error> {
        let mut builder = SourceBuilder::new(self.name(), "", path, limits);
        let (part, arrays) = read(path, limits, &mut builder)?;
        for array in arrays {
            let extent = Extent { part, offset: array.offset, length: array.header.length };
            builder.tensor(array.name, Element::Plain(array.header.dtype), array.header.shape, vec![extent])?;
        }
        Ok(builder.build())
    }

    fn verify(&self, source: &Source, limits: &Limits) -> Result<Vec<Problem>, Error> {
        verify_checksums(source.path(), limits)
    }

    fn can_hold(&self, element: &Element) -> bool {
        element.dtype().is_some_and(|dtype| npy::descr(dtype).is_some())
    }

    fn layout(&self, target: &Target) -> Result<Layout, Error> {
        if target.part_size.is_some() {
            return Err(Error::Layout(
                "an npz is one file and has no parts: write safetensors, or leave --part-size out".into(),
            ));
        }
        let mut names = HashSet::new();
        let (mut members, mut lengths) = (Vec::new(), Vec::new());
        for tensor in &target.tensors {
            if !names.insert(&tensor.name) {
                return Err(Error::Layout(format!("two arrays would be called {:?}", tensor.name)));
            }
            let dtype = tensor.element.dtype();
            let head = dtype.and_then(|dtype| npy::write(dtype, &tensor.shape));
            let (Some(dtype), Some(head)) = (dtype, head) else {
                return Err(crate::safetensors::cannot_hold(self.name(), &tensor.element, &tensor.name));
            };
            let bytes = crate::safetensors::write::plain(tensor, dtype)?.bytes;
            let length = bytes.checked_add(head.len() as u64);
            let length = length.ok_or_else(|| Error::Layout(format!("tensor {:?} is too large", tensor.name)))?;
            lengths.push((head.len() as u64, bytes));
            members.push(Member { name: format!("{}.npy", tensor.name), head, length });
        }
        let (part, offsets) = archive::lay(String::new(), members, ALIGNMENT)?;
        let extent =
            |(offset, (head, length)): (u64, (u64, u64))| vec![Extent { part: 0, offset: offset + head, length }];
        let keys = target.metadata.iter().map(|(key, _)| key).filter(|key| *key != "format");
        let left_out = keys.chain(target.files.iter().map(|(name, _)| name.as_str())).map(String::from).collect();
        let tensors = offsets.into_iter().zip(lengths).map(extent).collect();
        Ok(Layout { parts: vec![part], tensors, left_out, ..Layout::default() })
    }
}

/// Reads all members and compares their checksums.
pub(crate) fn verify_checksums(path: &Path, limits: &Limits) -> Result<Vec<Problem>, Error> {
    let file = crate::files::open(path)?;
    let refuse = |problem| Error::refused(path, problem);
    if file.length() >= 6 && file.read(0, 6).map_err(refuse)? == b"\x93NUMPY" {
        return Ok(Vec::new());
    }
    let members = zip::members(&file, limits, &ZIP).map_err(refuse)?;
    zip::verify(&file, &members).map_err(refuse)
}
