//! Windows that slide along one or two dimensions: what convolutions and pools have in common.

use crate::attributes::Value;
use crate::{Attribute, Error, Inquiry};

/// Attributes of windows: a number for all dimensions, or one for each.
pub(super) const STRIDE: Attribute = Attribute::int("stride", 1);
pub(super) const PADDING: Attribute = Attribute::int("padding", 0);
pub(super) const DILATION: Attribute = Attribute::int("dilation", 1);

/// How windows slide along one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Values that a window sees.
    pub kernel: usize,
    /// From one window to the next.
    pub stride: usize,
    /// Values that are thought of before the first and after the last.
    pub padding: usize,
    /// From one value of a window to the next.
    pub dilation: usize,
}

impl Window {
    /// The window of dimension `index` of `rank`, of `kernel` values, as the attributes say.
    pub fn of(q: &Inquiry, index: usize, rank: usize, kernel: usize) -> Result<Window, Error> {
        let each = |name| along(q, name, index, rank);
        let window = Window { kernel, stride: each("stride")?, padding: each("padding")?, dilation: each("dilation")? };
        let Window { stride, dilation, .. } = window;
        if kernel == 0 || stride == 0 || dilation == 0 {
            return q.fail(format!("kernel {kernel}, stride {stride} and dilation {dilation} must be at least 1"));
        }
        Ok(window)
    }

    /// Values from the first that a window sees to the last.
    pub fn reach(self) -> usize {
        self.dilation.saturating_mul(self.kernel - 1).saturating_add(1)
    }

    /// How many windows `length` values have; with `ceil` one more where values are left over, if it begins among them.
    pub fn count(self, length: usize, ceil: bool) -> Option<usize> {
        let padded = length.checked_add(self.padding.checked_mul(2)?)?;
        let room = padded.checked_sub(self.reach())?;
        let count = if ceil { room.div_ceil(self.stride) + 1 } else { room / self.stride + 1 };
        let begins_outside = ceil && (count - 1).checked_mul(self.stride)? >= length + self.padding;
        Some(count - usize::from(begins_outside))
    }

    /// Where value `tap` of window `index` lies among `length` values, if it does.
    #[inline(always)]
    pub fn place(self, index: usize, tap: usize, length: usize) -> Option<usize> {
        (index * self.stride + tap * self.dilation).checked_sub(self.padding).filter(|at| *at < length)
    }
}

/// The value of an attribute for dimension `index` of `rank`: one number for all, or one for each.
pub(super) fn along(q: &Inquiry, name: &str, index: usize, rank: usize) -> Result<usize, Error> {
    let all = match q.attribute(name)? {
        Value::Int(one) => return whole(q, name, *one),
        Value::Ints(all) => all,
        other => return q.fail(format!("{name} must be a whole number, or {rank} of them, not {other:?}")),
    };
    match all[..] {
        [one] => whole(q, name, one),
        _ if all.len() == rank => whole(q, name, all[index]),
        _ => q.fail(format!("{name} has {} numbers, there are {rank} dimensions", all.len())),
    }
}

fn whole(q: &Inquiry, name: &str, value: i64) -> Result<usize, Error> {
    match usize::try_from(value).ok().filter(|value| *value < 1 << 40) {
        Some(value) => Ok(value),
        None => q.fail(format!("{name} must be a whole number from 0 up, not {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_counted_as_torch_does() {
        let window = Window { kernel: 3, stride: 2, padding: 1, dilation: 1 };
        assert_eq!((window.count(6, false), window.count(6, true)), (Some(3), Some(4)));
        assert_eq!((window.count(7, false), window.count(7, true)), (Some(4), Some(4)));
        // The last window would begin in the padding.
        assert_eq!(Window { kernel: 2, stride: 3, ..window }.count(4, true), Some(2));
        assert_eq!(Window { kernel: 2, stride: 3, padding: 1, dilation: 1 }.count(5, true), Some(2));
        assert_eq!(Window { padding: 0, dilation: 4, ..window }.count(8, false), None);
        assert_eq!((window.place(0, 0, 6), window.place(0, 1, 6), window.place(3, 1, 6)), (None, Some(0), None));
    }
}
