//! Attention with running maxima and sums (arXiv 2205.14135).
//!
//! A few rows of queries (decoding) read keys and values once, as they lie, in parts of the context. Many rows (a prompt)
//! make panels of them that stay in the cache, and multiply tiles of rows by those. Either way a row's arithmetic depends
//! on positions alone, not on threads.

use std::cell::RefCell;
use std::ops::Range;

use windlass_ops::library::Attention;
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::{DType, Tensor};

use super::failed;
use super::softmax::{exponentials_of, largest};
use crate::isa::{Level, level};
use crate::math;
use crate::simd::Simd;
use crate::span::Span;

mod few;
mod many;
mod stored;

use stored::{Bf16, F16, F32, Q8, Stored};

pub(super) const KERNEL: Kernel = Kernel { op: "attention", supports, run };

/// Rows of queries of one key head for which no panels are made.
const FEW: usize = 8;

/// Most values of a head.
const MOST_DIM: usize = 512;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let [query, keys, values] = q.inputs[..] else { return Err("takes queries, keys and values") };
    if query.element().dtype() != Some(DType::F32) || keys.element() != values.element() {
        return Err("takes F32 queries, keys and values of one type");
    }
    let packed = keys.element().dtype().is_none() && keys.element().name() == "q8_0";
    if !(packed || matches!(keys.element().dtype(), Some(DType::F32 | DType::F16 | DType::BF16))) {
        return Err("takes a cache of floats or q8_0");
    }
    if query.bytes().is_none() || [keys, values].into_iter().any(|cache| bytes(cache).is_none()) {
        return Err("takes tensors without gaps in host memory");
    }
    let dim = q.inputs[1].shape().columns();
    if dim.is_multiple_of(16) && dim <= MOST_DIM {
        Ok(())
    } else {
        Err("heads are not multiples of 16 values, up to 512")
    }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (query, how, op) = (args.f32s(0)?, Attention::of(&args.inquiry())?, args.op.name);
    let [tokens, width] = args.inputs[0].shape()[..] else { return Ok(()) };
    let [heads, context, dim] = args.inputs[1].shape()[..] else { return Ok(()) };
    let inputs = args.inputs;
    let cache = |i: usize| bytes(inputs[i]).ok_or_else(|| failed(op, "the cache is not in host memory"));
    let (keys, values, dtype, session) = (cache(1)?, cache(2)?, args.inputs[1].element().dtype(), args.session);
    let y = Span::of(args.output(0)?);
    let group = width / dim / heads;
    let task = Task { query: &query, keys, values, how, tokens, heads, group, context, dim, level: level(), y };
    let few = tokens == 1 || tokens * group <= FEW;
    match (dtype, few) {
        (Some(DType::F16), true) => few::run::<F16>(&task, session),
        (Some(DType::F16), false) => many::run::<F16>(&task, session),
        (Some(DType::BF16), true) => few::run::<Bf16>(&task, session),
        (Some(DType::BF16), false) => many::run::<Bf16>(&task, session),
        (Some(_), true) => few::run::<F32>(&task, session),
        (Some(_), false) => many::run::<F32>(&task, session),
        (None, true) => few::run::<Q8>(&task, session),
        (None, false) => many::run::<Q8>(&task, session),
    }
    Ok(())
}

/// The bytes of a cache, of floats or packed, where nothing of it is cut off.
fn bytes(cache: &Tensor) -> Option<&[u8]> {
    let whole = cache.layout().is_contiguous() && cache.layout().offset() == 0;
    cache.bytes().or_else(|| cache.planes().first().filter(|_| whole)?.bytes())
}

/// One call. A row is a query head of a token; rows of the query heads that share a key head are numbered together, token
/// by token.
struct Task<'a> {
    query: &'a [f32],
    keys: &'a [u8],
    values: &'a [u8],
    how: Attention,
    tokens: usize,
    /// Of the keys.
    heads: usize,
    /// Query heads for each head of the keys.
    group: usize,
    context: usize,
    dim: usize,
    level: Level,
    y: Span<f32>,
}

impl Task<'_> {
    /// Where row `row` of `head` begins in queries and results.
    #[inline(always)]
    fn place(&self, head: usize, row: usize) -> usize {
        let (token, query_head) = (row / self.group, head * self.group + row % self.group);
        (token * self.heads * self.group + query_head) * self.dim
    }

    /// Positions that row `row` sees.
    #[inline(always)]
    fn seen(&self, row: usize) -> Range<usize> {
        self.how.seen(row / self.group, self.tokens)
    }

    /// From the first to the last position that any of `rows` sees.
    fn all_seen(&self, rows: Range<usize>) -> Range<usize> {
        // Both ends of what is seen grow with the token, if at all.
        match rows.is_empty() {
            true => 0..0,
            false => self.seen(rows.start).start..self.seen(rows.end - 1).end,
        }
    }

    /// Where `count` rows of keys or values lie.
    #[inline(always)]
    fn rows_of<T: Stored>(&self, bytes: &[u8], head: usize, first: usize, count: usize) -> *const u8 {
        let (stride, from) = (T::stride(self.dim), head * self.context + first);
        bytes[from * stride..(from + count) * stride].as_ptr()
    }

    /// Turns products of row `row` with positions from `first` on into weights; those it does not see get none. Gives the
    /// largest, at least `before`, and their sum.
    #[inline(always)]
    fn weigh<S: Simd>(&self, row: usize, first: usize, scores: &mut [f32], before: f32) -> (f32, f32) {
        let seen = self.seen(row);
        let count = scores.len();
        let from = seen.start.saturating_sub(first).min(count);
        let to = seen.end.saturating_sub(first).min(count).max(from);
        scores[..from].fill(0.0);
        scores[to..].fill(0.0);
        let scores = &mut scores[from..to];
        if scores.is_empty() {
            return (before, 0.0);
        }
        if self.how.soft_cap > 0.0 {
            soft_cap::<S>(scores, self.how.soft_cap);
        }
        let max = largest(scores).max(before);
        let sum =
            if S::LANES > 1 { exponentials_of::<true>(scores, max) } else { exponentials_of::<false>(scores, max) };
        (max, sum)
    }
}

#[inline(always)]
fn soft_cap<S: Simd>(scores: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    for score in scores {
        let x = *score * inverse;
        *score = cap * if S::LANES > 1 { math::tanh::<true>(x) } else { math::tanh::<false>(x) };
    }
}

/// Runs `work` with `length` floats that this thread keeps; what they hold at first is unspecified.
fn with_scratch(length: usize, work: impl FnOnce(&mut [f32])) {
    let mut scratch = SCRATCH.take();
    if scratch.len() < length {
        scratch.resize(length, 0.0);
    }
    work(&mut scratch[..length]);
    SCRATCH.set(scratch);
}
