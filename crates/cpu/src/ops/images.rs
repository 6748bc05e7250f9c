//! Planes of images and sequences: convolutions as products of matrices, pools, and values between others.

use windlass_ops::library::{CONV2D, Geometry, Taps, taps, windows};
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::{DType, Element, Tensor};

use super::failed;
use crate::linear::Linear;
use crate::span::Span;

pub(super) const CONV1D: Kernel = Kernel { op: "conv1d", supports, run: convolve };
pub(super) const CONV2D_KERNEL: Kernel = Kernel { op: CONV2D.name, supports, run: convolve };
pub(super) const MAX_POOL1D: Kernel = Kernel { op: "max_pool1d", supports, run: max_pool };
pub(super) const MAX_POOL2D: Kernel = Kernel { op: "max_pool2d", supports, run: max_pool };

/// Values that one thread takes at a time.
const GRAIN: usize = 8 << 10;

/// Ops that are linear along each dimension.
pub(super) fn resamplers() -> [Kernel; 5] {
    ["avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "interpolate"].map(|op| Kernel {
        op,
        supports,
        run: resample,
    })
}

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let f32 = |t: &&Tensor| t.element().dtype() == Some(DType::F32) && t.shape().values() > 0;
    if q.inputs.iter().all(f32) { Ok(()) } else { Err("takes F32, and some of it") }
}

/// Windows of the image as rows of a matrix, times the weight: one product for each image and group.
fn convolve(args: &mut Args) -> Result<(), Error> {
    let (x, weight, session, op) = (args.f32s(0)?, args.f32s(1)?, args.session, args.op.name);
    let bias = if args.inputs.len() > 2 { Some(args.f32s(2)?) } else { None };
    let y_shape = args.outputs[0].shape().to_vec();
    let g = Geometry::of(&args.inquiry(), args.inputs[0].shape(), args.inputs[1].shape(), &y_shape)?;
    let y = args.output(0)?;
    let taps = g.windows[0].kernel * g.windows[1].kernel;
    let (columns, pixels) = (g.inside * taps, g.y[0] * g.y[1]);
    let mut matrix = vec![0.0f32; pixels * columns];
    for image in 0..g.batch * g.groups {
        let group = image % g.groups;
        let rows = Span::of(&mut matrix);
        let x = &x[image * g.inside * g.x[0] * g.x[1]..][..g.inside * g.x[0] * g.x[1]];
        session.split(pixels, GRAIN.div_ceil(columns), &|places| {
            // SAFETY: rows of the matrix are disjoint.
            let rows = unsafe { rows.part(places.start * columns..places.end * columns) };
            places.zip(rows.chunks_exact_mut(columns)).for_each(|(place, row)| window(&g, x, place, row));
        });
        let plane: &[u8] = bytemuck::cast_slice(&matrix);
        let linear = Linear::new(&Element::Plain(DType::F32), &[plane], pixels, columns).map_err(|e| failed(op, e))?;
        let weight = &weight[group * g.outside * columns..][..g.outside * columns];
        let y = &mut y[image * g.outside * pixels..][..g.outside * pixels];
        linear.forward(weight, g.outside, y, session).map_err(|e| failed(op, e))?;
        if let Some(bias) = &bias {
            let each = y.chunks_exact_mut(pixels).zip(&bias[group * g.outside..]);
            each.for_each(|(plane, bias)| plane.iter_mut().for_each(|y| *y += bias));
        }
    }
    Ok(())
}

/// The values of one window, channel by channel; zeros where it reaches beyond the image.
fn window(g: &Geometry, x: &[f32], place: usize, row: &mut [f32]) {
    let ([high, wide], (y, x_at)) = (g.windows, (place / g.y[1], place % g.y[1]));
    let [height, width] = g.x;
    for (plane, taps) in x.chunks_exact(height * width).zip(row.chunks_exact_mut(high.kernel * wide.kernel)) {
        for (tap, line) in taps.chunks_exact_mut(wide.kernel).enumerate() {
            let Some(from) = high.place(y, tap, height) else {
                line.fill(0.0);
                continue;
            };
            let from = &plane[from * width..(from + 1) * width];
            for (tap, value) in line.iter_mut().enumerate() {
                *value = wide.place(x_at, tap, width).map_or(0.0, |at| from[at]);
            }
        }
    }
}

fn max_pool(args: &mut Args) -> Result<(), Error> {
    let (x, session, op) = (args.f32s(0)?, args.session, args.op.name);
    let [(high, height, rows), (wide, width, columns)] = windows(&args.inquiry())?;
    let [values, places] = &mut *args.outputs else { return Err(failed(op, "has two outputs")) };
    let shared = || failed(op, "an output is shared");
    let values = Span::of(values.bytes_mut().ok_or_else(shared)?);
    let places = Span::of(places.bytes_mut().ok_or_else(shared)?);
    let count = rows * columns;
    session.split(x.len() / (height * width), GRAIN.div_ceil(height * width), &|planes| {
        for plane in planes {
            let x = &x[plane * height * width..(plane + 1) * height * width];
            // SAFETY: every plane has outputs of its own.
            let values = unsafe { values.part(plane * count * 4..(plane + 1) * count * 4) };
            // SAFETY: as above.
            let places = unsafe { places.part(plane * count * 8..(plane + 1) * count * 8) };
            let outputs = values.as_chunks_mut::<4>().0.iter_mut().zip(places.as_chunks_mut::<8>().0);
            for (window, (value, place)) in outputs.enumerate() {
                let (row, column) = (window / columns, window % columns);
                let mut best = usize::MAX;
                for y in (0..high.kernel).filter_map(|tap| high.place(row, tap, height)) {
                    for at in (0..wide.kernel).filter_map(|tap| wide.place(column, tap, width)) {
                        let at = y * width + at;
                        if best == usize::MAX || x[at] > x[best] || x[at].is_nan() && !x[best].is_nan() {
                            best = at;
                        }
                    }
                }
                *value = x.get(best).copied().unwrap_or(f32::NEG_INFINITY).to_le_bytes();
                *place = (best as i64).to_le_bytes();
            }
        }
    });
    Ok(())
}

fn resample(args: &mut Args) -> Result<(), Error> {
    let (x, all, session) = (args.f32s(0)?, taps(&args.inquiry())?, args.session);
    let shape = args.inputs[0].shape().to_vec();
    let (height, width) = if all.len() == 2 { (shape[2], shape[3]) } else { (1, shape[2]) };
    let one: Taps = vec![vec![(0, 1.0)]];
    let (rows, columns) = if all.len() == 2 { (&all[0], &all[1]) } else { (&one, &all[0]) };
    let count = rows.len() * columns.len();
    let y = Span::of(args.output(0)?);
    session.split(x.len() / (height * width), GRAIN.div_ceil(height * width), &|planes| {
        let mut mixed = vec![0.0f32; width];
        for plane in planes {
            let x = &x[plane * height * width..(plane + 1) * height * width];
            // SAFETY: every plane has an output of its own.
            let y = unsafe { y.part(plane * count..(plane + 1) * count) };
            for (row, y) in rows.iter().zip(y.chunks_exact_mut(columns.len())) {
                // First the rows that an output row takes, then the columns of their mixture.
                mixed.fill(0.0);
                for (from, share) in row {
                    let share = *share as f32;
                    mixed.iter_mut().zip(&x[from * width..]).for_each(|(m, x)| *m += share * x);
                }
                for (y, column) in y.iter_mut().zip(columns) {
                    *y = column.iter().map(|(at, share)| mixed[*at] * *share as f32).sum();
                }
            }
        }
    });
    Ok(())
}
