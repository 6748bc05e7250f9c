//! What an op is told beside its tensors.

use std::sync::Arc;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(&'static str),
    Ints(Arc<[i64]>),
}

/// A name that an op knows, and what holds where it is not given; `None` where it must be.
#[derive(Debug)]
pub struct Attribute {
    pub name: &'static str,
    pub default: Option<Value>,
}

impl Attribute {
    /// Must be given.
    pub const fn required(name: &'static str) -> Self {
        Self { name, default: None }
    }

    /// A whole number.
    pub const fn int(name: &'static str, default: i64) -> Self {
        Self { name, default: Some(Value::Int(default)) }
    }

    /// A real number.
    pub const fn float(name: &'static str, default: f64) -> Self {
        Self { name, default: Some(Value::Float(default)) }
    }

    /// A truth value.
    pub const fn bool(name: &'static str, default: bool) -> Self {
        Self { name, default: Some(Value::Bool(default)) }
    }

    /// One of several words.
    pub const fn text(name: &'static str, default: &'static str) -> Self {
        Self { name, default: Some(Value::Text(default)) }
    }
}

/// The attributes of one call: few, looked up by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(Vec<(&'static str, Value)>);

impl Attributes {
    /// None.
    pub const NONE: Attributes = Attributes(Vec::new());

    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a whole number.
    pub fn int(self, name: &'static str, value: usize) -> Self {
        self.with(name, Value::Int(value as i64))
    }

    /// With a real number.
    pub fn float(self, name: &'static str, value: f64) -> Self {
        self.with(name, Value::Float(value))
    }

    /// With a truth value.
    pub fn bool(self, name: &'static str, value: bool) -> Self {
        self.with(name, Value::Bool(value))
    }

    /// With a word.
    pub fn text(self, name: &'static str, value: &'static str) -> Self {
        self.with(name, Value::Text(value))
    }

    /// With whole numbers.
    pub fn ints(self, name: &'static str, values: &[i64]) -> Self {
        self.with(name, Value::Ints(values.into()))
    }

    /// With any value; one of the same name is replaced.
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a value.
    pub fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}
