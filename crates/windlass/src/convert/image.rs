//! A conversion into memory: the tensors of a model, in its own schemes or in another, one after the other.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use windlass_catalog::{Convention, Hyper};
use windlass_formats::{ContainerRef, Extent, Layout, container};
use windlass_runtime::memory::Pool;
use windlass_runtime::pipeline;
use windlass_tensor::{Bytes, Element, Storage, Tensor};

use super::blocks::{Blocks, Piece, Sink};
use super::{Options, Watch, names, planning};
use crate::{Code, Error, Model, Result};

/// Planes begin at multiples of this many bytes: a cache line, and the widest vector.
const ALIGNMENT: u64 = 64;

/// What a model looks like in memory, planned before anything is read.
///
/// With a scheme it is, to the bit, what a file converted to that scheme would hold.
pub(crate) struct Image<'a> {
    model: &'a Model,
    pieces: Vec<Piece>,
    /// In which the tensors are named and ordered.
    pub convention: Convention,
    bytes: u64,
}

impl<'a> Image<'a> {
    /// The tensors as they are, or in `scheme`.
    pub fn plan(model: &'a Model, scheme: Option<&str>) -> Result<Image<'a>> {
        let own = container(model.source.container());
        let Some(scheme) = scheme else {
            let outputs = names::keep_names(&model.source);
            let elements = model.source.tensors().iter().map(|entry| entry.element().clone()).collect();
            return Self::of(model, outputs, elements, own.map_or(Convention::Hf, |c| c.convention()));
        };
        let options = Options { scheme: Some(scheme.into()), ..Options::default() };
        let mut refusal = None;
        for container in candidates(own) {
            let outputs = planning::outputs(model, container)?;
            match planning::elements(model, &outputs, container, &options, false, &mut Vec::new()) {
                Ok((elements, _)) => return Self::of(model, outputs, elements, container.convention()),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or_else(|| Error::new(Code::Failed, "no container is registered")))
    }

    fn of(
        model: &'a Model,
        outputs: Vec<names::Output>,
        elements: Vec<Element>,
        convention: Convention,
    ) -> Result<Image<'a>> {
        let (mut end, mut planes) = (0u64, 0);
        let mut tensors = Vec::with_capacity(outputs.len());
        for (output, element) in outputs.iter().zip(&elements) {
            let refused = |why: String| Error::new(Code::Refused, why).at(model.source.path()).tensor(&output.name);
            let mut extents = Vec::new();
            for length in windlass_formats::expected_bytes(element, &output.shape).map_err(refused)? {
                extents.push(Extent { part: planes, offset: 0, length });
                planes += 1;
                let room = length.checked_next_multiple_of(ALIGNMENT).and_then(|room| end.checked_add(room));
                end = room.ok_or_else(|| refused("the model is larger than memory can be".into()))?;
            }
            tensors.push(extents);
        }
        let layout = Layout { tensors, ..Layout::default() };
        let mut pieces = planning::pieces(model, outputs, elements, &layout, None, false)?;
        // Errors are for those who write a file.
        pieces.iter_mut().for_each(|piece| piece.measure = false);
        Ok(Image { model, pieces, convention, bytes: end })
    }

    /// Bytes of all planes, gaps included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hyper-parameters, as the tensors of this image say.
    pub fn hyper(&self) -> Result<Hyper> {
        let identity = self.model.identity()?;
        let has = |name: &str| self.pieces.iter().any(|piece| piece.output.name == name);
        Ok(identity.architecture.settle(identity.hyper.clone(), self.convention, has))
    }

    /// Bytes that one worker needs beside the image.
    pub fn memory_per_worker(&self) -> u64 {
        Blocks::memory_per_step(&self.model.source, &self.pieces)
    }

    /// Writes all tensors to `target`, which has [`Image::bytes`] bytes, with `threads` workers.
    pub fn fill(&self, target: &mut [u8], threads: usize, watch: &Watch) -> Result<()> {
        let sink = Planes::cut(target, &self.pieces)?;
        let pool = Pool::new(self.memory_per_worker().saturating_mul(threads as u64));
        let blocks = Blocks::new(&self.model.source, &self.pieces, &sink, &pool, None);
        let options = pipeline::Options { threads, stop: watch.stop, progress: watch.progress, ahead: 8 };
        let done = blocks.tally(&options).and_then(|()| pipeline::run(&blocks, &options));
        done.map(|_| ()).map_err(|error| Error { resumable: false, ..error })
    }

    /// The tensors by name; `storage` holds what [`Image::fill`] wrote.
    pub fn tensors(&self, storage: &Storage) -> Result<HashMap<String, Tensor>> {
        let mut at = 0;
        let mut tensors = HashMap::new();
        for piece in &self.pieces {
            let mut planes = Vec::new();
            for extent in &piece.extents {
                planes.push(storage.slice(at as usize, extent.length as usize)?);
                at += extent.length.next_multiple_of(ALIGNMENT);
            }
            let tensor = tensor(&piece.element, &piece.output.shape, planes, &piece.output.name)?;
            tensors.insert(piece.output.name.clone(), tensor);
        }
        Ok(tensors)
    }
}

/// A tensor of planes in memory.
pub(crate) fn tensor(element: &Element, shape: &[usize], mut planes: Vec<Storage>, name: &str) -> Result<Tensor> {
    let tensor = match element {
        Element::Packed(packing) => Tensor::packed(packing.clone(), shape.to_vec(), planes),
        Element::Plain(dtype) => match planes.pop() {
            Some(plane) => Tensor::new(plane, *dtype, shape.to_vec()),
            None => return Err(Error::new(Code::Refused, "has no values").tensor(name)),
        },
    };
    tensor.map_err(|e| Error::from(e).tensor(name))
}

/// Containers whose choice of schemes is asked for, the model's own first.
fn candidates(own: Option<ContainerRef>) -> Vec<ContainerRef> {
    let mut all: Vec<ContainerRef> = own.into_iter().collect();
    for name in ["safetensors", "gguf", "mlx"] {
        all.extend(container(name).filter(|c| own.is_none_or(|own| own.name() != c.name())));
    }
    all
}

/// Memory cut into planes, each written by one worker at a time.
struct Planes<'a>(Vec<Mutex<&'a mut [u8]>>);

