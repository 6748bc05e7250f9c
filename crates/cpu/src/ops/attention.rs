//! Attention in blocks of positions, with running maxima and sums (arXiv 2205.14135).
//!
//! One piece of work is a tile of tokens for all query heads of one key head: keys and values of a block become floats
//! once and serve every row of the tile.

use std::ops::Range;

use windlass_ops::library::Attention;
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_quant::float;
use windlass_tensor::DType;

use super::failed;
use super::softmax::{exponentials, largest};
use crate::isa::{self, dispatch, level};
use crate::math;
use crate::simd::{Simd, tile_pieces, transpose};
use crate::span::Span;

pub(super) const KERNEL: Kernel = Kernel { op: "attention", supports, run };

/// Positions that are worked on together.
const BLOCK: usize = 64;

/// Rows for which keys are not worth turning.
const FEW: usize = 4;

/// Most rows (tokens times query heads of one key head) of a tile.
const ROWS: usize = 64;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let is = |i: usize, types: &[DType]| q.inputs[i].element().dtype().is_some_and(|d| types.contains(&d));
    let cache = [DType::F32, DType::F16, DType::BF16];
    if !(is(0, &[DType::F32]) && is(1, &cache) && is(2, &cache)) {
        return Err("takes F32 queries and a cache of floats");
    }
    if q.inputs.iter().any(|t| t.bytes().is_none()) {
        return Err("takes tensors without gaps in host memory");
    }
    if q.inputs[1].shape().columns().is_multiple_of(16) { Ok(()) } else { Err("heads are not multiples of 16 values") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (query, how, op) = (args.f32s(0)?, Attention::of(&args.inquiry())?, args.op.name);
    let [tokens, width] = args.inputs[0].shape()[..] else { return Ok(()) };
    let [heads, context, dim] = args.inputs[1].shape()[..] else { return Ok(()) };
    let group = width / dim / heads;
    let cache = |i: usize| -> Result<(&[u8], DType), Error> {
        let tensor = args.inputs[i];
        let bytes = tensor.bytes().ok_or_else(|| failed(op, "the cache is not in host memory"))?;
        Ok((bytes, tensor.element().dtype().unwrap_or(DType::F32)))
    };
    let (keys, values) = (cache(1)?, cache(2)?);
    let per_tile = (ROWS / group).clamp(1, tokens.max(1));
    let (level, session) = (level(), args.session);
    let tiles = tokens.div_ceil(per_tile);
    let y = Span::of(args.output(0)?);
    session.balance(tiles * heads, 1, &|items| {
        let mut scratch = Scratch::new(per_tile * group, dim);
        for item in items {
            // Late tiles see more positions: they come first, so that none is left alone at the end.
            let (head, tile) = (item % heads, tiles - 1 - item / heads);
            let tokens_of_tile = tile * per_tile..tokens.min((tile + 1) * per_tile);
            let tile = Tile {
                query: &query,
                keys,
                values,
                how: &how,
                tokens: tokens_of_tile,
                all_tokens: tokens,
                head,
                group,
                context,
                dim,
                width,
                y: &y,
            };
            // SAFETY: the level is this machine's; tiles and heads write disjoint values of `y`.
            unsafe { dispatch(level, Work { tile, scratch: &mut scratch }) }
        }
    });
    Ok(())
}

struct Tile<'a> {
    query: &'a [f32],
    keys: (&'a [u8], DType),
    values: (&'a [u8], DType),
    how: &'a Attention,
    tokens: Range<usize>,
    all_tokens: usize,
    /// Of the keys.
    head: usize,
    /// Query heads for each head of the keys.
    group: usize,
    context: usize,
    dim: usize,
    width: usize,
    y: &'a Span<f32>,
}

struct Scratch {
    /// `[rows][dim]`, scaled.
    query: Vec<f32>,
    /// `[BLOCK][dim]`.
    keys: Vec<f32>,
    /// `[tile of positions][dim][position of the tile]`.
    turned: Vec<f32>,
    /// `[BLOCK][dim]`.
    values: Vec<f32>,
    /// `[rows][BLOCK]`.
    scores: Vec<f32>,
    /// `[rows][dim]`.
    sums: Vec<f32>,
    maxima: Vec<f32>,
    weights: Vec<f32>,
}

impl Scratch {
    fn new(rows: usize, dim: usize) -> Self {
        Scratch {
            query: vec![0.0; rows * dim],
            keys: vec![0.0; BLOCK * dim],
            turned: vec![0.0; BLOCK * dim],
            values: vec![0.0; BLOCK * dim],
            scores: vec![0.0; rows * BLOCK],
            sums: vec![0.0; rows * dim],
            maxima: vec![0.0; rows],
            weights: vec![0.0; rows],
        }
    }
}

struct Work<'a> {
    tile: Tile<'a>,
    scratch: &'a mut Scratch,
}

