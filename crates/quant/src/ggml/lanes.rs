//! Blocks side by side, one per lane, for encoders that search: each lane does what a loop over one block would do.

/// Blocks that go in lockstep on a machine with vectors.
pub(super) const LANES: usize = 16;

/// Value `i` of `N` blocks of `B` values each is `result[i]`. Lanes without a block hold zeros.
///
/// Kept out of line: within a function for AVX-512 the compiler would turn it into gathers and scatters, which are slow.
#[inline(never)]
pub(super) fn transpose<const N: usize, const B: usize>(blocks: &[[f32; B]]) -> [[f32; N]; B] {
    let mut lanes = [[0.0; N]; B];
    for (n, block) in blocks.iter().take(N).enumerate() {
        for (lane, value) in lanes.iter_mut().zip(block) {
            lane[n] = *value;
        }
    }
    lanes
}

/// Codes of each block from codes by lane; out of line for the same reason.
#[inline(never)]
pub(super) fn transpose_codes<const N: usize, const B: usize>(lanes: &[[u8; N]; B]) -> [[u8; B]; N] {
    let mut blocks = [[0; B]; N];
    for (i, lane) in lanes.iter().enumerate() {
        for (block, code) in blocks.iter_mut().zip(lane) {
            block[i] = *code;
        }
    }
    blocks
}

/// A lane-wise function of one argument.
#[inline(always)]
pub(super) fn map<const N: usize>(a: [f32; N], f: impl Fn(f32) -> f32) -> [f32; N] {
    std::array::from_fn(|n| f(a[n]))
}

/// A lane-wise function of two arguments.
#[inline(always)]
pub(super) fn zip<const N: usize>(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|n| f(a[n], b[n]))
}

/// In each lane, the first of the values that is largest in magnitude (0 if none is above 0), and that magnitude.
#[inline(always)]
pub(super) fn largest<const N: usize, const B: usize>(x: &[[f32; N]; B]) -> ([f32; N], [f32; N]) {
    let (mut value, mut magnitude) = ([0.0; N], [0.0f32; N]);
    for lane in x {
        for n in 0..N {
            let larger = lane[n].abs() > magnitude[n];
            magnitude[n] = if larger { lane[n].abs() } else { magnitude[n] };
            value[n] = if larger { lane[n] } else { value[n] };
        }
    }
    (value, magnitude)
}

/// The nearest whole number, ties to even, for magnitudes below 2^22.
#[inline(always)]
pub(super) fn nearest(value: f32) -> f32 {
    const INTEGERS: f32 = 12_582_912.0;
    (value + INTEGERS) - INTEGERS
}

/// The sum of squares of each row. Terms are added in order, so eight rows go side by side.
pub(super) fn sums_of_squares(values: &[f32], columns: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(values.len() / columns);
    for group in values.chunks(8 * columns) {
        let rows: [&[f32]; 8] =
            std::array::from_fn(|r| group.get(r * columns..).filter(|row| !row.is_empty()).unwrap_or(group));
        let mut sums = [0.0; 8];
        for column in 0..columns {
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum += row[column] * row[column];
            }
        }
        all.extend(sums.iter().take(group.len() / columns));
    }
    all
}
