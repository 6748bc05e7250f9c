//! K-quants: the vector encoders, which code many super-blocks at once, against the plain one, which codes one alone.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use windlass_quant::simd::{Level, with_level};
use windlass_quant::{SchemeRef, scheme};
use windlass_tensor::DType;

const NAMES: [&str; 5] = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"];
const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];
const SUPER: usize = 256;
const COLUMNS: usize = 3 * SUPER;

fn encode(scheme: SchemeRef, values: &[f32], columns: usize, importance: Option<&[f32]>) -> Vec<u8> {
    let mut bytes = vec![0xa5; values.len() / SUPER * scheme.planes()[0].per_block];
    scheme.encode(values, columns, importance, DType::F32, &mut [&mut bytes]).unwrap();
    bytes
}

/// A row of one super-block is coded alone, by the plain encoder.
fn encode_alone(scheme: SchemeRef, values: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let block = |(n, values): (usize, &[f32])| {
        let importance = importance.map(|i| &i[n * SUPER % COLUMNS..][..SUPER]);
        encode(scheme, values, SUPER, importance)
    };
    values.chunks(SUPER).enumerate().flat_map(block).collect()
}

struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 + 0.5) / (1 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (-2.0 * self.next().ln()).sqrt() * (std::f32::consts::TAU * self.next()).cos()
    }
}

/// Rows of one kind; sub-blocks of one row differ in size in kind 3.
fn rows(kind: u8, count: usize, seed: u64) -> Vec<f32> {
    let mut random = Uniform(seed);
    let constant = random.normal();
    let mut scale = 1.0;
    let value = |i: usize| {
        let normal = random.normal();
        if i.is_multiple_of(16) {
            scale = (60.0 * random.next() - 40.0).exp();
        }
        match kind {
            0 => normal * 0.02,
            1 => normal / random.next().powi(2),
            2 => constant,
            3 => normal * scale,
            4 => normal * 1e-38,
            5 => normal * 1e-12,
            6 => normal * 1e18,
            7 => normal.abs() + 1.0,
            8 => -normal.abs() - 1.0,
            9 => (normal * 2.0).round() / 8.0,
            10 if random.next() < 0.95 => 0.0,
            11 => 0.0,
            _ => normal,
        }
    };
    (0..count).map(value).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn many_blocks_code_like_one(kind in 0u8..12, row_count in 1usize..14, seed: u64) {
        let values = rows(kind, row_count * COLUMNS, seed);
        let mut random = Uniform(seed ^ 1);
        let importance: Vec<f32> = (0..COLUMNS).map(|_| (random.next() * 1.2 - 0.1).max(0.0) * 5.0).collect();
        for scheme in NAMES.map(|name| scheme(name).unwrap()) {
            for importance in [None, Some(importance.as_slice())] {
                let expected = encode_alone(scheme, &values, importance);
                for level in LEVELS {
                    let got = with_level(level, || encode(scheme, &values, COLUMNS, importance));
                    prop_assert!(got == expected, "{} {level:?}, importance {}", scheme.name(), importance.is_some());
                }
            }
        }
    }

    #[test]
    fn any_bits_encode(bits in prop::collection::vec(any::<u32>(), SUPER * 2), special in any::<u8>()) {
        let mut values: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
        values[usize::from(special)] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][usize::from(special) % 3];
        for scheme in NAMES.map(|name| scheme(name).unwrap()) {
            for importance in [None, Some(values.as_slice())] {
                for level in LEVELS {
                    let packed = with_level(level, || encode(scheme, &values, values.len(), importance));
                    let mut decoded = vec![0.0; values.len()];
                    scheme.decode(&[&packed], values.len(), DType::F32, &mut decoded).unwrap();
                }
            }
        }
    }
}
