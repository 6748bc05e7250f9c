//! `nf4` and `fp4`: 16 values, a scale in `f32` per block.

use windlass_tensor::DType;

use crate::mlx::Float;
use crate::shape::check;
use crate::simd::per_level;
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme};

/// Sixteen values and the codes that stand for them.
pub(crate) struct Table {
    /// By code.
    pub(crate) values: [f32; 16],
    /// Middles between neighbouring values, ascending; a middle itself belongs to the value below.
    edges: [f32; 15],
    /// The code below the first edge.
    lowest: u32,
    /// What crossing an edge adds to the code, modulo 16.
    steps: [u32; 15],
}

/// Quantiles of the normal distribution.
pub(crate) static NF4: Table = Table::new(
    [
        -1.0,
        -0.696_192_8,
        -0.525_073_05,
        -0.394_917_5,
        -0.284_441_38,
        -0.184_773_43,
        -0.091_050_036,
        0.0,
        0.079_580_3,
        0.160_930_2,
        0.246_112_3,
        0.337_915_24,
        0.440_709_83,
        0.562_617,
        0.722_956_84,
        1.0,
    ],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
);

/// A float of a sign, two bits of exponent and one of mantissa; both codes of zero decode to plus zero.
pub(crate) static FP4: Table = Table::new(
    [
        0.0,
        0.0625 / 12.0,
        8.0 / 12.0,
        1.0,
        4.0 / 12.0,
        6.0 / 12.0,
        2.0 / 12.0,
        3.0 / 12.0,
        0.0,
        -0.0625 / 12.0,
        -8.0 / 12.0,
        -1.0,
        -4.0 / 12.0,
        -6.0 / 12.0,
        -2.0 / 12.0,
        -3.0 / 12.0,
    ],
    [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3],
);

impl Table {
    /// `order` has the codes by ascending value.
    const fn new(values: [f32; 16], order: [u8; 16]) -> Self {
        let (mut edges, mut steps, mut i) = ([0.0; 15], [0; 15], 0);
        while i < 15 {
            let (below, above) = (order[i] as usize, order[i + 1] as usize);
            edges[i] = (values[below] + values[above]) / 2.0;
            steps[i] = (16 + above - below) as u32 % 16;
            i += 1;
        }
        Self { values, edges, lowest: order[0] as u32, steps }
    }

    /// The two values of each byte of codes, the high half first.
    const fn pairs(&self) -> [[f32; 2]; 256] {
        let (mut pairs, mut byte) = ([[0.0; 2]; 256], 0);
        while byte < 256 {
            pairs[byte] = [self.values[byte >> 4], self.values[byte & 15]];
            byte += 1;
        }
        pairs
    }
}

static NF4_PAIRS: [[f32; 2]; 256] = NF4.pairs();
static FP4_PAIRS: [[f32; 2]; 256] = FP4.pairs();

/// One table and block size.
pub struct Four {
    name: &'static str,
    normal: bool,
    block: usize,
    ceiling: f32,
    planes: [Plane; 2],
}

const fn four(name: &'static str, normal: bool, block: usize, ceiling: f32) -> Four {
    let packed = Plane::new("packed", PlaneType::Fixed(DType::U8), block / 2);
    Four { name, normal, block, ceiling, planes: [packed, Plane::new("absmax", PlaneType::Fixed(DType::F32), 1)] }
}

/// The plain names have the blocks of 64 that bitsandbytes uses unless told otherwise.
pub static SCHEMES: [Four; 16] = [
    four("nf4", true, 64, 0.094),
    four("nf4-b32", true, 32, 0.09),
    four("nf4-b128", true, 128, 0.097),
    four("nf4-b256", true, 256, 0.1),
    four("nf4-b512", true, 512, 0.103),
    four("nf4-b1024", true, 1024, 0.106),
    four("nf4-b2048", true, 2048, 0.108),
    four("nf4-b4096", true, 4096, 0.111),
    four("fp4", false, 64, 0.125),
    four("fp4-b32", false, 32, 0.118),
    four("fp4-b128", false, 128, 0.131),
    four("fp4-b256", false, 256, 0.136),
    four("fp4-b512", false, 512, 0.14),
    four("fp4-b1024", false, 1024, 0.145),
    four("fp4-b2048", false, 2048, 0.15),
    four("fp4-b4096", false, 4096, 0.155),
];

