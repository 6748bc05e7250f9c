//! Many rows of queries: chunks of positions become panels of floats, which serve all rows of a block.

use std::marker::PhantomData;
use std::ops::Range;

use windlass_runtime::scheduler::Session;

use super::stored::Stored;
use super::{MOST_DIM, Task, with_scratch};
use crate::isa::{self, dispatch};
use crate::simd::{Simd, tile_pieces, transpose};

/// Positions whose panels are made together: two times 256 KiB for heads of 128.
const CHUNK: usize = 512;

/// Most rows that are worked on with the same panels; their sums lie in the second cache.
const BLOCK: usize = 512;

/// From one row of a tile to the next, in queries and in scores: not a power of two, whose lines would share few sets of
/// the cache.
const LINE: usize = 512 + 16;

const _: () = assert!(CHUNK <= LINE && MOST_DIM <= LINE);

/// Most rows of a tile.
const HIGHEST: usize = 12;

/// Two vectors of the widest level.
const WIDEST: usize = 32;

pub(super) fn run<T: Stored>(task: &Task, session: &Session<'_>) {
    // Where heads are few, blocks are smaller, so that every thread has some.
    let share = (task.tokens * task.heads).div_ceil(4 * session.threads());
    let per_block = (BLOCK / task.group).min(share).next_multiple_of(HIGHEST).min(task.tokens.max(1));
    let blocks = task.tokens.div_ceil(per_block);
    session.balance(blocks * task.heads, 1, &|items| {
        for item in items {
            // Late blocks see more positions: they come first, so that none is left alone at the end.
            let (head, block) = (item % task.heads, blocks - 1 - item / task.heads);
            let tokens = block * per_block..task.tokens.min((block + 1) * per_block);
            let rows = tokens.start * task.group..tokens.end * task.group;
            with_scratch(Parts::size(rows.len(), task.dim), |scratch| {
                let parts = Parts::of(scratch, rows.len(), task.dim);
                // SAFETY: the level is this machine's; blocks and heads write disjoint results.
                unsafe { dispatch(task.level, Block::<T> { task, head, rows, parts, stored: PhantomData }) }
            });
        }
    });
}

/// What a block works with. `wide` is `dim`, filled up to whole panels.
struct Parts<'a> {
    /// `[panel][dim][position of the panel]`.
    keys: &'a mut [f32],
    /// `[panel of columns][position][column of the panel]`.
    values: &'a mut [f32],
    /// A vector's rows of keys.
    turning: &'a mut [f32],
    /// A tile of queries, scaled: rows of `LINE`.
    query: &'a mut [f32],
    /// The products of a tile, then their weights: rows of `LINE`.
    scores: &'a mut [f32],
    /// `[rows][wide]`.
    sums: &'a mut [f32],
    maxima: &'a mut [f32],
    weights: &'a mut [f32],
}

impl<'a> Parts<'a> {
    fn sizes(rows: usize, dim: usize) -> [usize; 8] {
        let (rows, wide) = (rows.next_multiple_of(HIGHEST), dim.next_multiple_of(WIDEST));
        [CHUNK * dim, CHUNK * wide, WIDEST * dim, HIGHEST * LINE, HIGHEST * LINE, rows * wide, rows, rows]
    }

    fn size(rows: usize, dim: usize) -> usize {
        Self::sizes(rows, dim).iter().sum()
    }

    fn of(mut scratch: &'a mut [f32], rows: usize, dim: usize) -> Self {
        let [keys, values, turning, query, scores, sums, maxima, weights] = Self::sizes(rows, dim).map(|size| {
            let (part, rest) = std::mem::take(&mut scratch).split_at_mut(size);
            scratch = rest;
            part
        });
        Parts { keys, values, turning, query, scores, sums, maxima, weights }
    }
}

struct Block<'a, T> {
    task: &'a Task<'a>,
    head: usize,
    rows: Range<usize>,
    parts: Parts<'a>,
    stored: PhantomData<T>,
}

