//! Schemes whose codes, scales and minima are planes of their own: which kernels read them, and how.

use windlass_quant::{Family, Grid, Packing};
use windlass_tensor::DType;

use super::apart::{Apart, Kind, Min, Numbers};
use super::codes::{self, Entry};
use super::dense::FLOAT8;

/// The scales of a scheme of 8-bit floats; nothing where it is another or has other sizes.
pub(super) fn floats<'a>(packing: &Packing, planes: &[&'a [u8]], rows: usize, columns: usize) -> Option<Apart<'a>> {
    let Grid::SmallFloat { bits: 8, group: side } = packing.scheme.grid() else { return None };
    let group = if side > 0 { side } else { columns };
    let &[_, bytes] = planes else { return None };
    let (kind, band) = match packing.scheme.family() {
        Family::Mlx => (Kind::E8m0, 1),
        Family::Quanto => (float(packing.float)?, 1),
        // A scale for each square, for each row, or for all.
        Family::Fp8 if side > 0 => (Kind::F32, side),
        Family::Fp8 => (Kind::F32, if bytes.len() == 4 * rows { 1 } else { usize::MAX }),
        _ => return None,
    };
    let (scales, factor, per_row) = (Numbers { kind, bytes }, FLOAT8, columns.div_ceil(group));
    let apart = Apart { scales, factor, nested: None, mins: None, rows, band, group, per_row };
    columns.is_multiple_of(32).then_some(apart)
}

/// Kernels for the codes, and the scales; nothing where a scheme or its sizes have none.
pub(super) fn parts<'a>(
    packing: &Packing,
    planes: &[&'a [u8]],
    rows: usize,
    columns: usize,
) -> Option<(&'static Entry, Apart<'a>)> {
    let (scheme, grid) = (packing.scheme, packing.scheme.grid());
    let group = match grid {
        Grid::Affine { group, .. } | Grid::Table16 { group } if group > 0 => group,
        _ => columns,
    };
    let float = float(packing.float)?;
    let plane = |index: usize, kind: Kind| Some(Numbers { kind, bytes: planes.get(index)? });
    let apart = |scales: Numbers<'a>, factor: f32, mins: Option<(Numbers<'a>, Min)>| {
        Some(Apart { scales, factor, nested: None, mins, rows, band: 1, group, per_row: columns.div_ceil(group) })
    };
    let width = |bits: u8| match (bits, group) {
        (1, 16) => Some("1 bit by 16"),
        (2, 16) => Some("2 bits by 16"),
        (3, 16) => Some("3 bits by 16"),
        (4, 16) => Some("4 bits by 16"),
        (8, 16) => Some("8 bits by 16"),
        (1, _) => Some("1 bit"),
        (2, _) => Some("2 bits"),
        (3, _) => Some("3 bits"),
        (4, _) => Some("4 bits"),
        (5, _) => Some("5 bits"),
        (6, _) => Some("6 bits"),
        (8, _) => Some("8 bits"),
        _ => None,
    };
    let (name, apart) = match (scheme.family(), grid) {
        (Family::Mlx, Grid::Affine { bits, .. }) => {
            (width(bits)?, apart(plane(1, float)?, 1.0, Some((plane(2, float)?, Min::Plus)))?)
        }
        (Family::Hqq, Grid::Affine { bits, .. }) => {
            (width(bits)?, apart(plane(1, float)?, 1.0, Some((plane(2, float)?, Min::Zero)))?)
        }
        (Family::Quanto, Grid::Affine { bits: 8, .. }) => ("signed bytes", apart(plane(1, float)?, 1.0, None)?),
        (Family::Quanto, Grid::Affine { bits, .. }) => {
            (width(bits)?, apart(plane(1, float)?, 1.0, Some((plane(2, float)?, Min::Minus)))?)
        }
        (Family::BitsAndBytes, Grid::Affine { .. }) => {
            ("signed bytes", apart(plane(1, Kind::F32)?, 1.0 / 127.0, None)?)
        }
        (Family::Gptq | Family::Awq | Family::CompressedTensors, Grid::Affine { bits, .. }) => {
            if let Some(order) = planes.get(3)
                && !in_order(order, group)
            {
                return None;
            }
            (width(bits)?, apart(plane(1, float)?, 1.0, Some((plane(2, Kind::U8)?, Min::Zero)))?)
        }
        (Family::BitsAndBytes, Grid::Table16 { .. }) => {
            let (name, unit) = match scheme.name().starts_with("nf4") {
                true => ("nf4 codes", codes::NORMAL_UNIT),
                false => ("fp4 codes", codes::SMALL_UNIT),
            };
            let [_, scales, ref nested @ ..] = *planes else { return None };
            let kind = if nested.is_empty() { Kind::F32 } else { Kind::Dynamic };
            let nested = match *nested {
                [factors, offset] => Some((factors, f32::from_le_bytes(*offset.first_chunk()?))),
                _ => None,
            };
            (name, Apart { nested, ..apart(Numbers { kind, bytes: scales }, unit, None)? })
        }
        (Family::Mlx, Grid::Table16 { group: 32 }) => ("e2m1 codes", apart(plane(1, Kind::E8m0)?, 0.5, None)?),
        (Family::Mlx, Grid::Table16 { group: 16 }) => ("e2m1 codes by 16", apart(plane(1, Kind::E4m3)?, 0.5, None)?),
        (family @ (Family::CompressedTensors | Family::ModelOpt), Grid::Table16 { group: 16 }) => {
            let global = f32::from_le_bytes(*planes.get(2)?.first_chunk()?);
            let factor = if family == Family::ModelOpt { 0.5 * global } else { 0.5 / global };
            ("e2m1 codes by 16", apart(plane(1, Kind::E4m3)?, factor, None)?)
        }
        _ => return None,
    };
    let entry = codes::entry(name)?;
    columns.is_multiple_of(entry.block).then_some((entry, apart))
}

fn float(dtype: DType) -> Option<Kind> {
    match dtype {
        DType::F32 => Some(Kind::F32),
        DType::F16 => Some(Kind::F16),
        DType::BF16 => Some(Kind::Bf16),
        _ => None,
    }
}

/// Whether each column is in the group that its place says.
fn in_order(order: &[u8], group: usize) -> bool {
    let mut groups = order.as_chunks::<4>().0.iter().enumerate();
    groups.all(|(column, found)| u32::from_le_bytes(*found) as usize == column / group)
}
