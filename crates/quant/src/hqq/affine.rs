//! `hqq{1,2,3,4,8}-g{16,32,64,128}`: planes, packing and decoding.

use windlass_tensor::DType;

use super::fit;
use crate::affine::{Codes, Offsets, Order};
use crate::mlx::Float;
use crate::shape::check;
use crate::slots::pack;
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme, Tally};

/// One width and group size.
pub struct Affine {
    name: &'static str,
    bits: u8,
    group: usize,
    ceiling: f32,
    planes: [Plane; 4],
}

/// Blocks are at least 32 values, so that codes fill whole words.
const fn block(group: usize) -> usize {
    if group < 32 { 32 } else { group }
}

const fn affine(name: &'static str, bits: u8, group: usize, ceiling: f32) -> Affine {
    let block = block(group);
    let packed = Plane::new("packed", PlaneType::Fixed(DType::U32), block * bits as usize / 32);
    let scales = Plane::new("scales", PlaneType::Float, block / group);
    let zeros = Plane::new("zeros", PlaneType::Float, block / group);
    // How often the encoder moved the zeros; HQQ does not keep it, and the decoder does not look at it.
    let steps = Plane::whole("steps", PlaneType::Fixed(DType::U8));
    Affine { name, bits, group, ceiling, planes: [packed, scales, zeros, steps] }
}

pub static SCHEMES: [Affine; 20] = [
    affine("hqq8-g64", 8, 64, 0.0073),
    affine("hqq8-g16", 8, 16, 0.0059),
    affine("hqq8-g32", 8, 32, 0.0064),
    affine("hqq8-g128", 8, 128, 0.0079),
    affine("hqq4-g64", 4, 64, 0.087),
    affine("hqq4-g16", 4, 16, 0.062),
    affine("hqq4-g32", 4, 32, 0.075),
    affine("hqq4-g128", 4, 128, 0.098),
    affine("hqq3-g64", 3, 64, 0.184),
    affine("hqq3-g16", 3, 16, 0.13),
    affine("hqq3-g32", 3, 32, 0.16),
    affine("hqq3-g128", 3, 128, 0.208),
    affine("hqq2-g64", 2, 64, 0.44),
    affine("hqq2-g16", 2, 16, 0.31),
    affine("hqq2-g32", 2, 32, 0.376),
    affine("hqq2-g128", 2, 128, 0.495),
    affine("hqq1-g64", 1, 64, 1.5),
    affine("hqq1-g16", 1, 16, 1.05),
    affine("hqq1-g32", 1, 32, 1.28),
    affine("hqq1-g128", 1, 128, 1.74),
];

impl Scheme for Affine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Hqq
    }

    fn grid(&self) -> Grid {
        Grid::Affine { bits: self.bits, group: self.group, symmetric: false }
    }

    fn block(&self) -> usize {
        block(self.group)
    }

    fn planes(&self) -> &'static [Plane] {
        // Only the static table above makes values of this type, and a row is found by its name.
        SCHEMES.iter().find(|s| s.name == self.name).map_or(&[], |s| &s.planes)
    }

    fn error_ceiling(&self) -> f32 {
        self.ceiling
    }

    fn plane_shape(&self, index: usize, shape: &[usize]) -> Vec<usize> {
        let plane = &self.planes[index];
        if plane.whole {
            return vec![1];
        }
        let mut shape = shape.to_vec();
        if let Some(columns) = shape.last_mut() {
            *columns = *columns / self.block() * plane.per_block;
        }
        shape
    }

    /// HQQ stops for all groups at once, when their mean error does not fall any more.
    fn tallies(&self) -> bool {
        true
    }

    fn tally(&self, values: &[f32], _columns: usize, _float: DType) -> Tally {
        let mut tally = Tally { count: values.len() as f64, ..Tally::default() };
        fit::errors(self.bits, self.group, values, &mut tally.errors);
        tally
    }

    /// The number of steps goes into the last plane. Sums are in `f64` here and in `f32` in HQQ, which can stop it a few
    /// steps before or after where the error hardly changes.
    fn begin(&self, tally: &Tally, planes: &mut [&mut [u8]]) {
        if let Some(steps) = planes.last_mut().and_then(|p| p.first_mut()) {
            *steps = fit::steps(&tally.errors);
        }
    }

    /// With no steps the result is that of HQQ without its optimizer.
    fn encode(
        &self,
        values: &[f32],
        columns: usize,
        _importance: Option<&[f32]>,
        float: DType,
        planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        let float = Float::new(self.name, float)?;
        if let [packed, scales, zeros, steps] = planes {
            let steps = usize::from(steps.first().copied().unwrap_or(0)).min(fit::STEPS);
            let mut batch = Batch { codes: [0; fit::LANES * 128], scale: [0.0; fit::LANES], zero: [0.0; fit::LANES] };
            let bytes = self.group * usize::from(self.bits) / 8 * fit::LANES;
            let batches = values.chunks(fit::LANES * self.group).zip(packed.chunks_mut(bytes)).enumerate();
            for (i, (values, packed)) in batches {
                let codes = &mut batch.codes[..values.len()];
                fit::encode(self.bits, self.group, steps, values, codes, &mut batch.scale, &mut batch.zero);
                pack(self.bits.into(), codes, packed);
                for (lane, (scale, zero)) in
                    batch.scale.iter().zip(batch.zero).enumerate().take(codes.len() / self.group)
                {
                    float.write(1.0 / scale, scales, i * fit::LANES + lane);
                    float.write(zero, zeros, i * fit::LANES + lane);
                }
            }
        }
        Ok(())
    }

    /// HQQ computes in the type of its scales: the difference and the product are each rounded to `float`.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales, zeros, _] = planes {
            let (bits, group, order) = (self.bits, self.group, Order::OffsetFirst);
            let (float, offsets) = (Float::new(self.name, float)?, Offsets::Subtracted(zeros));
            Codes { bits, group, columns, packed, float, scales, offsets, order, rounded: float }.decode(values);
        }
        Ok(())
    }
}

/// What is found for some groups at once.
struct Batch {
    codes: [u8; fit::LANES * 128],
    scale: [f32; fit::LANES],
    zero: [f32; fit::LANES],
}