impl isa::Kernel for Work<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Work { tile: t, scratch: s } = self;
        let rows = t.tokens.len() * t.group;
        t.begin(s);
        let seen = t.tokens.clone().map(|token| t.how.seen(token, t.all_tokens));
        let low = seen.clone().map(|r| r.start).min().unwrap_or(0);
        let high = seen.map(|r| r.end).max().unwrap_or(0);
        for first in (low..high).step_by(BLOCK) {
            let count = BLOCK.min(high - first);
            // SAFETY: the buffers have room for whole blocks of these rows; the processor has the instructions of `S`.
            unsafe {
                t.fetch::<S>(t.keys, first, count, &mut s.keys);
                if rows <= FEW {
                    few_products::<S>(s, rows, count, t.dim);
                } else {
                    turn::<S>(&s.keys, &mut s.turned, t.dim);
                    products::<S>(s, rows, t.dim);
                }
                t.weigh::<S>(s, first, count);
                t.fetch::<S>(t.values, first, count, &mut s.values);
                mix::<S>(s, rows, count, t.dim);
            }
        }
        t.finish(s);
    }
}

impl Tile<'_> {
    fn begin(&self, s: &mut Scratch) {
        for (i, token) in self.tokens.clone().enumerate() {
            let from = token * self.width + self.head * self.group * self.dim;
            let heads = &self.query[from..from + self.group * self.dim];
            let to = &mut s.query[i * self.group * self.dim..][..heads.len()];
            to.iter_mut().zip(heads).for_each(|(to, q)| *to = q * self.how.scale);
        }
        s.sums.fill(0.0);
        s.maxima.fill(f32::NEG_INFINITY);
        s.weights.fill(0.0);
    }

    /// Rows of positions `first..first + count` as floats; the rest of the block is zero.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn fetch<S: Simd>(&self, (bytes, dtype): (&[u8], DType), first: usize, count: usize, out: &mut [f32]) {
        let (size, length) = (dtype.size(), count * self.dim);
        let from = (self.head * self.context + first) * self.dim * size;
        let bytes = &bytes[from..from + length * size];
        if dtype == DType::F16 {
            for i in (0..length).step_by(S::ROWS) {
                // SAFETY: rows are multiples of 16 values, and so of a vector; the caller's promise.
                unsafe {
                    let at = bytes.as_ptr().cast::<u16>().wrapping_add(i);
                    // The next block of positions lies right behind this one.
                    S::prefetch(at.wrapping_add(BLOCK * self.dim).cast());
                    S::store_float(out.as_mut_ptr().add(i), S::load_half(at));
                }
            }
        } else {
            // The op's rule checked the sizes and `supports` the type.
            let _ = float::to_f32(dtype, bytes, &mut out[..length]);
        }
        out[length..].fill(0.0);
    }

    /// Turns scores of a block into weights, and shrinks what was summed before by the new maxima.
    #[inline(always)]
    fn weigh<S: Simd>(&self, s: &mut Scratch, first: usize, count: usize) {
        for (i, token) in self.tokens.clone().enumerate() {
            let seen = self.how.seen(token, self.all_tokens);
            let from = seen.start.saturating_sub(first).min(count);
            let to = seen.end.saturating_sub(first).min(count).max(from);
            for row in i * self.group..(i + 1) * self.group {
                let scores = &mut s.scores[row * BLOCK..(row + 1) * BLOCK];
                scores[..from].fill(0.0);
                scores[to..].fill(0.0);
                let scores = &mut scores[from..to];
                if scores.is_empty() {
                    continue;
                }
                if self.how.soft_cap > 0.0 {
                    soft_cap::<S>(scores, self.how.soft_cap);
                }
                let before = s.maxima[row];
                let max = largest(scores).max(before);
                let sum =
                    if S::LANES > 1 { exponentials::<true>(scores, max) } else { exponentials::<false>(scores, max) };
                let shrink = if before == max { 1.0 } else { (before - max).exp() };
                s.weights[row] = s.weights[row] * shrink + sum;
                s.maxima[row] = max;
                if shrink != 1.0 {
                    s.sums[row * self.dim..(row + 1) * self.dim].iter_mut().for_each(|v| *v *= shrink);
                }
            }
        }
    }

    fn finish(&self, s: &Scratch) {
        for (i, token) in self.tokens.clone().enumerate() {
            for head in 0..self.group {
                let row = i * self.group + head;
                let at = token * self.width + (self.head * self.group + head) * self.dim;
                // SAFETY: this tile is alone in writing its tokens of its heads.
                let out = unsafe { self.y.part(at..at + self.dim) };
                let factor = 1.0 / s.weights[row];
                let sums = &s.sums[row * self.dim..(row + 1) * self.dim];
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * factor);
            }
        }
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

