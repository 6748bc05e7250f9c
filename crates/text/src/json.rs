//! Small helpers to read JSON that came from outside.

use serde_json::{Map, Value};
use windlass_tensor::Limits;

use crate::Error;
use crate::error::bound;

/// Parses one side file, bounded in size and depth.
pub(crate) fn parse(file: &'static str, bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
    bound(|| file.to_owned(), bytes.len(), limits.side_file_bytes)?;
    let value: Value = serde_json::from_slice(bytes).map_err(|e| Error::Json { file, message: e.to_string() })?;
    check_depth(file, &value, limits.nesting)?;
    Ok(value)
}

/// Parses a side file that must be an object.
pub(crate) fn parse_object(file: &'static str, bytes: &[u8], limits: &Limits) -> Result<Map<String, Value>, Error> {
    match parse(file, bytes, limits)? {
        Value::Object(map) => Ok(map),
        other => Err(Error::Json { file, message: format!("expected an object, found {}", kind(&other)) }),
    }
}

// serde_json itself stops at depth 128, so this recursion is short.
fn check_depth(file: &'static str, value: &Value, left: usize) -> Result<(), Error> {
    let deeper = |inner: &Value| match left.checked_sub(1) {
        Some(left) => check_depth(file, inner, left),
        None => Err(Error::Json { file, message: "arrays and objects are nested too deeply".to_owned() }),
    };
    match value {
        Value::Array(items) => items.iter().filter(|v| v.is_array() || v.is_object()).try_for_each(deeper),
        Value::Object(map) => map.values().filter(|v| v.is_array() || v.is_object()).try_for_each(deeper),
        _ => Ok(()),
    }
}

/// The word for a JSON value in errors.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// `value[key]` as text; absent, null and other types are errors.
pub(crate) fn text<'a>(value: &'a Value, key: &str, place: &str) -> Result<&'a str, Error> {
    value[key].as_str().ok_or_else(|| {
        Error::invalid(format!("{place}.{key}"), format!("expected a string, found {}", kind(&value[key])))
    })
}

/// The elements of a component that may be a `Sequence`: its list under `key`, or the component alone; null is nothing.
pub(crate) fn sequence<'a>(component: &'a Value, key: &str) -> Vec<&'a Value> {
    if component.is_null() {
        Vec::new()
    } else if component["type"] == "Sequence" {
        component[key].as_array().into_iter().flatten().flat_map(|inner| sequence(inner, key)).collect()
    } else {
        vec![component]
    }
}
