//! Lengths that encoders and decoders rely on, from what a scheme says of its planes.

use windlass_tensor::DType;

use crate::{Error, PlaneType, Scheme};

/// Refuses values that are not whole rows of whole blocks, and planes that do not have exactly the bytes of those rows.
pub(crate) fn check(
    scheme: &dyn Scheme,
    (values, columns): (usize, usize),
    float: DType,
    planes: impl ExactSizeIterator<Item = usize>,
) -> Result<(), Error> {
    let refuse = |message| Err(Error::Shape { scheme: scheme.name(), message });
    if !matches!(float, DType::F32 | DType::F16 | DType::BF16) {
        return refuse(format!("computes in F32, F16 or BF16, not in {float}"));
    }
    if columns == 0 || columns % scheme.block() != 0 || values % columns != 0 {
        return refuse(format!("{values} values are not rows of {columns} in blocks of {}", scheme.block()));
    }
    let known = scheme.planes();
    if planes.len() != known.len() {
        return refuse(format!("has {} planes, not {}", known.len(), planes.len()));
    }
    let shape = [values / columns, columns];
    for (i, (found, plane)) in planes.zip(known).enumerate() {
        let size = match plane.element {
            PlaneType::Fixed(dtype) => dtype.size(),
            PlaneType::Float => float.size(),
        };
        let expected = scheme.plane_shape(i, &shape).iter().try_fold(size, |n, d| n.checked_mul(*d));
        if expected != Some(found) {
            return refuse(format!("plane {} has {found} bytes, which do not fit {values} values", plane.name));
        }
    }
    Ok(())
}

/// Checks that `values` are whole rows of whole groups and that each plane has the bytes they need.
pub(crate) fn check_groups<'a>(
    scheme: &'static str,
    (values, columns, group): (usize, usize, usize),
    bytes_per_group: &[usize],
    planes: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<(), Error> {
    let refuse = |message| Err(Error::Shape { scheme, message });
    if columns == 0 || columns % group != 0 || values % columns != 0 {
        return refuse(format!("{values} values are not rows of {columns} in groups of {group}"));
    }
    if planes.len() != bytes_per_group.len() {
        return refuse(format!("has {} planes, not {}", bytes_per_group.len(), planes.len()));
    }
    for (i, (plane, per_group)) in planes.zip(bytes_per_group).enumerate() {
        if Some(plane.len()) != (values / group).checked_mul(*per_group) {
            return refuse(format!("plane {i} has {} bytes, which do not fit {values} values", plane.len()));
        }
    }
    Ok(())
}
