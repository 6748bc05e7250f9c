//! The schemes of Quanto (optimum-quanto), as its default optimizers make them: `qint8` and `qfloat8` with a scale per row,
//! `qint4` and `qint2` with a scale and a shift for each group of a row.

mod arrange;
mod bits;
mod bytes;

use std::sync::Arc;

use crate::SchemeRef;
use crate::arrange::ArrangementRef;

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    let bytes = bytes::SCHEMES.iter().map(|s| s as SchemeRef);
    bytes.chain(bits::SCHEMES.iter().map(|s| s as SchemeRef)).collect()
}

/// How Quanto stores them: `_data` and `_scale` of 8 bits as they are; fewer bits as `_data._data`, whose bytes hold the
/// codes of 2 or 4 groups that lie equally far apart, the first in the lowest bits, with `_scale` and `_shift` per group.
pub fn arrangement() -> ArrangementRef {
    Arc::new(arrange::Quanto)
}
