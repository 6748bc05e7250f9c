//! `mlx{2,3,4,5,6,8}-g{32,64,128}`: `value = code * scale + bias` for each group.

use windlass_tensor::DType;

use super::bits::{pack32, unpack32};
use super::{Float, LANES, check};
use crate::simd::per_level;
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme};

/// One width and group size.
pub struct Affine {
    name: &'static str,
    bits: u8,
    group: usize,
    ceiling: f32,
    planes: [Plane; 3],
}

const fn affine(name: &'static str, bits: u8, group: usize, ceiling: f32) -> Affine {
    let packed = Plane::new("packed", PlaneType::Fixed(DType::U32), group * bits as usize / 32);
    let scales = Plane::new("scales", PlaneType::Float, 1);
    let biases = Plane::new("biases", PlaneType::Float, 1);
    Affine { name, bits, group, ceiling, planes: [packed, scales, biases] }
}

pub static SCHEMES: [Affine; 18] = [
    affine("mlx2-g32", 2, 32, 0.38),
    affine("mlx2-g64", 2, 64, 0.41),
    affine("mlx2-g128", 2, 128, 0.44),
    affine("mlx3-g32", 3, 32, 0.18),
    affine("mlx3-g64", 3, 64, 0.2),
    affine("mlx3-g128", 3, 128, 0.22),
    affine("mlx4-g32", 4, 32, 0.084),
    affine("mlx4-g64", 4, 64, 0.094),
    affine("mlx4-g128", 4, 128, 0.11),
    affine("mlx5-g32", 5, 32, 0.042),
    affine("mlx5-g64", 5, 64, 0.046),
    affine("mlx5-g128", 5, 128, 0.051),
    affine("mlx6-g32", 6, 32, 0.022),
    affine("mlx6-g64", 6, 64, 0.024),
    affine("mlx6-g128", 6, 128, 0.026),
    affine("mlx8-g32", 8, 32, 0.0091),
    affine("mlx8-g64", 8, 64, 0.01),
    affine("mlx8-g128", 8, 128, 0.011),
];

impl Affine {
    fn bytes_per_group(&self, float: Float) -> [usize; 3] {
        [self.group * usize::from(self.bits) / 8, float.size(), float.size()]
    }
}

impl Scheme for Affine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Mlx
    }

    fn grid(&self) -> Grid {
        Grid::Affine { bits: self.bits, group: self.group, symmetric: false }
    }

    fn block(&self) -> usize {
        self.group
    }

    fn planes(&self) -> &'static [Plane] {
        // Only the static table above makes values of this type, and a row is found by its name.
        SCHEMES.iter().find(|s| s.name == self.name).map_or(&[], |s| &s.planes)
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
        let float = Float::new(self.name, float)?;
        let shape = (values.len(), columns, self.group);
        check(self.name, shape, &self.bytes_per_group(float), planes.iter().map(|p| &**p))?;
        if let [packed, scales, biases] = planes {
            encode(self.bits, self.group, float, values, packed, scales, biases);
        }
        Ok(())
    }

    /// MLX computes in the type of the scales, so the values are what fits there: the product and the sum are each
    /// rounded to `float`.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        let float = Float::new(self.name, float)?;
        let shape = (values.len(), columns, self.group);
        check(self.name, shape, &self.bytes_per_group(float), planes.iter().copied())?;
        if let [packed, scales, biases] = planes {
            decode(self.bits, self.group, float, packed, scales, biases, values);
        }
        Ok(())
    }
}

per_level! {
    fn encode(
        bits: u8,
        group: usize,
        float: Float,
        values: &[f32],
        packed: &mut [u8],
        scales: &mut [u8],
        biases: &mut [u8],
    ) {
        match bits {
            2 => encode_groups::<2>(group, float, values, packed, scales, biases),
            3 => encode_groups::<3>(group, float, values, packed, scales, biases),
            4 => encode_groups::<4>(group, float, values, packed, scales, biases),
            5 => encode_groups::<5>(group, float, values, packed, scales, biases),
            6 => encode_groups::<6>(group, float, values, packed, scales, biases),
            _ => encode_groups::<8>(group, float, values, packed, scales, biases),
        }
    }
}

per_level! {
    fn decode(
        bits: u8,
        group: usize,
        float: Float,
        packed: &[u8],
        scales: &[u8],
        biases: &[u8],
        values: &mut [f32],
    ) {
        match bits {
            2 => decode_groups::<2>(group, float, packed, scales, biases, values),
            3 => decode_groups::<3>(group, float, packed, scales, biases, values),
            4 => decode_groups::<4>(group, float, packed, scales, biases, values),
            5 => decode_groups::<5>(group, float, packed, scales, biases, values),
            6 => decode_groups::<6>(group, float, packed, scales, biases, values),
            _ => decode_groups::<8>(group, float, packed, scales, biases, values),
        }
    }
}

