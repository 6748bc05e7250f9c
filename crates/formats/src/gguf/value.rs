//! Metadata values, read and written with their exact types.

use windlass_tensor::{Array, Strings, Value};

use super::input::Reader;
use crate::{Error, Problem};

/// What a value's type tag says; the discriminants are the format's own.
#[derive(Clone, Copy, PartialEq)]
#[repr(u32)]
enum Tag {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

const TAGS: [Tag; 13] = [
    Tag::U8,
    Tag::I8,
    Tag::U16,
    Tag::I16,
    Tag::U32,
    Tag::I32,
    Tag::F32,
    Tag::Bool,
    Tag::String,
    Tag::Array,
    Tag::U64,
    Tag::I64,
    Tag::F64,
];

/// Reads a tag and its value.
pub(super) fn read(reader: &mut Reader) -> Result<Value, Error> {
    Ok(match tag(reader)? {
        Tag::U8 => Value::U8(reader.number()?),
        Tag::I8 => Value::I8(reader.number()?),
        Tag::U16 => Value::U16(reader.number()?),
        Tag::I16 => Value::I16(reader.number()?),
        Tag::U32 => Value::U32(reader.number()?),
        Tag::I32 => Value::I32(reader.number()?),
        Tag::U64 => Value::U64(reader.number()?),
        Tag::I64 => Value::I64(reader.number()?),
        Tag::F32 => Value::F32(reader.number()?),
        Tag::F64 => Value::F64(reader.number()?),
        Tag::Bool => Value::Bool(flags(reader, 1)? == [true]),
        Tag::String => Value::String(reader.string("a value", reader.limits.string_bytes)?),
        Tag::Array => Value::Array(array(reader, reader.limits.nesting)?),
    })
}

fn tag(reader: &mut Reader) -> Result<Tag, Error> {
    let offset = reader.position();
    let number: u32 = reader.number()?;
    TAGS.get(number as usize).copied().ok_or_else(|| {
        let message = format!("value type {number} does not exist, expected 0 to {}", TAGS.len() - 1);
        reader.refuse(Problem::new("bad-value-type", message).offset(offset))
    })
}

/// Reads an array's item tag, count and items; `depth` more levels may follow, this one included.
fn array(reader: &mut Reader, depth: usize) -> Result<Array, Error> {
    let offset = reader.position();
    if depth == 0 {
        let message = format!("arrays are nested deeper than {} levels", reader.limits.nesting);
        return Err(reader.refuse(Problem::new("nested-too-deep", message).offset(offset)));
    }
    let tag = tag(reader)?;
    let count = reader.count()?;
    if count > reader.limits.array_items {
        let message = format!("an array has {count} items, at most {} are allowed", reader.limits.array_items);
        return Err(reader.refuse(Problem::new("array-too-long", message).offset(offset)));
    }
    reader.expect(count, smallest(reader, tag), "array items")?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    Ok(match tag {
        Tag::U8 => Array::U8(reader.numbers(count)?),
        Tag::I8 => Array::I8(reader.numbers(count)?),
        Tag::U16 => Array::U16(reader.numbers(count)?),
        Tag::I16 => Array::I16(reader.numbers(count)?),
        Tag::U32 => Array::U32(reader.numbers(count)?),
        Tag::I32 => Array::I32(reader.numbers(count)?),
        Tag::U64 => Array::U64(reader.numbers(count)?),
        Tag::I64 => Array::I64(reader.numbers(count)?),
        Tag::F32 => Array::F32(reader.numbers(count)?),
        Tag::F64 => Array::F64(reader.numbers(count)?),
        Tag::Bool => Array::Bool(flags(reader, count)?),
        Tag::String => {
            let mut items = Strings::with_capacity(count);
            for _ in 0..count {
                reader.with_string("an item", reader.limits.string_bytes, |item| items.push(item))?;
            }
            Array::String(items)
        }
        // Each level could announce as many items as there are bytes left, so room is made only as they come.
        Tag::Array => Array::Array((0..count).map(|_| array(reader, depth - 1)).collect::<Result<_, _>>()?),
    })
}

/// Bytes that an item of this type has at least.
fn smallest(reader: &Reader, tag: Tag) -> u64 {
    match tag {
        Tag::U8 | Tag::I8 | Tag::Bool => 1,
        Tag::U16 | Tag::I16 => 2,
        Tag::U32 | Tag::I32 | Tag::F32 => 4,
        Tag::U64 | Tag::I64 | Tag::F64 => 8,
        Tag::String => reader.count_size(),
        Tag::Array => 4 + reader.count_size(),
    }
}

fn flags(reader: &mut Reader, count: usize) -> Result<Vec<bool>, Error> {
    let offset = reader.position();
    let bytes: Vec<u8> = reader.numbers(count)?;
    match bytes.iter().position(|b| *b > 1) {
        None => Ok(bytes.iter().map(|b| *b == 1).collect()),
        Some(at) => {
            let message = format!("a boolean is 0 or 1, found {}", bytes[at]);
            Err(reader.refuse(Problem::new("bad-bool", message).offset(offset + at as u64)))
        }
    }
}

/// Appends a string with its length.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Appends a tag and its value.
pub(super) fn write(out: &mut Vec<u8>, value: &Value) {
    let mut put = |tag: Tag, bytes: &[u8]| {
        out.extend((tag as u32).to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(v) => put(Tag::U8, &v.to_le_bytes()),
        Value::I8(v) => put(Tag::I8, &v.to_le_bytes()),
        Value::U16(v) => put(Tag::U16, &v.to_le_bytes()),
        Value::I16(v) => put(Tag::I16, &v.to_le_bytes()),
        Value::U32(v) => put(Tag::U32, &v.to_le_bytes()),
        Value::I32(v) => put(Tag::I32, &v.to_le_bytes()),
        Value::U64(v) => put(Tag::U64, &v.to_le_bytes()),
        Value::I64(v) => put(Tag::I64, &v.to_le_bytes()),
        Value::F32(v) => put(Tag::F32, &v.to_le_bytes()),
        Value::F64(v) => put(Tag::F64, &v.to_le_bytes()),
        Value::Bool(v) => put(Tag::Bool, &[u8::from(*v)]),
        Value::String(v) => {
            put(Tag::String, &[]);
            write_string(out, v);
        }
        Value::Array(v) => {
            put(Tag::Array, &[]);
            write_array(out, v);
        }
    }
}

fn write_array(out: &mut Vec<u8>, array: &Array) {
    fn numbers<T: Copy, const N: usize>(out: &mut Vec<u8>, items: &[T], bytes: impl Fn(T) -> [u8; N]) {
        items.iter().for_each(|v| out.extend(bytes(*v)));
    }
    out.extend((tag_of(array) as u32).to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => numbers(out, v, i8::to_le_bytes),
        Array::U16(v) => numbers(out, v, u16::to_le_bytes),
        Array::I16(v) => numbers(out, v, i16::to_le_bytes),
        Array::U32(v) => numbers(out, v, u32::to_le_bytes),
        Array::I32(v) => numbers(out, v, i32::to_le_bytes),
        Array::U64(v) => numbers(out, v, u64::to_le_bytes),
        Array::I64(v) => numbers(out, v, i64::to_le_bytes),
        Array::F32(v) => numbers(out, v, f32::to_le_bytes),
        Array::F64(v) => numbers(out, v, f64::to_le_bytes),
        Array::Bool(v) => numbers(out, v, |b| [u8::from(b)]),
        Array::String(v) => v.iter().for_each(|s| write_string(out, s)),
        Array::Array(v) => v.iter().for_each(|a| write_array(out, a)),
    }
}

fn tag_of(array: &Array) -> Tag {
    match array {
        Array::U8(_) => Tag::U8,
        Array::I8(_) => Tag::I8,
        Array::U16(_) => Tag::U16,
        Array::I16(_) => Tag::I16,
        Array::U32(_) => Tag::U32,
        Array::I32(_) => Tag::I32,
        Array::U64(_) => Tag::U64,
        Array::I64(_) => Tag::I64,
        Array::F32(_) => Tag::F32,
        Array::F64(_) => Tag::F64,
        Array::Bool(_) => Tag::Bool,
        Array::String(_) => Tag::String,
        Array::Array(_) => Tag::Array,
    }
}
