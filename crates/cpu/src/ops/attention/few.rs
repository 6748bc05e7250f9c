//! A few rows of queries: the context in parts, each of which gives a partial result; then those are put together.

use std::marker::PhantomData;
use std::ops::Range;

use windlass_runtime::scheduler::Session;

use super::stored::Stored;
use super::{Task, with_scratch};
use crate::isa::{self, dispatch};
use crate::simd::{Simd, sum_elements};
use crate::span::Span;

/// Positions of a part: the same for any number of threads, which share parts and heads.
const PART: usize = 256;

/// Bytes that are asked for ahead.
const AHEAD: usize = 2048;

/// Numbers beside the sums of a partial result: the largest product, and the sum of weights.
const EXTRA: usize = 2;

pub(super) fn run<T: Stored>(task: &Task, session: &Session<'_>) {
    let rows = task.tokens * task.group;
    let seen = task.all_seen(0..rows);
    let parts = seen.len().div_ceil(PART);
    let size = rows * (task.dim + EXTRA);
    with_scratch(parts * task.heads * size, |partial| {
        let results = Span::of(partial);
        session.balance(parts * task.heads, 1, &|items| {
            for item in items {
                let (part, head) = (item / task.heads, item % task.heads);
                let first = seen.start + part * PART;
                let positions = first..seen.end.min(first + PART);
                // SAFETY: every item has results of its own.
                let results = unsafe { results.part(item * size..(item + 1) * size) };
                // SAFETY: the level is this machine's; the kernel asks for nothing else.
                unsafe { dispatch(task.level, Part::<T> { task, head, positions, results, stored: PhantomData }) }
            }
        });
        for head in 0..task.heads {
            (0..rows).for_each(|row| join(task, head, row, partial, rows));
        }
    });
}

/// Puts the partial results of a row together.
fn join(task: &Task, head: usize, row: usize, partial: &[f32], rows: usize) {
    let size = task.dim + EXTRA;
    let parts = || partial.chunks_exact(size).skip(head * rows + row).step_by(task.heads * rows);
    let max = parts().map(|part| part[0]).fold(f32::NEG_INFINITY, f32::max);
    let at = task.place(head, row);
    // SAFETY: every row has results of its own, and the regions before are over.
    let out = unsafe { task.y.part(at..at + task.dim) };
    out.fill(0.0);
    let mut total = 0.0;
    for part in parts().filter(|part| part[1] != 0.0) {
        let factor = if part[0] == max { 1.0 } else { (part[0] - max).exp() };
        total += part[1] * factor;
        out.iter_mut().zip(&part[EXTRA..]).for_each(|(out, sum)| *out += sum * factor);
    }
    let factor = 1.0 / total;
    out.iter_mut().for_each(|out| *out *= factor);
}

struct Part<'a, T> {
    task: &'a Task<'a>,
    head: usize,
    positions: Range<usize>,
    /// `[rows][EXTRA + dim]`.
    results: &'a mut [f32],
    stored: PhantomData<T>,
}

impl<T: Stored> isa::Kernel for Part<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let rows = self.task.tokens * self.task.group;
        let mut row = 0;
        // SAFETY: every call ends at or before `rows`; the processor has the instructions of `S`.
        unsafe {
            while row + 4 <= rows && S::LANES == 4 {
                self.rows::<S, 4>(row);
                row += 4;
            }
            while row + 2 <= rows {
                self.rows::<S, 2>(row);
                row += 2;
            }
            if row < rows {
                self.rows::<S, 1>(row);
            }
        }
    }
}

