//! From one packing to another without decoding: GGML's Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and MLX's integers among each
//! other and from GPTQ, AWQ and compressed-tensors; four-bit floats.
//!
//! Integers hold `value = scale * code + bias` for groups of 32 or more. A group moves exactly when the target can hold
//! a scale, a bias and codes whose values are *the same real numbers*. What a library computes from them is rounded to
//! its own float type: MLX in `F16` or `BF16` rounds product and sum, GGML multiplies in `f32`. So the grids are equal,
//! decoded values may differ in the last place of the smaller type.

use crate::mlx::Float;
use crate::mlx::bits::{pack32, unpack32};
use crate::shape::check_groups;
use crate::{Error, Family, Grid, Packing};

mod fp4;
mod grouped;

/// Values that are moved together.
const GROUP: usize = 32;

/// A way from one packing to another.
#[derive(Clone, Copy)]
pub struct Repack(Way);

#[derive(Clone, Copy)]
enum Way {
    Affine { from: Layout, to: Layout },
    Grouped { from: grouped::Codes, to: Layout },
    Fp4(fp4::Fp4),
}

/// The way between two packings, or `None` where their grids cannot agree: other kinds of grid, or fewer bits.
pub fn repack(from: Packing, to: Packing) -> Option<Repack> {
    if let Some(way) = fp4::Fp4::of(from, to) {
        return Some(Repack(Way::Fp4(way)));
    }
    let to = Layout::of(to)?;
    let way = match grouped::Codes::of(from) {
        Some(from) => (from.bits() <= to.bits).then_some(Way::Grouped { from, to }),
        None => Layout::of(from).filter(|from| from.bits <= to.bits).map(|from| Way::Affine { from, to }),
    };
    way.map(Repack)
}

/// How rows were moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Every value is the same real number.
    Exactly,
    /// Codes and scales are the same; products of a scale and a zero were rounded to the type that the target keeps them
    /// in.
    Rounded,
}

impl Repack {
    /// As [`Repack::rows`], but where the source keeps zeros, a bias that the target cannot hold is rounded. `None` where
    /// rows could not be moved even so; the bytes of the target then mean nothing.
    pub fn rows_nearly(&self, from: &[&[u8]], columns: usize, to: &mut [&mut [u8]]) -> Result<Option<Moved>, Error> {
        if self.rows(from, columns, to)? {
            return Ok(Some(Moved::Exactly));
        }
        let Way::Grouped { from: codes, to: target } = &self.0 else { return Ok(None) };
        let rounded = |i| {
            let group = codes.read(from, columns, i)?;
            Some(Affine { bias: target.rounded(group.bias), ..group })
        };
        let values = codes.values(from, columns)?;
        let moves = codes.in_order(from, columns)?
            && (0..values / GROUP).all(|i| rounded(i).is_some_and(|group| target.write(&group, to, i)));
        Ok(moves.then_some(Moved::Rounded))
    }

    /// Moves whole rows of `columns` values. Answers false when some group has no exact place in the target, or columns
    /// are not in the order of their groups; the bytes of the target then mean nothing and the caller requantizes.
    /// Planes are those of the two schemes, for as many rows as the source has; other sizes are an error.
    pub fn rows(&self, from: &[&[u8]], columns: usize, to: &mut [&mut [u8]]) -> Result<bool, Error> {
        match &self.0 {
            Way::Fp4(way) => way.rows(from, columns, to),
            Way::Grouped { from: codes, to: target } => {
                let values = codes.values(from, columns)?;
                target.check(values, columns, to)?;
                Ok(codes.in_order(from, columns)?
                    && (0..values / GROUP)
                        .all(|i| codes.read(from, columns, i).is_some_and(|group| target.write(&group, to, i))))
            }
            Way::Affine { from: source, to: target } => {
                let first = from.first().map_or(0, |plane| plane.len());
                let values = (first / source.bytes()[0]).saturating_mul(source.group);
                check_groups(source.name, (values, columns, source.group), source.bytes(), from.iter().copied())?;
                target.check(values, columns, to)?;
                Ok((0..values / GROUP).all(|i| source.read(from, i).is_some_and(|group| target.write(&group, to, i))))
            }
        }
    }
}

