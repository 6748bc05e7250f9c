//! Attention within sequences, forward and back: scores of some queries at a time, by products of matrices.

use std::ops::Range;

use windlass_ops::library::{Heads, sequences};
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_runtime::scheduler::Session;
use windlass_tensor::DType;

use crate::gemm::{Left, Matrix, Room, multiply};
use crate::isa::{self, Level, dispatch, level};
use crate::math;
use crate::simd::Simd;
use crate::span::Span;

pub(super) const FORWARD: Kernel = Kernel { op: "sequence_attention", supports, run: forward };
pub(super) const BACKWARD: Kernel = Kernel { op: "sequence_attention_backward", supports, run: backward };

/// Queries whose scores are held together.
const QUERIES: usize = 96;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let f32 = |(i, t): (usize, &&windlass_tensor::Tensor)| i == 3 || t.element().dtype() == Some(DType::F32);
    if q.inputs.iter().enumerate().all(f32) { Ok(()) } else { Err("takes F32") }
}

fn forward(args: &mut Args) -> Result<(), Error> {
    let (how, sequences) = (Heads::of(&args.inquiry())?, sequences(args, 3)?);
    let (q, k, v) = (args.f32s(0)?, args.f32s(1)?, args.f32s(2)?);
    let tokens = args.inputs[0].shape().dims()[0];
    let (session, level) = (args.session, level());
    let (out, sums) = (Span::of(args.output(0)?), Span::of(args.output(1)?));
    let tasks = blocks(&sequences, how.heads);
    session.balance(tasks.len(), 1, &|range| {
        for (sequence, head, rows) in tasks[range].iter().map(|t| (&sequences[t.0], t.1, t.2.clone())) {
            let part = Part::new(&how, level, session, sequence, rows, head);
            let mut scores = part.scores(&q, &k);
            for (row, scores) in scores.chunks_exact_mut(part.seen.len()).enumerate() {
                let token = part.rows.start + row;
                let sum = part.soften(scores, part.within(token), None);
                // SAFETY: each head and token is written once.
                unsafe { sums.part(head * tokens + token..head * tokens + token + 1)[0] = sum };
            }
            let mixed = part.times(&scores, &v, how.kv_heads, part.kv);
            for (row, mixed) in mixed.chunks_exact(how.dim).enumerate() {
                let at = ((part.rows.start + row) * how.heads + head) * how.dim;
                // SAFETY: as above.
                unsafe { out.part(at..at + how.dim).copy_from_slice(mixed) };
            }
        }
    });
    Ok(())
}

/// Sequence, head and queries of every task.
fn blocks(sequences: &[Range<usize>], heads: usize) -> Vec<(usize, usize, Range<usize>)> {
    let of = |(i, sequence): (usize, &Range<usize>)| {
        let parts = sequence.clone().step_by(QUERIES).map(|start| start..(start + QUERIES).min(sequence.end));
        let parts: Vec<Range<usize>> = parts.collect();
        (0..heads).flat_map(move |head| parts.clone().into_iter().map(move |rows| (i, head, rows))).collect::<Vec<_>>()
    };
    sequences.iter().enumerate().flat_map(of).collect()
}

