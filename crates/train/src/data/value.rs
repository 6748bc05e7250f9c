//! What a row holds, whatever container it came in.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::bounds;

/// A value of a row. Lists of whole numbers, which tokens are, have a form of their own.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Ints(Vec<i64>),
    List(Vec<Value>),
    Object(Object),
}

/// Names and values in the order they came in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(pub Vec<(String, Value)>);

impl Object {
    /// The value called `name`, unless it is null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value).filter(|value| **value != Value::Null)
    }

    /// Whether there is a `name` that is not null.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The names of all values.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Bytes that the values take, about.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.bytes()).sum()
    }

    /// The text called `name`; what else is there is an error.
    pub fn text(&self, name: &str) -> Result<&str, String> {
        match self.get(name) {
            Some(Value::Text(text)) => Ok(text),
            Some(other) => Err(format!("{name:?} is {}, expected text", other.kind())),
            None => Err(format!("{name:?} is missing")),
        }
    }
}

impl Value {
    /// Parses one JSON text, bounded in depth and in the number of values; a name that is there twice is an error.
    pub fn parse(text: &[u8], nesting: usize) -> Result<Value, String> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let values = std::cell::Cell::new(bounds::VALUES);
        let value = Seed { depth: nesting, values: &values }.deserialize(&mut json);
        let value = value.and_then(|value| json.end().map(|()| value));
        value.map_err(|error| {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            format!("is not a JSON row: {message}, at column {}", error.column())
        })
    }

    fn bytes(&self) -> usize {
        let inner = match self {
            Value::Text(text) => text.len(),
            Value::Ints(ints) => 8 * ints.len(),
            Value::List(items) => items.iter().map(Value::bytes).sum(),
            Value::Object(object) => object.bytes(),
            _ => 0,
        };
        inner + size_of::<Value>()
    }

    /// What it is, for errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::Ints(_) => "a list of numbers",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
        }
    }

    /// The same for templates.
    pub fn to_json(&self) -> Json {
        match self {
            Value::Null => Json::Null,
            Value::Bool(v) => (*v).into(),
            Value::Int(v) => (*v).into(),
            Value::Float(v) => (*v).into(),
            Value::Text(v) => v.as_str().into(),
            Value::Ints(v) => v.as_slice().into(),
            Value::List(items) => items.iter().map(Value::to_json).collect(),
            Value::Object(object) => object.0.iter().map(|(name, value)| (name.clone(), value.to_json())).collect(),
        }
    }
}

/// Parses one value that is no deeper than `depth`, while fewer than `values` were met in all.
#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    values: &'a std::cell::Cell<usize>,
}

impl Seed<'_> {
    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        let left = self.values.get().checked_sub(1);
        self.values.set(left.ok_or_else(|| E::custom(format!("more than {} values in one row", bounds::VALUES)))?);
        Ok(())
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("lists and objects are nested too deeply"))?;
        Ok(Seed { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut ints = Vec::new();
        let mut list = loop {
            match items.next_element_seed(inner)? {
                Some(Value::Int(value)) => ints.push(value),
                None if !ints.is_empty() => return Ok(Value::Ints(ints)),
                None => return Ok(Value::List(Vec::new())),
                Some(other) => {
                    let mut list: Vec<Value> = Vec::new();
                    for value in ints {
                        self.count()?;
                        list.push(Value::Int(value));
                    }
                    self.count()?;
                    list.push(other);
                    break list;
                }
            }
        };
        while let Some(value) = items.next_element_seed(inner)? {
            self.count()?;
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut known = std::collections::HashSet::new();
        let mut object = Object::default();
        while let Some(name) = entries.next_key::<String>()? {
            self.count()?;
            if !known.insert(name.clone()) {
                let short: String = name.chars().take(40).collect();
                return Err(A::Error::custom(format!("{short:?} is there twice")));
            }
            object.0.push((name, entries.next_value_seed(inner)?));
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lists_and_objects() {
        let parse = |text: &str| Value::parse(text.as_bytes(), 8).unwrap();
        assert_eq!(parse("[1, -2, 3]"), Value::Ints(vec![1, -2, 3]));
        assert_eq!(parse("[1, 2.5]"), Value::List(vec![Value::Int(1), Value::Float(2.5)]));
        assert_eq!(parse("[]"), Value::List(Vec::new()));
        assert_eq!(parse("18446744073709551615"), Value::Float(18446744073709551615.0));
        let Value::Object(object) = parse(r#"{"a": null, "b": "é\u00e9"}"#) else { panic!() };
        assert!(!object.has("a"));
        assert_eq!(object.text("b").unwrap(), "éé");
        assert!(object.text("a").unwrap_err().contains("missing"));
    }

    #[test]
    fn what_is_not_a_value() {
        let many = format!("[{}0.5]", "null,".repeat(bounds::VALUES));
        for (text, message) in [
            ("{\"a\": 1, \"a\": 2}", "\"a\" is there twice"),
            ("[1] x", "trailing characters"),
            ("{\"a\": 1e999}", "number out of range"),
            ("[[[[[[[[[1]]]]]]]]]", "nested too deeply"),
            ("{\"a\"", "EOF"),
            (&many, "values in one row"),
        ] {
            let error = Value::parse(text.as_bytes(), 8).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        assert!(Value::parse(b"\"\xff\"", 8).unwrap_err().contains("unicode"));
    }
}
