//! An opened model: what is where, all of it checked against the files, nothing read but headers.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_quant::Packing;
use windlass_quant::arrange::{ArrangementRef, Stored};
use windlass_tensor::{Element, Limits, Metadata};

use crate::{Error, Problem};

/// A model on disk, opened. Every extent lies inside its part and has the length that element and shape demand; names
/// are unique. Only [`SourceBuilder`] makes one, so later layers need not check again.
#[derive(Debug, Clone)]
pub struct Source {
    container: &'static str,
    version: String,
    path: PathBuf,
    parts: Vec<Part>,
    tensors: Vec<Entry>,
    by_name: BTreeMap<String, usize>,
    metadata: Metadata,
    side_files: BTreeMap<String, PathBuf>,
}

/// One file that holds tensors.
#[derive(Debug, Clone)]
pub struct Part {
    path: PathBuf,
    length: u64,
    file: Arc<File>,
}

/// One tensor: its name as the container spells it, and where its planes lie.
#[derive(Debug, Clone)]
pub struct Entry {
    name: String,
    element: Element,
    shape: Vec<usize>,
    planes: Vec<Extent>,
    arrangement: Option<ArrangementRef>,
}

/// A range of bytes in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub part: usize,
    pub offset: u64,
    pub length: u64,
}

impl Source {
    /// Name of the container: `gguf`, `safetensors`, `mlx`.
    pub fn container(&self) -> &'static str {
        self.container
    }

    /// Version of the container, as it writes it; empty where it has none.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Tensors in the container's own order.
    pub fn tensors(&self) -> &[Entry] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|i| &self.tensors[*i])
    }

    /// What the container says beside its tensors (GGUF keys, `__metadata__` of safetensors).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Side files of a folder (config.json, tokenizer.json, ...): name to path.
    pub fn side_files(&self) -> &BTreeMap<String, PathBuf> {
        &self.side_files
    }

    /// Reads a whole side file; `None` where there is none.
    pub fn side_file(&self, name: &str, limits: &Limits) -> Result<Option<Vec<u8>>, Error> {
        self.side_files.get(name).map(|path| crate::files::read_small(path, limits.side_file_bytes)).transpose()
    }

    /// Reads `buffer.len()` bytes of plane `plane` of `entry`, `offset` bytes from its beginning.
    pub fn read(&self, entry: &Entry, plane: usize, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let fail = |message: String| Error::refused(&self.path, Problem::new("range", message).tensor(&entry.name));
        let extent = entry.planes.get(plane).ok_or_else(|| fail(format!("has no plane {plane}")))?;
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > extent.length) {
            return Err(fail(format!("has {} bytes, {} from {offset} were asked for", extent.length, buffer.len())));
        }
        let part = &self.parts[extent.part];
        crate::files::read_exact_at(&part.file, buffer, extent.offset + offset).map_err(|source| {
            if source.kind() == std::io::ErrorKind::UnexpectedEof {
                let message = "the file became shorter while it was read".to_string();
                return Error::refused(
                    &part.path,
                    Problem::new("shrunk", message).tensor(&entry.name).offset(extent.offset + offset),
                );
            }
            Error::io(&part.path, source)
        })
    }

    /// Reads rows `first..first + rows`, counted over all dimensions but the last (of `columns` values; a vector may be
    /// counted as rows of one), one buffer for each plane of the element. `first` is a multiple of
    /// [`Entry::row_granularity`], the end too unless it is the last row.
    pub fn read_rows(
        &self,
        entry: &Entry,
        columns: usize,
        first: usize,
        rows: usize,
        planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        let fail = |message: String| Error::refused(&self.path, Problem::new("range", message).tensor(&entry.name));
        let packing = match &entry.element {
            Element::Plain(dtype) => {
                let row = (columns * dtype.size()) as u64;
                return planes.iter_mut().try_for_each(|plane| self.read(entry, 0, first as u64 * row, plane));
            }
            Element::Packed(packing) => packing,
        };
        if let Some(arrangement) = &entry.arrangement {
            let packing = packing.as_any().downcast_ref::<Packing>();
            let packing = packing.ok_or_else(|| fail(format!("{} has no arrangement", entry.element.name())))?;
            let arrays = Arrays { source: self, entry };
            let gathered = arrangement.gather(packing, &entry.shape, first..first + rows, &arrays, planes);
            return gathered.map_err(|e| self.gather_error(entry, e));
        }
        let ranges = packing.plane_ranges(columns, first, rows).map_err(fail)?;
        let ranges = ranges.into_iter().zip(planes).enumerate();
        ranges.into_iter().try_for_each(|(i, ((offset, _), plane))| self.read(entry, i, offset, plane))
    }

    /// An error of an arrangement is either one of ours on its way through, or what the arrangement found wrong.
    fn gather_error(&self, entry: &Entry, error: std::io::Error) -> Error {
        let message = error.to_string();
        match error.into_inner().map(|e| e.downcast::<Error>()) {
            Some(Ok(ours)) => *ours,
            _ => Error::refused(&self.path, Problem::new("bad-planes", message).tensor(&entry.name)),
        }
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(Entry::bytes).sum()
    }
}

