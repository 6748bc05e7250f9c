//! Layouts: which value of a storage each index of a tensor means. Everything here moves numbers, never data.

use std::fmt;

use crate::{Error, Shape};

/// Shape, strides and offset, counted in values of the storage. A stride of 0 repeats a value.
#[derive(Clone, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    strides: Vec<usize>,
    offset: usize,
}

impl Layout {
    /// Rows one after the other from the beginning of the storage.
    pub fn contiguous(shape: Shape) -> Self {
        Self { strides: shape.row_major_strides(), shape, offset: 0 }
    }

    /// Any strides and offset, checked not to reach past what the machine addresses.
    pub fn strided(shape: Shape, strides: impl Into<Vec<usize>>, offset: usize) -> Result<Self, Error> {
        let strides = strides.into();
        if strides.len() != shape.rank() {
            let message = format!("{} strides were given for {} dimensions", strides.len(), shape.rank());
            return Err(Error::Argument(message));
        }
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |at, (d, stride)| at.checked_add(d.saturating_sub(1).checked_mul(*stride)?));
        match last {
            Some(last) if last < isize::MAX as usize => Ok(Self { shape, strides, offset }),
            _ => Err(Error::Overflow { what: "the reach of the strides", shape: strides }),
        }
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Values of the storage between neighbours along each dimension.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Value of the storage at which the first index lies.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Values that the storage must have at least: one past the last that any index means; 0 when there is no index.
    pub fn end(&self) -> usize {
        if self.shape.values() == 0 {
            return 0;
        }
        // The constructors checked this sum.
        let reach: usize = self.shape.iter().zip(&self.strides).map(|(d, stride)| (d - 1) * stride).sum();
        self.offset + reach + 1
    }

    /// Whether the values follow each other without gaps in row-major order; the offset may be anything.
    pub fn is_contiguous(&self) -> bool {
        self.shape.values() == 0 || self.run_axes() == 0
    }

    /// Value of the storage that `index` means; `None` when it lies outside.
    pub fn at(&self, index: &[usize]) -> Option<usize> {
        if index.len() != self.shape.rank() || index.iter().zip(self.shape.iter()).any(|(i, d)| i >= d) {
            return None;
        }
        Some(self.offset + index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>())
    }

    /// Indices `start..start + length` of one dimension.
    pub fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self, Error> {
        let size = self.dimension(axis)?;
        if start.checked_add(length).is_none_or(|end| end > size) {
            return Err(Error::Argument(format!(
                "{length} indices from {start} do not lie within dimension {axis}, which has {size}"
            )));
        }
        let mut view = self.clone();
        view.shape = self.with_dims(|dims| dims[axis] = length)?;
        // With nothing left the offset means nothing; staying put keeps it inside the storage.
        if length > 0 {
            view.offset += start * self.strides[axis];
        }
        Ok(view)
    }

    /// One index of a dimension, which disappears.
    pub fn select(&self, axis: usize, index: usize) -> Result<Self, Error> {
        let mut view = self.narrow(axis, index, 1)?;
        view.shape = view.with_dims(|dims| {
            dims.remove(axis);
        })?;
        view.strides.remove(axis);
        Ok(view)
    }

