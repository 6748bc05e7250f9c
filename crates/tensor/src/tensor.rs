//! The tensor: a cheap handle on storage.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::{DType, Element, Error, Layout, PackedLayout, Provenance, Scalar, Shape, Storage};

/// Values of some element type in some storage. Cloning and viewing copy handles, never data.
///
/// A plain tensor has one storage. A packed one has a storage per plane; its layout counts values, and its views cut
/// where the packing allows: rows at the packing's row granularity, columns at block borders.
#[derive(Clone)]
pub struct Tensor {
    planes: Arc<[Storage]>,
    layout: Layout,
    element: Element,
    provenance: Provenance,
}

impl Tensor {
    /// A plain tensor whose rows follow each other from the beginning of `storage`, which must have exactly its bytes.
    pub fn new(storage: Storage, dtype: DType, shape: impl Into<Vec<usize>>) -> Result<Self, Error> {
        let shape = Shape::new(shape)?;
        let bytes = shape.bytes(dtype.size())?;
        if storage.len() != bytes {
            let message = format!("{dtype} of shape {shape:?} has {bytes} bytes, the storage {}", storage.len());
            return Err(Error::Argument(message));
        }
        Ok(Self::of(vec![storage], Layout::contiguous(shape), dtype.into()))
    }

    /// A plain tensor with any layout that stays within `storage`.
    pub fn with_layout(storage: Storage, dtype: DType, layout: Layout) -> Result<Self, Error> {
        let end = layout.end().checked_mul(dtype.size());
        if end.is_none_or(|end| end > storage.len()) {
            let message = format!("{layout:?} of {dtype} reaches past the {} bytes of the storage", storage.len());
            return Err(Error::Argument(message));
        }
        Ok(Self::of(vec![storage], layout, dtype.into()))
    }

    /// A packed tensor; `planes` in the packing's order, each with exactly the bytes that the shape demands.
    pub fn packed(
        packing: Arc<dyn PackedLayout>,
        shape: impl Into<Vec<usize>>,
        planes: Vec<Storage>,
    ) -> Result<Self, Error> {
        let shape = Shape::new(shape)?;
        if packing.block() == 0 {
            return Err(Error::Argument(format!("{} has blocks of no values", packing.name())));
        }
        let expected = plane_bytes(&*packing, &shape)?;
        let found: Vec<usize> = planes.iter().map(Storage::len).collect();
        if expected != found {
            let message =
                format!("{} of shape {shape:?} has planes of {expected:?} bytes, found {found:?}", packing.name());
            return Err(Error::Argument(message));
        }
        Ok(Self::of(planes, Layout::contiguous(shape), Element::Packed(packing)))
    }

    /// A copy of `values` in host memory.
    pub fn from_slice<T: Scalar>(values: &[T], shape: impl Into<Vec<usize>>) -> Result<Self, Error> {
        Self::new(Storage::copy_of(bytemuck::cast_slice(values))?, T::dtype(), shape)
    }

    fn of(planes: Vec<Storage>, layout: Layout, element: Element) -> Self {
        Self { planes: planes.into(), layout, element, provenance: Provenance::default() }
    }

    /// What its values are.
    pub fn element(&self) -> &Element {
        &self.element
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &Shape {
        self.layout.shape()
    }

    /// Which values of the storage it means.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// One storage for a plain tensor, one per plane for a packed one; a view has those of the whole.
    pub fn planes(&self) -> &[Storage] {
        &self.planes
    }

    /// Name of the device that holds it.
    pub fn device(&self) -> &str {
        self.planes.first().map_or("cpu", |s| s.buffer().device())
    }

    /// Where it came from and what was done to it.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The same tensor with another history.
    pub fn with_provenance(mut self, provenance: Provenance) -> Self {
        self.provenance = provenance;
        self
    }

    /// An error, naming the file, if bytes that were read from it may have been wrong.
    pub fn check(&self) -> Result<(), Error> {
        self.planes.iter().try_for_each(Storage::check)
    }

    /// Indices `start..start + length` of one dimension.
    pub fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self, Error> {
        let view = self.view(self.layout.narrow(axis, start, length)?);
        self.check_cut(axis, start, length)?;
        Ok(view)
    }

    /// One index of a dimension, which disappears.
    pub fn select(&self, axis: usize, index: usize) -> Result<Self, Error> {
        if axis + 1 == self.shape().rank() {
            self.plain("taking one column")?;
        }
        self.narrow(axis, index, 1)?;
        Ok(self.view(self.layout.select(axis, index)?))
    }

    /// Swaps two dimensions. Plain tensors only.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self, Error> {
        self.plain("transposing")?;
        Ok(self.view(self.layout.transpose(a, b)?))
    }