/// 32 values as `scale * code + bias`; all three as exact as they were stored.
struct Affine {
    scale: f64,
    bias: f64,
    codes: [u8; GROUP],
}

/// Where a packing keeps the parts of a group.
#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    bits: u8,
    group: usize,
    kind: Kind,
    bytes: [usize; 3],
}

#[derive(Clone, Copy)]
enum Kind {
    /// One plane: a half `d`, codes that mean `d * (code - zero)`.
    Symmetric { zero: i32 },
    /// One plane: halves `d` and `m`, codes that mean `d * code + m`.
    Offset,
    /// Planes of codes, scales and biases.
    Mlx { float: Float },
}

impl Layout {
    fn of(packing: Packing) -> Option<Layout> {
        let name = packing.scheme.name();
        let ggml = |bits, kind, bytes| Some(Layout { name, bits, group: GROUP, kind, bytes: [bytes, 0, 0] });
        match (packing.scheme.family(), name, packing.scheme.grid()) {
            (Family::Ggml, "q4_0", _) => ggml(4, Kind::Symmetric { zero: 8 }, 18),
            (Family::Ggml, "q4_1", _) => ggml(4, Kind::Offset, 20),
            (Family::Ggml, "q5_0", _) => ggml(5, Kind::Symmetric { zero: 16 }, 22),
            (Family::Ggml, "q5_1", _) => ggml(5, Kind::Offset, 24),
            (Family::Ggml, "q8_0", _) => ggml(8, Kind::Symmetric { zero: 128 }, 34),
            (Family::Mlx, _, Grid::Affine { bits, group, .. }) => {
                let float = Float::new(name, packing.float).ok()?;
                let bytes = [group * usize::from(bits) / 8, float.size(), float.size()];
                Some(Layout { name, bits, group, kind: Kind::Mlx { float }, bytes })
            }
            _ => None,
        }
    }

    /// The nearest bias that this layout can hold.
    fn rounded(&self, bias: f64) -> f64 {
        let float = if let Kind::Mlx { float } = self.kind { float } else { Float::F16 };
        f64::from(float.round(bias as f32))
    }

    /// Bytes of each plane for one group of its own size.
    fn bytes(&self) -> &[usize] {
        if let Kind::Mlx { .. } = self.kind { &self.bytes } else { &self.bytes[..1] }
    }

    /// Refuses planes that are not those of so many values.
    fn check(&self, values: usize, columns: usize, planes: &[&mut [u8]]) -> Result<(), Error> {
        check_groups(self.name, (values, columns, self.group), self.bytes(), planes.iter().map(|p| &**p))
    }

    /// Codes in a GGML block start after `d`, and `m` if it has one.
    fn header(&self) -> usize {
        if let Kind::Offset = self.kind { 4 } else { 2 }
    }

    /// The 32 values at `index`, unless scale or bias is not finite. Sizes have been checked.
    fn read(&self, planes: &[&[u8]], index: usize) -> Option<Affine> {
        let (scale, bias, codes);
        if let Kind::Mlx { float } = self.kind {
            let whole = index * GROUP / self.group;
            scale = f64::from(float.read(planes[1], whole));
            bias = f64::from(float.read(planes[2], whole));
            let bytes = 4 * usize::from(self.bits);
            codes = unpack(self.bits, &planes[0][index * bytes..][..bytes]);
        } else {
            let block = &planes[0][index * self.bytes[0]..][..self.bytes[0]];
            scale = f64::from(Float::F16.read(block, 0));
            bias = match self.kind {
                Kind::Symmetric { zero } => -f64::from(zero) * scale,
                _ => f64::from(Float::F16.read(block, 1)),
            };
            codes = read_codes(self.bits, &block[self.header()..]);
        }
        (scale.is_finite() && bias.is_finite()).then_some(Affine { scale, bias, codes })
    }

