//! Four-bit floats: MXFP4 between GGML and MLX, NVFP4 between them and from checkpoints with a scale of the tensor.
//!
//! The codes agree everywhere; scales do, as codes, where both sides have one byte per group. A scale of the whole tensor
//! must go into the bytes of the groups, which works where each product (or quotient) is an E4M3 number itself.

use windlass_tensor::DType;

use crate::float::{f8e4m3_to_f32, f32_to_f8e4m3};
use crate::mlx::bits::{pack32, unpack32};
use crate::shape::check;
use crate::{Error, Packing};

/// Where codes and scales lie.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// A power of two, then 32 codes, those of the second half in the high halves of bytes.
    GgmlMx,
    /// Four scales, then four times 16 codes in the same manner.
    GgmlNv,
    /// Codes in order, scales apart.
    Mlx,
    /// As [`Place::Mlx`], with a scale of the tensor that scales are multiplied by.
    Multiplied,
    /// As [`Place::Mlx`], with a scale of the tensor that scales are divided by.
    Divided,
}

/// A way between two packings of four-bit floats.
#[derive(Clone, Copy)]
pub(super) struct Fp4 {
    from: (Packing, Place),
    to: (Packing, Place),
    /// Values that share a scale.
    group: usize,
}

fn place(packing: Packing) -> Option<(Place, usize)> {
    match packing.scheme.name() {
        "mxfp4" => Some((Place::GgmlMx, 32)),
        "nvfp4" => Some((Place::GgmlNv, 16)),
        "mlx-mxfp4" => Some((Place::Mlx, 32)),
        "mlx-nvfp4" => Some((Place::Mlx, 16)),
        "nvfp4-modelopt" => Some((Place::Multiplied, 16)),
        "nvfp4-ct" => Some((Place::Divided, 16)),
        _ => None,
    }
}

impl Fp4 {
    pub(super) fn of(from: Packing, to: Packing) -> Option<Fp4> {
        let ((source, group), (target, other)) = (place(from)?, place(to)?);
        let holds = matches!(target, Place::GgmlMx | Place::GgmlNv | Place::Mlx);
        (group == other && holds).then_some(Fp4 { from: (from, source), to: (to, target), group })
    }

    /// See [`super::Repack::rows`].
    pub(super) fn rows(&self, from: &[&[u8]], columns: usize, to: &mut [&mut [u8]]) -> Result<bool, Error> {
        let bytes = from.first().map_or(0, |p| p.len());
        let values = match self.from.1 {
            Place::GgmlMx => bytes / 17 * 32,
            Place::GgmlNv => bytes / 36 * 64,
            _ => bytes * 2,
        };
        let ((source, _), (target, _)) = (self.from, self.to);
        check(source.scheme, (values, columns), source.float, from.iter().map(|p| p.len()))?;
        check(target.scheme, (values, columns), target.float, to.iter().map(|p| p.len()))?;
        for i in 0..values / self.group {
            let Some(scale) = self.scale(from, i) else { return Ok(false) };
            self.write(to, i, scale, self.read(from, i));
        }
        Ok(true)
    }

    /// The byte of a group's scale in the target, if there is one.
    fn scale(&self, planes: &[&[u8]], index: usize) -> Option<u8> {
        let code = match self.from.1 {
            Place::GgmlMx => planes[0][index * 17],
            Place::GgmlNv => planes[0][index / 4 * 36 + index % 4],
            _ => planes[1][index],
        };
        let (to, place) = self.to;
        if self.group == 32 {
            // MLX computes in the type of the model: 6 times the scale, and half of it, must be numbers there.
            let fits = place != Place::Mlx || to.float != DType::F16 || (104..=140).contains(&code);
            return (fits && code != 255).then_some(code);
        }
        let global = match self.from.1 {
            Place::Multiplied | Place::Divided => f32::from_le_bytes(<[u8; 4]>::try_from(planes[2]).ok()?),
            _ => 1.0,
        };
        // A sign or not-a-number means different things to different libraries.
        (code < 0x7f).then_some(())?;
        let (scale, global) = (f64::from(f8e4m3_to_f32(code)), f64::from(global));
        let wanted = if self.from.1 == Place::Divided { scale / global } else { scale * global };
        let found = f32_to_f8e4m3(wanted as f32);
        let value = f64::from(f8e4m3_to_f32(found));
        // These products have 28 bits, so f64 holds them.
        let exact = if self.from.1 == Place::Divided { value * global == scale } else { value == scale * global };
        (exact && found < 0x7f).then_some(found)
    }

    /// The codes of a group, 16 or 32 of them.
    fn read(&self, planes: &[&[u8]], index: usize) -> [u8; 32] {
        let half = self.group / 2;
        let halves = |bytes: &[u8]| {
            let mut codes = [0; 32];
            for (j, byte) in bytes.iter().enumerate() {
                codes[j] = byte & 15;
                codes[j + half] = byte >> 4;
            }
            codes
        };
        match self.from.1 {
            Place::GgmlMx => halves(&planes[0][index * 17 + 1..][..half]),
            Place::GgmlNv => halves(&planes[0][index / 4 * 36 + 4 + index % 4 * half..][..half]),
            _ => {
                let mut bytes = [0; 16];
                bytes[..half].copy_from_slice(&planes[0][index * half..][..half]);
                unpack32::<4>(&bytes)
            }
        }
    }

    fn write(&self, planes: &mut [&mut [u8]], index: usize, scale: u8, codes: [u8; 32]) {
        let half = self.group / 2;
        let halves = |bytes: &mut [u8]| {
            for (j, byte) in bytes.iter_mut().enumerate() {
                *byte = codes[j] | codes[j + half] << 4;
            }
        };
        match self.to.1 {
            Place::GgmlMx => {
                planes[0][index * 17] = scale;
                halves(&mut planes[0][index * 17 + 1..][..half]);
            }
            Place::GgmlNv => {
                planes[0][index / 4 * 36 + index % 4] = scale;
                halves(&mut planes[0][index / 4 * 36 + 4 + index % 4 * half..][..half]);
            }
            _ => {
                let mut bytes = [0; 16];
                pack32::<4>(&codes, &mut bytes);
                planes[0][index * half..][..half].copy_from_slice(&bytes[..half]);
                planes[1][index] = scale;
            }
        }
    }
}
