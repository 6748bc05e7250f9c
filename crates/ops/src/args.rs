//! What a kernel works on.

use std::borrow::Cow;

use windlass_quant::{Packing, float};
use windlass_runtime::scheduler::Session;
use windlass_tensor::{DType, Element, Tensor};

use crate::attributes::Attributes;
use crate::{Error, Inquiry, Op};

/// The arguments of one call, checked against the schema, and the outputs to fill.
pub struct Args<'a, 's> {
    pub op: &'static Op,
    pub inputs: &'a [&'a Tensor],
    pub attributes: &'a Attributes,
    /// Of the types and shapes that the op's rule gives, contiguous, held by nobody else.
    pub outputs: &'a mut [Tensor],
    /// The threads that the kernel may use.
    pub session: &'a Session<'s>,
}

impl<'a, 's> Args<'a, 's> {
    /// The arguments without outputs: shapes, attributes, errors.
    pub fn inquiry(&self) -> Inquiry<'a> {
        Inquiry { op: self.op, inputs: self.inputs, attributes: self.attributes }
    }

    /// All values of input `index` as `f32`, in row-major order: where they lie, or converted.
    pub fn f32s(&self, index: usize) -> Result<Cow<'a, [f32]>, Error> {
        f32s(self.op, self.inquiry().input(index)?)
    }

    /// All values of input `index` as whole numbers.
    pub fn ints(&self, index: usize) -> Result<Vec<i64>, Error> {
        let tensor = self.inquiry().input(index)?;
        let mut bytes = vec![0; tensor.shape().values() * tensor.element().dtype().map_or(0, |d| d.size())];
        tensor.read(&mut bytes)?;
        macro_rules! widen {
            ($type:ty) => {
                bytes
                    .chunks_exact(size_of::<$type>())
                    .map(|b| bytemuck::pod_read_unaligned::<$type>(b) as i64)
                    .collect()
            };
        }
        Ok(match tensor.element().dtype() {
            Some(DType::I64) => widen!(i64),
            Some(DType::I32) => widen!(i32),
            Some(DType::I16) => widen!(i16),
            Some(DType::I8) => widen!(i8),
            Some(DType::U32) => widen!(u32),
            Some(DType::U16) => widen!(u16),
            Some(DType::U8 | DType::Bool) => widen!(u8),
            Some(DType::U64) => widen!(u64),
            _ => {
                return self.inquiry().fail(format!("input {index} must be whole numbers, not {:?}", tensor.element()));
            }
        })
    }

    /// The values of output `index`, which is of type F32.
    pub fn output(&mut self, index: usize) -> Result<&mut [f32], Error> {
        let op = self.op.name;
        let wrong = || Error::Argument { op, message: format!("output {index} is not F32 in memory of its own") };
        let tensor = self.outputs.get_mut(index).filter(|t| t.element().dtype() == Some(DType::F32));
        let bytes = tensor.ok_or_else(wrong)?.bytes_mut().ok_or_else(wrong)?;
        bytemuck::try_cast_slice_mut(bytes).map_err(|_| wrong())
    }

    /// All values of input `index` as `f64`, in row-major order.
    pub fn numbers(&self, index: usize) -> Result<Vec<f64>, Error> {
        numbers(self.op, self.inquiry().input(index)?)
    }

    /// Rounds `values` to the type of output `index` and writes them there.
    pub fn write_numbers(&mut self, index: usize, values: &[f64]) -> Result<(), Error> {
        self.store(index, values.iter().copied())
    }

    /// As [`Args::write_numbers`], for values that were computed in `f32`.
    pub fn write(&mut self, index: usize, values: &[f32]) -> Result<(), Error> {
        self.store(index, values.iter().map(|v| f64::from(*v)))
    }

    fn store(&mut self, index: usize, values: impl ExactSizeIterator<Item = f64>) -> Result<(), Error> {
        let op = self.op.name;
        let wrong = |message: String| Error::Argument { op, message: format!("output {index} {message}") };
        let tensor = self.outputs.get_mut(index).ok_or_else(|| wrong("is missing".into()))?;
        let dtype = tensor.element().dtype().ok_or_else(|| wrong("is packed".into()))?;
        let bytes = tensor.bytes_mut().ok_or_else(|| wrong("is shared".into()))?;
        if bytes.len() != values.len() * dtype.size() {
            return Err(wrong(format!("has {} bytes, {} values were computed", bytes.len(), values.len())));
        }
        store(dtype, values, bytes)
    }
}