    /// Dimensions in another order. Plain tensors only.
    pub fn permute(&self, axes: &[usize]) -> Result<Self, Error> {
        self.plain("permuting")?;
        Ok(self.view(self.layout.permute(axes)?))
    }

    /// The same values under another shape, without a copy. A packed tensor keeps its rows: only the dimensions
    /// before the last may change.
    pub fn reshape(&self, shape: impl Into<Vec<usize>>) -> Result<Self, Error> {
        let shape = Shape::new(shape)?;
        if shape.columns() != self.shape().columns() || shape.rank() == 0 {
            self.plain("changing the length of rows")?;
        }
        Ok(self.view(self.layout.reshape(shape)?))
    }

    /// Stretches dimensions of 1 until the shape is `shape`. Plain tensors only.
    pub fn broadcast_to(&self, shape: impl Into<Vec<usize>>) -> Result<Self, Error> {
        self.plain("broadcasting")?;
        Ok(self.view(self.layout.broadcast_to(Shape::new(shape)?)?))
    }

    /// Rows `range` of the tensor seen as a matrix: all dimensions but the last taken together. Needs a contiguous
    /// tensor.
    pub fn rows(&self, range: Range<usize>) -> Result<Self, Error> {
        let matrix = self.reshape([self.shape().rows(), self.shape().columns()])?;
        matrix.narrow(0, range.start, range.end.saturating_sub(range.start))
    }

    /// The bytes as they lie in memory: plain, without gaps, visible to the host; else `None`. They may be unaligned.
    /// Call [`Tensor::check`] after reading them.
    pub fn bytes(&self) -> Option<&[u8]> {
        let size = self.element.dtype()?.size();
        let start = self.layout.is_contiguous().then(|| self.layout.offset() * size)?;
        self.planes.first()?.bytes()?.get(start..start + self.shape().values() * size)
    }

