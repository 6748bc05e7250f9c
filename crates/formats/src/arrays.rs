//! Plain arrays as weight files hold them, before those that make up a packed tensor are joined.

use std::collections::HashMap;

use serde_json::Value as Json;
use windlass_tensor::{DType, Limits};

use crate::{Extent, Problem, SourceBuilder};

/// One array of a weight file.
#[derive(Debug, Clone)]
pub struct Raw {
    pub name: String,
    pub dtype: DType,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
    pub extent: Extent,
}

impl Raw {
    /// Number of values, or `None` if there are more than can be counted.
    pub fn values(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
    }
}

/// All arrays of a model, and what config.json says of it.
pub struct Checkpoint<'a> {
    /// The whole of config.json; `Null` where there is none.
    pub config: &'a Json,
    pub arrays: &'a [Raw],
    by_name: HashMap<&'a str, usize>,
    builder: &'a SourceBuilder,
    limits: &'a Limits,
}

impl<'a> Checkpoint<'a> {
    /// Refuses two arrays of one name.
    pub fn new(
        config: &'a Json,
        arrays: &'a [Raw],
        builder: &'a SourceBuilder,
        limits: &'a Limits,
    ) -> Result<Self, Problem> {
        let mut by_name = HashMap::new();
        for (i, array) in arrays.iter().enumerate() {
            if by_name.insert(array.name.as_str(), i).is_some() {
                let problem = Problem::new("duplicate-tensor", "there are two tensors of this name");
                return Err(problem.tensor(&array.name));
            }
        }
        Ok(Self { config, arrays, by_name, builder, limits })
    }

    /// What config.json says of quantization.
    pub fn quantization(&self) -> Option<&'a Json> {
        self.config.get("quantization_config").filter(|c| c.is_object())
    }

    /// How config.json names the library that quantized.
    pub fn method(&self) -> Option<&'a str> {
        self.quantization()?.get("quant_method")?.as_str()
    }

    /// Number of the array of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The array of this name, or a problem that says which tensor lacks it.
    pub fn need(&self, name: &str, tensor: &str) -> Result<(usize, &'a Raw), Problem> {
        let missing = || Problem::new("missing-plane", format!("there is no {name}")).tensor(tensor);
        let at = self.find(name).ok_or_else(missing)?;
        Ok((at, self.arrays.get(at).ok_or_else(missing)?))
    }

    /// The bytes of a small array.
    pub fn read(&self, array: &Raw) -> Result<Vec<u8>, Problem> {
        self.builder.read(&array.extent, self.limits).map_err(|p| p.tensor(&array.name))
    }

    /// A JSON object in the bytes of a small array.
    pub fn read_json(&self, array: &Raw) -> Result<Json, Problem> {
        let bytes = self.read(array)?;
        let refuse =
            |message: String| Problem::new("bad-json", message).tensor(&array.name).offset(array.extent.offset);
        crate::json::check_depth(&bytes, self.limits.nesting).map_err(refuse)?;
        serde_json::from_slice(&bytes).map_err(|e| refuse(format!("holds no JSON: {e}")))
    }
}
