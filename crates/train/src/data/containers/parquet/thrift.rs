//! Thrift's compact protocol, as far as it takes to bound what a Parquet file says before a library believes it.
//!
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

/// Structures within structures.
const DEPTH: usize = 32;

/// A field of a structure.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    Int(i64),
    Struct(Fields),
    /// Something that is not looked at.
    Other,
}

/// Fields with their numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(i16, Field)>);

impl Fields {
    /// The number in field `id`; truth values are 0 and 1.
    pub fn int(&self, id: i16) -> Option<i64> {
        self.0.iter().find_map(|(known, field)| match field {
            Field::Int(value) if *known == id => Some(*value),
            _ => None,
        })
    }

    /// The structure in field `id`.
    pub fn fields(&self, id: i16) -> Option<&Fields> {
        self.0.iter().find_map(|(known, field)| match field {
            Field::Struct(fields) if *known == id => Some(fields),
            _ => None,
        })
    }
}

/// Why a structure cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It goes on behind the bytes that there are.
    Short,
    Bad(&'static str),
}

/// Bytes, and how far they were read.
pub struct Walk<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl Walk<'_> {
    /// Reads a structure. Of lists and maps only the sizes are checked, which are never larger than the bytes that follow.
    pub fn fields(&mut self) -> Result<Fields, Wrong> {
        self.structure(DEPTH)
    }

    fn structure(&mut self, depth: usize) -> Result<Fields, Wrong> {
        let depth = depth.checked_sub(1).ok_or(Wrong::Bad("structures are nested too deeply"))?;
        let (mut fields, mut id) = (Fields::default(), 0i16);
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Ok(fields);
            }
            let (delta, kind) = (i16::from(byte >> 4), byte & 15);
            let next = if delta == 0 { i16::try_from(self.zigzag()?).ok() } else { id.checked_add(delta) };
            id = next.ok_or(Wrong::Bad("a field has a number that is too large"))?;
            let field = match kind {
                1 | 2 => Field::Int(i64::from(kind == 1)),
                4..=6 => Field::Int(self.zigzag()?),
                12 => Field::Struct(self.structure(depth)?),
                _ => {
                    self.skip(kind, depth)?;
                    Field::Other
                }
            };
            fields.0.push((id, field));
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Wrong> {
        let depth = depth.checked_sub(1).ok_or(Wrong::Bad("structures are nested too deeply"))?;
        match kind {
            1..=3 => self.pass(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.pass(8),
            8 => {
                let length = self.size()?;
                self.pass(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.size()? } else { usize::from(byte >> 4) };
                self.room(count)?;
                (0..count).try_for_each(|_| self.skip(byte & 15, depth))
            }
            11 => {
                let count = self.size()?;
                self.room(count)?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                (0..count).try_for_each(|_| self.skip(kinds >> 4, depth).and_then(|()| self.skip(kinds & 15, depth)))
            }
            12 => self.structure(depth).map(|_| ()),
            13 => self.pass(16),
            _ => Err(Wrong::Bad("a field has a type that does not exist")),
        }
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        let byte = *self.bytes.get(self.at).ok_or(Wrong::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, Wrong> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err(Wrong::Bad("a number is too long"))
    }

    fn zigzag(&mut self) -> Result<i64, Wrong> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn size(&mut self) -> Result<usize, Wrong> {
        i32::try_from(self.varint()?).map(|size| size as usize).map_err(|_| Wrong::Bad("a size is too large"))
    }

    /// Every item takes a byte at least.
    fn room(&self, count: usize) -> Result<(), Wrong> {
        if count > self.bytes.len() - self.at { Err(Wrong::Short) } else { Ok(()) }
    }

    fn pass(&mut self, count: usize) -> Result<(), Wrong> {
        self.room(count)?;
        self.at += count;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn structures_and_what_is_none() {
        // {1: i32 -2, 2: true, 5: {1: i64 300}, 6: list of 3 bytes, 7: "ab"}
        let bytes = [0x15, 3, 0x11, 0x3c, 0x16, 0xd8, 4, 0, 0x19, 0x33, 7, 8, 9, 0x18, 2, b'a', b'b', 0];
        let mut walk = Walk { bytes: &bytes, at: 0 };
        let fields = walk.fields().unwrap();
        assert_eq!(walk.at, bytes.len());
        assert_eq!((fields.int(1), fields.int(2), fields.fields(5).unwrap().int(1)), (Some(-2), Some(1), Some(300)));
        assert_eq!((fields.int(6), fields.int(9)), (None, None));
        let read = |bytes: &[u8]| Walk { bytes, at: 0 }.fields().unwrap_err();
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Wrong::Short);
        }
        // A list of 2^31 - 1 structures in no bytes at all.
        assert_eq!(read(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 7, 0]), Wrong::Short);
        assert_eq!(read(&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 7]), Wrong::Bad("a size is too large"));
        assert_eq!(read(&[0x1c; 100]), Wrong::Bad("structures are nested too deeply"));
        assert_eq!(read(&[0x1e]), Wrong::Bad("a field has a type that does not exist"));
        assert_eq!(read(&[0x15, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]), Wrong::Bad("a number is too long"));
    }
}