fn backward(args: &mut Args) -> Result<(), Error> {
    let (how, sequences) = (Heads::of(&args.inquiry())?, sequences(args, 3)?);
    let (q, k, v) = (args.f32s(0)?, args.f32s(1)?, args.f32s(2)?);
    let (out, sums, gradient) = (args.f32s(4)?, args.f32s(5)?, args.f32s(6)?);
    let tokens = args.inputs[0].shape().dims()[0];
    let (session, level, dim) = (args.session, level(), how.dim);
    let [dq, dk, dv] = [Span::of(args.output(0)?), Span::of(args.output(1)?), Span::of(args.output(2)?)];
    let group = how.heads / how.kv_heads;
    // One task has all queries of a key's head, so that sums are taken in one order.
    session.balance(sequences.len() * how.kv_heads, 1, &|range| {
        for task in range {
            let (sequence, kv) = (&sequences[task / how.kv_heads], task % how.kv_heads);
            let mut of_keys = Room::new(sequence.len() * dim);
            let mut of_values = Room::new(sequence.len() * dim);
            of_keys.fill(0.0);
            of_values.fill(0.0);
            for head in kv * group..(kv + 1) * group {
                for start in sequence.clone().step_by(QUERIES) {
                    let rows = start..(start + QUERIES).min(sequence.end);
                    let part = Part::new(&how, level, session, sequence, rows, head);
                    let width = part.seen.len();
                    let mut weights = part.scores(&q, &k);
                    let mut flowed = part.product(&gradient, how.heads, head, &v, how.kv_heads, kv);
                    let each = weights.chunks_exact_mut(width).zip(flowed.chunks_exact_mut(width));
                    for (row, (weights, flowed)) in each.enumerate() {
                        let token = part.rows.start + row;
                        let at = (token * how.heads + head) * dim;
                        let pairs = gradient[at..at + dim].iter().zip(&out[at..at + dim]);
                        let delta = pairs.map(|(g, o)| f64::from(*g) * f64::from(*o)).sum::<f64>() as f32;
                        let slopes = Slopes { flowed, delta, sum: sums[head * tokens + token] };
                        part.soften(weights, part.within(token), Some(slopes));
                    }
                    let of_queries = part.times(&flowed, &k, how.kv_heads, kv);
                    for (row, values) in of_queries.chunks_exact(dim).enumerate() {
                        let at = ((part.rows.start + row) * how.heads + head) * dim;
                        // SAFETY: each head and token is written once.
                        unsafe { dq.part(at..at + dim).copy_from_slice(values) };
                    }
                    let from = (part.seen.start - sequence.start) * dim..(part.seen.end - sequence.start) * dim;
                    part.add_turned(&flowed, &q, head, &mut of_keys[from.clone()]);
                    part.add_turned(&weights, &gradient, head, &mut of_values[from]);
                }
            }
            for (i, token) in sequence.clone().enumerate() {
                let at = (token * how.kv_heads + kv) * dim;
                // SAFETY: each key's head and token is written by one task.
                unsafe {
                    dk.part(at..at + dim).copy_from_slice(&of_keys[i * dim..(i + 1) * dim]);
                    dv.part(at..at + dim).copy_from_slice(&of_values[i * dim..(i + 1) * dim]);
                }
            }
        }
    });
    Ok(())
}

/// Some queries of one head, and the tokens that one of them sees.
struct Part<'a, 's> {
    how: &'a Heads,
    level: Level,
    session: &'a Session<'s>,
    sequence: Range<usize>,
    rows: Range<usize>,
    seen: Range<usize>,
    head: usize,
    kv: usize,
}

/// What makes gradients of scores out of those of weights.
struct Slopes<'a> {
    /// Gradients of the weights, then of the products of queries and keys.
    flowed: &'a mut [f32],
    delta: f32,
    /// The logarithm of the sum of exponentials.
    sum: f32,
}

impl<'a, 's> Part<'a, 's> {
    fn new(
        how: &'a Heads,
        level: Level,
        session: &'a Session<'s>,
        sequence: &Range<usize>,
        rows: Range<usize>,
        head: usize,
    ) -> Self {
        let seen = how.seen(rows.start, sequence).start..how.seen(rows.end - 1, sequence).end;
        let kv = head / (how.heads / how.kv_heads);
        Part { how, level, session, sequence: sequence.clone(), rows, seen, head, kv }
    }

    /// What a query sees, as places of a row of scores.
    fn within(&self, token: usize) -> Range<usize> {
        let seen = self.how.seen(token, &self.sequence);
        seen.start - self.seen.start..seen.end - self.seen.start
    }