impl Scheme for Four {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::BitsAndBytes
    }

    fn grid(&self) -> Grid {
        Grid::Table16 { group: self.block }
    }

    fn block(&self) -> usize {
        self.block
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
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, absmax] = planes {
            encode(self.normal, self.block, values, packed, absmax.as_chunks_mut().0);
        }
        Ok(())
    }

    /// Products are taken in `f32` and rounded to `float`, the type that bitsandbytes would return.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, absmax] = planes {
            decode(self.normal, self.block, Float::new(self.name, float)?, packed, absmax.as_chunks().0, values);
        }
        Ok(())
    }
}

per_level! {
    /// Encodes blocks; `absmax` holds one little-endian `f32` for each.
    pub(crate) fn encode(normal: bool, block: usize, values: &[f32], packed: &mut [u8], absmax: &mut [[u8; 4]]) {
        if normal {
            encode_blocks(&NF4, block, values, packed, absmax);
        } else {
            encode_blocks(&FP4, block, values, packed, absmax);
        }
    }
}

per_level! {
    /// The inverse of [`encode`].
    pub(crate) fn decode(
        normal: bool,
        block: usize,
        float: Float,
        packed: &[u8],
        absmax: &[[u8; 4]],
        values: &mut [f32],
    ) {
        let pairs = if normal { &NF4_PAIRS } else { &FP4_PAIRS };
        match float {
            Float::F32 => decode_blocks(pairs, block, Float::F32, packed, absmax, values),
            Float::F16 => decode_blocks(pairs, block, Float::F16, packed, absmax, values),
            Float::Bf16 => decode_blocks(pairs, block, Float::Bf16, packed, absmax, values),
        }
    }
}

#[inline(always)]
fn encode_blocks(table: &Table, block: usize, values: &[f32], packed: &mut [u8], absmax: &mut [[u8; 4]]) {
    let blocks = values.chunks_exact(block).zip(packed.chunks_exact_mut(block / 2));
    for ((values, packed), absmax) in blocks.zip(absmax) {
        let largest = largest(values);
        *absmax = largest.to_le_bytes();
        let inverse = 1.0 / if largest < 1e-38 { 1e-38 } else { largest };
        for (values, packed) in values.as_chunks::<32>().0.iter().zip(packed.as_chunks_mut::<16>().0) {
            let mut codes = [0; 32];
            for (code, v) in codes.iter_mut().zip(values) {
                *code = nearest(table, v * inverse) as u8;
            }
            for (byte, two) in packed.iter_mut().zip(codes.as_chunks::<2>().0) {
                let word = u16::from_le_bytes(*two);
                *byte = (word << 4 | word >> 8) as u8;
            }
        }
    }
}

#[inline(always)]
fn decode_blocks(
    pairs: &[[f32; 2]; 256],
    block: usize,
    float: Float,
    packed: &[u8],
    absmax: &[[u8; 4]],
    values: &mut [f32],
) {
    let blocks = values.chunks_exact_mut(block).zip(packed.chunks_exact(block / 2));
    for ((values, packed), absmax) in blocks.zip(absmax) {
        let scale = f32::from_le_bytes(*absmax);
        for (values, packed) in values.as_chunks_mut::<32>().0.iter_mut().zip(packed.as_chunks::<16>().0) {
            for (two, byte) in values.as_chunks_mut::<2>().0.iter_mut().zip(packed) {
                *two = pairs[usize::from(*byte)];
            }
            for v in values.iter_mut() {
                *v *= scale;
            }
            float.round_all(values);
        }
    }
}

/// The code of the value nearest to a quotient. Counting edges needs no clamp to [-1, 1].
#[inline(always)]
fn nearest(table: &Table, quotient: f32) -> u32 {
    let mut code = table.lowest;
    for (edge, step) in table.edges.iter().zip(table.steps) {
        code += if quotient > *edge { step } else { 0 };
    }
    code % 16
}

/// Largest magnitude of whole blocks of 32; not-a-number is passed over.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut high = [0.0f32; 32];
    for v in values.as_chunks::<32>().0 {
        for i in 0..32 {
            high[i] = if v[i].abs() > high[i] { v[i].abs() } else { high[i] };
        }
    }
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            high[i] = if high[i + half] > high[i] { high[i + half] } else { high[i] };
        }
    }
    high[0]
}
