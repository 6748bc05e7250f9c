//! `qint4` and `qint2`: `value = code * scale - shift`, from the range of each group.

use windlass_tensor::DType;

use crate::mlx::Float;
use crate::mlx::bits::{pack32, unpack32};
use crate::shape::check;
use crate::simd::per_level;
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme};

/// One width and group size.
pub struct Bits {
    name: &'static str,
    bits: u8,
    group: usize,
    ceiling: f32,
    planes: [Plane; 3],
}

const fn bits(name: &'static str, bits: u8, group: usize, ceiling: f32) -> Bits {
    let packed = Plane::new("packed", PlaneType::Fixed(DType::U32), group * bits as usize / 32);
    let scales = Plane::new("scales", PlaneType::Float, 1);
    Bits { name, bits, group, ceiling, planes: [packed, scales, Plane::new("zeros", PlaneType::Float, 1)] }
}

/// The plain names have the groups that Quanto takes where they divide a row; it goes down to 96, 64 and 32 where not.
pub static SCHEMES: [Bits; 8] = [
    bits("qint4", 4, 128, 0.102),
    bits("qint4-g96", 4, 96, 0.098),
    bits("qint4-g64", 4, 64, 0.092),
    bits("qint4-g32", 4, 32, 0.081),
    bits("qint2", 2, 128, 0.505),
    bits("qint2-g96", 2, 96, 0.485),
    bits("qint2-g64", 2, 64, 0.455),
    bits("qint2-g32", 2, 32, 0.4),
];

impl Scheme for Bits {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Quanto
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

    /// Quanto computes in the type of the weights: every result is rounded to `float`.
    fn encode(
        &self,
        values: &[f32],
        columns: usize,
        _importance: Option<&[f32]>,
        float: DType,
        planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales, zeros] = planes {
            encode(self.bits, self.group, Float::new(self.name, float)?, values, packed, scales, zeros);
        }
        Ok(())
    }

    /// The product and the difference are each rounded to `float`.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales, zeros] = planes {
            decode(self.bits, self.group, Float::new(self.name, float)?, packed, scales, zeros, values);
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
        zeros: &mut [u8],
    ) {
        match bits {
            2 => encode_groups::<2>(group, float, values, packed, scales, zeros),
            _ => encode_groups::<4>(group, float, values, packed, scales, zeros),
        }
    }
}

per_level! {
    fn decode(bits: u8, group: usize, float: Float, packed: &[u8], scales: &[u8], zeros: &[u8], values: &mut [f32]) {
        match bits {
            2 => decode_typed::<2>(group, float, packed, scales, zeros, values),
            _ => decode_typed::<4>(group, float, packed, scales, zeros, values),
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
    zeros: &mut [u8],
) {
    let levels = ((1u32 << BITS) - 1) as f32;
    let groups = values.chunks_exact(group).zip(packed.chunks_exact_mut(group / 8 * BITS as usize));
    for (i, (values, packed)) in groups.enumerate() {
        let (low, high) = bounds(values);
        let (scale, shift) = (float.round(float.round(high - low) / levels), -low);
        float.write(scale, scales, i);
        float.write(shift, zeros, i);
        for (v, out) in values.as_chunks::<32>().0.iter().zip(packed.chunks_exact_mut(4 * BITS as usize)) {
            let mut quotients = *v;
            for q in &mut quotients {
                *q += shift;
            }
            float.round_all(&mut quotients);
            for q in &mut quotients {
                *q /= scale;
            }
            float.round_all(&mut quotients);
            let mut codes = [0; 32];
            for (code, q) in codes.iter_mut().zip(quotients) {
                // Nothing over nothing gives zero. Clamping before rounding gives the same code as after, and the sum with
                // 2^23 rounds.
                let q = if q > 0.0 { q } else { 0.0 };
                let q = if q < levels { q } else { levels };
                *code = (q + 8_388_608.0).to_bits() as u8;
            }
            pack32::<BITS>(&codes, out);
        }
    }
}

/// The choice of type stays outside of the loop.
#[inline(always)]
fn decode_typed<const BITS: u32>(
    group: usize,
    float: Float,
    packed: &[u8],
    scales: &[u8],
    zeros: &[u8],
    values: &mut [f32],
) {
    match float {
        Float::F32 => decode_groups::<BITS>(group, Float::F32, packed, scales, zeros, values),
        Float::F16 => decode_groups::<BITS>(group, Float::F16, packed, scales, zeros, values),
        Float::Bf16 => decode_groups::<BITS>(group, Float::Bf16, packed, scales, zeros, values),
    }
}

#[inline(always)]
fn decode_groups<const BITS: u32>(
    group: usize,
    float: Float,
    packed: &[u8],
    scales: &[u8],
    zeros: &[u8],
    values: &mut [f32],
) {
    let groups = values.chunks_exact_mut(group).zip(packed.chunks_exact(group / 8 * BITS as usize));
    for (i, (values, packed)) in groups.enumerate() {
        let (scale, shift) = (float.read(scales, i), float.read(zeros, i));
        for (out, packed) in values.as_chunks_mut::<32>().0.iter_mut().zip(packed.chunks_exact(4 * BITS as usize)) {
            let codes = unpack32::<BITS>(packed);
            for (v, code) in out.iter_mut().zip(codes) {
                *v = f32::from(code) * scale;
            }
            float.round_all(out);
            for v in out.iter_mut() {
                *v -= shift;
            }
            float.round_all(out);
        }
    }
}

/// Smallest and largest value; not-a-number is passed over.
#[inline(always)]
fn bounds(values: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    for v in values.as_chunks::<16>().0 {
        for j in 0..16 {
            low[j] = if v[j] < low[j] { v[j] } else { low[j] };
            high[j] = if v[j] > high[j] { v[j] } else { high[j] };
        }
    }
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            low[j] = if low[j + half] < low[j] { low[j + half] } else { low[j] };
            high[j] = if high[j + half] > high[j] { high[j + half] } else { high[j] };
        }
    }
    (low[0], high[0])
}