    /// Stores the 32 values at `index`, or answers false.
    fn write(&self, group: &Affine, planes: &mut [&mut [u8]], index: usize) -> bool {
        if let Kind::Mlx { float } = self.kind {
            let whole = index * GROUP / self.group;
            let starts = (index * GROUP).is_multiple_of(self.group);
            let bytes = 4 * usize::from(self.bits);
            pack(self.bits, &group.codes, &mut planes[0][index * bytes..][..bytes]);
            return put(float, group.scale, planes[1], whole, starts)
                && put(float, group.bias, planes[2], whole, starts);
        }
        let block = &mut planes[0][index * self.bytes[0]..][..self.bytes[0]];
        let codes = match self.kind {
            Kind::Symmetric { zero } => recentre(group, zero, self.bits),
            _ => put(Float::F16, group.bias, block, 1, true).then_some(group.codes),
        };
        let Some(codes) = codes else { return false };
        write_codes(self.bits, &codes, &mut block[self.header()..]);
        put(Float::F16, group.scale, block, 0, true)
    }
}

/// Stores a value that `float` can hold exactly; where a group goes on from an earlier one, it must be the same value.
fn put(float: Float, value: f64, bytes: &mut [u8], index: usize, starts: bool) -> bool {
    let single = value as f32;
    if f64::from(single) != value || float.round(single) != single {
        return false;
    }
    if starts {
        float.write(single, bytes, index);
    }
    float.read(bytes, index) == single
}

/// Codes around `zero` with the same values, if the bias is a whole number of steps and they stay in range.
fn recentre(group: &Affine, zero: i32, bits: u8) -> Option<[u8; GROUP]> {
    if group.scale == 0.0 {
        return (group.bias == 0.0).then_some([zero as u8; GROUP]);
    }
    let steps = (group.bias / group.scale).round();
    // The product of a 24-bit float and a small integer is exact in f64.
    if steps.abs() > 512.0 || steps * group.scale != group.bias {
        return None;
    }
    let mut codes = [0; GROUP];
    let mut outside = 0;
    for (to, from) in codes.iter_mut().zip(group.codes) {
        let code = i32::from(from) + steps as i32 + zero;
        outside |= code >> bits;
        *to = code as u8;
    }
    (outside == 0).then_some(codes)
}

/// GGML's order: byte `i` has code `i` low and code `i + 16` high; fifth bits lie before, one per code.
fn read_codes(bits: u8, data: &[u8]) -> [u8; GROUP] {
    let mut codes = [0; GROUP];
    if bits == 8 {
        for (code, byte) in codes.iter_mut().zip(data) {
            *code = byte ^ 0x80;
        }
        return codes;
    }
    let (high, low) = data.split_at(if bits == 5 { 4 } else { 0 });
    for (i, byte) in low.iter().enumerate().take(16) {
        codes[i] = byte & 15;
        codes[i + 16] = byte >> 4;
    }
    if bits == 5 {
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (high[i / 8] >> (i % 8) & 1) << 4;
        }
    }
    codes
}

fn write_codes(bits: u8, codes: &[u8; GROUP], data: &mut [u8]) {
    if bits == 8 {
        for (byte, code) in data.iter_mut().zip(codes) {
            *byte = code ^ 0x80;
        }
        return;
    }
    let (high, low) = data.split_at_mut(if bits == 5 { 4 } else { 0 });
    for (i, byte) in low.iter_mut().enumerate().take(16) {
        *byte = codes[i] & 15 | codes[i + 16] << 4;
    }
    for (i, byte) in high.iter_mut().enumerate() {
        *byte = (0..8).fold(0, |bits, k| bits | (codes[i * 8 + k] >> 4 & 1) << k);
    }
}

fn unpack(bits: u8, data: &[u8]) -> [u8; GROUP] {
    match bits {
        2 => unpack32::<2>(data),
        3 => unpack32::<3>(data),
        4 => unpack32::<4>(data),
        5 => unpack32::<5>(data),
        6 => unpack32::<6>(data),
        _ => unpack32::<8>(data),
    }
}

fn pack(bits: u8, codes: &[u8; GROUP], data: &mut [u8]) {
    match bits {
        2 => pack32::<2>(codes, data),
        3 => pack32::<3>(codes, data),
        4 => pack32::<4>(codes, data),
        5 => pack32::<5>(codes, data),
        6 => pack32::<6>(codes, data),
        _ => pack32::<8>(codes, data),
    }
}
