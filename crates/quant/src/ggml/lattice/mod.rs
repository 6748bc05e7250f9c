use crate::SchemeRef;

pub(super) static SCHEMES: &[SchemeRef] = &[];
