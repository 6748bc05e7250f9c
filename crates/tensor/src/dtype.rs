//! Element types whose values stand on their own in memory.

use std::fmt;
use std::sync::RwLock;

use crate::Error;

/// The type of one element. Little-endian wherever it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
    /// OCP 8-bit float, 4 exponent bits, finite only.
    F8E4M3,
    /// OCP 8-bit float, 5 exponent bits.
    F8E5M2,
    /// OCP power-of-two scale.
    F8E8M0,
    /// Two `f32`: real, imaginary. Carried as data.
    C64,
    /// A type registered by the user with [`DType::register`].
    Custom(CustomDType),
}

/// Handle of a registered element type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CustomDType(u16);

struct CustomRow {
    name: &'static str,
    size: usize,
}

static CUSTOM: RwLock<Vec<CustomRow>> = RwLock::new(Vec::new());

/// Every built-in type with its name (safetensors' spelling where that has one) and size in bytes.
const BUILT_IN: [(DType, &str, usize); 17] = [
    (DType::Bool, "BOOL", 1),
    (DType::U8, "U8", 1),
    (DType::U16, "U16", 2),
    (DType::U32, "U32", 4),
    (DType::U64, "U64", 8),
    (DType::I8, "I8", 1),
    (DType::I16, "I16", 2),
    (DType::I32, "I32", 4),
    (DType::I64, "I64", 8),
    (DType::F16, "F16", 2),
    (DType::BF16, "BF16", 2),
    (DType::F32, "F32", 4),
    (DType::F64, "F64", 8),
    (DType::F8E4M3, "F8_E4M3", 1),
    (DType::F8E5M2, "F8_E5M2", 1),
    (DType::F8E8M0, "F8_E8M0", 1),
    (DType::C64, "C64", 8),
];

impl DType {
    /// All built-in types.
    pub fn built_in() -> impl Iterator<Item = DType> {
        BUILT_IN.iter().map(|row| row.0)
    }

    /// Registers an element type of `size` bytes under an upper-case `name`. The same name and size again gives the
    /// same type; another size is an error.
    pub fn register(name: &str, size: usize) -> Result<DType, Error> {
        if size == 0 || name.is_empty() {
            return Err(Error::Argument(format!(
                "an element type needs a name and a size, got {name:?} of {size} bytes"
            )));
        }
        if let Some(known) = DType::from_name(name) {
            return if known.size() == size {
                Ok(known)
            } else {
                Err(Error::Argument(format!("element type {name} has {} bytes already, not {size}", known.size())))
            };
        }
        let mut rows = CUSTOM.write().unwrap_or_else(|e| e.into_inner());
        let id = u16::try_from(rows.len()).map_err(|_| Error::Argument("too many registered element types".into()))?;
        rows.push(CustomRow { name: Box::leak(name.to_string().into_boxed_str()), size });
        Ok(DType::Custom(CustomDType(id)))
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        self.row().1
    }

    /// Name as safetensors spells it.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The type of this name; upper or lower case.
    pub fn from_name(name: &str) -> Option<DType> {
        if let Some(row) = BUILT_IN.iter().find(|row| row.1.eq_ignore_ascii_case(name)) {
            return Some(row.0);
        }
        let rows = CUSTOM.read().unwrap_or_else(|e| e.into_inner());
        rows.iter().position(|row| row.name.eq_ignore_ascii_case(name)).map(|i| DType::Custom(CustomDType(i as u16)))
    }

    /// Whether values are real numbers that convert to and from `f32`.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64 | DType::F8E4M3 | DType::F8E5M2)
    }

    fn row(self) -> (&'static str, usize) {
        if let DType::Custom(CustomDType(id)) = self {
            let rows = CUSTOM.read().unwrap_or_else(|e| e.into_inner());
            // A handle is only made by `register`, which pushed its row; rows are never removed.
            let row = &rows[id as usize];
            return (row.name, row.size);
        }
        match BUILT_IN.iter().find(|row| row.0 == self) {
            Some(row) => (row.1, row.2),
            None => unreachable!("every built-in type has a row"),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes_go_there_and_back() {
        for dtype in DType::built_in() {
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
            assert_eq!(DType::from_name(&dtype.name().to_lowercase()), Some(dtype));
        }
        assert_eq!(DType::BF16.size(), 2);
        assert_eq!(DType::from_name("F12"), None);
    }

    #[test]
    fn a_user_type_registers_once() {
        let posit = DType::register("POSIT16", 2).unwrap();
        assert_eq!((posit.size(), posit.name()), (2, "POSIT16"));
        assert_eq!(DType::register("POSIT16", 2).unwrap(), posit);
        assert!(DType::register("POSIT16", 4).is_err());
        assert!(DType::register("F32", 8).is_err());
    }
}
