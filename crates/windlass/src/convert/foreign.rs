//! Keys of a GGUF that was made elsewhere, as strings in a safetensors header: `u32:7`, `string:text`.
//!
//! Long lists and lists of numbers are left out: vocabularies travel as tokenizer.json.

use windlass_tensor::{Array, Value};

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
        Value::Array(Array::String(items)) if items.len() < 100 => {
            return serde_json::to_string(items).ok().map(|list| format!("strings:{list}"));
        }
        Value::Array(_) => return None,
    };
    Some(format!("{kind}:{value}"))
}

/// The inverse of [`write`]; `None` for what it did not write.
pub fn read(text: &str) -> Option<Value> {
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
        "strings" => Value::Array(Array::String(serde_json::from_str(text).ok()?)),
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
            Value::Array(Array::String(vec!["en".into(), "de".into()])),
            Value::from("a:b\n"),
        ];
        for value in values {
            assert_eq!(write(&value).and_then(|text| read(&text)), Some(value));
        }
        assert_eq!(read("u8:256"), None);
        assert_eq!(read("no colon"), None);
    }
}
