//! Profiles: families of arguments that an op is tried with.

use std::sync::Arc;

use windlass_quant::{Importance, Packing, SchemeRef};
use windlass_runtime::random::Philox;
use windlass_tensor::{DType, Storage, Tensor, storage::HostBuffer};

use crate::{Attributes, Error};

/// One family of arguments of an op.
#[derive(Clone, Debug)]
pub struct Profile {
    pub name: &'static str,
    pub inputs: Vec<Sample>,
    pub attributes: Attributes,
}

/// How an input is made.
#[derive(Clone, Debug)]
pub struct Sample {
    pub shape: Vec<usize>,
    pub fill: Fill,
    pub kind: Kind,
    /// Whether it is a view with gaps between its rows that begins inside of its memory.
    pub strided: bool,
}

/// The values of an input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Normal, times this.
    Normal(f32),
    /// Evenly between the two.
    Between(f32, f32),
    /// Whole numbers from 0 up to, not including, this.
    Below(u64),
    /// 0, then this much more each.
    Steps(u64),
    /// Zeros of both signs, ones, and values whose squares, exponentials and reciprocals leave the range of floats.
    Extremes,
}

/// The element type of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The type that is surveyed; F32 where that is packed.
    Surveyed,
    /// The type that is surveyed, packed or not.
    Weight,
    /// Always this.
    Fixed(DType),
    /// Always packed in the scheme of this name.
    Packed(&'static str),
}

/// The type that inputs of a case have.
#[derive(Clone, Copy, Debug)]
pub enum Surveyed {
    Plain(DType),
    Packed(SchemeRef),
}

impl Profile {
    /// Without inputs yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, inputs: Vec::new(), attributes: Attributes::NONE }
    }

    /// With one more input.
    pub fn with(mut self, sample: Sample) -> Self {
        self.inputs.push(sample);
        self
    }

    /// With one more input of normal values.
    pub fn normal(self, shape: &[usize]) -> Self {
        self.with(Sample::normal(shape))
    }

    /// With one more input of whole numbers (I64) below `bound`.
    pub fn below(self, bound: u64, shape: &[usize]) -> Self {
        self.with(Sample::normal(shape).fill(Fill::Below(bound)).kind(Kind::Fixed(DType::I64)))
    }

    /// With these attributes.
    pub fn attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }

    /// Values of the largest input.
    pub fn values(&self) -> usize {
        self.inputs.iter().map(|sample| sample.shape.iter().product()).max().unwrap_or(0)
    }
}

impl Sample {
    /// Normal values of the surveyed type.
    pub fn normal(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), fill: Fill::Normal(1.0), kind: Kind::Surveyed, strided: false }
    }

    /// A weight matrix: small values, packed where the surveyed type is.
    pub fn weight(shape: &[usize]) -> Self {
        Self { fill: Fill::Normal(0.02), kind: Kind::Weight, ..Self::normal(shape) }
    }

    /// With these values.
    pub fn fill(self, fill: Fill) -> Self {
        Self { fill, ..self }
    }

    /// Of this type.
    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// As a view with gaps.
    pub fn strided(self) -> Self {
        Self { strided: true, ..self }
    }

    /// The tensor: the same for the same `seed`. `None` where a packed type does not take the shape.
    pub fn make(&self, seed: u64, surveyed: Surveyed) -> Result<Option<Tensor>, Error> {
        let scheme = match (self.kind, surveyed) {
            (Kind::Weight, Surveyed::Packed(scheme)) => Some(scheme),
            (Kind::Packed(name), _) => {
                Some(windlass_quant::scheme(name).map_err(|source| Error::Quant { op: "survey", source })?)
            }
            _ => None,
        };
        let dtype = match (self.kind, surveyed) {
            (Kind::Fixed(dtype), _) => dtype,
            (_, Surveyed::Plain(dtype)) => dtype,
            _ => DType::F32,
        };
        let mut shape = self.shape.clone();
        if let Some(last) = shape.last_mut().filter(|_| self.strided) {
            *last += 3;
        }
        let mut values = vec![0.0f32; shape.iter().product()];
        self.fill.values(seed, &mut values);
        if let Some(scheme) = scheme {
            return pack(scheme, &values, &shape);
        }
        let mut tensor = crate::zeros(dtype, shape)?;
        let missing = || Error::Argument { op: "survey", message: "an input is not in memory".into() };
        crate::args::store(dtype, values.iter().map(|v| f64::from(*v)), tensor.bytes_mut().ok_or_else(missing)?)?;
        match self.shape.last().filter(|_| self.strided) {
            Some(last) => Ok(Some(tensor.narrow(self.shape.len() - 1, 1, *last)?)),
            None => Ok(Some(tensor)),
        }
    }
}

impl Fill {
    fn values(self, seed: u64, values: &mut [f32]) {
        const EXTREMES: [f32; 26] = [
            0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-3, -1e-3, 1e-20, -1e-20, 3.0, -3.0, 6.0, -6.0, 9.5, -9.5, 20.0, -20.0,
            87.0, -87.0, 104.0, -104.0, 1e4, -1e4, 1e18, -1e18,
        ];
        let mut random = Philox::new(seed);
        match self {
            Fill::Normal(scale) => {
                random.fill_normal(values);
                values.iter_mut().for_each(|v| *v *= scale);
            }
            Fill::Between(low, high) => {
                random.fill_uniform(values);
                values.iter_mut().for_each(|v| *v = low + (high - low) * *v);
            }
            Fill::Steps(step) => values.iter_mut().enumerate().for_each(|(i, v)| *v = (i as u64 * step) as f32),
            Fill::Below(bound) => values.iter_mut().for_each(|v| *v = random.below(bound) as f32),
            // Another step for each seed, so that several inputs meet in many pairs.
            Fill::Extremes => {
                let step = [1, 3, 5][seed as usize % 3];
                values.iter_mut().enumerate().for_each(|(i, v)| *v = EXTREMES[(i * step + i / 26) % EXTREMES.len()]);
            }
        }
    }
}

fn pack(scheme: SchemeRef, values: &[f32], shape: &[usize]) -> Result<Option<Tensor>, Error> {
    use windlass_tensor::PackedLayout;

    let packing = Packing { scheme, float: DType::F32 };
    let columns = shape.last().copied().unwrap_or(0);
    let Ok(lengths) = packing.plane_bytes(shape) else { return Ok(None) };
    let mut planes =
        lengths.iter().map(|n| HostBuffer::zeroed(*n as usize)).collect::<Result<Vec<_>, windlass_tensor::Error>>()?;
    let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|plane| plane.as_mut_slice()).collect();
    let even = vec![1.0; columns];
    let importance = matches!(scheme.importance(), Importance::Required).then_some(&even[..]);
    let quant = |source| Error::Quant { op: "survey", source };
    if scheme.tallies() {
        scheme.begin(&scheme.tally(values, columns, DType::F32), &mut slices);
    }
    scheme.encode(values, columns, importance, DType::F32, &mut slices).map_err(quant)?;
    let planes = planes.into_iter().map(Storage::new).collect();
    Ok(Some(Tensor::packed(Arc::new(packing), shape.to_vec(), planes)?))
}
