//! A tile times a panel, in registers.

use crate::isa;
use crate::simd::Simd;

/// Where one product of a tile and a panel finds everything.
#[derive(Clone, Copy)]
pub(super) struct Arguments {
    /// Rows of the panel.
    pub(super) count: usize,
    pub(super) panel: *const f32,
    pub(super) values: *const f32,
    pub(super) results: *mut f32,
    /// From one row of results to the next.
    pub(super) stride: usize,
    /// Whether results are set, not added to.
    pub(super) new: bool,
}

/// # Safety
/// The arguments fit a tile of `height` rows, at most 12.
#[inline(always)]
pub(super) unsafe fn multiply_tile<S: Simd>(height: usize, arguments: Arguments) {
    // SAFETY: the caller's promise.
    unsafe {
        match height {
            1 => micro::<S, 1>(arguments),
            2 => micro::<S, 2>(arguments),
            3 => micro::<S, 3>(arguments),
            4 => micro::<S, 4>(arguments),
            5 => micro::<S, 5>(arguments),
            6 => micro::<S, 6>(arguments),
            7 => micro::<S, 7>(arguments),
            8 => micro::<S, 8>(arguments),
            9 => micro::<S, 9>(arguments),
            10 => micro::<S, 10>(arguments),
            11 => micro::<S, 11>(arguments),
            _ => micro::<S, 12>(arguments),
        }
    }
}

/// # Safety
/// As for [`multiply_tile`].
#[inline(always)]
unsafe fn micro<S: Simd, const M: usize>(arguments: Arguments) {
    if M <= S::FLOAT_TILE {
        // SAFETY: the caller's promise.
        unsafe { S::call(Micro::<M>(arguments)) }
    }
}

/// `M` rows times two vectors of columns.
struct Micro<const M: usize>(Arguments);

impl<const M: usize> isa::Kernel for Micro<M> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let a = self.0;
        // SAFETY: the arguments fit the tile.
        unsafe {
            let mut totals = [[S::zero(); 2]; M];
            if !a.new {
                for (m, totals) in totals.iter_mut().enumerate() {
                    for (n, total) in totals.iter_mut().enumerate() {
                        *total = S::load_float(a.results.add(m * a.stride + n * S::ROWS));
                    }
                }
            }
            let (mut panel, mut values) = (a.panel, a.values);
            for _ in 0..a.count {
                let w = [S::load_float(panel), S::load_float(panel.add(S::ROWS))];
                for (m, totals) in totals.iter_mut().enumerate() {
                    let x = S::splat(*values.add(m));
                    totals[0] = S::fma(w[0], x, totals[0]);
                    totals[1] = S::fma(w[1], x, totals[1]);
                }
                panel = panel.add(2 * S::ROWS);
                values = values.add(M);
            }
            for (m, totals) in totals.iter().enumerate() {
                for (n, total) in totals.iter().enumerate() {
                    S::store_float(a.results.add(m * a.stride + n * S::ROWS), *total);
                }
            }
        }
    }
}
