//! Norms over channels: each channel of each image becomes a factor and a summand.

use windlass_ops::library::channels;
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::{DType, Tensor};

use super::norm::sum;
use crate::isa::{self, Level, dispatch, level};
use crate::simd::Simd;
use crate::span::Span;

pub(super) const GROUP_NORM: Kernel = Kernel { op: "group_norm", supports, run: group_norm };
pub(super) const INSTANCE_NORM: Kernel = Kernel { op: "instance_norm", supports, run: instance_norm };
pub(super) const BATCH_NORM: Kernel = Kernel { op: "batch_norm", supports, run: batch_norm };
pub(super) const BATCH_NORM_TRAINING: Kernel =
    Kernel { op: "batch_norm_training", supports: planes, run: batch_norm_training };

/// Values that one thread takes at a time.
const GRAIN: usize = 16 << 10;

/// Values whose sum is made in single precision.
const PIECE: usize = 4096;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let f32 = |t: &&Tensor| t.element().dtype() == Some(DType::F32) && t.shape().values() > 0;
    if q.inputs.iter().all(f32) { Ok(()) } else { Err("takes F32, and some of it") }
}

/// Rows of single values would be gathered one by one.
fn planes(q: &Inquiry) -> Result<(), &'static str> {
    let inner = channels(q).map_or(0, |(_, inner)| inner);
    if inner > 1 { supports(q) } else { Err("takes planes of more than one value") }
}

fn group_norm(args: &mut Args) -> Result<(), Error> {
    let groups = args.inquiry().int("groups")?;
    by_rows(args, groups)
}

fn instance_norm(args: &mut Args) -> Result<(), Error> {
    let (channels, _) = channels(&args.inquiry())?;
    by_rows(args, channels)
}

/// Groups of channels of an image lie one behind another: rows.
fn by_rows(args: &mut Args, groups: usize) -> Result<(), Error> {
    let (x, session, eps) = (args.f32s(0)?, args.session, args.inquiry().float("eps")?);
    let (channels, inner) = channels(&args.inquiry())?;
    let vectors = Vectors::of(args, 1, channels)?;
    let (level, per_group) = (level(), channels / groups);
    let length = per_group * inner;
    let y = Span::of(args.output(0)?);
    session.split(x.len() / length, GRAIN.div_ceil(length), &|rows| {
        for row in rows {
            let x = &x[row * length..(row + 1) * length];
            let (mean, variance) = moments(level, [x].into_iter());
            let factor = 1.0 / (variance + eps).sqrt();
            for c in 0..per_group {
                let (gain, shift) = vectors.both(row % groups * per_group + c, factor, mean);
                let from = row * length + c * inner;
                // SAFETY: rows are disjoint.
                let y = unsafe { y.part(from..from + inner) };
                affine(level, &x[c * inner..(c + 1) * inner], y, gain, shift);
            }
        }
    });
    Ok(())
}

fn batch_norm_training(args: &mut Args) -> Result<(), Error> {
    let (x, session, eps) = (args.f32s(0)?, args.session, args.inquiry().float("eps")?);
    let (channels, inner) = channels(&args.inquiry())?;
    let vectors = Vectors::of(args, 1, channels)?;
    let (level, images) = (level(), x.len() / inner / channels);
    let y = Span::of(args.output(0)?);
    session.split(channels, GRAIN.div_ceil(images * inner), &|all| {
        for c in all {
            let place = |image: usize| (image * channels + c) * inner;
            let (mean, variance) = moments(level, (0..images).map(|i| &x[place(i)..place(i) + inner]));
            let (gain, shift) = vectors.both(c, 1.0 / (variance + eps).sqrt(), mean);
            for image in 0..images {
                // SAFETY: channels are disjoint.
                let y = unsafe { y.part(place(image)..place(image) + inner) };
                affine(level, &x[place(image)..place(image) + inner], y, gain, shift);
            }
        }
    });
    Ok(())
}

fn batch_norm(args: &mut Args) -> Result<(), Error> {
    let (x, session, eps) = (args.f32s(0)?, args.session, args.inquiry().float("eps")?);
    let (channels, inner) = channels(&args.inquiry())?;
    let (mean, variance) = (args.f32s(1)?, args.f32s(2)?);
    let vectors = Vectors::of(args, 3, channels)?;
    let factor = |c: usize| 1.0 / (f64::from(variance[c]) + eps).sqrt();
    let both: Vec<(f32, f32)> = (0..channels).map(|c| vectors.both(c, factor(c), f64::from(mean[c]))).collect();
    let level = level();
    let y = Span::of(args.output(0)?);
    session.split(x.len() / inner, GRAIN.div_ceil(inner), &|planes| {
        for plane in planes {
            let (gain, shift) = both[plane % channels];
            // SAFETY: planes are disjoint.
            let y = unsafe { y.part(plane * inner..(plane + 1) * inner) };
            affine(level, &x[plane * inner..(plane + 1) * inner], y, gain, shift);
        }
    });
    Ok(())
}

/// Weight and bias of each channel.
struct Vectors {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Vectors {
    fn of(args: &Args, first: usize, channels: usize) -> Result<Self, Error> {
        let get = |index: usize, default: f32| -> Result<Vec<f32>, Error> {
            if args.inputs.len() > index { Ok(args.f32s(index)?.into_owned()) } else { Ok(vec![default; channels]) }
        };
        Ok(Self { weight: get(first, 1.0)?, bias: get(first + 1, 0.0)? })
    }

    /// What a value of channel `c` is multiplied with, and what is added: `(x - mean) * factor * weight + bias`.
    fn both(&self, c: usize, factor: f64, mean: f64) -> (f32, f32) {
        let gain = factor * f64::from(self.weight[c]);
        (gain as f32, (f64::from(self.bias[c]) - mean * gain) as f32)
    }
}

/// Mean and variance of all values of some rows.
fn moments<'a>(level: Level, rows: impl Iterator<Item = &'a [f32]> + Clone) -> (f64, f64) {
    let count: usize = rows.clone().map(<[f32]>::len).sum();
    let total = |shift: f32, square: bool| {
        let mut total = 0.0;
        for x in rows.clone() {
            // SAFETY: the level is this machine's; the kernel asks for nothing else.
            unsafe { dispatch(level, Total { x, shift, square, total: &mut total }) }
        }
        total
    };
    let mean = total(0.0, false) / count as f64;
    let shift = mean as f32;
    // What rounding took from the mean is taken off again.
    let rest = mean - f64::from(shift);
    (mean, total(shift, true) / count as f64 - rest * rest)
}

struct Total<'a> {
    x: &'a [f32],
    shift: f32,
    square: bool,
    total: &'a mut f64,
}

impl isa::Kernel for Total<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for piece in self.x.chunks(PIECE) {
            let shift = self.shift;
            let part = if self.square { sum(piece, |v| (v - shift) * (v - shift)) } else { sum(piece, |v| v) };
            *self.total += f64::from(part);
        }
    }
}

fn affine(level: Level, x: &[f32], y: &mut [f32], gain: f32, shift: f32) {
    // SAFETY: the level is this machine's; the kernel asks for nothing else.
    unsafe { dispatch(level, Affine { x, y, gain, shift }) }
}

struct Affine<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    gain: f32,
    shift: f32,
}

impl isa::Kernel for Affine<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y = if S::LANES > 1 { x.mul_add(self.gain, self.shift) } else { x * self.gain + self.shift };
        }
    }
}