/// All values of a tensor as `f32`, in row-major order; packed ones are decoded.
pub fn f32s<'a>(op: &'static Op, tensor: &'a Tensor) -> Result<Cow<'a, [f32]>, Error> {
    let quant = |source| Error::Quant { op: op.name, source };
    match tensor.element() {
        Element::Plain(DType::F32)
            if tensor.bytes().is_some_and(|b| bytemuck::try_cast_slice::<u8, f32>(b).is_ok()) =>
        {
            let bytes = tensor.bytes().unwrap_or_default();
            Ok(Cow::Borrowed(bytemuck::try_cast_slice(bytes).unwrap_or_default()))
        }
        Element::Plain(dtype) => {
            let mut bytes = vec![0; tensor.shape().values() * dtype.size()];
            tensor.read(&mut bytes)?;
            if !dtype.is_float() {
                return Ok(Cow::Owned(bytes.chunks_exact(dtype.size()).map(|b| number(*dtype, b) as f32).collect()));
            }
            let mut values = vec![0.0; tensor.shape().values()];
            float::to_f32(*dtype, &bytes, &mut values).map_err(quant)?;
            Ok(Cow::Owned(values))
        }
        Element::Packed(layout) => {
            let tensor = tensor.contiguous()?;
            let planes = tensor.cut_planes()?;
            let message = || format!("{} is not a scheme that can be decoded", layout.name());
            let packing = layout.as_any().downcast_ref::<Packing>();
            let packing = packing.ok_or_else(|| Error::Argument { op: op.name, message: message() })?;
            let bytes: Option<Vec<&[u8]>> = planes.iter().map(|plane| plane.bytes()).collect();
            let bytes =
                bytes.ok_or_else(|| Error::Argument { op: op.name, message: "is not in host memory".into() })?;
            let mut values = vec![0.0; tensor.shape().values()];
            let decoded = packing.scheme.decode(&bytes, tensor.shape().columns(), packing.float, &mut values);
            decoded.map_err(quant)?;
            Ok(Cow::Owned(values))
        }
    }
}

/// All values of a tensor as `f64`, in row-major order; packed ones are decoded.
pub(crate) fn numbers(op: &'static Op, tensor: &Tensor) -> Result<Vec<f64>, Error> {
    let Some(dtype @ (DType::F64 | DType::I64 | DType::I32 | DType::U32)) = tensor.element().dtype() else {
        return Ok(f32s(op, tensor)?.iter().map(|v| f64::from(*v)).collect());
    };
    let mut bytes = vec![0; tensor.shape().values() * dtype.size()];
    tensor.read(&mut bytes)?;
    Ok(bytes.chunks_exact(dtype.size()).map(|b| number(dtype, b)).collect())
}

/// One value, of a type that is not a small float, out of its bytes.
fn number(dtype: DType, bytes: &[u8]) -> f64 {
    match dtype {
        DType::F64 => bytemuck::pod_read_unaligned(bytes),
        DType::I64 => bytemuck::pod_read_unaligned::<i64>(bytes) as f64,
        DType::U64 => bytemuck::pod_read_unaligned::<u64>(bytes) as f64,
        DType::I32 => f64::from(bytemuck::pod_read_unaligned::<i32>(bytes)),
        DType::U32 => f64::from(bytemuck::pod_read_unaligned::<u32>(bytes)),
        DType::I16 => f64::from(bytemuck::pod_read_unaligned::<i16>(bytes)),
        DType::U16 => f64::from(bytemuck::pod_read_unaligned::<u16>(bytes)),
        DType::I8 => f64::from(bytemuck::pod_read_unaligned::<i8>(bytes)),
        _ => f64::from(bytes.first().copied().unwrap_or(0)),
    }
}

/// Rounds numbers to a type; `bytes` has room for them.
pub(crate) fn store(dtype: DType, values: impl Iterator<Item = f64>, bytes: &mut [u8]) -> Result<(), Error> {
    match dtype {
        DType::F64 => copy(bytes, values.map(f64::to_le_bytes)),
        DType::I64 => copy(bytes, values.map(|v| (v as i64).to_le_bytes())),
        DType::I32 => copy(bytes, values.map(|v| (v as i32).to_le_bytes())),
        DType::U64 => copy(bytes, values.map(|v| (v as u64).to_le_bytes())),
        DType::U32 => copy(bytes, values.map(|v| (v as u32).to_le_bytes())),
        DType::I16 => copy(bytes, values.map(|v| (v as i16).to_le_bytes())),
        DType::U16 => copy(bytes, values.map(|v| (v as u16).to_le_bytes())),
        DType::U8 => copy(bytes, values.map(|v| [v as u8])),
        DType::I8 => copy(bytes, values.map(|v| (v as i8).to_le_bytes())),
        DType::Bool => copy(bytes, values.map(|v| [u8::from(v != 0.0)])),
        _ => {
            let values: Vec<f32> = values.map(|v| v as f32).collect();
            float::from_f32(dtype, &values, bytes).map_err(|source| Error::Quant { op: "store", source })?;
        }
    }
    Ok(())
}

fn copy<const N: usize>(bytes: &mut [u8], values: impl Iterator<Item = [u8; N]>) {
    bytes.chunks_exact_mut(N).zip(values).for_each(|(out, value)| out.copy_from_slice(&value));
}
