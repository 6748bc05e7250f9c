//! What must be known of whole tensors before their first block is made, found in passes over them.

use super::{Blend, Method};

/// Bins of a pass that counts magnitudes: the upper, then the lower half of a float without its sign.
const BINS: [usize; 2] = [1 << 15, 1 << 16];

/// What the passes over a tensor have found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// For each model, the magnitude that a change must have to be used.
    pub thresholds: Vec<f32>,
    /// Of two tensors: the product of both, and of each with itself.
    pub products: [f64; 3],
    /// Upper halves of the thresholds, and how many changes with that half are used: between two passes.
    halves: Vec<(u32, u64)>,
}

/// What one pass finds in a part of a tensor. Parts add up.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    products: [f64; 3],
    counts: Vec<Vec<u64>>,
}

impl Survey {
    /// Whether parts must be added up in their order to give the same sum every time.
    pub fn is_ordered(&self) -> bool {
        self.counts.is_empty()
    }

    /// Adds what was found in a later part.
    pub fn add(&mut self, other: &Survey) {
        self.products.iter_mut().zip(other.products).for_each(|(sum, own)| *sum += own);
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        for (sum, own) in self.counts.iter_mut().flatten().zip(other.counts.iter().flatten()) {
            *sum += own;
        }
    }
}

impl Blend {
    /// Bytes of a survey.
    pub fn survey_bytes(&self) -> u64 {
        match self.method {
            Method::Ties => (self.weights.len() * BINS[1] * 8) as u64,
            _ => 0,
        }
    }

    /// Looks at a part of a tensor in pass `pass`; `whole` is what the passes before have found. Arguments as for
    /// [`Blend::apply`].
    pub fn survey(&self, pass: usize, whole: &Whole, base: &[f32], others: &[&[f32]]) -> Survey {
        if self.method == Method::Slerp {
            let product =
                |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let other = others.first().copied().unwrap_or_default();
            let products = [product(base, other), product(base, base), product(other, other)];
            return Survey { products, counts: Vec::new() };
        }
        let mut counts = vec![vec![0; BINS[pass.min(1)]]; others.len()];
        for (model, (counts, other)) in counts.iter_mut().zip(others).enumerate() {
            let half = whole.halves.get(model).map(|(half, _)| *half);
            for (value, other) in base.iter().zip(*other) {
                let bits = (other - value).abs().to_bits();
                match half.filter(|_| pass > 0) {
                    None => counts[(bits >> 16) as usize] += 1,
                    Some(half) if bits >> 16 == half => counts[(bits & 0xffff) as usize] += 1,
                    Some(_) => {}
                }
            }
        }
        Survey { products: [0.0; 3], counts }
    }

    /// Learns from a pass over all `values` values of a tensor.
    pub fn settle(&self, pass: usize, whole: &mut Whole, found: &Survey, values: u64) {
        if self.method == Method::Slerp {
            whole.products = found.products;
            return;
        }
        for (model, counts) in found.counts.iter().enumerate() {
            // As many as mergekit keeps, and one at least.
            let wanted = match pass {
                0 => ((self.densities[model] * values as f64) as u64).clamp(1, values.max(1)),
                _ => whole.halves[model].1,
            };
            let (mut above, mut bin) = (0, counts.len());
            while bin > 0 && above < wanted {
                bin -= 1;
                above += counts[bin];
            }
            if pass == 0 {
                let left = wanted - (above - counts[bin]).min(wanted);
                whole.halves.push((bin as u32, left));
            } else {
                whole.thresholds.push(f32::from_bits(whole.halves[model].0 << 16 | bin as u32));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The threshold is the magnitude of the change that comes last when the wanted share is taken from the largest down.
    #[test]
    fn thresholds_are_the_exact_order_statistic() {
        let made = |seed: u64, count: usize| -> Vec<f32> {
            let mut random = windlass_runtime::random::Philox::new(seed);
            let mut values = vec![0.0; count];
            random.fill_normal(&mut values);
            values
        };
        let (base, models) = (made(1, 5000), [made(2, 5000), made(3, 5000)]);
        for density in [0.0001, 0.01, 0.2, 0.5, 0.99] {
            let blend = Blend {
                method: Method::Ties,
                weights: vec![1.0; 2],
                densities: vec![density, 1.0 - density / 2.0],
                normalize: true,
                lambda: 1.0,
                seed: 0,
            };
            let mut whole = Whole::default();
            for pass in 0..blend.passes() {
                let mut all = Survey::default();
                for part in [0..1234, 1234..5000] {
                    let others: Vec<&[f32]> = models.iter().map(|m| &m[part.clone()]).collect();
                    all.add(&blend.survey(pass, &whole, &base[part], &others));
                }
                blend.settle(pass, &mut whole, &all, 5000);
            }
            for (model, density) in models.iter().zip(&blend.densities) {
                let mut changes: Vec<f32> = model.iter().zip(&base).map(|(m, b)| (m - b).abs()).collect();
                changes.sort_by(|a, b| b.total_cmp(a));
                let wanted = ((density * 5000.0) as usize).max(1);
                assert!(whole.thresholds.contains(&changes[wanted - 1]), "{density}");
            }
        }
    }
}