    /// Swaps two dimensions.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self, Error> {
        self.dimension(a)?;
        self.dimension(b)?;
        let mut view = self.clone();
        view.shape = self.with_dims(|dims| dims.swap(a, b))?;
        view.strides.swap(a, b);
        Ok(view)
    }

    /// Dimensions in another order: dimension `i` of the result is `axes[i]` of this.
    pub fn permute(&self, axes: &[usize]) -> Result<Self, Error> {
        let mut seen = vec![false; self.shape.rank()];
        let once = axes.iter().all(|a| seen.get_mut(*a).is_some_and(|s| !std::mem::replace(s, true)));
        if !once || axes.len() != seen.len() {
            return Err(Error::Argument(format!("{axes:?} is no order of {} dimensions", seen.len())));
        }
        let shape = Shape::new(axes.iter().map(|a| self.shape[*a]).collect::<Vec<_>>())?;
        Ok(Self { shape, strides: axes.iter().map(|a| self.strides[*a]).collect(), offset: self.offset })
    }

    /// Puts a dimension of 1 before `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Result<Self, Error> {
        if axis > self.shape.rank() {
            return Err(Error::Argument(format!("there is no place {axis} among {} dimensions", self.shape.rank())));
        }
        let mut view = self.clone();
        view.shape = self.with_dims(|dims| dims.insert(axis, 1))?;
        view.strides.insert(axis, 0);
        Ok(view)
    }

    /// Takes a dimension of 1 away.
    pub fn squeeze(&self, axis: usize) -> Result<Self, Error> {
        match self.dimension(axis)? {
            1 => self.select(axis, 0),
            size => Err(Error::Argument(format!("dimension {axis} has {size} indices, only one of 1 can be squeezed"))),
        }
    }

    /// The same values, in the same order, under another shape. Only for contiguous layouts: copy the others first.
    pub fn reshape(&self, shape: Shape) -> Result<Self, Error> {
        if shape.values() != self.shape.values() {
            let (expected, found) = (self.shape.to_vec(), shape.to_vec());
            return Err(Error::Shape { what: "reshaping keeps the number of values", expected, found });
        }
        if !self.is_contiguous() {
            return Err(Error::Argument(format!("{self:?} is not contiguous and cannot be reshaped without a copy")));
        }
        Ok(Self { strides: shape.row_major_strides(), shape, offset: self.offset })
    }

    /// Stretches dimensions of 1, and adds outer ones, until the shape is `shape`.
    pub fn broadcast_to(&self, shape: Shape) -> Result<Self, Error> {
        let fail = || Error::Shape { what: "broadcasting", expected: shape.to_vec(), found: self.shape.to_vec() };
        let added = shape.rank().checked_sub(self.shape.rank()).ok_or_else(fail)?;
        let mut strides = vec![0; added];
        for ((from, stride), to) in self.shape.iter().zip(&self.strides).zip(&shape[added..]) {
            match (*from, *to) {
                (from, to) if from == to => strides.push(*stride),
                (1, _) => strides.push(0),
                _ => return Err(fail()),
            }
        }
        Ok(Self { shape, strides, offset: self.offset })
    }

    /// The values in row-major order as stretches without gaps: `(first value, number)`. Every stretch has the same
    /// number, the longest that the strides allow.
    pub fn runs(&self) -> Runs<'_> {
        let axes = self.run_axes();
        let length = self.shape[axes..].iter().product();
        let left = if self.shape.values() == 0 { 0 } else { self.shape[..axes].iter().product() };
        Runs { layout: self, index: vec![0; axes], at: self.offset, length, left }
    }

    /// Number of outer dimensions that must be walked one index at a time; the inner ones have no gaps.
    fn run_axes(&self) -> usize {
        let mut expected = 1;
        for axis in (0..self.shape.rank()).rev() {
            if self.shape[axis] != 1 && self.strides[axis] != expected {
                return axis + 1;
            }
            expected *= self.shape[axis].max(1);
        }
        0
    }

    fn dimension(&self, axis: usize) -> Result<usize, Error> {
        let rank = self.shape.rank();
        let missing = || Error::Argument(format!("there is no dimension {axis} in {:?}, which has {rank}", self.shape));
        self.shape.get(axis).copied().ok_or_else(missing)
    }

    fn with_dims(&self, change: impl FnOnce(&mut Vec<usize>)) -> Result<Shape, Error> {
        let mut dims = self.shape.to_vec();
        change(&mut dims);
        Shape::new(dims)
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shape {:?} with strides {:?} from {}", self.shape, self.strides, self.offset)
    }
}

