//! What an op is.

use windlass_quant::{Packing, SchemeRef};
use windlass_tensor::{DType, Element, Tensor};

use crate::attributes::{Attribute, Attributes, Value};
use crate::survey::Profile;
use crate::{Args, Error, Gradient};

/// A named function on tensors. All of it is data; kernels are elsewhere, but for the reference.
pub struct Op {
    /// Lower case: `rms_norm`.
    pub name: &'static str,
    /// One line: the formula.
    pub about: &'static str,
    pub inputs: &'static [Input],
    pub attributes: &'static [Attribute],
    /// Type and shape of each output.
    pub outputs: fn(&Inquiry) -> Result<Vec<OutputSpec>, Error>,
    /// The specification: scalar and obvious.
    pub reference: fn(&mut Args) -> Result<(), Error>,
    pub gradient: Gradient,
    pub tolerance: Tolerance,
    /// The families of arguments that the survey tries the op with.
    pub profiles: fn(&Op) -> Vec<Profile>,
}

/// One input of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    pub name: &'static str,
    pub optional: bool,
    /// Whether it stands for any number of tensors; only the last input may.
    pub many: bool,
    /// Whether packed tensors are taken.
    pub packed: bool,
}

impl Input {
    /// A plain tensor.
    pub const fn new(name: &'static str) -> Self {
        Self { name, optional: false, many: false, packed: false }
    }

    /// May be left out.
    pub const fn optional(name: &'static str) -> Self {
        Self { optional: true, ..Self::new(name) }
    }

    /// Plain or packed.
    pub const fn packed(name: &'static str) -> Self {
        Self { packed: true, ..Self::new(name) }
    }

    /// Any number of tensors from here on, plain or packed.
    pub const fn many(name: &'static str) -> Self {
        Self { many: true, packed: true, ..Self::new(name) }
    }
}

/// Type and shape of an output.
#[derive(Clone, Debug)]
pub struct OutputSpec {
    /// The type of its values; F32 where they are packed.
    pub dtype: DType,
    /// How they are packed, if they are.
    pub scheme: Option<SchemeRef>,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
    /// Whether a new output begins as zeros, because kernels write parts of it only.
    pub zeroed: bool,
}

impl OutputSpec {
    /// An output of this type and shape.
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        Self { dtype, scheme: None, shape: shape.into(), zeroed: false }
    }

    /// A packed output.
    pub fn packed(scheme: SchemeRef, shape: impl Into<Vec<usize>>) -> Self {
        Self { scheme: Some(scheme), ..Self::new(DType::F32, shape) }
    }

    /// What its values are.
    pub fn element(&self) -> Element {
        match self.scheme {
            Some(scheme) => Packing { scheme, float: self.dtype }.element(),
            None => Element::Plain(self.dtype),
        }
    }

    /// Whether a tensor is such an output.
    pub(crate) fn is(&self, tensor: &Tensor) -> bool {
        let same = match self.scheme {
            Some(scheme) => tensor.element().dtype().is_none() && tensor.element().name() == scheme.name(),
            None => tensor.element().dtype() == Some(self.dtype),
        };
        same && tensor.shape().dims() == self.shape
    }

    /// The same, beginning as zeros.
    pub fn zeroed(self) -> Self {
        Self { zeroed: true, ..self }
    }
}

/// How far a kernel may be from the reference: an element is wrong if its error is larger than
/// `absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub relative: f32,
    pub absolute: f32,
}

impl Tolerance {
    /// Every bit must be the same.
    pub const EXACT: Self = Self { relative: 0.0, absolute: 0.0 };

    /// For values that are computed one by one.
    pub const ELEMENTWISE: Self = Self { relative: 2e-6, absolute: 1e-7 };

    /// For sums.
    pub const SUM: Self = Self { relative: 1e-5, absolute: 1e-5 };
}

/// The arguments of a call, before there are outputs.
pub struct Inquiry<'a> {
    pub op: &'static Op,
    pub inputs: &'a [&'a Tensor],
    pub attributes: &'a Attributes,
}