impl<'a> Planes<'a> {
    fn cut(target: &'a mut [u8], pieces: &[Piece]) -> Result<Self> {
        let (found, mut rest, mut planes) = (target.len(), target, Vec::new());
        for extent in pieces.iter().flat_map(|piece| &piece.extents) {
            let whole = extent.length.next_multiple_of(ALIGNMENT) as usize;
            let Some((plane, after)) = rest.split_at_mut_checked(whole) else {
                return Err(Error::new(Code::Failed, format!("{} do not hold the tensors", Bytes(found as u64))));
            };
            let (plane, _) = plane.split_at_mut(extent.length as usize);
            planes.push(Mutex::new(plane));
            rest = after;
        }
        Ok(Planes(planes))
    }

    fn with(&self, part: usize, offset: u64, count: usize, work: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let plane = self.0.get(part).ok_or(io::ErrorKind::NotFound)?;
        let mut plane = plane.lock().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = from.checked_add(count).and_then(|end| plane.get_mut(from..end));
        work(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Sink for Planes<'_> {
    fn read(&self, part: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.with(part, offset, buffer.len(), |bytes| buffer.copy_from_slice(bytes))
    }

    fn write(&self, part: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(part, offset, bytes.len(), |plane| plane.copy_from_slice(bytes))
    }
}

/// What tells one image from another that processes share: the files as they are now, and the scheme.
pub(crate) fn fingerprint(model: &Model, scheme: Option<&str>) -> String {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    for part in model.source.parts() {
        let about = part.file().metadata();
        let modified = about.and_then(|m| m.modified()).ok();
        let path: &Path = part.path();
        (path.canonicalize().unwrap_or_else(|_| path.into()), part.length(), modified).hash(&mut hasher);
    }
    (scheme, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