    /// The bytes for writing, under the conditions of [`Tensor::bytes`], if no other tensor shares them.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let size = self.element.dtype()?.size();
        let start = self.layout.is_contiguous().then(|| self.layout.offset() * size)?;
        let end = start + self.shape().values() * size;
        Arc::get_mut(&mut self.planes)?.first_mut()?.bytes_mut()?.get_mut(start..end)
    }

    /// The bytes of all planes for writing, if no other tensor shares them. A view has those of the whole.
    pub fn planes_mut(&mut self) -> Option<Vec<&mut [u8]>> {
        Arc::get_mut(&mut self.planes)?.iter_mut().map(Storage::bytes_mut).collect()
    }

    /// Copies the values of a plain tensor, in row-major order and with any layout, into `target`, which must have
    /// exactly their bytes.
    pub fn read(&self, target: &mut [u8]) -> Result<(), Error> {
        let size = self.plain("reading values")?.size();
        let bytes = self.shape().bytes(size)?;
        if target.len() != bytes {
            return Err(Error::Argument(format!("the values have {bytes} bytes, the target {}", target.len())));
        }
        let Some(storage) = self.planes.first() else { return Ok(()) };
        let (runs, mut rest) = (self.layout.runs(), target);
        let Some(source) = storage.bytes() else {
            for (at, n) in runs {
                let (part, after) = rest.split_at_mut(n * size);
                storage.read(at * size, part)?;
                rest = after;
            }
            return Ok(());
        };
        if self.layout.shape().rank() >= 2 && self.layout.strides().last() != Some(&1) {
            match size {
                1 => self.read_apart::<1>(source, rest),
                2 => self.read_apart::<2>(source, rest),
                4 => self.read_apart::<4>(source, rest),
                _ => self.read_apart::<8>(source, rest),
            }
            return storage.check();
        }
        for (at, n) in runs {
            let (part, after) = rest.split_at_mut(n * size);
            // The constructors checked that the layout stays within the storage.
            part.copy_from_slice(&source[at * size..(at + n) * size]);
            rest = after;
        }
        storage.check()
    }

    /// Reads values whose neighbours lie apart, matrix by matrix.
    fn read_apart<const N: usize>(&self, source: &[u8], target: &mut [u8]) {
        /// Rows and columns of what is copied together, so that lines of both sides stay in the cache.
        const TILE: usize = 16;
        let (dims, strides) = (self.shape().dims(), self.layout.strides());
        let (outer, matrix) = dims.split_at(dims.len() - 2);
        let ([rows, columns], [down, across]) =
            ([matrix[0], matrix[1]], [strides[outer.len()], strides[outer.len() + 1]]);
        let words = source.as_chunks::<N>().0;
        let matrices = target.as_chunks_mut::<N>().0.chunks_exact_mut((rows * columns).max(1));
        for (number, target) in matrices.enumerate() {
            let (mut rest, mut start) = (number, self.layout.offset());
            for (dim, stride) in outer.iter().zip(strides).rev() {
                start += rest % dim * stride;
                rest /= dim;
            }
            for first in (0..rows).step_by(TILE) {
                for left in (0..columns).step_by(TILE) {
                    for row in first..rows.min(first + TILE) {
                        let to = &mut target[row * columns + left..row * columns + columns.min(left + TILE)];
                        // The constructors checked that the layout stays within the storage.
                        let from = words[start + row * down + left * across..].iter().step_by(across.max(1));
                        if across == 0 {
                            to.fill(words[start + row * down]);
                        } else {
                            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                        }
                    }
                }
            }
        }
    }

    /// The same values without gaps: this tensor if it has none, else a copy in host memory.
    pub fn contiguous(&self) -> Result<Self, Error> {
        if self.layout.is_contiguous() {
            return Ok(self.clone());
        }
        let planes = match &self.element {
            Element::Plain(dtype) => {
                let mut bytes = crate::storage::HostBuffer::zeroed(self.shape().bytes(dtype.size())?)?;
                self.read(bytes.as_mut_slice())?;
                vec![Storage::new(bytes)]
            }
            Element::Packed(packing) => self.gather_planes(&**packing)?,
        };
        let layout = Layout::contiguous(self.shape().clone());
        Ok(Self::of(planes, layout, self.element.clone()).with_provenance(self.provenance.clone()))
    }

    /// The planes of a packed tensor or a view of it, cut to what it means. Nothing is copied. Columns that were cut
    /// leave gaps between rows: call [`Tensor::contiguous`] first.
    pub fn cut_planes(&self) -> Result<Vec<Storage>, Error> {
        let packing = self.packing()?;
        if !self.layout.is_contiguous() {
            let message = format!("{:?} leaves gaps between rows; make it contiguous first", self.layout);
            return Err(Error::Argument(message));
        }
        self.plane_ranges(packing, self.layout.offset(), self.shape())
    }

    /// What stands before the view, and how long it is, in each plane, for values `offset..` of shape `shape`.
    fn plane_ranges(&self, packing: &dyn PackedLayout, offset: usize, shape: &Shape) -> Result<Vec<Storage>, Error> {
        if shape.values() == 0 {
            return self.planes.iter().map(|plane| plane.slice(0, 0)).collect();
        }
        let columns = shape.columns();
        if offset > 0 && offset.is_multiple_of(columns) {
            let rows = shape.values() / columns;
            let ranges = packing.plane_ranges(columns, offset / columns, rows).map_err(Error::Argument)?;
            let cuts = ranges.into_iter().zip(&*self.planes);
            return cuts.map(|((start, length), plane)| plane.slice(start as usize, length as usize)).collect();
        }
        let lengths = plane_bytes(packing, shape)?;
        let starts = match offset {
            0 => vec![0; lengths.len()],
            _ => plane_bytes(packing, &Shape::new([1, offset])?)?,
        };
        let cuts = starts.into_iter().zip(lengths).zip(&*self.planes);
        cuts.map(|((start, length), plane)| plane.slice(start, length)).collect()
    }

    /// Copies the rows of a view with gaps, plane by plane.
    fn gather_planes(&self, packing: &dyn PackedLayout) -> Result<Vec<Storage>, Error> {
        let lengths = plane_bytes(packing, self.shape())?;
        let mut planes =
            lengths.into_iter().map(crate::storage::HostBuffer::zeroed).collect::<Result<Vec<_>, Error>>()?;
        let mut done = vec![0; planes.len()];
        for (at, n) in self.layout.runs() {
            // A run is a number of whole rows: columns never have gaps between them.
            let rows = Shape::new([n / self.shape().columns(), self.shape().columns()])?;
            for ((plane, done), from) in planes.iter_mut().zip(&mut done).zip(self.plane_ranges(packing, at, &rows)?) {
                let Some(target) = plane.as_mut_slice().get_mut(*done..*done + from.len()) else {
                    let message = format!("{} has planes that do not grow row by row", packing.name());
                    return Err(Error::Argument(message));
                };
                from.read(0, target)?;
                *done += from.len();
            }
        }
        Ok(planes.into_iter().map(Storage::new).collect())
    }

    fn view(&self, layout: Layout) -> Self {
        Self { layout, ..self.clone() }
    }

    fn plain(&self, what: &'static str) -> Result<DType, Error> {
        let found = || Error::Element { what, expected: "plain values".into(), found: self.element.name().into() };
        self.element.dtype().ok_or_else(found)
    }

    fn packing(&self) -> Result<&dyn PackedLayout, Error> {
        match &self.element {
            Element::Packed(packing) => Ok(&**packing),
            Element::Plain(dtype) => Err(Error::Element {
                what: "cutting planes",
                expected: "packed values".into(),
                found: dtype.name().into(),
            }),
        }
    }

    /// Refuses to narrow a packed tensor where its packing has no border.
    fn check_cut(&self, axis: usize, start: usize, length: usize) -> Result<(), Error> {
        let Element::Packed(packing) = &self.element else { return Ok(()) };
        let shape = self.shape();
        if start == 0 && length == shape[axis] {
            return Ok(());
        }
        let fail = |what: &str, step: usize| {
            let message = format!(
                "a view of {} cuts at multiples of {step} {what} only, not at {start}..{} of dimension {axis} of {shape:?}",
                packing.name(),
                start + length
            );
            Err(Error::Argument(message))
        };
        let Some(granularity) = packing.row_granularity(shape.columns()) else {
            return Err(Error::Argument(format!("{} cannot be cut", packing.name())));
        };
        if axis + 1 == shape.rank() {
            let block = packing.block();
            if !(start.is_multiple_of(block) && length.is_multiple_of(block)) {
                return fail("columns", block);
            }
            return self.check_blocks(&**packing, granularity);
        }
        // Rows that one index of this dimension covers.
        let covered: usize = shape[axis + 1..shape.rank() - 1].iter().product();
        let borders = [start, length].map(|n| (n * covered).is_multiple_of(granularity));
        // A last cut may be shorter, as the last rows of the whole may be.
        let last = axis == 0 && start + length == shape[0];
        if borders[0] && (borders[1] || last) { Ok(()) } else { fail("rows", granularity) }
    }

    /// Columns can be cut only where every plane holds the blocks of a row one after the other.
    fn check_blocks(&self, packing: &dyn PackedLayout, granularity: usize) -> Result<(), Error> {
        let columns = self.shape().columns();
        let one = plane_bytes(packing, &Shape::new([1, packing.block()])?)?;
        let row = plane_bytes(packing, &Shape::new([1, columns])?)?;
        let blocks = columns / packing.block();
        if granularity == 1 && one.iter().zip(&row).all(|(one, row)| one.checked_mul(blocks) == Some(*row)) {
            return Ok(());
        }
        Err(Error::Argument(format!("{} keeps rows whole: only rows can be cut", packing.name())))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} on {}, {}", self.element.name(), self.shape(), self.device(), self.provenance)
    }
}

