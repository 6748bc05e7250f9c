//! Integer codes with zeros (GPTQ, AWQ, compressed-tensors) as a source: `bias = -scale * zero`.

use crate::grouped::Grouped;
use crate::mlx::Float;
use crate::shape::check;
use crate::{Error, Packing};

use super::{Affine, GROUP, unpack};

/// A packing of such codes.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    scheme: &'static Grouped,
    packing: Packing,
    float: Float,
}

impl Codes {
    pub(super) fn of(packing: Packing) -> Option<Codes> {
        let name = packing.scheme.name();
        let mut known = crate::gptq::SCHEMES.iter().chain(&crate::awq::SCHEMES).chain(&crate::compressed::SCHEMES);
        let scheme = known.find(|s| s.name == name)?;
        let float = Float::new(name, packing.float).ok()?;
        Some(Codes { scheme, packing, float })
    }

    pub(super) fn bits(&self) -> u8 {
        self.scheme.bits
    }

    /// The number of values in planes of rows of `columns`, which must be of the right sizes.
    pub(super) fn values(&self, planes: &[&[u8]], columns: usize) -> Result<usize, Error> {
        let values = planes.first().map_or(0, |p| p.len()) * 8 / usize::from(self.scheme.bits);
        check(self.scheme, (values, columns), self.packing.float, planes.iter().map(|p| p.len()))?;
        Ok(values)
    }

    /// Whether columns are in order of their groups; otherwise no other layout can hold them as they stand.
    pub(super) fn in_order(&self, planes: &[&[u8]], columns: usize) -> Result<bool, Error> {
        Ok(self.scheme.order(columns, planes.get(3))?.is_none())
    }

    /// The 32 values at `index`, unless the scale is not finite. Sizes have been checked.
    pub(super) fn read(&self, planes: &[&[u8]], columns: usize, index: usize) -> Option<Affine> {
        let (row, column) = (index * GROUP / columns, index * GROUP % columns);
        let group = self.scheme.group_of(columns);
        let at = row * columns.div_ceil(group) + column / group;
        let scale = f64::from(self.float.read(planes[1], at));
        // The product of a 24-bit float and an 8-bit integer is exact in f64.
        let bias = -scale * f64::from(planes[2][at]);
        let bytes = 4 * usize::from(self.scheme.bits);
        let codes = unpack(self.scheme.bits, &planes[0][index * bytes..][..bytes]);
        scale.is_finite().then_some(Affine { scale, bias, codes })
    }
}