/// Keys `[BLOCK][dim]` to `[tile of positions][dim][position]`.
///
/// # Safety
/// Both have a block of rows of `dim` values, a multiple of 16; the processor has the instructions of `S`.
#[inline(always)]
unsafe fn turn<S: Simd>(keys: &[f32], turned: &mut [f32], dim: usize) {
    for tile in 0..BLOCK / S::ROWS {
        for d in (0..dim).step_by(4) {
            // SAFETY: 4 values at `d` of each of the tile's rows lie within a block; so do 4 vectors of the result.
            unsafe {
                let at = keys.as_ptr().add(tile * S::ROWS * dim + d).cast();
                let to = turned.as_mut_ptr().add((tile * dim + d) * S::ROWS);
                for (i, vector) in transpose::<S>(tile_pieces::<S>(at, dim * 4)).into_iter().enumerate() {
                    S::store_float(to.add(i * S::ROWS), S::as_float(vector));
                }
            }
        }
    }
}

/// Products of a few rows of queries with the positions of the block, one by one.
///
/// # Safety
/// The buffers have room for `rows`; the processor has the instructions of `S`.
#[inline(always)]
unsafe fn few_products<S: Simd>(s: &mut Scratch, rows: usize, count: usize, dim: usize) {
    for row in 0..rows {
        let query = s.query[row * dim..(row + 1) * dim].as_ptr();
        // Four positions at a time: their sums wait for each other less than one alone would.
        for first in (0..count).step_by(4) {
            let keys = s.keys.as_ptr().wrapping_add(first * dim);
            let mut parts = [[0.0f32; 16]; 4];
            // SAFETY: four positions lie within the block, whose rest is zero; a vector has at most 16 values.
            unsafe {
                let mut sums = [S::zero(); 4];
                for d in (0..dim).step_by(S::ROWS) {
                    let q = S::load_float(query.add(d));
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = S::fma(q, S::load_float(keys.add(i * dim + d)), *sum);
                    }
                }
                for (part, sum) in parts.iter_mut().zip(sums) {
                    S::store_float(part.as_mut_ptr(), sum);
                }
            }
            let scores = &mut s.scores[row * BLOCK + first..];
            for (score, mut part) in scores.iter_mut().zip(parts) {
                for width in [8, 4, 2, 1] {
                    for i in 0..width {
                        part[i] += part[i + width];
                    }
                }
                *score = part[0];
            }
        }
    }
}

/// Products of all rows of queries with all positions of the block.
///
/// # Safety
/// The buffers have room for `rows`; the processor has the instructions of `S`.
#[inline(always)]
unsafe fn products<S: Simd>(s: &mut Scratch, rows: usize, dim: usize) {
    let mut row = 0;
    // SAFETY: the caller's promise; every call ends at or before `rows`.
    unsafe {
        while row + 12 <= rows && S::FLOAT_TILE >= 12 {
            product_rows::<S, 12>(s, row, dim);
            row += 12;
        }
        while row + 4 <= rows {
            product_rows::<S, 4>(s, row, dim);
            row += 4;
        }
        while row + 2 <= rows {
            product_rows::<S, 2>(s, row, dim);
            row += 2;
        }
        if row < rows {
            product_rows::<S, 1>(s, row, dim);
        }
    }
}