/// See [`Layout::runs`].
pub struct Runs<'a> {
    layout: &'a Layout,
    index: Vec<usize>,
    at: usize,
    length: usize,
    left: usize,
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        self.left = self.left.checked_sub(1)?;
        let run = (self.at, self.length);
        for axis in (0..self.index.len()).rev() {
            let (stride, size) = (self.layout.strides[axis], self.layout.shape[axis]);
            if self.index[axis] + 1 < size {
                self.index[axis] += 1;
                self.at += stride;
                break;
            }
            self.at -= self.index[axis] * stride;
            self.index[axis] = 0;
        }
        Some(run)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Runs<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(dims: &[usize]) -> Layout {
        Layout::contiguous(Shape::new(dims).unwrap())
    }

    /// The values that a layout means, index by index, without [`Layout::runs`].
    fn walk(layout: &Layout) -> Vec<usize> {
        let mut all = Vec::new();
        for mut n in 0..layout.shape().values() {
            let mut index = vec![0; layout.shape().rank()];
            for axis in (0..index.len()).rev() {
                index[axis] = n % layout.shape()[axis];
                n /= layout.shape()[axis];
            }
            all.push(layout.at(&index).unwrap());
        }
        all
    }

    fn run_values(layout: &Layout) -> Vec<usize> {
        layout.runs().flat_map(|(at, n)| at..at + n).collect()
    }

    #[test]
    fn a_narrowed_matrix_starts_where_it_should() {
        let view = layout(&[4, 6]).narrow(0, 1, 2).unwrap().narrow(1, 2, 3).unwrap();
        assert_eq!(walk(&view), [8, 9, 10, 14, 15, 16]);
        assert_eq!(view.runs().collect::<Vec<_>>(), [(8, 3), (14, 3)]);
        assert!(!view.is_contiguous());
        assert_eq!(view.end(), 17);
        assert!(layout(&[4, 6]).narrow(0, 1, 3).unwrap().is_contiguous());
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let l = layout(&[4, 6]);
        assert!(l.narrow(0, 3, 2).is_err());
        assert!(l.narrow(0, usize::MAX, 2).is_err());
        assert!(l.narrow(2, 0, 1).is_err());
        assert!(l.transpose(0, 2).is_err());
        assert!(l.permute(&[0, 0]).is_err());
        assert!(l.permute(&[0]).is_err());
        assert!(l.squeeze(0).is_err());
        assert_eq!(l.at(&[4, 0]), None);
        assert_eq!(l.at(&[0]), None);
        assert!(Layout::strided(Shape::new([3]).unwrap(), [usize::MAX / 2], 0).is_err());
        assert!(Layout::strided(Shape::new([3]).unwrap(), [1, 1], 0).is_err());
    }

    #[test]
    fn reshaping_needs_contiguous_values() {
        let l = layout(&[4, 6]).narrow(0, 1, 2).unwrap();
        let flat = l.reshape(Shape::new([12]).unwrap()).unwrap();
        assert_eq!(walk(&flat), (6..18).collect::<Vec<_>>());
        let turned = layout(&[4, 6]).transpose(0, 1).unwrap();
        assert!(turned.reshape(Shape::new([24]).unwrap()).unwrap_err().to_string().contains("not contiguous"));
        assert!(l.reshape(Shape::new([13]).unwrap()).is_err());
    }

    #[test]
    fn broadcasting_repeats_values() {
        let row = layout(&[3]).broadcast_to(Shape::new([2, 3]).unwrap()).unwrap();
        assert_eq!(walk(&row), [0, 1, 2, 0, 1, 2]);
        let column = layout(&[2, 1]).broadcast_to(Shape::new([2, 2]).unwrap()).unwrap();
        assert_eq!(run_values(&column), [0, 0, 1, 1]);
        assert!(layout(&[2, 3]).broadcast_to(Shape::new([3]).unwrap()).is_err());
        assert!(layout(&[2]).broadcast_to(Shape::new([3]).unwrap()).is_err());
    }

    #[test]
    fn dimensions_of_one_come_and_go_and_do_not_break_contiguity() {
        let l = layout(&[2, 3]).unsqueeze(1).unwrap();
        assert_eq!(l.shape().dims(), [2, 1, 3]);
        assert!(l.is_contiguous());
        assert_eq!(l.squeeze(1).unwrap(), layout(&[2, 3]));
        assert_eq!(layout(&[]).runs().collect::<Vec<_>>(), [(0, 1)]);
        assert_eq!(layout(&[2, 0, 3]).runs().count(), 0);
        assert_eq!(layout(&[2, 0, 3]).end(), 0);
    }

    proptest! {
        #[test]
        fn runs_agree_with_indices_after_any_views(
            dims in prop::collection::vec(1usize..5, 1..5),
            steps in prop::collection::vec((0u8..5, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..6),
        ) {
            let mut l = layout(&dims);
            let values = l.shape().values();
            for (kind, a, b) in steps {
                let rank = l.shape().rank();
                if rank == 0 { break }
                let (a, b) = (a.index(rank), b.index(rank));
                let size = l.shape()[a];
                l = match kind {
                    0 => l.transpose(a, b).unwrap(),
                    1 => l.narrow(a, size / 2, size - size / 2).unwrap(),
                    2 => l.select(a, size - 1).unwrap(),
                    3 => l.unsqueeze(b).unwrap(),
                    _ => {
                        let mut to = l.shape().to_vec();
                        to.insert(0, 2);
                        l.broadcast_to(Shape::new(to).unwrap()).unwrap()
                    }
                };
            }
            let walked = walk(&l);
            prop_assert!(walked.iter().all(|v| *v < values));
            prop_assert_eq!(l.end(), walked.iter().max().unwrap() + 1);
            prop_assert_eq!(l.is_contiguous(), walked.windows(2).all(|w| w[1] == w[0] + 1));
            prop_assert_eq!(run_values(&l), walked);
        }
    }
}
