//! The arrays of a tensor of Quanto's.

use std::io;
use std::ops::Range;

use crate::arrange::{Arrangement, Array, Stored};
use crate::slots::Slots;
use crate::{Grid, Packing};

/// Chooses by the number of bits.
pub(super) struct Quanto;

static GROUPS: Slots = Slots { names: ["_data._data", "_scale", "_shift"], first_highest: false };

fn grouped(packing: &Packing) -> bool {
    matches!(packing.scheme.grid(), Grid::Affine { bits: 2 | 4, .. })
}

impl Arrangement for Quanto {
    fn arrays(&self, packing: &Packing, shape: &[usize]) -> Result<Vec<Array>, String> {
        if grouped(packing) {
            return GROUPS.arrays(packing, shape);
        }
        let (Some((_, rows)), [data, scale]) = (shape.split_last(), packing.scheme.planes()) else {
            return Err(format!("{} of shape {shape:?} is not a matrix with a scale per row", packing.scheme.name()));
        };
        let scales = rows.iter().copied().chain([1]).collect();
        Ok(vec![
            Array { name: "_data", dtype: packing.plane_type(data), shape: shape.to_vec() },
            Array { name: "_scale", dtype: packing.plane_type(scale), shape: scales },
        ])
    }

    fn gather(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        stored: &dyn Stored,
        planes: &mut [&mut [u8]],
    ) -> io::Result<()> {
        if grouped(packing) {
            return GROUPS.gather(packing, shape, rows, stored, planes);
        }
        for (i, plane) in planes.iter_mut().enumerate() {
            stored.read(i, start(plane.len(), &rows), plane)?;
        }
        Ok(())
    }

    fn can_scatter(&self) -> bool {
        true
    }

    fn scatter(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        planes: &[&[u8]],
        stored: &dyn Stored,
    ) -> io::Result<()> {
        if grouped(packing) {
            return GROUPS.scatter(packing, shape, rows, planes, stored);
        }
        for (i, plane) in planes.iter().enumerate() {
            stored.write(i, start(plane.len(), &rows), plane)?;
        }
        Ok(())
    }
}

/// Where rows begin whose bytes are so many.
fn start(bytes: usize, rows: &Range<usize>) -> u64 {
    (bytes / rows.len().max(1) * rows.start) as u64
}
