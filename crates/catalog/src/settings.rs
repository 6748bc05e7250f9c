//! Settings from outside, checked one by one as they are read: from config.json and from GGUF metadata alike.

use serde_json::{Map, Value as Json};
use windlass_tensor::{Array, Metadata, Value};

use crate::{Error, error::short};

/// The fields of a JSON object. A field that is null counts as absent, except to [`Fields::is_null`].
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    /// Where the object is, for messages: `rope_scaling.`.
    path: &'a str,
    map: &'a Map<String, Json>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(path: &'a str, value: &'a Json) -> Result<Self, Error> {
        let found = || Error::Invalid {
            key: if path.is_empty() { "config.json".into() } else { path.trim_end_matches('.').into() },
            expected: "an object".into(),
            found: short(&value.to_string()),
        };
        Ok(Self { path, map: value.as_object().ok_or_else(found)? })
    }

    pub(crate) fn get(self, key: &str) -> Option<&'a Json> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(crate) fn is_null(self, key: &str) -> bool {
        self.map.get(key).is_some_and(Json::is_null)
    }

    fn invalid(self, key: &str, expected: impl Into<String>, found: &Json) -> Error {
        Error::Invalid {
            key: format!("{}{key}", self.path),
            expected: expected.into(),
            found: short(&found.to_string()),
        }
    }

    /// An integer from `least` to `most`; 4096.0 is one too.
    pub(crate) fn count(self, key: &str, least: usize, most: usize) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let whole = |f: f64| (f.fract() == 0.0 && (0.0..1e15).contains(&f)).then_some(f as u64);
        let number = value.as_u64().or_else(|| value.as_f64().and_then(whole)).and_then(|n| usize::try_from(n).ok());
        match number {
            Some(n) if (least..=most).contains(&n) => Ok(Some(n)),
            _ => Err(self.invalid(key, format!("an integer from {least} to {most}"), value)),
        }
    }

    pub(crate) fn need(self, key: &str, least: usize, most: usize) -> Result<usize, Error> {
        let missing = || Error::Missing {
            key: format!("{}{key}", self.path),
            expected: format!("an integer from {least} to {most}"),
        };
        self.count(key, least, most)?.ok_or_else(missing)
    }

    /// A number above zero.
    pub(crate) fn positive(self, key: &str) -> Result<Option<f32>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().map(|f| f as f32) {
            Some(f) if f.is_finite() && f > 0.0 => Ok(Some(f)),
            _ => Err(self.invalid(key, "a positive number", value)),
        }
    }

    pub(crate) fn flag(self, key: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.invalid(key, "true or false", value))
    }

    pub(crate) fn text(self, key: &str) -> Result<Option<&'a str>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(key, "a string", value))
    }

    /// A list of at most `most` strings.
    pub(crate) fn texts(self, key: &str, most: usize) -> Result<Option<Vec<&'a str>>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let items = value.as_array().filter(|items| items.len() <= most);
        let texts = items.and_then(|items| items.iter().map(Json::as_str).collect::<Option<Vec<_>>>());
        texts.map(Some).ok_or_else(|| self.invalid(key, format!("a list of at most {most} strings"), value))
    }

    /// A list of at most `most` numbers.
    pub(crate) fn numbers(self, key: &str, most: usize) -> Result<Option<Vec<f32>>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let items = value.as_array().filter(|items| items.len() <= most);
        let numbers =
            items.and_then(|items| items.iter().map(|v| v.as_f64().map(|f| f as f32)).collect::<Option<Vec<_>>>());
        numbers.map(Some).ok_or_else(|| self.invalid(key, format!("a list of at most {most} numbers"), value))
    }
}

/// The keys of one architecture in GGUF metadata: `block_count` stands for `llama.block_count`.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) architecture: &'static str,
    pub(crate) metadata: &'a Metadata,
}

impl<'a> Keys<'a> {
    pub(crate) fn name(self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(crate) fn get(self, key: &str) -> Option<&'a Value> {
        self.metadata.get(&self.name(key))
    }

    fn invalid(self, key: &str, expected: impl Into<String>, found: &Value) -> Error {
        Error::Invalid { key: self.name(key), expected: expected.into(), found: short(&found.to_string()) }
    }

    /// An integer from `least` to `most`. A list with one per layer will do if they are equal.
    pub(crate) fn count(self, key: &str, least: usize, most: usize) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let single = match value {
            Value::Array(list) => {
                Some(same(list).ok_or_else(|| self.invalid(key, "one integer for all layers", value))?)
            }
            _ => None,
        };
        match single.as_ref().unwrap_or(value).as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (least..=most).contains(&n) => Ok(Some(n)),
            _ => Err(self.invalid(key, format!("an integer from {least} to {most}"), value)),
        }
    }

    pub(crate) fn need(self, key: &str, least: usize, most: usize) -> Result<usize, Error> {
        let missing = || Error::Missing { key: self.name(key), expected: format!("an integer from {least} to {most}") };
        self.count(key, least, most)?.ok_or_else(missing)
    }

    /// A number above zero.
    pub(crate) fn positive(self, key: &str) -> Result<Option<f32>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().map(|f| f as f32) {
            Some(f) if f.is_finite() && f > 0.0 => Ok(Some(f)),
            _ => Err(self.invalid(key, "a positive number", value)),
        }
    }

    pub(crate) fn flag(self, key: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.invalid(key, "a boolean", value))
    }

    pub(crate) fn text(self, key: &str) -> Result<Option<&'a str>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(key, "a string", value))
    }

    /// A list of `length` booleans.
    pub(crate) fn flags(self, key: &str, length: usize) -> Result<Option<Vec<bool>>, Error> {
        match self.get(key) {
            Some(Value::Array(Array::Bool(flags))) if flags.len() == length => Ok(Some(flags.clone())),
            Some(Value::Array(list)) => {
                let found = format!("a list of {}", list.len());
                Err(Error::Invalid { key: self.name(key), expected: format!("a list of {length} booleans"), found })
            }
            _ => Ok(None),
        }
    }
}

/// The item that a list repeats.
fn same(list: &Array) -> Option<Value> {
    let first = list.get(0)?;
    (1..list.len()).all(|i| list.get(i).as_ref() == Some(&first)).then_some(first)
}

/// A real number as its shortest decimal says it: 1e-6, not the f64 nearest to the f32.
pub(crate) fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