impl<'a> Inquiry<'a> {
    /// Refuses the arguments.
    pub fn fail<T>(&self, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::Argument { op: self.op.name, message: message.into() })
    }

    /// Input `index`, which the schema says is there.
    pub fn input(&self, index: usize) -> Result<&'a Tensor, Error> {
        let name = self.op.inputs.get(index).map_or("", |input| input.name);
        self.inputs.get(index).copied().map_or_else(|| self.fail(format!("input {index} ({name}) is missing")), Ok)
    }

    /// Shape of input `index`, outermost first.
    pub fn shape(&self, index: usize) -> Result<&'a [usize], Error> {
        Ok(self.input(index)?.shape())
    }

    /// An output like input `index`.
    pub fn like(&self, index: usize) -> Result<OutputSpec, Error> {
        let input = self.input(index)?;
        let dtype = input.element().dtype().unwrap_or(DType::F32);
        Ok(OutputSpec::new(dtype, input.shape().to_vec()))
    }

    /// The value of an attribute: as given, or by default.
    pub fn attribute(&self, name: &str) -> Result<&'a Value, Error> {
        let default = || self.op.attributes.iter().find(|a| a.name == name)?.default.as_ref();
        self.attributes
            .get(name)
            .or_else(default)
            .map_or_else(|| self.fail(format!("the attribute {name} is missing")), Ok)
    }

    /// A whole number from 0 up.
    pub fn int(&self, name: &str) -> Result<usize, Error> {
        match self.attribute(name)? {
            Value::Int(value) if *value >= 0 => Ok(*value as usize),
            other => self.fail(format!("{name} must be a whole number from 0 up, not {other:?}")),
        }
    }

    /// Any whole number.
    pub fn signed(&self, name: &str) -> Result<i64, Error> {
        match self.attribute(name)? {
            Value::Int(value) => Ok(*value),
            other => self.fail(format!("{name} must be a whole number, not {other:?}")),
        }
    }

    /// A real number.
    pub fn float(&self, name: &str) -> Result<f64, Error> {
        match self.attribute(name)? {
            Value::Float(value) => Ok(*value),
            Value::Int(value) => Ok(*value as f64),
            other => self.fail(format!("{name} must be a number, not {other:?}")),
        }
    }

    /// A truth value.
    pub fn bool(&self, name: &str) -> Result<bool, Error> {
        match self.attribute(name)? {
            Value::Bool(value) => Ok(*value),
            other => self.fail(format!("{name} must be true or false, not {other:?}")),
        }
    }

    /// A word.
    pub fn text(&self, name: &str) -> Result<&'static str, Error> {
        match self.attribute(name)? {
            Value::Text(value) => Ok(value),
            other => self.fail(format!("{name} must be a word, not {other:?}")),
        }
    }

    /// Whole numbers.
    pub fn ints(&self, name: &str) -> Result<&'a [i64], Error> {
        match self.attribute(name)? {
            Value::Ints(values) => Ok(values),
            other => self.fail(format!("{name} must be a list of whole numbers, not {other:?}")),
        }
    }

    /// Checks number and kinds of inputs, and names of attributes, against the schema.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let schema = self.op.inputs;
        let least = schema.iter().filter(|input| !input.optional).count();
        let most = if schema.last().is_some_and(|input| input.many) { usize::MAX } else { schema.len() };
        if self.inputs.len() < least || self.inputs.len() > most {
            let names: Vec<&str> = schema.iter().map(|input| input.name).collect();
            return self.fail(format!("takes {}, found {} tensors", names.join(", "), self.inputs.len()));
        }
        for (i, tensor) in self.inputs.iter().enumerate() {
            let Some(input) = schema.get(i).or(schema.last()) else { continue };
            if !input.packed && matches!(tensor.element(), Element::Packed(_)) {
                return self.fail(format!("{} must be plain, not {}", input.name, tensor.element().name()));
            }
        }
        let known = |name: &str| self.op.attributes.iter().any(|a| a.name == name);
        match self.attributes.iter().find(|(name, _)| !known(name)) {
            Some((name, _)) => self.fail(format!("has no attribute {name:?}")),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
