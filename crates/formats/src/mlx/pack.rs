//! Joins the arrays of packed matrices into tensors, and checks that they fit together.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use windlass_quant::{Packing, PlaneType};
use windlass_tensor::DType;

use super::settings::{Layer, Quantization, Setting};
use crate::arrays::Raw;
use crate::{Error, Problem, SourceBuilder};

/// The last part of the name of the array that holds a plane.
pub fn array_name(plane: &str) -> &str {
    if plane == "packed" { "weight" } else { plane }
}

/// Adds plain arrays as they are and packed ones joined, in the order of their weights.
pub fn pack(
    path: &Path,
    raw: Vec<Raw>,
    quantization: Option<&Quantization>,
    builder: &mut SourceBuilder,
) -> Result<(), Error> {
    let mut by_name = HashMap::new();
    for (i, array) in raw.iter().enumerate() {
        if by_name.insert(array.name.as_str(), i).is_some() {
            let problem = Problem::new("duplicate-tensor", "there are two tensors of this name").tensor(&array.name);
            return Err(Error::refused(path, problem));
        }
    }
    let arrays = Arrays { raw: &raw, by_name };
    let (mut tensors, mut used) = (HashMap::new(), HashSet::new());
    for (i, array) in raw.iter().enumerate() {
        let joined = arrays.join(i, quantization).map_err(|p| Error::refused(path, p.tensor(&array.name)))?;
        if let Some((packing, shape, planes)) = joined {
            used.extend(planes.iter().copied());
            tensors.insert(i, (packing, shape, planes));
        }
    }
    for (i, array) in raw.iter().enumerate() {
        if let Some((packing, shape, planes)) = tensors.remove(&i) {
            let extents = planes.iter().filter_map(|p| Some(raw.get(*p)?.extent)).collect();
            builder.tensor(array.name.clone(), packing.element(), shape, extents)?;
        } else if !used.contains(&i) {
            builder.tensor(array.name.clone(), array.dtype.into(), array.shape.clone(), vec![array.extent])?;
        }
    }
    Ok(())
}

struct Arrays<'a> {
    raw: &'a [Raw],
    by_name: HashMap<&'a str, usize>,
}

/// A packing, the shape of the matrix and the numbers of the arrays that are its planes.
type Joined = (Packing, Vec<usize>, Vec<usize>);

impl<'a> Arrays<'a> {
    fn get(&self, module: &str, last: &str) -> Option<(usize, &'a Raw)> {
        let i = *self.by_name.get(format!("{module}.{last}").as_str())?;
        Some((i, self.raw.get(i)?))
    }

    /// What array `i` is the weight of, or `None` if it is plain (or the plane of another).
    fn join(&self, i: usize, quantization: Option<&Quantization>) -> Result<Option<Joined>, Problem> {
        let Some(array) = self.raw.get(i) else { return Ok(None) };
        if let Some(module) = array.name.strip_suffix(".scales") {
            if quantization.is_some() && self.get(module, "weight").is_none() {
                let message = format!("there are scales but no {module}.weight");
                return Err(Problem::new("missing-plane", message));
            }
            return Ok(None);
        }
        let Some(module) = array.name.strip_suffix(".weight") else { return Ok(None) };
        let scales = self.get(module, "scales");
        let Some(quantization) = quantization else {
            if scales.is_some() && array.dtype == DType::U32 {
                let message = "is packed, but config.json has no quantization that says how";
                return Err(Problem::new("no-quantization", message));
            }
            return Ok(None);
        };
        if scales.is_none() {
            let told = matches!(quantization.layers.get(module), Some(Layer::Packed(_)));
            if told || array.dtype == DType::U32 {
                let message = format!("should be packed, but there is no {module}.scales");
                return Err(Problem::new("missing-plane", message));
            }
            return Ok(None);
        }
        let Some(setting) = quantization.of(module) else {
            let message = "has scales, but config.json says that it is not packed";
            return Err(Problem::new("not-packed", message));
        };
        self.packed(module, setting).map(Some)
    }

    fn packed(&self, module: &str, setting: &Setting) -> Result<Joined, Problem> {
        let scheme = setting.scheme()?;
        let missing = |name: &str| Problem::new("missing-plane", format!("there is no {module}.{name}"));
        let ((_, weight), (_, scales)) = (
            self.get(module, "weight").ok_or_else(|| missing("weight"))?,
            self.get(module, "scales").ok_or_else(|| missing("scales"))?,
        );
        for extra in ["biases", "global_scale"] {
            if self.get(module, extra).is_some() && !scheme.planes().iter().any(|p| p.name == extra) {
                let message = format!("{} has no {extra}, but there is {module}.{extra}", scheme.name());
                return Err(Problem::new("extra-plane", message));
            }
        }
        let follows = scheme.planes().iter().any(|p| p.element == PlaneType::Float);
        let packing = Packing { scheme, float: if follows { scales.dtype } else { DType::F32 } };
        if !matches!(packing.float, DType::F32 | DType::F16 | DType::BF16) {
            let message = format!("its scales are {}, expected F32, F16 or BF16", packing.float);
            return Err(Problem::new("wrong-type", message));
        }
        let shape = matrix_shape(weight, setting)?;
        let mut planes = Vec::new();
        for (p, plane) in scheme.planes().iter().enumerate() {
            let name = array_name(plane.name);
            let (at, array) = self.get(module, name).ok_or_else(|| missing(name))?;
            let dtype = packing.plane_type(plane);
            if array.dtype != dtype {
                let message = format!("{module}.{name} is {}, {} has {dtype}", array.dtype, scheme.name());
                return Err(Problem::new("wrong-type", message));
            }
            let expected = scheme.plane_shape(p, &shape);
            if array.shape != expected {
                let message = format!(
                    "{module}.{name} has shape {:?}, expected {expected:?} for {shape:?} in {}",
                    array.shape,
                    scheme.name()
                );
                let problem = Problem::new("wrong-shape", message);
                return Err(problem.help("config.json may name the wrong bits or group_size for this layer"));
            }
            planes.push(at);
        }
        Ok((packing, shape, planes))
    }
}

/// Shape of the matrix whose codes fill the 32-bit words of `weight`.
fn matrix_shape(weight: &Raw, setting: &Setting) -> Result<Vec<usize>, Problem> {
    let words = weight.shape.last().copied().filter(|_| weight.shape.len() >= 2).unwrap_or(0);
    let bits = words.checked_mul(32);
    let columns = bits.filter(|b| *b > 0 && (*b as u64).is_multiple_of(setting.bits)).map(|b| b as u64 / setting.bits);
    let columns = columns.filter(|c| c.is_multiple_of(setting.group)).and_then(|c| usize::try_from(c).ok());
    let columns = columns.ok_or_else(|| {
        let (bits, group) = (setting.bits, setting.group);
        let message = format!("rows of {words} words are not whole groups of {group} values of {bits} bits");
        let problem = Problem::new("wrong-shape", message);
        problem.help("config.json may name the wrong bits or group_size for this layer")
    })?;
    let mut shape = weight.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = columns;
    }
    Ok(shape)
}