impl<T: Stored> Part<'_, T> {
    /// # Safety
    /// `M` rows exist from `row` on; the processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn rows<S: Simd, const M: usize>(&mut self, row: usize) {
        let (task, count) = (self.task, self.positions.len());
        let mut scores = [[0.0f32; PART]; M];
        // SAFETY: the rows and positions exist; a part has at most `PART` positions.
        unsafe {
            let mut done = 0;
            while done + 4 <= count {
                self.products::<S, M, 4>(row, done, &mut scores);
                done += 4;
            }
            while done < count {
                self.products::<S, M, 1>(row, done, &mut scores);
                done += 1;
            }
        }
        for (m, scores) in scores.iter_mut().enumerate() {
            let at = (row + m) * (task.dim + super::few::EXTRA);
            let (max, sum) = task.weigh::<S>(row + m, self.positions.start, &mut scores[..count], f32::NEG_INFINITY);
            self.results[at..at + EXTRA].copy_from_slice(&[max, sum]);
        }
        let (mut column, step) = (0, 4 * S::ROWS);
        // SAFETY: the columns lie within a row, whose values are multiples of 16.
        unsafe {
            while column + step <= task.dim {
                self.mix::<S, M, 4>(row, column, &scores);
                column += step;
            }
            while column < task.dim {
                self.mix::<S, M, 1>(row, column, &scores);
                column += S::ROWS;
            }
        }
    }

    /// Products of `M` rows with `P` positions from `first` of the part on.
    ///
    /// # Safety
    /// Rows and positions exist; the processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn products<S: Simd, const M: usize, const P: usize>(
        &self,
        row: usize,
        first: usize,
        scores: &mut [[f32; PART]; M],
    ) {
        let (task, stride) = (self.task, T::stride(self.task.dim));
        let keys = task.rows_of::<T>(task.keys, self.head, self.positions.start + first, P);
        let values = task.rows_of::<T>(task.values, self.head, self.positions.start + first, P);
        let mut queries = [task.query.as_ptr(); M];
        for (m, query) in queries.iter_mut().enumerate() {
            *query = task.query[task.place(self.head, row + m)..][..task.dim].as_ptr();
        }
        // SAFETY: the caller's promise; prefetches may name any address.
        unsafe {
            for line in (0..P * stride).step_by(64) {
                S::prefetch(keys.wrapping_add(AHEAD + line));
                // Values come in the meantime, so that their turn does not begin with waiting.
                S::prefetch_far(values.wrapping_add(line));
            }
            let mut sums = [[S::zero(); P]; M];
            for d in (0..task.dim).step_by(S::ROWS) {
                let mut vectors = [S::zero(); P];
                for (p, vector) in vectors.iter_mut().enumerate() {
                    *vector = T::values::<S>(keys.add(p * stride), d);
                }
                for (sums, query) in sums.iter_mut().zip(queries) {
                    let q = S::load_float(query.add(d));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = S::fma(q, vector, *sum);
                    }
                }
            }
            for (scores, sums) in scores.iter_mut().zip(sums) {
                let each = sum_elements::<S, P>(sums);
                for (score, sum) in scores[first..first + P].iter_mut().zip(each) {
                    *score = sum * task.how.scale;
                }
            }
        }
    }

    /// The weighted values of `C` vectors from `column` on, for `M` rows.
    ///
    /// # Safety
    /// Rows, positions and columns exist; the processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn mix<S: Simd, const M: usize, const C: usize>(
        &mut self,
        row: usize,
        column: usize,
        scores: &[[f32; PART]; M],
    ) {
        let (task, stride) = (self.task, T::stride(self.task.dim));
        let count = self.positions.len();
        let values = task.rows_of::<T>(task.values, self.head, self.positions.start, count);
        // SAFETY: the caller's promise; prefetches may name any address.
        unsafe {
            let mut sums = [[S::zero(); C]; M];
            for position in 0..count {
                let at = values.add(position * stride);
                if column == 0 {
                    for line in (0..stride).step_by(64) {
                        S::prefetch(at.wrapping_add(AHEAD + line));
                    }
                }
                let mut vectors = [S::zero(); C];
                for (c, vector) in vectors.iter_mut().enumerate() {
                    *vector = T::values::<S>(at, column + c * S::ROWS);
                }
                for (sums, scores) in sums.iter_mut().zip(scores) {
                    let weight = S::splat(scores[position]);
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = S::fma(weight, vector, *sum);
                    }
                }
            }
            for (m, sums) in sums.into_iter().enumerate() {
                let at = (row + m) * (task.dim + EXTRA) + EXTRA + column;
                let out = &mut self.results[at..at + C * S::ROWS];
                for (out, sum) in out.chunks_exact_mut(S::ROWS).zip(sums) {
                    S::store_float(out.as_mut_ptr(), sum);
                }
            }
        }
    }
}
