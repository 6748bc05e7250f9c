//! The frame of MLX's and Quanto's schemes: codes, and a scale and an offset in the type of the model for each group.

use windlass_tensor::DType;

use super::{Codes, Offsets, Order};
use crate::mlx::Float;
use crate::shape::check;
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme};

/// Encodes groups: width, columns of a group, type of scales, values; then the planes.
type Encode = fn(u8, usize, Float, &[f32], &mut [u8], &mut [u8], &mut [u8]);

/// One width and group size of one library: `value = code * scale` plus or minus an offset, the product and the sum each
/// rounded to the type of the scales, in which both libraries compute.
pub(crate) struct Affine {
    name: &'static str,
    family: Family,
    bits: u8,
    group: usize,
    ceiling: f32,
    planes: &'static [Plane; 3],
    encode: Encode,
}

/// Planes of a width and a group size.
struct Planes<const BITS: usize, const GROUP: usize>;

impl<const BITS: usize, const GROUP: usize> Planes<BITS, GROUP> {
    const PACKED: Plane = Plane::new("packed", PlaneType::Fixed(DType::U32), GROUP * BITS / 32);
    const SCALES: Plane = Plane::new("scales", PlaneType::Float, 1);
    const ADDED: [Plane; 3] = [Self::PACKED, Self::SCALES, Plane::new("biases", PlaneType::Float, 1)];
    const SUBTRACTED: [Plane; 3] = [Self::PACKED, Self::SCALES, Plane::new("zeros", PlaneType::Float, 1)];
}

impl Affine {
    /// MLX adds `biases`.
    pub(crate) const fn mlx<const BITS: usize, const GROUP: usize>(
        name: &'static str,
        ceiling: f32,
        encode: Encode,
    ) -> Self {
        let planes = &Planes::<BITS, GROUP>::ADDED;
        Self { name, family: Family::Mlx, bits: BITS as u8, group: GROUP, ceiling, planes, encode }
    }

    /// Quanto subtracts `zeros`.
    pub(crate) const fn quanto<const BITS: usize, const GROUP: usize>(
        name: &'static str,
        ceiling: f32,
        encode: Encode,
    ) -> Self {
        let planes = &Planes::<BITS, GROUP>::SUBTRACTED;
        Self { name, family: Family::Quanto, bits: BITS as u8, group: GROUP, ceiling, planes, encode }
    }
}

impl Scheme for Affine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        self.family
    }

    fn grid(&self) -> Grid {
        Grid::Affine { bits: self.bits, group: self.group, symmetric: false }
    }

    fn block(&self) -> usize {
        self.group
    }

    fn planes(&self) -> &'static [Plane] {
        self.planes
    }

    fn error_ceiling(&self) -> f32 {
        self.ceiling
    }

    fn encode(
        &self,
        values: &[f32],
        columns: usize,
        _importance: Option<&[f32]>,
        float: DType,
        planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales, offsets] = planes {
            (self.encode)(self.bits, self.group, Float::new(self.name, float)?, values, packed, scales, offsets);
        }
        Ok(())
    }

    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales, offsets] = *planes {
            let (bits, group, order) = (self.bits, self.group, Order::ScaleFirst);
            let float = Float::new(self.name, float)?;
            let offsets = match self.family {
                Family::Quanto => Offsets::Subtracted(offsets),
                _ => Offsets::Added(offsets),
            };
            Codes { bits, group, columns, packed, float, scales, offsets, order, rounded: float }.decode(values);
        }
        Ok(())
    }
}
