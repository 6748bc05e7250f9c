//! Products of matrices of floats.

use windlass_ops::elementwise::common_shape;
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::{DType, Tensor};

use crate::gemm::{Left, Matrix, multiply};
use crate::span::Span;

pub(super) const MATMUL: Kernel = Kernel { op: "matmul", supports, run };
pub(super) const BMM: Kernel = Kernel { op: "bmm", supports, run };

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let readable = |t: &&Tensor| t.element().dtype() == Some(DType::F32) && t.planes().len() == 1;
    if !q.inputs.iter().all(readable) {
        return Err("takes F32");
    }
    // Rows whose values lie apart are read where they are; batches must be whole.
    if q.inputs.iter().any(|t| t.shape().rank() < 2 || t.shape().values() == 0) {
        return Err("takes matrices that are not empty");
    }
    Ok(())
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (x, y) = (Operand::of(args.inputs[0])?, Operand::of(args.inputs[1])?);
    let outer = common_shape(&[&x.outer, &y.outer]).unwrap_or_default();
    let ([rows, inner], columns) = (x.matrix, y.matrix[1]);
    let (session, out) = (args.session, args.output(0)?);
    for (batch, out) in out.chunks_exact_mut((rows * columns).max(1)).enumerate() {
        let (left, right) = (x.at(&outer, batch), y.at(&outer, batch));
        let left = Left::gather(&left, rows, inner, session);
        multiply(left.tiles(), 0..inner, &right, columns, &Span::of(out), false, session);
    }
    Ok(())
}

/// A stack of matrices.
struct Operand {
    tensor: Tensor,
    outer: Vec<usize>,
    matrix: [usize; 2],
    strides: [usize; 2],
}

impl Operand {
    fn of(tensor: &Tensor) -> Result<Self, Error> {
        // A single matrix is read as it lies; a stack that has gaps, what is stretched and what a file holds at odd places
        // is copied.
        let strides = tensor.layout().strides();
        let plain = (tensor.shape().rank() == 2 && !strides.contains(&0)) || tensor.layout().is_contiguous();
        let tensor = if plain && values(tensor).is_some() { tensor.clone() } else { copied(tensor)? };
        let shape = tensor.shape().to_vec();
        let (outer, matrix) = shape.split_at(shape.len() - 2);
        let strides = tensor.layout().strides();
        let strides = [strides[shape.len() - 2], strides[shape.len() - 1]];
        let (outer, matrix) = (outer.to_vec(), [matrix[0], matrix[1]]);
        Ok(Self { outer, matrix, strides, tensor })
    }

    /// The matrix for place `batch` of the common stack.
    fn at(&self, outer: &[usize], batch: usize) -> Matrix<'_> {
        let (mut rest, mut index, mut size) = (batch, 0, 1);
        for (i, dim) in outer.iter().enumerate().rev() {
            let (at, own) = (rest % dim, (i + self.outer.len()).checked_sub(outer.len()).map(|i| self.outer[i]));
            rest /= dim;
            if let Some(own) = own {
                index += if own == 1 { 0 } else { at } * size;
                size *= own;
            }
        }
        let first = index * self.matrix[0] * self.matrix[1];
        Matrix {
            values: &values(&self.tensor).unwrap_or_default()[first..],
            row: self.strides[0],
            column: self.strides[1],
        }
    }
}

/// The floats of a tensor from its first on, where they are in host memory and aligned.
fn values(tensor: &Tensor) -> Option<&[f32]> {
    let bytes = tensor.planes().first()?.bytes()?.get(tensor.layout().offset() * 4..)?;
    bytemuck::try_cast_slice(bytes).ok()
}

fn copied(tensor: &Tensor) -> Result<Tensor, Error> {
    let mut values = vec![0.0f32; tensor.shape().values()];
    tensor.read(bytemuck::cast_slice_mut(&mut values))?;
    Ok(Tensor::from_slice(&values, tensor.shape().to_vec())?)
}