/// Bytes of each plane, as sizes in memory.
fn plane_bytes(packing: &dyn PackedLayout, shape: &Shape) -> Result<Vec<usize>, Error> {
    let bytes = packing.plane_bytes(shape).map_err(|why| Error::Argument(format!("{}: {why}", packing.name())))?;
    let too_large = || Error::Overflow { what: "the number of bytes", shape: shape.to_vec() };
    bytes.into_iter().map(|n| usize::try_from(n).map_err(|_| too_large())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TypedTensor;
    use std::any::Any;

    /// Blocks of 4 values: a plane of one byte per value and one of one byte per block. Each byte says where it was.
    struct Blocks {
        granularity: Option<usize>,
    }

    impl PackedLayout for Blocks {
        fn name(&self) -> &str {
            "blocks4"
        }
        fn block(&self) -> usize {
            4
        }
        fn plane_names(&self) -> Vec<&str> {
            vec!["codes", "scales"]
        }
        fn plane_bytes(&self, shape: &[usize]) -> Result<Vec<u64>, String> {
            let values: usize = shape.iter().product();
            let columns = shape.last().copied().unwrap_or(0);
            if columns % 4 != 0 {
                return Err(format!("{columns} columns are not whole blocks"));
            }
            Ok(vec![values as u64, values as u64 / 4])
        }
        fn row_granularity(&self, _columns: usize) -> Option<usize> {
            self.granularity
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    /// `shape` packed; byte `i` of each plane is `i`.
    fn packed(shape: &[usize], granularity: Option<usize>) -> Tensor {
        let values: usize = shape.iter().product();
        let bytes = |n: usize| Storage::copy_of(&(0..n).map(|i| i as u8).collect::<Vec<_>>()).unwrap();
        Tensor::packed(Arc::new(Blocks { granularity }), shape, vec![bytes(values), bytes(values / 4)]).unwrap()
    }

    fn planes(tensor: &Tensor) -> Vec<Vec<u8>> {
        tensor.cut_planes().unwrap().iter().map(|plane| plane.bytes().unwrap().to_vec()).collect()
    }

    #[test]
    fn storage_must_have_exactly_the_bytes() {
        let storage = Storage::copy_of(&[0; 24]).unwrap();
        assert!(Tensor::new(storage.clone(), DType::F32, [2, 3]).is_ok());
        let error = Tensor::new(storage.clone(), DType::F32, [2, 4]).unwrap_err().to_string();
        assert_eq!(error, "F32 of shape [2, 4] has 32 bytes, the storage 24");
        let layout = Layout::strided(Shape::new([2, 2]).unwrap(), [4, 1], 1).unwrap();
        let error = Tensor::with_layout(storage, DType::F32, layout).unwrap_err().to_string();
        assert!(error.contains("reaches past the 24 bytes"), "{error}");
    }

    #[test]
    fn views_share_storage_and_copies_do_not() {
        let tensor = Tensor::from_slice(&[1u16, 2, 3, 4, 5, 6], [2, 3]).unwrap();
        let turned = tensor.transpose(0, 1).unwrap();
        assert!(turned.planes()[0].shares_buffer(&tensor.planes()[0]));
        assert!(turned.bytes().is_none());
        let copy = turned.contiguous().unwrap();
        assert!(!copy.planes()[0].shares_buffer(&tensor.planes()[0]));
        assert_eq!(TypedTensor::<u16>::new(copy).unwrap().to_vec().unwrap(), [1, 4, 2, 5, 3, 6]);
        assert!(tensor.contiguous().unwrap().planes()[0].shares_buffer(&tensor.planes()[0]));
        assert_eq!(tensor.rows(1..2).unwrap().bytes().unwrap(), bytemuck::cast_slice::<u16, u8>(&[4, 5, 6]));
        assert!(tensor.rows(1..3).is_err());
    }

    #[test]
    fn the_history_goes_with_the_view() {
        let found = Provenance::from_file("a.safetensors", "w").then("transposed");
        let tensor = Tensor::from_slice(&[1u8, 2], [2]).unwrap().with_provenance(found);
        let view = tensor.narrow(0, 1, 1).unwrap();
        assert_eq!(view.provenance().steps(), ["transposed"]);
        assert_eq!(format!("{view:?}"), "U8 [1] on cpu, w of a.safetensors, transposed");
    }

    #[test]
    fn rows_of_a_packed_tensor_are_cut_from_every_plane() {
        let tensor = packed(&[4, 8], Some(1));
        let view = tensor.narrow(0, 1, 2).unwrap();
        assert_eq!(planes(&view), [(8..24).collect::<Vec<u8>>(), (2..6).collect()]);
        assert_eq!(planes(&view.select(0, 1).unwrap()), [(16..24).collect::<Vec<u8>>(), vec![4, 5]]);
        assert!(view.planes()[0].shares_buffer(&tensor.planes()[0]));
        let experts = packed(&[2, 2, 8], Some(1)).select(0, 1).unwrap();
        assert_eq!(planes(&experts), [(16..32).collect::<Vec<u8>>(), (4..8).collect()]);
    }

    #[test]
    fn columns_of_a_packed_tensor_are_cut_at_block_borders_only() {
        let tensor = packed(&[3, 12], Some(1));
        let view = tensor.narrow(1, 4, 8).unwrap();
        assert!(view.cut_planes().unwrap_err().to_string().contains("gaps between rows"));
        let whole = view.contiguous().unwrap();
        assert_eq!(planes(&whole)[1], [1, 2, 4, 5, 7, 8]);
        assert_eq!(planes(&whole)[0], [4..12, 16..24, 28..36].into_iter().flatten().collect::<Vec<u8>>());
        assert_eq!(planes(&tensor.narrow(0, 2, 1).unwrap().narrow(1, 4, 4).unwrap()), [vec![28, 29, 30, 31], vec![7]]);
        for (start, length) in [(2, 4), (4, 6), (1, 1)] {
            let error = tensor.narrow(1, start, length).unwrap_err().to_string();
            assert!(error.contains("cuts at multiples of 4 columns only"), "{error}");
        }
    }

    #[test]
    fn coarse_packings_are_cut_at_their_own_borders() {
        let tensor = packed(&[7, 4], Some(2));
        assert!(tensor.narrow(0, 2, 4).is_ok());
        assert!(tensor.narrow(0, 4, 3).is_ok(), "the last cut may be short");
        assert!(tensor.narrow(0, 1, 2).unwrap_err().to_string().contains("multiples of 2 rows"));
        assert!(tensor.narrow(0, 2, 3).is_err());
        assert!(packed(&[7, 8], Some(2)).narrow(1, 0, 4).unwrap_err().to_string().contains("keeps rows whole"));
        // Two rows of each matrix: the border of the second matrix is one as well.
        assert!(packed(&[3, 2, 4], Some(2)).narrow(0, 1, 1).is_ok());
        assert!(packed(&[3, 3, 4], Some(2)).narrow(0, 1, 1).is_err());
        let solid = packed(&[4, 4], None);
        assert!(solid.narrow(0, 0, 4).is_ok(), "all of it is no cut");
        assert_eq!(solid.narrow(0, 0, 2).unwrap_err().to_string(), "blocks4 cannot be cut");
    }

    #[test]
    fn a_packed_tensor_refuses_views_that_tear_blocks() {
        let tensor = packed(&[4, 8], Some(1));
        for result in [
            tensor.transpose(0, 1),
            tensor.permute(&[1, 0]),
            tensor.broadcast_to([2, 4, 8]),
            tensor.select(1, 0),
            tensor.reshape([8, 4]),
        ] {
            assert!(matches!(result, Err(Error::Element { .. })), "{result:?}");
        }
        assert_eq!(tensor.reshape([2, 2, 8]).unwrap().shape().dims(), [2, 2, 8]);
        assert!(tensor.bytes().is_none());
        assert!(tensor.read(&mut [0; 32]).is_err());
        let planes = tensor.planes().to_vec();
        assert!(Tensor::packed(Arc::new(Blocks { granularity: Some(1) }), [4, 12], planes).is_err());
    }
}
