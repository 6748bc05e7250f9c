//! Arrangements whose arrays are the planes themselves under other names, with scales perhaps in a smaller type.

use std::io;
use std::ops::Range;

use windlass_tensor::{DType, PackedLayout};

use crate::arrange::{Arrangement, Array, Stored};
use crate::float;
use crate::gather::invalid;
use crate::{Family, Packing};

/// The shape of the array of this number.
pub(crate) type ShapeOf = fn(usize, &Packing, &[usize]) -> Result<Vec<usize>, String>;

/// One array for each plane of a scheme.
pub(crate) struct RowMajor {
    /// Family and the beginning of the names of the schemes that it holds.
    pub holds: (Family, &'static str),
    pub names: &'static [&'static str],
    /// Stored types. Where a plane is F32, any type that it can hold exactly.
    pub dtypes: Vec<DType>,
    /// Shape of each array for a tensor of some shape.
    pub shape: ShapeOf,
}

impl RowMajor {
    /// Where each plane of some rows lies, and the stored type of its elements if that is another.
    fn places(&self, packing: &Packing, shape: &[usize], rows: &Range<usize>) -> io::Result<Vec<Place>> {
        self.arrays(packing, shape).map_err(invalid)?;
        let (columns, above) = shape.split_last().ok_or_else(|| invalid("a tensor without dimensions".into()))?;
        let all = above.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(0);
        if rows.start > rows.end || rows.end > all {
            return Err(invalid(format!("rows {rows:?} of a matrix with {all} rows")));
        }
        let ranges = packing.plane_ranges(*columns, rows.start, rows.len()).map_err(invalid)?;
        let planes = packing.scheme.planes().iter().zip(&self.dtypes);
        let place = |((offset, length), (plane, stored)): ((u64, u64), (_, &DType))| {
            let dtype = packing.plane_type(plane);
            let other = (dtype == DType::F32 && *stored != DType::F32).then_some(*stored);
            Place { offset, length: length as usize, other }
        };
        Ok(ranges.into_iter().zip(planes).map(place).collect())
    }
}

struct Place {
    offset: u64,
    length: usize,
    other: Option<DType>,
}

impl Arrangement for RowMajor {
    fn arrays(&self, packing: &Packing, shape: &[usize]) -> Result<Vec<Array>, String> {
        let (family, prefix) = self.holds;
        let name = packing.scheme.name();
        if packing.scheme.family() != family || !name.starts_with(prefix) {
            return Err(format!("an arrangement of {} does not hold {name}", self.names.join(", ")));
        }
        packing.plane_bytes(shape)?;
        let named = self.names.iter().zip(&self.dtypes).enumerate();
        named
            .map(|(i, (name, dtype))| Ok(Array { name, dtype: *dtype, shape: (self.shape)(i, packing, shape)? }))
            .collect()
    }

    fn gather(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        stored: &dyn Stored,
        planes: &mut [&mut [u8]],
    ) -> io::Result<()> {
        let places = self.places(packing, shape, &rows)?;
        agree(&places, planes.iter().map(|p| p.len()))?;
        for (array, (place, plane)) in places.iter().zip(planes).enumerate() {
            match place.other {
                Some(dtype) => widen(stored, array, place.offset, dtype, plane)?,
                None => stored.read(array, place.offset, plane)?,
            }
        }
        Ok(())
    }

    fn can_scatter(&self) -> bool {
        true
    }

    fn scatter(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        planes: &[&[u8]],
        stored: &dyn Stored,
    ) -> io::Result<()> {
        let places = self.places(packing, shape, &rows)?;
        agree(&places, planes.iter().map(|p| p.len()))?;
        let other = places.iter().zip(self.names).find_map(|(place, name)| Some((name, place.other?)));
        if let Some((name, dtype)) = other {
            return Err(invalid(format!("{name} is written in F32, not in {dtype}")));
        }
        for (array, (place, plane)) in places.iter().zip(planes).enumerate() {
            stored.write(array, place.offset, plane)?;
        }
        Ok(())
    }
}

fn agree(places: &[Place], found: impl ExactSizeIterator<Item = usize>) -> io::Result<()> {
    let count = found.len();
    if count != places.len() || !places.iter().zip(found).all(|(place, found)| place.length == found) {
        return Err(invalid(format!("{count} planes that are not of the size of their rows")));
    }
    Ok(())
}

/// Reads scales of a smaller type into F32, which holds them all.
fn widen(stored: &dyn Stored, array: usize, offset: u64, dtype: DType, plane: &mut [u8]) -> io::Result<()> {
    let mut bytes = vec![0; plane.len() / 4 * dtype.size()];
    stored.read(array, offset / 4 * dtype.size() as u64, &mut bytes)?;
    let mut values = vec![0.0; plane.len() / 4];
    if dtype == DType::F8E8M0 {
        for (value, code) in values.iter_mut().zip(&bytes) {
            *value = power_of_two(*code);
        }
    } else {
        float::to_f32(dtype, &bytes, &mut values).map_err(|e| invalid(e.to_string()))?;
    }
    float::from_f32(DType::F32, &values, plane).map_err(|e| invalid(e.to_string()))
}

/// The value of an E8M0 code: two to the power of `code - 127`, and 255 is not a number.
fn power_of_two(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}