impl Part {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for advice about reads to come.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the whole file when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl Entry {
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

    /// Number of values.
    pub fn values(&self) -> u64 {
        self.shape.iter().map(|d| *d as u64).product()
    }

    /// Product of all dimensions but the last; 1 for a vector.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// The last dimension; 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// How the planes are stored, where that is not plane by plane and row after row.
    pub fn arrangement(&self) -> Option<&ArrangementRef> {
        self.arrangement.as_ref()
    }

    /// Number of rows, of `columns` values each, that a range to be read begins at a multiple of.
    pub fn row_granularity(&self, columns: usize) -> usize {
        let Element::Packed(packing) = &self.element else { return 1 };
        let own = packing.row_granularity(columns).unwrap_or_else(|| self.rows());
        let arranged = self.arrangement.as_ref().zip(packing.as_any().downcast_ref::<Packing>());
        arranged.map_or(own, |(arrangement, packing)| arrangement.granularity(packing, columns)).max(1)
    }

    /// One extent for a plain tensor, one per plane for a packed one; of an arranged one, one for each stored array.
    pub fn planes(&self) -> &[Extent] {
        &self.planes
    }

    /// Bytes of all planes.
    pub fn bytes(&self) -> u64 {
        self.planes.iter().map(|p| p.length).sum()
    }
}

/// The stored arrays of an arranged tensor.
struct Arrays<'a> {
    source: &'a Source,
    entry: &'a Entry,
}

impl Stored for Arrays<'_> {
    fn read(&self, array: usize, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.source.read(self.entry, array, offset, buffer).map_err(std::io::Error::other)
    }

    fn write(&self, _array: usize, _offset: u64, _bytes: &[u8]) -> std::io::Result<()> {
        Err(std::io::Error::other("a source is not written to"))
    }
}

/// Collects what a reader found and checks each piece as it comes.
pub struct SourceBuilder {
    source: Source,
    limits: Limits,
    total: u64,
}

impl SourceBuilder {
    /// Starts a source of `container` at `path`.
    pub fn new(container: &'static str, version: impl Into<String>, path: &Path, limits: &Limits) -> Self {
        let source = Source {
            container,
            version: version.into(),
            path: path.into(),
            parts: Vec::new(),
            tensors: Vec::new(),
            by_name: BTreeMap::new(),
            metadata: Metadata::new(),
            side_files: BTreeMap::new(),
        };
        Self { source, limits: limits.clone(), total: 0 }
    }

    /// The file or folder that is being opened.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// Adds a file and gives its index.
    pub fn part(&mut self, path: &Path, file: Arc<File>) -> Result<usize, Error> {
        let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
        if self.source.parts.len() >= self.limits.parts {
            let message = format!("more than {} parts", self.limits.parts);
            return Err(Error::refused(path, Problem::new("too-many-parts", message)));
        }
        self.source.parts.push(Part { path: path.into(), length, file });
        Ok(self.source.parts.len() - 1)
    }

    /// Length of a part that was added.
    pub fn part_length(&self, part: usize) -> u64 {
        self.source.parts.get(part).map_or(0, |p| p.length)
    }

    /// Adds a tensor after checking its name, shape, size and extents.
    pub fn tensor(
        &mut self,
        name: String,
        element: Element,
        shape: Vec<usize>,
        planes: Vec<Extent>,
    ) -> Result<(), Error> {
        let expected = expected_bytes(&element, &shape);
        self.add(Entry { name, element, shape, planes, arrangement: None }, expected)
    }

    /// Adds a packed tensor whose planes are stored in an arrangement of their own, an extent for each of its arrays.
    pub fn arranged(
        &mut self,
        name: String,
        packing: Packing,
        arrangement: ArrangementRef,
        shape: Vec<usize>,
        arrays: Vec<Extent>,
    ) -> Result<(), Error> {
        let sizes = |array: windlass_quant::arrange::Array| {
            Ok(expected_bytes(&array.dtype.into(), &array.shape)?.into_iter().sum())
        };
        let expected = arrangement
            .arrays(&packing, &shape)
            .and_then(|arrays| arrays.into_iter().map(sizes).collect::<Result<Vec<u64>, String>>())
            .and_then(|sizes| expected_bytes(&packing.element(), &shape).map(|_| sizes));
        let element = packing.element();
        self.add(Entry { name, element, shape, planes: arrays, arrangement: Some(arrangement) }, expected)
    }

