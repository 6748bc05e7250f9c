//! Shapes: lists of dimensions, row-major, outermost first, whose products are known to fit.

use std::fmt;
use std::ops::Deref;

use crate::Error;

/// A shape whose number of values the machine can address. Outermost dimension first; a scalar has none.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// Checks that the product of `dims`, zero dimensions counted as one, stays within what the machine addresses.
    /// A shape that passes can be multiplied and strided without overflow, in any order.
    pub fn new(dims: impl Into<Vec<usize>>) -> Result<Self, Error> {
        let dims = dims.into();
        let product = dims.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)));
        match product {
            Some(n) if isize::try_from(n).is_ok() => Ok(Self(dims)),
            _ => Err(Error::Overflow { what: "the number of values", shape: dims }),
        }
    }

    /// The shape of one value: no dimensions.
    pub fn scalar() -> Self {
        Self::default()
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of values: the product of the dimensions, 1 for a scalar.
    pub fn values(&self) -> usize {
        self.0.iter().product()
    }

    /// The last dimension; 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// Product of all dimensions but the last; 1 for a scalar or a vector.
    pub fn rows(&self) -> usize {
        self.0.iter().rev().skip(1).product()
    }

    /// Bytes of this many values of `size` bytes each.
    pub fn bytes(&self, size: usize) -> Result<usize, Error> {
        self.values()
            .checked_mul(size)
            .filter(|n| isize::try_from(*n).is_ok())
            .ok_or_else(|| Error::Overflow { what: "the number of bytes", shape: self.0.clone() })
    }

    /// Values from one index of a dimension to the next, when rows follow each other without gaps.
    pub fn row_major_strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis] * self.0[axis].max(1);
        }
        strides
    }

    /// The shape that this and `other` have together when dimensions of 1 stretch, aligned at the last dimension.
    pub fn broadcast(&self, other: &Shape) -> Result<Shape, Error> {
        let rank = self.rank().max(other.rank());
        let at = |shape: &Shape, axis: usize| {
            (axis + shape.rank()).checked_sub(rank).and_then(|i| shape.0.get(i)).copied().unwrap_or(1)
        };
        let dims = (0..rank).map(|axis| match (at(self, axis), at(other, axis)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            _ => Err(Error::Shape { what: "broadcasting", expected: self.0.clone(), found: other.0.clone() }),
        });
        Shape::new(dims.collect::<Result<Vec<_>, _>>()?)
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As people write it: `4096 x 1024`; `scalar` where there are no dimensions.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else { return f.write_str("scalar") };
        write!(f, "{first}")?;
        rest.iter().try_for_each(|d| write!(f, " x {d}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
    }

    #[test]
    fn products_and_strides_of_a_row_major_shape() {
        let s = shape(&[2, 3, 4]);
        assert_eq!((s.values(), s.rows(), s.columns(), s.rank()), (24, 6, 4, 3));
        assert_eq!(s.row_major_strides(), [12, 4, 1]);
        assert_eq!(s.to_string(), "2 x 3 x 4");
        assert_eq!(s.bytes(2).unwrap(), 48);
    }

    #[test]
    fn a_scalar_has_one_value_and_an_empty_shape_none() {
        let s = Shape::scalar();
        assert_eq!((s.values(), s.rows(), s.columns()), (1, 1, 1));
        assert!(s.row_major_strides().is_empty());
        assert_eq!(s.to_string(), "scalar");
        assert_eq!(shape(&[3, 0, 2]).values(), 0);
        assert_eq!(shape(&[7]).rows(), 1);
    }

    #[test]
    fn what_the_machine_cannot_address_is_refused() {
        assert!(Shape::new([usize::MAX, 2]).is_err());
        assert!(Shape::new([1usize << 32, 1 << 31]).is_err());
        // The zero would hide the overflow from a plain product, not from the strides.
        assert!(Shape::new([usize::MAX, usize::MAX, 0]).is_err());
        assert!(shape(&[1 << 40, 1 << 20]).bytes(8).is_err());
    }

    #[test]
    fn dimensions_of_one_stretch() {
        let broadcast = |a: &[usize], b: &[usize]| shape(a).broadcast(&shape(b)).map(|s| s.dims().to_vec());
        assert_eq!(broadcast(&[4, 1, 3], &[2, 1]).unwrap(), [4, 2, 3]);
        assert_eq!(broadcast(&[], &[5]).unwrap(), [5]);
        assert_eq!(broadcast(&[1], &[0]).unwrap(), [0]);
        assert_eq!(broadcast(&[2, 3], &[2, 3]).unwrap(), [2, 3]);
        let error = broadcast(&[2, 3], &[2]).unwrap_err();
        assert_eq!(error.to_string(), "broadcasting: expected shape [2, 3], found [2]");
    }
}
