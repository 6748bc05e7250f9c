//! Models made into one, against the papers' formulas stated in numpy.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use safetensors::SafeTensors;
use windlass_edit::models::{Blend, Method, Place, Survey, Whole};

const TENSOR: &str = "blk.0.attn_q.weight";

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Golden {
        Golden(std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models.safetensors")).unwrap())
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let all = SafeTensors::deserialize(&self.0).unwrap();
        all.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        let all = SafeTensors::deserialize(&self.0).unwrap();
        all.tensor(name).unwrap().data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }
}

fn blend(method: Method, normalize: bool) -> Blend {
    let (weights, densities) = (vec![0.5, 0.3, 0.9], vec![0.2, 0.5, 0.7]);
    Blend { method, weights, densities, normalize, lambda: 0.8, seed: 42 }
}

/// Makes a tensor in blocks of rows, as a stream does.
fn make(blend: &Blend, base: &[f32], others: &[Vec<f32>], rows: usize) -> Vec<f32> {
    assert_eq!(blend.problem(), None);
    let parts: Vec<_> =
        (0..base.len()).step_by(rows * 33).map(|first| first..(first + rows * 33).min(base.len())).collect();
    let cut = |part: &std::ops::Range<usize>| others.iter().map(|o| &o[part.clone()]).collect::<Vec<&[f32]>>();
    let mut whole = Whole::default();
    for pass in 0..blend.passes() {
        let mut all = Survey::default();
        parts.iter().for_each(|part| all.add(&blend.survey(pass, &whole, &base[part.clone()], &cut(part))));
        blend.settle(pass, &mut whole, &all, base.len() as u64);
    }
    let mut made = base.to_vec();
    for part in &parts {
        let place = Place { tensor: TENSOR, first: part.start as u64 };
        blend.apply(place, &whole, &mut made[part.clone()], &cut(part));
    }
    made
}

#[test]
fn every_method_is_what_its_paper_says() {
    let golden = Golden::open();
    let base = golden.f32("base");
    let models: Vec<Vec<f32>> = (0..3).map(|i| golden.f32(&format!("model-{i}"))).collect();
    let slerp = Blend { weights: vec![0.7, 0.3], densities: vec![1.0; 2], ..blend(Method::Slerp, false) };
    let cases = [
        ("linear", blend(Method::Linear, true), models[0].clone(), models[1..].to_vec()),
        ("linear-sum", blend(Method::Linear, false), models[0].clone(), models[1..].to_vec()),
        ("slerp", slerp.clone(), base.clone(), vec![golden.f32("far")]),
        ("slerp-near", slerp, base.clone(), vec![golden.f32("near")]),
        ("task", blend(Method::Task, false), base.clone(), models.clone()),
        ("ties", blend(Method::Ties, true), base.clone(), models.clone()),
        ("ties-sum", blend(Method::Ties, false), base.clone(), models.clone()),
        ("dare", blend(Method::Dare, false), base.clone(), models.clone()),
        ("dare-ties", blend(Method::DareTies, false), base.clone(), models),
    ];
    for (name, blend, base, others) in cases {
        let wanted = golden.f64(name);
        for rows in [1, 2, 7] {
            for (i, (ours, wanted)) in make(&blend, &base, &others, rows).iter().zip(&wanted).enumerate() {
                assert!(
                    (f64::from(*ours) - wanted).abs() < 2e-6 * wanted.abs().max(0.1),
                    "{name} {rows} {i}: {ours} {wanted}"
                );
            }
        }
    }
}
