//! Every op, by name.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::{Error, Op, elementwise, library};

/// All ops that have a name of their own: those of the library, then the elementwise ones.
pub fn ops() -> &'static [&'static Op] {
    static ALL: OnceLock<Vec<&'static Op>> = OnceLock::new();
    ALL.get_or_init(|| library::OPS.iter().copied().chain(elementwise::ops().iter()).collect())
}

/// All ops, also those that gradients of elementwise ops flow through.
pub fn all_ops() -> impl Iterator<Item = &'static Op> {
    ops().iter().copied().chain(elementwise::gradients())
}

/// The op of this name, or an error with the nearest one.
pub fn op(name: &str) -> Result<&'static Op, Error> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Op>> = OnceLock::new();
    let by_name = BY_NAME.get_or_init(|| all_ops().map(|op| (op.name, op)).collect());
    by_name.get(name).copied().ok_or_else(|| {
        let suggestion = windlass_quant::nearest(name, ops().iter().map(|op| op.name)).map(String::from);
        Error::UnknownOp { name: name.into(), suggestion }
    })
}
