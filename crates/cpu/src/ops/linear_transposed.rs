//! Products with weights as they stand: what flows back through linear maps. Schemes without kernels are decoded some rows
//! at a time, to memory that stays in the cache.

use std::sync::Mutex;

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_quant::Packing;
use windlass_tensor::{DType, Element, Tensor};

use super::failed;
use super::linear::planes;
use crate::gemm::{Left, Matrix, Panels, Room, multiply, panel_width};
use crate::isa::level;
use crate::linear::{Linear, decode};
use crate::span::Span;

pub(super) const KERNEL: Kernel = Kernel { op: "linear_transposed", supports, run };

/// Values that are decoded at once.
const BLOCK: usize = 1 << 19;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let floats = |t: &Tensor| t.element().dtype() == Some(DType::F32);
    let weight = q.inputs[1].element();
    let served = matches!(weight, Element::Plain(DType::F32 | DType::F16 | DType::BF16) | Element::Packed(_));
    let rest = floats(q.inputs[0]) && q.inputs.get(2).is_none_or(|plus| floats(plus));
    if served && rest && q.inputs[1].shape().values() > 0 {
        Ok(())
    } else {
        Err("takes F32 and weights of floats or packed")
    }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (op, session) = (args.op.name, args.session);
    let x = args.f32s(0)?;
    let plus = if args.inputs.len() > 2 { Some(args.f32s(2)?) } else { None };
    let (weight, planes) = planes(args.inputs[1])?;
    let (inside, columns) = (weight.shape().rows(), weight.shape().columns());
    let bytes: Option<Vec<&[u8]>> = planes.iter().map(|plane| plane.bytes()).collect();
    let bytes = bytes.ok_or_else(|| failed(op, "weights are not in host memory"))?;
    let rows = x.len() / inside;
    let out = args.output(0)?;
    if let Some(plus) = &plus {
        out.copy_from_slice(plus);
    }
    let linear = Linear::new(weight.element(), &bytes, inside, columns).map_err(|e| failed(op, e))?.exact();
    if linear.goes_back() {
        return linear.back(&x, rows, out, plus.is_some(), session).map_err(|e| failed(op, e));
    }
    let (left, y) = (Left::gather(&Matrix::of_rows(&x, inside), rows, inside, session), Span::of(out));
    let packing = match weight.element() {
        Element::Packed(layout) => layout.as_any().downcast_ref::<Packing>(),
        Element::Plain(_) => None,
    };
    let packing = packing.ok_or_else(|| failed(op, "the weights cannot be decoded"))?;
    let together = packing.scheme.row_granularity(columns).max(1);
    let (width, padded) = (panel_width(level()), columns.next_multiple_of(panel_width(level())));
    let block = (BLOCK / columns).max(1).next_multiple_of(together).min(inside.next_multiple_of(together));
    let mut panels = Room::new(block * padded);
    let near = 2usize.next_multiple_of(together);
    for start in (0..inside).step_by(block) {
        let count = block.min(inside - start);
        let failure = Mutex::new(None);
        let target = Span::of(&mut panels);
        session.balance(count.div_ceil(together), (16usize).div_ceil(together), &|parts| {
            let rows = parts.start * together..(parts.end * together).min(count);
            // Few rows at a time, which stay near until they stand in their panels.
            for first in rows.clone().step_by(near) {
                let rows = first..(first + near).min(rows.end);
                let mut values = Room::new(rows.len() * columns);
                let all = start + rows.start..start + rows.end;
                if let Err(error) = decode(packing, &bytes, columns, &all, &mut values) {
                    *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(failed(op, error));
                    return;
                }
                for (row, values) in rows.zip(values.chunks_exact(columns)) {
                    spread(values, row, count, width, &target);
                }
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(error);
        }
        let right = Panels { values: &panels, rows: count };
        multiply(left.tiles(), start..start + count, &right, columns, &y, plus.is_some() || start > 0, session);
    }
    Ok(())
}

/// Puts a row into its place of every panel.
fn spread(values: &[f32], row: usize, rows: usize, width: usize, panels: &Span<f32>) {
    let place = |panel: usize| (panel * rows + row) * width..(panel * rows + row + 1) * width;
    // Copies of a known length are a few instructions.
    let (whole, _) = values.as_chunks::<32>();
    let whole = if width == 32 { whole } else { &[] };
    for (panel, values) in whole.iter().enumerate() {
        // SAFETY: each row of each panel is written by one thread.
        let to = unsafe { panels.part(place(panel)) };
        if let Some(to) = to.first_chunk_mut::<32>() {
            *to = *values;
        }
    }
    for (panel, values) in values.chunks(width).enumerate().skip(whole.len()) {
        // SAFETY: as above.
        let to = unsafe { panels.part(place(panel)) };
        to[..values.len()].copy_from_slice(values);
        to[values.len()..].fill(0.0);
    }
}
