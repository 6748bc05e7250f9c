//! Loading a model to run it: weights straight from the mapped file, in whatever scheme they have.

use std::collections::HashMap;
use std::sync::Arc;

use windlass_formats::{Entry, Part, Source, container};
use windlass_models::{Decoder, Weights};
use windlass_runtime::memory::Pool;
use windlass_runtime::system;
use windlass_tensor::storage::{HostBuffer, MappedFile};
use windlass_tensor::{Element, Storage, Tensor};

use crate::rows::{Reader, rows_and_columns};
use crate::{Code, Error, Model, Result};

/// How many values of an arranged tensor are put in order at a time.
const BLOCK: usize = 1 << 20;

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Tokens that the model is to remember; by default as many as it was trained with, at most 4096.
    pub context: Option<usize>,
    /// Whether to copy the weights into memory (with huge pages where the system has them) instead of using them where
    /// they lie in the file.
    pub resident: bool,
}

/// A decoder whose weights are in memory, or mapped.
pub struct Loaded {
    pub decoder: Decoder,
    /// Tokens that it is to remember.
    pub context: usize,
}

/// Maps the weights of a model and puts its graph together.
pub fn load(model: &Model, options: &Options) -> Result<Loaded> {
    let identity = model.identity()?;
    let source = &model.source;
    let convention = container(source.container()).map_or(windlass_catalog::Convention::Hf, |c| c.convention());
    let maps = source.parts().iter().map(|part| {
        if options.resident {
            return copied(part);
        }
        let map = MappedFile::map(part.file(), part.path(), part.length())?;
        Ok(Storage::from_arc(Arc::new(map)))
    });
    let maps: Vec<Storage> = maps.collect::<Result<_>>()?;
    let mut tensors: HashMap<&str, Tensor> = HashMap::new();
    for entry in source.tensors() {
        let tensor = match entry.arrangement() {
            Some(_) => put_in_order(source, entry)?,
            None => mapped(entry, &maps)?,
        };
        tensors.insert(entry.name(), tensor);
    }
    let weights = Weights::find(identity.architecture, &identity.hyper, convention, |name| tensors.get(name).cloned());
    let weights = weights.map_err(|e| Error::from(e).at(source.path()))?;
    let trained = identity.hyper.context();
    let context = options.context.unwrap_or(trained.min(4096));
    let decoder = Decoder::new(identity.architecture, identity.hyper.clone(), weights, context);
    Ok(Loaded { decoder: decoder.map_err(|e| Error::from(e).at(source.path()))?, context })
}

/// The whole of a part, in memory.
fn copied(part: &Part) -> Result<Storage> {
    let length = part.length() as usize;
    let mut buffer = windlass_ops::pool().try_take("weights", length)?;
    system::read_exact_at(part.file(), &mut buffer, 0).map_err(|e| Error::io(part.path(), e))?;
    Ok(Storage::new(buffer))
}

/// A tensor whose planes lie in the file as the graph reads them.
fn mapped(entry: &Entry, maps: &[Storage]) -> Result<Tensor> {
    let plane =
        |extent: &windlass_formats::Extent| maps[extent.part].slice(extent.offset as usize, extent.length as usize);
    let planes = entry.planes().iter().map(plane).collect::<std::result::Result<Vec<_>, _>>()?;
    tensor(entry, planes)
}

/// A tensor whose planes are stored in an order of their own: read and put in order, in memory.
fn put_in_order(source: &Source, entry: &Entry) -> Result<Tensor> {
    let (rows, columns) = rows_and_columns(entry.shape());
    let granule = entry.row_granularity(columns);
    let at_once = (BLOCK / columns.max(1)).max(1).next_multiple_of(granule);
    let sizes = crate::rows::ranges(entry.element(), columns, 0, rows);
    let buffers = sizes.iter().map(|(_, bytes)| HostBuffer::zeroed(*bytes as usize));
    let mut buffers = buffers.collect::<std::result::Result<Vec<_>, _>>()?;
    let pool = Pool::new(u64::MAX);
    let reader = Reader { source, pool: &pool, waits: false };
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        let planes = reader.planes(entry, columns, first, count)?;
        let ranges = crate::rows::ranges(entry.element(), columns, first, count);
        for ((buffer, plane), (offset, bytes)) in buffers.iter_mut().zip(&planes).zip(ranges) {
            buffer.as_mut_slice()[offset as usize..(offset + bytes) as usize].copy_from_slice(plane);
        }
    }
    tensor(entry, buffers.into_iter().map(Storage::new).collect())
}

fn tensor(entry: &Entry, mut planes: Vec<Storage>) -> Result<Tensor> {
    let tensor = match entry.element() {
        Element::Packed(packing) => Tensor::packed(packing.clone(), entry.shape().to_vec(), planes),
        Element::Plain(dtype) => match planes.pop() {
            Some(plane) => Tensor::new(plane, *dtype, entry.shape().to_vec()),
            None => return Err(Error::new(Code::Refused, "has no values").tensor(entry.name())),
        },
    };
    tensor.map_err(|e| Error::from(e).tensor(entry.name()))
}