/// # Safety
/// `M` rows exist from `row` on; the processor has the instructions of `S`.
#[inline(always)]
unsafe fn product_rows<S: Simd, const M: usize>(s: &mut Scratch, row: usize, dim: usize) {
    for pair in 0..BLOCK / (2 * S::ROWS) {
        // SAFETY: the caller's promise; two tiles of positions lie within the block.
        unsafe {
            let query = s.query.as_ptr().add(row * dim);
            let first = s.turned.as_ptr().add(2 * pair * dim * S::ROWS);
            let second = first.add(dim * S::ROWS);
            let mut sums = [[S::zero(); 2]; M];
            for d in 0..dim {
                let keys = [S::load_float(first.add(d * S::ROWS)), S::load_float(second.add(d * S::ROWS))];
                for (m, sum) in sums.iter_mut().enumerate() {
                    let q = S::splat(*query.add(m * dim + d));
                    sum[0] = S::fma(q, keys[0], sum[0]);
                    sum[1] = S::fma(q, keys[1], sum[1]);
                }
            }
            for (m, sum) in sums.into_iter().enumerate() {
                let to = s.scores.as_mut_ptr().add((row + m) * BLOCK + 2 * pair * S::ROWS);
                S::store_float(to, sum[0]);
                S::store_float(to.add(S::ROWS), sum[1]);
            }
        }
    }
}

/// Adds the weighted values of the block.
///
/// # Safety
/// The buffers have room for `rows`; the processor has the instructions of `S`.
#[inline(always)]
unsafe fn mix<S: Simd>(s: &mut Scratch, rows: usize, count: usize, dim: usize) {
    let mut row = 0;
    // SAFETY: the caller's promise; every call ends at or before `rows`.
    unsafe {
        while row + 12 <= rows && S::FLOAT_TILE >= 12 {
            mix_rows::<S, 12>(s, row, count, dim);
            row += 12;
        }
        while row + 4 <= rows {
            mix_rows::<S, 4>(s, row, count, dim);
            row += 4;
        }
        while row + 2 <= rows {
            mix_rows::<S, 2>(s, row, count, dim);
            row += 2;
        }
        if row < rows {
            mix_rows::<S, 1>(s, row, count, dim);
        }
    }
}

/// # Safety
/// `M` rows exist from `row` on, and `count` positions; the processor has the instructions of `S`.
#[inline(always)]
unsafe fn mix_rows<S: Simd, const M: usize>(s: &mut Scratch, row: usize, count: usize, dim: usize) {
    for column in (0..dim).step_by(2 * S::ROWS) {
        // `dim` is a multiple of the widest vector, not of two of them.
        let two = column + 2 * S::ROWS <= dim;
        let second = if two { S::ROWS } else { 0 };
        // SAFETY: the caller's promise; the columns lie within a row.
        unsafe {
            let to = s.sums.as_mut_ptr().add(row * dim + column);
            let mut sums = [[S::zero(); 2]; M];
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = [S::load_float(to.add(m * dim)), S::load_float(to.add(m * dim + second))];
            }
            let (scores, values) = (s.scores.as_ptr().add(row * BLOCK), s.values.as_ptr().add(column));
            for j in 0..count {
                let values = [S::load_float(values.add(j * dim)), S::load_float(values.add(j * dim + second))];
                for (m, sum) in sums.iter_mut().enumerate() {
                    let weight = S::splat(*scores.add(m * BLOCK + j));
                    sum[0] = S::fma(weight, values[0], sum[0]);
                    sum[1] = S::fma(weight, values[1], sum[1]);
                }
            }
            for (m, sum) in sums.into_iter().enumerate() {
                S::store_float(to.add(m * dim), sum[0]);
                if two {
                    S::store_float(to.add(m * dim + S::ROWS), sum[1]);
                }
            }
        }
    }
}