    fn matrix<'v>(&self, values: &'v [f32], heads: usize, head: usize, first: usize) -> Matrix<'v> {
        let (width, dim) = (heads * self.how.dim, self.how.dim);
        Matrix { values: &values[first * width + head * dim..], row: width, column: 1 }
    }

    /// Queries times keys.
    fn scores(&self, q: &[f32], k: &[f32]) -> Room {
        self.product(q, self.how.heads, self.head, k, self.how.kv_heads, self.kv)
    }

    /// The part's rows of `x` times what is seen of `y`.
    fn product(&self, x: &[f32], heads: usize, head: usize, y: &[f32], kv_heads: usize, kv: usize) -> Room {
        let mut result = Room::new(self.rows.len() * self.seen.len());
        let rows = self.matrix(x, heads, head, self.rows.start);
        let left = Left::gather(&rows, self.rows.len(), self.how.dim, self.session);
        let right = self.matrix(y, kv_heads, kv, self.seen.start).turned();
        let into = Span::of(&mut result);
        multiply(left.tiles(), 0..self.how.dim, &right, self.seen.len(), &into, false, self.session);
        result
    }

    /// Weights `[rows][seen]` times what is seen of `y`.
    fn times(&self, weights: &[f32], y: &[f32], heads: usize, head: usize) -> Room {
        let (rows, seen, dim) = (self.rows.len(), self.seen.len(), self.how.dim);
        let mut result = Room::new(rows * dim);
        let left = Left::gather(&Matrix::of_rows(weights, seen), rows, seen, self.session);
        let right = self.matrix(y, heads, head, self.seen.start);
        multiply(left.tiles(), 0..seen, &right, dim, &Span::of(&mut result), false, self.session);
        result
    }

    /// Adds the transpose of `weights` `[rows][seen]` times the part's rows of `y` to `sums` `[seen][dim]`.
    fn add_turned(&self, weights: &[f32], y: &[f32], head: usize, sums: &mut [f32]) {
        let (rows, seen, dim) = (self.rows.len(), self.seen.len(), self.how.dim);
        let left = Left::gather(&Matrix::of_rows(weights, seen).turned(), seen, rows, self.session);
        let right = self.matrix(y, self.how.heads, head, self.rows.start);
        multiply(left.tiles(), 0..rows, &right, dim, &Span::of(sums), true, self.session);
    }

    /// Makes weights of products, zeros where nothing is seen, and gives the logarithm of the sum of exponentials. With
    /// `slopes`, gradients of weights become gradients of products.
    fn soften(&self, scores: &mut [f32], within: Range<usize>, slopes: Option<Slopes>) -> f32 {
        let mut sum = 0.0;
        scores[..within.start].fill(0.0);
        scores[within.end..].fill(0.0);
        let flowed = slopes.map(|slopes| {
            slopes.flowed[..within.start].fill(0.0);
            slopes.flowed[within.end..].fill(0.0);
            sum = slopes.sum;
            (&mut slopes.flowed[within.clone()], slopes.delta)
        });
        let (scale, cap) = (self.how.scale as f32, self.how.soft_cap as f32);
        let kernel = Soften { scores: &mut scores[within], scale, cap, flowed, sum: &mut sum };
        // SAFETY: the level is this machine's; the kernel asks for nothing else.
        unsafe { dispatch(self.level, kernel) }
        sum
    }
}

struct Soften<'a> {
    scores: &'a mut [f32],
    scale: f32,
    cap: f32,
    flowed: Option<(&'a mut [f32], f32)>,
    /// Found without `flowed`, given with it.
    sum: &'a mut f32,
}

impl isa::Kernel for Soften<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if S::LANES > 1 { soften::<true>(self) } else { soften::<false>(self) }
    }
}

#[inline(always)]
fn soften<const FMA: bool>(work: Soften) {
    let Soften { scores, scale, cap, flowed, sum } = work;
    if cap > 0.0 {
        scores.iter_mut().for_each(|s| *s = cap * math::tanh::<FMA>(*s * scale / cap));
    } else {
        scores.iter_mut().for_each(|s| *s *= scale);
    }
    let Some((flowed, delta)) = flowed else {
        let max = scores.iter().fold(f32::NEG_INFINITY, |max, s| if *s > max { *s } else { max });
        let mut sums = [0.0f32; 16];
        scores.iter_mut().for_each(|s| *s = math::exp::<FMA>(*s - max));
        let (lines, rest) = scores.as_chunks::<16>();
        for line in lines {
            for i in 0..16 {
                sums[i] += line[i];
            }
        }
        let total = sums.iter().sum::<f32>() + rest.iter().sum::<f32>();
        let by = 1.0 / total;
        scores.iter_mut().for_each(|s| *s *= by);
        *sum = max + total.ln();
        return;
    };
    for (s, f) in scores.iter_mut().zip(flowed) {
        let slope = if cap > 0.0 { scale * (1.0 - (*s / cap) * (*s / cap)) } else { scale };
        *s = math::exp::<FMA>(*s - *sum);
        *f = *s * (*f - delta) * slope;
    }
}
