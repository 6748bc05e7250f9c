//! Rotary scalings: how models stretch their position encoding, in numbers and in the factors that GGUF stores.

use std::f32::consts::PI;

use crate::{Error, Hyper, hyper::Names};

/// How rotary frequencies are stretched. All but `Linear` refer to [`Hyper::original_context`].
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Every frequency is divided by `factor`.
    Linear {
        /// How much longer the context becomes.
        factor: f32,
    },
    /// YaRN: fast frequencies stay, slow ones are divided by `factor`, those between are blended.
    Yarn {
        /// How much longer the context becomes.
        factor: f32,
        /// Rotations within the original context from which a frequency counts as fast; 32 where absent.
        beta_fast: Option<f32>,
        /// Rotations below which a frequency counts as slow; 1 where absent.
        beta_slow: Option<f32>,
        /// Whether the blend begins and ends at whole pairs.
        truncate: bool,
    },
    /// Llama 3.1: as YaRN, blended by wavelength, without the multiplication.
    Llama3 {
        /// What slow frequencies are divided by.
        factor: f32,
        /// Wavelengths above `original_context / low` are slow.
        low: f32,
        /// Wavelengths below `original_context / high` are fast.
        high: f32,
    },
    /// LongRoPE: every frequency is divided by a factor of its own, from one list up to the original context and from another beyond.
    Long {
        /// Within the original context; one per rotated pair.
        short: Vec<f32>,
        /// Beyond it; one per rotated pair.
        long: Vec<f32>,
    },
    /// Every frequency is divided by a factor of its own, at all lengths.
    Factors(Vec<f32>),
}

impl RopeScaling {
    pub(crate) fn check(&self, rotary_dim: usize, names: Names) -> Result<(), Error> {
        let list = |hf: &str, gguf: &str, factors: &[f32]| {
            if factors.len() == rotary_dim / 2 && factors.iter().all(|f| f.is_finite() && *f > 0.0) {
                return Ok(());
            }
            Err(Error::Invalid {
                key: names.of(hf, gguf),
                expected: format!("{} positive numbers", rotary_dim / 2),
                found: format!("{} numbers", factors.len()),
            })
        };
        match self {
            RopeScaling::Long { short, long } => {
                list("rope_scaling.short_factor", "rope_factors_short", short)?;
                list("rope_scaling.long_factor", "rope_factors_long", long)
            }
            RopeScaling::Factors(factors) => list("rope_scaling.factors", "rope_freqs", factors),
            RopeScaling::Llama3 { low, high, .. } if low >= high => Err(Error::Invalid {
                key: names.of("rope_scaling.high_freq_factor", "rope.scaling.high"),
                expected: format!("more than low_freq_factor, which is {low}"),
                found: high.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

/// What each rotary frequency of `hyper` is divided by, for the scalings that GGUF stores as one list.
pub(crate) fn factors(hyper: &Hyper) -> Option<Vec<f32>> {
    match hyper.rope_scaling.as_ref()? {
        RopeScaling::Factors(factors) => Some(factors.clone()),
        RopeScaling::Llama3 { factor, low, high } => {
            let original = hyper.original_context as f32;
            Some(wavelengths(hyper).map(|wave| llama3_factor(wave, *factor, *low, *high, original)).collect())
        }
        _ => None,
    }
}

/// Radians per position of each rotated pair: in layers that see the whole context (scaled), or in those that see a
/// window. `positions` is the length of the text, by which LongRoPE chooses its list.
pub(crate) fn frequencies(hyper: &Hyper, sliding: bool, positions: usize) -> Vec<f32> {
    let dim = hyper.rotary_dim;
    let theta = if sliding { hyper.rope_theta_sliding } else { hyper.rope_theta };
    let plain = (0..dim / 2).map(|i| 1.0 / theta.powf(2.0 * i as f32 / dim as f32));
    let divided = |factors: &[f32]| plain.clone().zip(factors).map(|(f, by)| f / by).collect();
    match hyper.rope_scaling.as_ref().filter(|_| !sliding) {
        None => plain.collect(),
        Some(RopeScaling::Linear { factor }) => plain.map(|f| f / factor).collect(),
        Some(RopeScaling::Long { short, long }) => {
            divided(if positions > hyper.original_context { long } else { short })
        }
        Some(RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate }) => {
            let original = hyper.original_context as f32;
            // The pair that turns `rotations` times within the original context.
            let pair = |rotations: f32| dim as f32 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
            let (low, high) = (pair(beta_fast.unwrap_or(32.0)), pair(beta_slow.unwrap_or(1.0)));
            let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
            let (low, high) = (low.max(0.0), high.min(dim as f32 - 1.0));
            let width = if high > low { high - low } else { 0.001 };
            let blend = |(i, f): (usize, f32)| {
                let slow = ((i as f32 - low) / width).clamp(0.0, 1.0);
                f / factor * slow + f * (1.0 - slow)
            };
            plain.enumerate().map(blend).collect()
        }
        Some(RopeScaling::Llama3 { .. } | RopeScaling::Factors(_)) => divided(&factors(hyper).unwrap_or_default()),
    }
}

fn wavelengths(hyper: &Hyper) -> impl Iterator<Item = f32> {
    let (dim, theta) = (hyper.rotary_dim, hyper.rope_theta);
    (0..dim / 2).map(move |i| 2.0 * PI * theta.powf(2.0 * i as f32 / dim as f32))
}

fn llama3_factor(wave: f32, factor: f32, low: f32, high: f32, original: f32) -> f32 {
    if wave < original / high {
        1.0
    } else if wave > original / low {
        factor
    } else {
        let smooth = (original / wave - low) / (high - low);
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}

/// What a scaling multiplies rotated vectors with, when nothing else is said.
pub(crate) fn attention_factor(hyper: &Hyper) -> f32 {
    match hyper.rope_scaling {
        Some(RopeScaling::Yarn { factor, .. }) if factor > 1.0 => 0.1 * factor.ln() + 1.0,
        Some(RopeScaling::Long { .. }) => {
            let (context, original) = (hyper.context as f64, hyper.original_context as f64);
            if context <= original || original <= 1.0 {
                return 1.0;
            }
            (1.0 + (context / original).ln() / original.ln()).sqrt() as f32
        }
        _ => 1.0,
    }
}

/// The scaling behind a list of factors and the original context it refers to. GGUF keeps Llama 3.1's scaling only as factors; its two
/// wavelength bounds have been 1 and 4 in every model, so trying the contexts finds it again. Anything else stays a list.
pub(crate) fn recover(hyper: &Hyper, factors: &[f32]) -> (RopeScaling, usize) {
    let factor = factors.iter().copied().fold(1.0, f32::max);
    let contexts = std::iter::once(8192).chain((4..=20).map(|bits| 1usize << bits));
    for original in contexts {
        let near = |(wave, found): (f32, &f32)| {
            let expected = llama3_factor(wave, factor, 1.0, 4.0, original as f32);
            (expected - found).abs() <= 1e-4 * expected
        };
        if factor > 1.0 && wavelengths(hyper).zip(factors).all(near) {
            return (RopeScaling::Llama3 { factor, low: 1.0, high: 4.0 }, original);
        }
    }
    (RopeScaling::Factors(factors.to_vec()), hyper.original_context)
}
