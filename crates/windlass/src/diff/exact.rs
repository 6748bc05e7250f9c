//! Values that `f32` cannot hold: integers, flags, doubles and complex numbers, compared as they are.

use windlass_catalog::Order;
use windlass_formats::Source;
use windlass_runtime::memory::Pool;
use windlass_tensor::{DType, Element};

use super::View;
use crate::Result;
use crate::rows::Reader;

/// One value: an integer without rounding, or a real number.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Integer(i128),
    Real(f64),
}

impl Number {
    pub fn as_f64(&self) -> f64 {
        match self {
            Number::Integer(v) => *v as f64,
            Number::Real(v) => *v,
        }
    }

    /// The difference; exact, and so zero only for equal ones, between integers.
    pub fn minus(&self, other: &Number) -> f64 {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => (a - b) as f64,
            _ => self.as_f64() - other.as_f64(),
        }
    }
}

/// Whether tensors of this element need this: plain ones of a type that is no small float.
pub fn reads(element: &Element) -> bool {
    element.dtype().is_some_and(|dtype| !dtype.is_float() || dtype == DType::F64 || dtype == DType::F8E8M0)
}

/// Plain rows `first..first + count` of a view; a complex value is two numbers.
pub fn read((source, view): (&Source, &View), first: usize, count: usize, pool: &Pool) -> Result<Vec<Number>> {
    let entry = &source.tensors()[view.entry];
    if !reads(entry.element()) {
        let mut values = pool.try_take("a block of floats", count * view.columns * 4)?;
        super::read((source, view), first, count, values.as_f32_mut(), pool)?;
        return Ok(values.as_f32_mut().iter().map(|v| Number::Real(f64::from(*v))).collect());
    }
    let reader = Reader { source, pool, waits: false };
    let mut numbers = Vec::with_capacity(count * view.columns);
    let at_once = if view.order == Order::Plain { count } else { 1 };
    for row in (first..first + count).step_by(at_once.max(1)) {
        let stored = view.first + view.order.stored_row(row);
        for plane in reader.planes(entry, view.columns, stored, at_once)? {
            append(entry.element(), &plane, &mut numbers);
        }
    }
    Ok(numbers)
}

fn append(element: &Element, bytes: &[u8], out: &mut Vec<Number>) {
    macro_rules! each {
        ($type:ty, $number:expr) => {
            out.extend(
                bytes.as_chunks::<{ size_of::<$type>() }>().0.iter().map(|b| $number(<$type>::from_le_bytes(*b))),
            )
        };
    }
    match element.dtype() {
        Some(DType::I8) => each!(i8, |v| Number::Integer(i128::from(v))),
        Some(DType::U16) => each!(u16, |v| Number::Integer(i128::from(v))),
        Some(DType::I16) => each!(i16, |v| Number::Integer(i128::from(v))),
        Some(DType::U32) => each!(u32, |v| Number::Integer(i128::from(v))),
        Some(DType::I32) => each!(i32, |v| Number::Integer(i128::from(v))),
        Some(DType::U64) => each!(u64, |v| Number::Integer(i128::from(v))),
        Some(DType::I64) => each!(i64, |v| Number::Integer(i128::from(v))),
        Some(DType::F64) => each!(f64, Number::Real),
        Some(DType::C64) => each!(f32, |v| Number::Real(f64::from(v))),
        // A power of two (OCP microscaling): bias 127, all ones is not a number.
        Some(DType::F8E8M0) => {
            each!(u8, |v| Number::Real(if v == 255 { f64::NAN } else { (f64::from(v) - 127.0).exp2() }))
        }
        // Bytes and flags; and types of the user, which are equal only where the bytes are.
        _ => each!(u8, |v| Number::Integer(i128::from(v))),
    }
}
