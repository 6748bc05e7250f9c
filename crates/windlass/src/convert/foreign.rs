//! Keys of a GGUF that was made elsewhere, as strings in a safetensors header: `u32:7`, `string:text`, `i32s:1,2,3`.
//!
//! Very long lists are left out: vocabularies travel as tokenizer.json.

use std::fmt::Display;
use std::str::FromStr;

use windlass_tensor::{Array, Value};

/// Most bytes of one list as text.
const LIST_BYTES: usize = 1 << 20;

/// The value with its type in front; `None` for what is left out.
pub fn write(value: &Value) -> Option<String> {
    let kind = match value {
        Value::Bool(_) => "bool",
        Value::U8(_) => "u8",
        Value::I8(_) => "i8",
        Value::U16(_) => "u16",
        Value::I16(_) => "i16",
        Value::U32(_) => "u32",
        Value::I32(_) => "i32",
        Value::U64(_) => "u64",
        Value::I64(_) => "i64",
        Value::F32(_) => "f32",
        Value::F64(_) => "f64",
        Value::String(_) => "string",
        Value::Array(array) => return write_list(array).filter(|text| text.len() <= LIST_BYTES),
    };
    Some(format!("{kind}:{value}"))
}

fn write_list(array: &Array) -> Option<String> {
    fn join<T: Display>(kind: &str, items: &[T]) -> Option<String> {
        // Each item takes two bytes or more.
        let texts = (items.len() <= LIST_BYTES / 2).then(|| items.iter().map(T::to_string).collect::<Vec<_>>())?;
        Some(format!("{kind}:{}", texts.join(",")))
    }
    match array {
        Array::Bool(v) => join("bools", v),
        Array::U8(v) => join("u8s", v),
        Array::I8(v) => join("i8s", v),
        Array::U16(v) => join("u16s", v),
        Array::I16(v) => join("i16s", v),
        Array::U32(v) => join("u32s", v),
        Array::I32(v) => join("i32s", v),
        Array::U64(v) => join("u64s", v),
        Array::I64(v) => join("i64s", v),
        Array::F32(v) => join("f32s", v),
        Array::F64(v) => join("f64s", v),
        Array::String(v) if v.len() <= LIST_BYTES / 3 => {
            serde_json::to_string(&v.iter().collect::<Vec<_>>()).ok().map(|list| format!("strings:{list}"))
        }
        // llama.cpp does not read lists of lists.
        Array::String(_) | Array::Array(_) => None,
    }
}

/// The inverse of [`write`]; `None` for what it did not write.
pub fn read(text: &str) -> Option<Value> {
    fn split<T: FromStr>(text: &str) -> Option<Vec<T>> {
        if text.is_empty() { Some(Vec::new()) } else { text.split(',').map(|item| item.parse().ok()).collect() }
    }
    let (kind, text) = text.split_once(':')?;
    Some(match kind {
        "bool" => Value::Bool(text.parse().ok()?),
        "u8" => Value::U8(text.parse().ok()?),
        "i8" => Value::I8(text.parse().ok()?),
        "u16" => Value::U16(text.parse().ok()?),
        "i16" => Value::I16(text.parse().ok()?),
        "u32" => Value::U32(text.parse().ok()?),
        "i32" => Value::I32(text.parse().ok()?),
        "u64" => Value::U64(text.parse().ok()?),
        "i64" => Value::I64(text.parse().ok()?),
        "f32" => Value::F32(text.parse().ok()?),
        "f64" => Value::F64(text.parse().ok()?),
        "bools" => Array::Bool(split(text)?).into(),
        "u8s" => Array::U8(split(text)?).into(),
        "i8s" => Array::I8(split(text)?).into(),
        "u16s" => Array::U16(split(text)?).into(),
        "i16s" => Array::I16(split(text)?).into(),
        "u32s" => Array::U32(split(text)?).into(),
        "i32s" => Array::I32(split(text)?).into(),
        "u64s" => Array::U64(split(text)?).into(),
        "i64s" => Array::I64(split(text)?).into(),
        "f32s" => Array::F32(split(text)?).into(),
        "f64s" => Array::F64(split(text)?).into(),
        "strings" => Array::strings(serde_json::from_str::<Vec<String>>(text).ok()?).into(),
        "string" => Value::String(text.into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_there_and_back() {
        let values = [
            Value::Bool(true),
            Value::U8(255),
            Value::I16(-3),
            Value::U64(u64::MAX),
            Value::F32(1e-6),
            Value::F64(0.1),
            Value::Array(Array::strings(["en", "de"])),
            Value::Array(Array::I32(vec![-1, 0, i32::MAX])),
            Value::Array(Array::F32(vec![0.1, -0.0, f32::MIN_POSITIVE, f32::INFINITY])),
            Value::Array(Array::Bool(vec![true, false])),
            Value::Array(Array::U64(vec![])),
            Value::from("a:b\n"),
        ];
        for value in values {
            assert_eq!(write(&value).and_then(|text| read(&text)), Some(value));
        }
        assert_eq!(read("u8:256"), None);
        assert_eq!(read("u8s:1,,2"), None);
        assert_eq!(read("no colon"), None);
    }

    #[test]
    fn what_is_huge_or_nested_is_left_out() {
        assert_eq!(write(&Array::U8(vec![100; 600_000]).into()), None);
        assert_eq!(write(&Array::Array(vec![Array::U8(vec![1])]).into()), None);
    }
}