    /// Bytes of a range of a part that was added: for small arrays that say how others are to be read.
    pub fn read(&self, extent: &Extent, limits: &Limits) -> Result<Vec<u8>, Problem> {
        let part = self.source.parts.get(extent.part);
        let part = part.ok_or_else(|| Problem::new("wrong-part", format!("part {} does not exist", extent.part)))?;
        if extent.length > limits.side_file_bytes || extent.offset.saturating_add(extent.length) > part.length {
            let message = format!("{} bytes at offset {} are more than can be read", extent.length, extent.offset);
            return Err(Problem::new("range", message));
        }
        let mut bytes = vec![0; extent.length as usize];
        let read = crate::files::read_exact_at(&part.file, &mut bytes, extent.offset);
        read.map_err(|e| Problem::new("range", e.to_string()).offset(extent.offset)).map(|()| bytes)
    }

    fn add(&mut self, entry: Entry, expected: Result<Vec<u64>, String>) -> Result<(), Error> {
        let planes = &entry.planes;
        let path = match planes.first().and_then(|p| self.source.parts.get(p.part)) {
            Some(part) => part.path.clone(),
            None => self.source.path.clone(),
        };
        let offset = planes.first().map_or(0, |p| p.offset);
        self.check_tensor(&entry, expected)
            .map_err(|problem| Error::refused(&path, problem.tensor(&entry.name).offset(offset)))?;
        self.total += entry.bytes();
        self.source.by_name.insert(entry.name.clone(), self.source.tensors.len());
        self.source.tensors.push(entry);
        Ok(())
    }

    fn check_tensor(&self, entry: &Entry, expected: Result<Vec<u64>, String>) -> Result<(), Problem> {
        let Entry { name, element, shape, planes, .. } = entry;
        let limits = &self.limits;
        let refuse = |code, message: String| Err(Problem::new(code, message));
        if name.is_empty() || name.len() > limits.name_bytes || name.contains('\0') {
            return refuse("bad-name", format!("a name has 1 to {} bytes and no zero byte", limits.name_bytes));
        }
        if self.source.by_name.contains_key(name) {
            return refuse("duplicate-tensor", "there are two tensors of this name".into());
        }
        if self.source.tensors.len() as u64 >= limits.tensors {
            return refuse("too-many-tensors", format!("more than {} tensors", limits.tensors));
        }
        if shape.len() > limits.dimensions {
            return refuse("too-many-dimensions", format!("{} dimensions, at most {}", shape.len(), limits.dimensions));
        }
        // A dimension of zero must not hide others that nothing could count through.
        let size = shape.iter().try_fold(1u64, |n, d| n.checked_mul((*d).max(1) as u64));
        let most = if shape.contains(&0) { 1 << 32 } else { limits.total_bytes };
        if size.is_none_or(|n| n > most) {
            return refuse("bad-shape", format!("shape {shape:?} is too large"));
        }
        let expected = expected.map_err(|message| Problem::new("bad-shape", message))?;
        if expected.len() != planes.len() {
            return refuse("bad-planes", format!("expected {} planes, found {}", expected.len(), planes.len()));
        }
        let mut total = self.total;
        for (extent, expected) in planes.iter().zip(expected) {
            let length = self.source.parts.get(extent.part).map(|p| p.length);
            let Some(length) = length else {
                return refuse("wrong-part", format!("part {} does not exist", extent.part));
            };
            if extent.length != expected {
                let message = format!("{element:?} of shape {shape:?} has {expected} bytes, found {}", extent.length);
                return refuse("wrong-size", message);
            }
            if extent.offset.checked_add(extent.length).is_none_or(|end| end > length) {
                let message = format!(
                    "{} bytes at offset {} reach past the end of the file ({length} bytes): it is truncated or half downloaded",
                    extent.length, extent.offset
                );
                return refuse("truncated", message);
            }
            total = total.saturating_add(extent.length);
        }
        if total > limits.total_bytes {
            return refuse("too-large", format!("all tensors together have more than {} bytes", limits.total_bytes));
        }
        Ok(())
    }

    /// Sets what the container says about the model.
    pub fn metadata(&mut self, metadata: Metadata) {
        self.source.metadata = metadata;
    }

    /// Adds a side file that exists beside the parts.
    pub fn side_file(&mut self, name: impl Into<String>, path: PathBuf) {
        self.source.side_files.insert(name.into(), path);
    }

    /// The finished source.
    pub fn build(self) -> Source {
        self.source
    }
}

/// Bytes of each plane of a tensor, computed without overflow, or why the shape is impossible.
pub fn expected_bytes(element: &Element, shape: &[usize]) -> Result<Vec<u64>, String> {
    let too_large = || format!("shape {shape:?} is too large");
    let values = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64)).ok_or_else(too_large)?;
    match element {
        Element::Plain(dtype) => Ok(vec![values.checked_mul(dtype.size() as u64).ok_or_else(too_large)?]),
        Element::Packed(layout) => layout.plane_bytes(shape),
    }
}