impl<T: Stored> isa::Kernel for Block<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let (task, rows) = (self.task, self.rows.clone());
        self.parts.sums.fill(0.0);
        self.parts.maxima.fill(f32::NEG_INFINITY);
        self.parts.weights.fill(0.0);
        let all = task.all_seen(rows.clone());
        // Chunks begin at the same positions for every block, so that blocks do not change results.
        for first in (all.start / CHUNK * CHUNK..all.end).step_by(CHUNK) {
            let chunk = first..all.end.min(first + CHUNK);
            // SAFETY: positions and rows exist; the processor has the instructions of `S`.
            unsafe {
                S::call(Fill(&mut self, chunk.clone()));
                for row in rows.clone().step_by(S::FLOAT_TILE) {
                    self.tile::<S>(row..rows.end.min(row + S::FLOAT_TILE), &chunk);
                }
            }
        }
        let wide = wide::<S>(task.dim);
        for (i, row) in rows.enumerate() {
            let at = task.place(self.head, row);
            // SAFETY: this block is alone in writing its rows of its head.
            let out = unsafe { task.y.part(at..at + task.dim) };
            let factor = 1.0 / self.parts.weights[i];
            out.iter_mut().zip(&self.parts.sums[i * wide..]).for_each(|(out, sum)| *out = sum * factor);
        }
    }
}

/// `dim`, filled up to whole panels.
#[inline(always)]
fn wide<S: Simd>(dim: usize) -> usize {
    dim.next_multiple_of(2 * S::ROWS)
}

/// Makes the panels of a chunk of positions.
struct Fill<'a, 'b, T>(&'a mut Block<'b, T>, Range<usize>);

impl<T: Stored> isa::Kernel for Fill<'_, '_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Fill(Block { task, head, parts, .. }, chunk) = self;
        let (dim, stride, width) = (task.dim, T::stride(task.dim), 2 * S::ROWS);
        // SAFETY: the chunk lies in the cache, and its panels in their parts; the processor has the instructions of `S`.
        unsafe {
            let keys = task.rows_of::<T>(task.keys, *head, chunk.start, chunk.len());
            for tile in 0..chunk.len().div_ceil(S::ROWS) {
                let first = tile * S::ROWS;
                for i in 0..S::ROWS {
                    for d in (0..dim).step_by(S::ROWS) {
                        let inside = first + i < chunk.len();
                        let vector = if inside { T::values::<S>(keys.add((first + i) * stride), d) } else { S::zero() };
                        S::store_float(parts.turning.as_mut_ptr().add(i * dim + d), vector);
                    }
                }
                let to = parts.keys.as_mut_ptr().add(tile / 2 * dim * width + tile % 2 * S::ROWS);
                for d in (0..dim).step_by(4) {
                    let at = parts.turning.as_ptr().add(d).cast();
                    for (i, vector) in transpose::<S>(tile_pieces::<S>(at, dim * 4)).into_iter().enumerate() {
                        S::store_float(to.add((d + i) * width), S::as_float(vector));
                    }
                }
            }
            let values = task.rows_of::<T>(task.values, *head, chunk.start, chunk.len());
            for position in 0..chunk.len() {
                for d in (0..wide::<S>(dim)).step_by(S::ROWS) {
                    let vector = if d < dim { T::values::<S>(values.add(position * stride), d) } else { S::zero() };
                    let to = (d / width * CHUNK + position) * width + d % width;
                    S::store_float(parts.values.as_mut_ptr().add(to), vector);
                }
            }
        }
    }
}

