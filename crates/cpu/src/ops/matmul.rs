//! Products of two matrices of floats: the second, turned, is a matrix of weights.

use windlass_ops::{Args, Error, Inquiry, Kernel, pool};
use windlass_runtime::scheduler::Session;
use windlass_tensor::{DType, Element};

use super::failed;
use crate::linear::Linear;
use crate::span::Span;

pub(super) const KERNEL: Kernel = Kernel { op: "matmul", supports, run };

/// Rows and columns of a block that is turned at a time: as many floats as a line of a cache.
const BLOCK: usize = 16;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let matrix = |t: &&windlass_tensor::Tensor| t.element().dtype() == Some(DType::F32) && t.shape().rank() == 2;
    if q.inputs.iter().any(|t| t.shape().values() == 0) {
        return Err("has no values");
    }
    if q.inputs.iter().all(matrix) { Ok(()) } else { Err("takes two matrices of F32") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (x, y, op, session) = (args.f32s(0)?, args.f32s(1)?, args.op.name, args.session);
    let (rows, inside, columns) =
        (args.inputs[0].shape().rows(), args.inputs[0].shape().columns(), args.inputs[1].shape().columns());
    let mut turned = pool().try_take(op, size_of_val(&*y)).map_err(|e| failed(op, e))?;
    turn(&y, columns, bytemuck::cast_slice_mut(&mut turned), session);
    let planes = [&turned[..]];
    let linear = Linear::new(&Element::Plain(DType::F32), &planes, columns, inside).map_err(|e| failed(op, e))?;
    linear.forward(&x, rows, args.output(0)?, session).map_err(|e| failed(op, e))
}

/// Sets `out` to `[columns][rows]` of `y` `[rows][columns]`.
fn turn(y: &[f32], columns: usize, out: &mut [f32], session: &Session<'_>) {
    let rows = y.len() / columns;
    let out = Span::of(out);
    session.split(columns, BLOCK, &|range| {
        // SAFETY: ranges of columns are disjoint.
        let out = unsafe { out.part(range.start * rows..range.end * rows) };
        for first in (0..rows).step_by(BLOCK) {
            let height = BLOCK.min(rows - first);
            // Lines of far rows share few sets of the cache: each is read, and written, at once.
            let mut block = [[0.0; BLOCK]; BLOCK];
            for (i, line) in block.iter_mut().enumerate().take(height) {
                let at = (first + i) * columns;
                line[..range.len()].copy_from_slice(&y[at + range.start..at + range.end]);
            }
            for i in 0..range.len() {
                let mut line = [0.0; BLOCK];
                line.iter_mut().zip(&block).for_each(|(to, row)| *to = row[i]);
                out[i * rows + first..][..height].copy_from_slice(&line[..height]);
            }
        }
    });
}
