//! Mixtures of experts: each token visits a few feed-forward blocks.

use windlass_catalog::{Hyper, Role};
use windlass_ops::library::{elementwise, linear, linears, softmax};
use windlass_ops::{Context, zeros};
use windlass_tensor::{DType, Tensor, TypedTensor};

use crate::weights::{Weight, Weights};
use crate::{Error, decoder::missing};

/// The weighted sum of the experts that each row of `x` `[tokens, hidden]` visits.
pub fn experts(
    cx: &Context,
    x: &Tensor,
    weights: &Weights,
    hyper: &Hyper,
    layer: usize,
    gated: &str,
) -> Result<Tensor, Error> {
    let router = weights.get(Role::Router, Some(layer)).ok_or_else(|| missing(Role::Router, layer))?;
    let scores = softmax(cx, &linear(cx, x, &router.tensor)?)?;
    let scores = TypedTensor::<f32>::new(scores)?.to_vec()?;
    let mut visits: Vec<Vec<(usize, f32)>> = vec![Vec::new(); hyper.experts()];
    for (token, scores) in scores.chunks_exact(hyper.experts()).enumerate() {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        order.truncate(hyper.experts_used());
        let sum: f32 = if hyper.experts_normalized() { order.iter().map(|e| scores[*e]).sum() } else { 1.0 };
        order.into_iter().for_each(|expert| visits[expert].push((token, scores[expert] / sum)));
    }
    let (tokens, hidden) = (x.shape().rows(), x.shape().columns());
    let mut out = vec![0.0f32; tokens * hidden];
    for (expert, visits) in visits.iter().enumerate().filter(|(_, visits)| !visits.is_empty()) {
        let weight = |role| -> Result<&Weight, Error> {
            weights.expert(role, layer, expert).ok_or_else(|| missing(role, layer))
        };
        let input = gather(x, visits)?;
        let (gate, up) = (weight(Role::ExpertGate)?, weight(Role::ExpertUp)?);
        let [gate, up] = linears(cx, &input, [&gate.tensor, &up.tensor])?;
        let inner = elementwise(cx, gated, &[&gate, &up])?;
        let values = TypedTensor::<f32>::new(linear(cx, &inner, &weight(Role::ExpertDown)?.tensor)?)?.to_vec()?;
        for ((token, share), row) in visits.iter().zip(values.chunks_exact(hidden)) {
            let target = &mut out[token * hidden..][..hidden];
            target.iter_mut().zip(row).for_each(|(t, v)| *t += share * v);
        }
    }
    Ok(Tensor::from_slice(&out, [tokens, hidden])?)
}

fn gather(x: &Tensor, visits: &[(usize, f32)]) -> Result<Tensor, Error> {
    if visits.len() == x.shape().rows() {
        return Ok(x.clone());
    }
    let mut rows = zeros(DType::F32, [visits.len(), x.shape().columns()])?;
    let width = x.shape().columns() * 4;
    let target = rows.bytes_mut().unwrap_or_default();
    for ((token, _), out) in visits.iter().zip(target.chunks_exact_mut(width)) {
        x.narrow(0, *token, 1)?.read(out)?;
    }
    Ok(rows)
}