#[inline(always)]
fn encode_groups<const BITS: u32>(
    group: usize,
    float: Float,
    values: &[f32],
    packed: &mut [u8],
    scales: &mut [u8],
    biases: &mut [u8],
) {
    let bytes = group / 8 * BITS as usize;
    for (batch, (values, packed)) in values.chunks(LANES * group).zip(packed.chunks_mut(LANES * bytes)).enumerate() {
        let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
        for (i, group) in values.chunks_exact(group).enumerate().take(LANES) {
            (low[i], high[i]) = bounds(group);
        }
        let (mut scale, mut bias) = ([0.0; LANES], [0.0; LANES]);
        for i in 0..LANES {
            (scale[i], bias[i]) = fit::<BITS>(low[i], high[i]);
        }
        let groups = values.chunks_exact(group).zip(packed.chunks_exact_mut(bytes));
        for (i, (values, packed)) in groups.enumerate().take(LANES) {
            for (v, out) in values.as_chunks::<32>().0.iter().zip(packed.chunks_exact_mut(4 * BITS as usize)) {
                pack32::<BITS>(&codes::<BITS>(v, scale[i], bias[i]), out);
            }
            float.write(scale[i], scales, batch * LANES + i);
            float.write(bias[i], biases, batch * LANES + i);
        }
    }
}

#[inline(always)]
fn decode_groups<const BITS: u32>(
    group: usize,
    float: Float,
    packed: &[u8],
    scales: &[u8],
    biases: &[u8],
    values: &mut [f32],
) {
    let bytes = group / 8 * BITS as usize;
    for (i, (packed, values)) in packed.chunks_exact(bytes).zip(values.chunks_exact_mut(group)).enumerate() {
        let (scale, bias) = (float.read(scales, i), float.read(biases, i));
        for (packed, out) in packed.chunks_exact(4 * BITS as usize).zip(values.as_chunks_mut::<32>().0) {
            let codes = unpack32::<BITS>(packed);
            for (v, code) in out.iter_mut().zip(codes) {
                *v = f32::from(code) * scale;
            }
            float.round_all(out);
            for v in out.iter_mut() {
                *v += bias;
            }
            float.round_all(out);
        }
    }
}

/// Smallest and largest value; not-a-number is passed over.
#[inline(always)]
fn bounds(values: &[f32]) -> (f32, f32) {
    let mut low = [f32::INFINITY; 16];
    let mut high = [f32::NEG_INFINITY; 16];
    for v in values.as_chunks::<16>().0 {
        for i in 0..16 {
            low[i] = if v[i] < low[i] { v[i] } else { low[i] };
            high[i] = if v[i] > high[i] { v[i] } else { high[i] };
        }
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            low[i] = if low[i + half] < low[i] { low[i + half] } else { low[i] };
            high[i] = if high[i + half] > high[i] { high[i + half] } else { high[i] };
        }
    }
    (low[0], high[0])
}

/// Scale and bias. The end of the range that lies farther from zero is hit exactly, and so is zero where it can be; the
/// scale is negative when that end is the upper one. All in `f32`, whatever type the scale is stored in.
#[inline(always)]
fn fit<const BITS: u32>(low: f32, high: f32) -> (f32, f32) {
    let steps = ((1u32 << BITS) - 1) as f32;
    let lower = low.abs() > high.abs();
    let width = (high - low) / steps;
    let width = if width < 1e-7 { 1e-7 } else { width };
    let (scale, edge) = if lower { (width, low) } else { (-width, high) };
    let zero = (edge / scale).round_ties_even();
    if zero == 0.0 { (scale, 0.0) } else { (edge / zero, edge) }
}

/// Codes of 32 values. Clamping before rounding gives the same code as after, and lets the addition of 2^23 round: it
/// leaves the integer in the low bits.
#[inline(always)]
fn codes<const BITS: u32>(values: &[f32; 32], scale: f32, bias: f32) -> [u8; 32] {
    let steps = ((1u32 << BITS) - 1) as f32;
    let mut codes = [0; 32];
    for (code, v) in codes.iter_mut().zip(values) {
        let q = (v - bias) / scale;
        let q = if q > 0.0 { q } else { 0.0 };
        let q = if q < steps { q } else { steps };
        *code = (q + 8_388_608.0).to_bits() as u8;
    }
    codes
}
