//! Weights where they lie in the mapped file.

use std::collections::HashMap;
use std::sync::Arc;

use windlass_catalog::Convention;
use windlass_formats::{Entry, Extent, Source, container};
use windlass_runtime::memory::Pool;
use windlass_tensor::storage::{HostBuffer, MappedFile};
use windlass_tensor::{Storage, Tensor};

use super::Placed;
use crate::convert::tensor;
use crate::rows::{Reader, ranges, rows_and_columns};
use crate::{Model, Result};

/// How many values of an arranged tensor are put in order at a time.
const BLOCK: usize = 1 << 20;

/// Maps the files of a model.
pub fn place(model: &Model) -> Result<Placed> {
    let source = &model.source;
    let maps = Maps::of(source)?;
    let tensors = source.tensors().iter().map(|entry| Ok((entry.name().to_string(), maps.tensor(source, entry)?)));
    let tensors = tensors.collect::<Result<HashMap<_, _>>>()?;
    Ok(Placed::new(tensors, convention(source), model.identity()?.hyper.clone()))
}

/// The convention of a model's names.
pub fn convention(source: &Source) -> Convention {
    container(source.container()).map_or(Convention::Hf, |c| c.convention())
}

/// The mapped files of a model.
pub struct Maps(Vec<Storage>);

impl Maps {
    /// Maps all parts. Nothing is read.
    pub fn of(source: &Source) -> Result<Maps> {
        let map = |part: &windlass_formats::Part| {
            Ok(Storage::from_arc(Arc::new(MappedFile::map(part.file(), part.path(), part.length())?)))
        };
        source.parts().iter().map(map).collect::<Result<_>>().map(Maps)
    }

    /// A tensor where it lies; one whose planes are stored in an order of their own is put in order in memory.
    pub fn tensor(&self, source: &Source, entry: &Entry) -> Result<Tensor> {
        if entry.arrangement().is_some() {
            return put_in_order(source, entry);
        }
        let plane = |extent: &Extent| self.0[extent.part].slice(extent.offset as usize, extent.length as usize);
        let planes = entry.planes().iter().map(plane).collect::<std::result::Result<Vec<_>, _>>()?;
        tensor(entry.element(), entry.shape(), planes, entry.name())
    }
}

fn put_in_order(source: &Source, entry: &Entry) -> Result<Tensor> {
    let (rows, columns) = rows_and_columns(entry.shape());
    let granule = entry.row_granularity(columns);
    let at_once = (BLOCK / columns.max(1)).max(1).next_multiple_of(granule);
    let buffers = ranges(entry.element(), columns, 0, rows);
    let buffers = buffers.iter().map(|(_, bytes)| HostBuffer::zeroed(*bytes as usize));
    let mut buffers = buffers.collect::<std::result::Result<Vec<_>, _>>()?;
    let pool = Pool::new(u64::MAX);
    let reader = Reader { source, pool: &pool, waits: false };
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        let planes = reader.planes(entry, columns, first, count)?;
        let ranges = ranges(entry.element(), columns, first, count);
        for ((buffer, plane), (offset, bytes)) in buffers.iter_mut().zip(&planes).zip(ranges) {
            buffer.as_mut_slice()[offset as usize..(offset + bytes) as usize].copy_from_slice(plane);
        }
    }
    let planes = buffers.into_iter().map(Storage::new).collect();
    tensor(entry.element(), entry.shape(), planes, entry.name())
}
