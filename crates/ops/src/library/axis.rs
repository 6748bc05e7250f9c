//! Dimensions of a shape that ops work along.

use crate::attributes::Value;
use crate::{Error, Inquiry};

/// A shape as `outer` times `length` times `inner`: value `i` along the dimension of slice `(o, n)` stands at
/// `(o * length + i) * inner + n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    pub index: usize,
    pub outer: usize,
    pub length: usize,
    pub inner: usize,
}

impl Axis {
    /// The dimension that the attribute `name` gives; negative ones count from the last.
    pub fn of(q: &Inquiry, shape: &[usize], name: &str) -> Result<Axis, Error> {
        Self::at(q, shape, q.signed(name)?)
    }

    /// Dimension `dim` of a shape.
    pub fn at(q: &Inquiry, shape: &[usize], dim: i64) -> Result<Axis, Error> {
        let rank = shape.len() as i64;
        if dim < -rank || dim >= rank {
            return q.fail(format!("there is no dimension {dim} in the shape {shape:?}"));
        }
        let index = dim.rem_euclid(rank) as usize;
        let product = |part: &[usize]| part.iter().product();
        Ok(Axis { index, outer: product(&shape[..index]), length: shape[index], inner: product(&shape[index + 1..]) })
    }

    /// Where each slice along the dimension begins, in row-major order of the other dimensions.
    pub fn starts(self) -> impl Iterator<Item = usize> {
        (0..self.outer).flat_map(move |o| (0..self.inner).map(move |n| o * self.length * self.inner + n))
    }

    /// The places of a slice that begins at `start`.
    pub fn places(self, start: usize) -> impl Iterator<Item = usize> {
        (0..self.length).map(move |i| start + i * self.inner)
    }
}

/// The dimensions that `dim` names, in rising order: one, a list, or `all`.
pub fn dims(q: &Inquiry, rank: usize) -> Result<Vec<usize>, Error> {
    let given: Vec<i64> = match q.attribute("dim")? {
        Value::Int(dim) => vec![*dim],
        Value::Ints(dims) => dims.to_vec(),
        _ => return Ok((0..rank).collect()),
    };
    let mut dims = Vec::with_capacity(given.len());
    for dim in given {
        if dim < -(rank as i64) || dim >= rank as i64 {
            return q.fail(format!("there is no dimension {dim} among {rank}"));
        }
        dims.push(dim.rem_euclid(rank as i64) as usize);
    }
    dims.sort_unstable();
    if dims.windows(2).any(|pair| pair[0] == pair[1]) {
        return q.fail("a dimension is named twice");
    }
    Ok(dims)
}

/// The coordinates of every value of a shape, in row-major order.
pub(super) fn coordinates(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let count: usize = shape.iter().product();
    let shape = shape.to_vec();
    (0..count).map(move |flat| {
        let mut rest = flat;
        let mut at = vec![0; shape.len()];
        for (at, dim) in at.iter_mut().zip(&shape).rev() {
            (*at, rest) = (rest % dim, rest / dim);
        }
        at
    })
}

/// The place of coordinates in row-major order.
pub(super) fn flat(shape: &[usize], at: &[usize]) -> usize {
    shape.iter().zip(at).fold(0, |flat, (dim, at)| flat * dim + at)
}