impl<T: Stored> Block<'_, T> {
    /// Rows `rows`, at most a tile, over a chunk of positions.
    ///
    /// # Safety
    /// They exist, and the panels are those of the chunk; the processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn tile<S: Simd>(&mut self, rows: Range<usize>, chunk: &Range<usize>) {
        let (task, width, wide) = (self.task, 2 * S::ROWS, wide::<S>(self.task.dim));
        let all = task.all_seen(rows.clone());
        let (from, to) = (all.start.max(chunk.start), all.end.min(chunk.end));
        if from >= to {
            return;
        }
        // Whole panels from the first position on.
        let (from, to) = ((from - chunk.start) / width * width, to - chunk.start);
        self.take_queries(&rows);
        let first_row = rows.start - self.rows.start;
        let p = &mut self.parts;
        // SAFETY: the panels hold these positions, and columns of the whole width; tiles have room in all parts.
        unsafe {
            for panel in from / width..to.div_ceil(width) {
                product::<S>(Product {
                    count: task.dim,
                    rows: p.query.as_ptr(),
                    panel: p.keys.as_ptr().add(panel * task.dim * width),
                    out: p.scores.as_mut_ptr().add(panel * width),
                    stride: LINE,
                    add: false,
                });
            }
            for (m, row) in rows.enumerate() {
                let scores = &mut p.scores[m * LINE + from..m * LINE + to];
                let before = p.maxima[first_row + m];
                let (max, sum) = task.weigh::<S>(row, chunk.start + from, scores, before);
                if max > before && before > f32::NEG_INFINITY {
                    let shrink = (before - max).exp();
                    p.weights[first_row + m] *= shrink;
                    p.sums[(first_row + m) * wide..][..wide].iter_mut().for_each(|v| *v *= shrink);
                }
                p.weights[first_row + m] += sum;
                p.maxima[first_row + m] = max;
            }
            for panel in 0..wide / width {
                product::<S>(Product {
                    count: to - from,
                    rows: p.scores.as_ptr().add(from),
                    panel: p.values.as_ptr().add((panel * CHUNK + from) * width),
                    out: p.sums.as_mut_ptr().add(first_row * wide + panel * width),
                    stride: wide,
                    add: true,
                });
            }
        }
    }

    /// Scaled queries; rows that the tile lacks are zero.
    #[inline(always)]
    fn take_queries(&mut self, rows: &Range<usize>) {
        let task = self.task;
        for (m, line) in self.parts.query.chunks_exact_mut(LINE).enumerate() {
            let line = &mut line[..task.dim];
            if m < rows.len() {
                let query = &task.query[task.place(self.head, rows.start + m)..][..task.dim];
                line.iter_mut().zip(query).for_each(|(to, q)| *to = q * task.how.scale);
            } else {
                line.fill(0.0);
            }
        }
    }
}

/// A tile of rows (each `LINE` behind the other) times a panel `[count][2 * S::ROWS]`.
#[derive(Clone, Copy)]
struct Product {
    count: usize,
    rows: *const f32,
    panel: *const f32,
    out: *mut f32,
    /// From one row of results to the next.
    stride: usize,
    /// Whether results are added to what is there.
    add: bool,
}

/// # Safety
/// A tile of the level's height has room in all that is pointed to; the processor has the instructions of `S`.
#[inline(always)]
unsafe fn product<S: Simd>(product: Product) {
    // SAFETY: the caller's promise.
    unsafe {
        match S::FLOAT_TILE {
            12 => S::call(Tile::<12>(product)),
            6 => S::call(Tile::<6>(product)),
            _ => S::call(Tile::<4>(product)),
        }
    }
}

struct Tile<const M: usize>(Product);

impl<const M: usize> isa::Kernel for Tile<M> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if M != S::FLOAT_TILE {
            return;
        }
        let p = self.0;
        // SAFETY: the promise of `product`.
        unsafe {
            let mut sums = [[S::zero(); 2]; M];
            if p.add {
                for (m, sum) in sums.iter_mut().enumerate() {
                    let at = p.out.add(m * p.stride);
                    *sum = [S::load_float(at), S::load_float(at.add(S::ROWS))];
                }
            }
            let (mut rows, mut panel) = (p.rows, p.panel);
            for _ in 0..p.count {
                let vectors = [S::load_float(panel), S::load_float(panel.add(S::ROWS))];
                for (m, sum) in sums.iter_mut().enumerate() {
                    let x = S::splat(*rows.add(m * LINE));
                    sum[0] = S::fma(x, vectors[0], sum[0]);
                    sum[1] = S::fma(x, vectors[1], sum[1]);
                }
                rows = rows.add(1);
                panel = panel.add(2 * S::ROWS);
            }
            for (m, sum) in sums.into_iter().enumerate() {
                let at = p.out.add(m * p.stride);
                S::store_float(at, sum[0]);
                S::store_float(at.add(S::ROWS), sum[1]);
            }
        }
    }
}
