//! Adapters merged into a matrix: LoRA (Hu et al. 2021) adds a product of two thin matrices, DoRA (Liu et al. 2024) then
//! gives every row a length of its own.

/// `scale * left right` for a block of rows of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// `[rows, rank]`, row-major: B of an adapter.
    pub left: &'a [f32],
    /// `[rank, columns]`, row-major: A of an adapter.
    pub right: &'a [f32],
    pub rank: usize,
    pub scale: f32,
}

/// Rows of `right` that are added at once, so that a row of sums is read and written less often.
const TOGETHER: usize = 4;

impl Product<'_> {
    /// Adds the product to `values`, `[rows, columns]`, and gives the sum of the squares of what was added.
    ///
    /// A row of the product is summed on its own before it is added, so that small changes do not drown in large weights.
    pub fn add_to(&self, values: &mut [f32], columns: usize) -> f64 {
        self.change(values, columns, None)
    }

    /// As [`Product::add_to`], after which row `i` is stretched to the length `lengths[i]` (DoRA's magnitude). A row of zeros
    /// has no direction and stays.
    pub fn add_and_stretch(&self, values: &mut [f32], columns: usize, lengths: &[f32]) -> f64 {
        self.change(values, columns, Some(lengths))
    }

    fn change(&self, values: &mut [f32], columns: usize, lengths: Option<&[f32]>) -> f64 {
        if columns == 0 || self.rank == 0 {
            return 0.0;
        }
        let mut row = vec![0.0f32; columns];
        let mut change = 0.0;
        for (i, (values, left)) in values.chunks_exact_mut(columns).zip(self.left.chunks_exact(self.rank)).enumerate() {
            self.row(left, &mut row);
            match lengths.and_then(|all| all.get(i)) {
                None => {
                    change += squares(row.iter().copied());
                    values.iter_mut().zip(&row).for_each(|(value, add)| *value += add);
                }
                Some(length) => {
                    let new = || values.iter().zip(&row).map(|(value, add)| value + add);
                    let norm = squares(new()).sqrt();
                    let factor = if norm > 0.0 { (f64::from(*length) / norm) as f32 } else { 1.0 };
                    change += squares(values.iter().zip(new()).map(|(old, new)| new * factor - old));
                    values.iter_mut().zip(&row).for_each(|(value, add)| *value = (*value + add) * factor);
                }
            }
        }
        change
    }

    /// One row of the product.
    fn row(&self, left: &[f32], row: &mut [f32]) {
        let columns = row.len();
        row.fill(0.0);
        let rights = self.right.chunks(TOGETHER * columns);
        for (left, right) in left.chunks(TOGETHER).zip(rights) {
            if let ([a, b, c, d], Some((first, second))) = (left, right.split_at_checked(2 * columns)) {
                let ((r0, r1), (r2, r3)) = (first.split_at(columns), second.split_at(columns));
                for ((((sum, r0), r1), r2), r3) in row.iter_mut().zip(r0).zip(r1).zip(r2).zip(r3) {
                    *sum += (a * r0 + b * r1) + (c * r2 + d * r3);
                }
            } else {
                for (left, right) in left.iter().zip(right.chunks_exact(columns)) {
                    row.iter_mut().zip(right).for_each(|(sum, right)| *sum += left * right);
                }
            }
        }
        row.iter_mut().for_each(|sum| *sum *= self.scale);
    }
}

fn squares(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|v| f64::from(v) * f64::from(v)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| ((i as f32 + seed) * 0.7).sin()).collect()
    }

    /// The definition, in double precision.
    fn expected(base: &[f32], product: &Product, columns: usize, lengths: Option<&[f32]>) -> Vec<f64> {
        let mut all = Vec::new();
        for (i, row) in base.chunks(columns).enumerate() {
            let value = |(c, value): (usize, &f32)| {
                let terms = (0..product.rank)
                    .map(|r| f64::from(product.left[i * product.rank + r]) * f64::from(product.right[r * columns + c]));
                f64::from(*value) + f64::from(product.scale) * terms.sum::<f64>()
            };
            let new: Vec<f64> = row.iter().enumerate().map(value).collect();
            let norm = new.iter().map(|v| v * v).sum::<f64>().sqrt();
            let factor = lengths.map_or(1.0, |l| f64::from(l[i]) / norm);
            all.extend(new.iter().map(|v| v * factor));
        }
        all
    }

    #[test]
    fn products_of_every_rank_are_what_the_definition_says() {
        for (rows, rank, columns) in [(1, 1, 1), (3, 4, 7), (5, 6, 33), (2, 9, 16), (4, 16, 5)] {
            let (left, right, base) = (made(rows * rank, 1.0), made(rank * columns, 2.0), made(rows * columns, 3.0));
            let product = Product { left: &left, right: &right, rank, scale: 0.75 };
            let lengths = made(rows, 9.0);
            for lengths in [None, Some(lengths.as_slice())] {
                let wanted = expected(&base, &product, columns, lengths);
                let mut values = base.clone();
                let change = match lengths {
                    None => product.add_to(&mut values, columns),
                    Some(lengths) => product.add_and_stretch(&mut values, columns, lengths),
                };
                let moved: f64 = wanted.iter().zip(&base).map(|(w, b)| (w - f64::from(*b)).powi(2)).sum();
                assert!((change - moved).abs() <= 1e-5 * moved, "{change} {moved}");
                for (value, wanted) in values.iter().zip(&wanted) {
                    assert!((f64::from(*value) - wanted).abs() < 2e-6 * (1.0 + wanted.abs()), "{value} {wanted}");
                }
            }
        }
    }

    #[test]
    fn a_row_of_zeros_has_no_direction() {
        let product = Product { left: &[0.0], right: &[1.0, 2.0], rank: 1, scale: 1.0 };
        let mut values = [0.0; 2];
        assert_eq!(product.add_and_stretch(&mut values, 2, &[3.0]), 0.0);
        assert_eq!(values, [0.0; 2]);
    }
}
