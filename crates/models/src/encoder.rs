//! The graph of an encoder: tokens in, a state for each out, every one seeing all others.

use windlass_catalog::{Activation, Architecture, Hyper, Role};
use windlass_ops::library::{Attention, attention, cache_write, elementwise, embedding, layer_norm, linear, linears};
use windlass_ops::{Context, zeros};
use windlass_tensor::{DType, Tensor};

use crate::decoder::missing;
use crate::weights::{Weight, Weights};
use crate::{Error, trace};

/// An encoder of the BERT family (arXiv 1810.04805) that can be run: learned positions, norms after the blocks.
#[derive(Debug)]
pub struct Encoder {
    hyper: Hyper,
    weights: Weights,
    activation: &'static str,
}

impl Encoder {
    /// An encoder of these weights.
    pub fn new(architecture: &'static Architecture, hyper: Hyper, weights: Weights) -> Result<Encoder, Error> {
        let unsupported =
            |message: &str| Error::Unsupported { architecture: architecture.name(), message: message.into() };
        if hyper.causal() {
            return Err(unsupported("it is a decoder, not an encoder"));
        }
        if !architecture.layer_norm() || weights.get(Role::PositionEmbedding, None).is_none() {
            return Err(unsupported("only encoders with learned positions and layer norms have a graph"));
        }
        let activation = match hyper.activation() {
            Activation::Silu => "silu",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::ClampedSwiglu => return Err(unsupported("its activation has no graph in encoders")),
        };
        Ok(Encoder { hyper, weights, activation })
    }

    /// Its hyper-parameters.
    pub fn hyper(&self) -> &Hyper {
        &self.hyper
    }

    /// The last states `[tokens, hidden]` of a text, all of the first segment.
    pub fn forward(&self, cx: &Context, tokens: &[u32]) -> Result<Tensor, Error> {
        let (vocabulary, context) = (self.hyper.vocab(), self.hyper.context());
        let wrong = tokens.iter().enumerate().find(|(_, token)| **token as usize >= vocabulary);
        if let Some((position, token)) = wrong {
            return Err(Error::Token { token: *token, position, vocabulary });
        }
        if tokens.is_empty() || tokens.len() > context {
            return Err(Error::Context { tokens: tokens.len(), context });
        }
        let _span = trace::forward(tokens.len(), 0);
        let mut hidden = self.embed(cx, tokens)?;
        let (heads, dim) = (self.hyper.kv_heads(), self.hyper.head_dim());
        let store = || zeros(DType::F32, [heads, tokens.len(), dim]);
        let (mut keys, mut values) = (store()?, store()?);
        for layer in 0..self.hyper.layers() {
            let _span = trace::layer(layer);
            let attended = self.attend(cx, layer, &hidden, &mut keys, &mut values)?;
            let sum = elementwise(cx, "add", &[&hidden, &attended])?;
            hidden = self.norm(cx, Role::PostAttentionNorm, Some(layer), &sum)?;
            let inner = self.linear(cx, Role::FfnUp, layer, &hidden)?;
            let inner = elementwise(cx, self.activation, &[&inner])?;
            let fed = self.linear(cx, Role::FfnDown, layer, &inner)?;
            let sum = elementwise(cx, "add", &[&hidden, &fed])?;
            hidden = self.norm(cx, Role::PostFfnNorm, Some(layer), &sum)?;
        }
        Ok(hidden)
    }

    fn embed(&self, cx: &Context, tokens: &[u32]) -> Result<Tensor, Error> {
        let look_up = |role, ids: &[u32]| -> Result<Tensor, Error> {
            let table = self.need(role, None)?;
            Ok(embedding(cx, &table.tensor, &Tensor::from_slice(ids, [ids.len()])?)?)
        };
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let words = look_up(Role::TokenEmbedding, tokens)?;
        let places = look_up(Role::PositionEmbedding, &positions)?;
        let mut sum = elementwise(cx, "add", &[&words, &places])?;
        if self.weights.get(Role::TokenTypeEmbedding, None).is_some() {
            let types = look_up(Role::TokenTypeEmbedding, &vec![0; tokens.len()])?;
            sum = elementwise(cx, "add", &[&sum, &types])?;
        }
        self.norm(cx, Role::EmbeddingNorm, None, &sum)
    }

    fn attend(
        &self,
        cx: &Context,
        layer: usize,
        x: &Tensor,
        keys: &mut Tensor,
        values: &mut Tensor,
    ) -> Result<Tensor, Error> {
        let at = Some(layer);
        let [query, key, value] = [Role::AttentionQuery, Role::AttentionKey, Role::AttentionValue];
        let projections = [self.need(query, at)?, self.need(key, at)?, self.need(value, at)?];
        let [q, k, v] = linears(cx, x, projections.map(|weight| &weight.tensor))?;
        let q = self.biased(cx, query, layer, q)?;
        cache_write(cx, &self.biased(cx, key, layer, k)?, keys, 0)?;
        cache_write(cx, &self.biased(cx, value, layer, v)?, values, 0)?;
        let scale = self.hyper.attention_scale();
        let how = Attention { start: 0, scale, causal: false, window: 0, soft_cap: 0.0 };
        let mixed = attention(cx, &q, keys, values, &how)?;
        self.linear(cx, Role::AttentionOutput, layer, &mixed)
    }

    fn linear(&self, cx: &Context, role: Role, layer: usize, x: &Tensor) -> Result<Tensor, Error> {
        let out = linear(cx, x, &self.need(role, Some(layer))?.tensor)?;
        self.biased(cx, role, layer, out)
    }

    fn biased(&self, cx: &Context, role: Role, layer: usize, x: Tensor) -> Result<Tensor, Error> {
        match self.weights.bias(role, Some(layer)) {
            Some(bias) => Ok(elementwise(cx, "add", &[&x, &bias.tensor])?),
            None => Ok(x),
        }
    }

    fn norm(&self, cx: &Context, role: Role, layer: Option<usize>, x: &Tensor) -> Result<Tensor, Error> {
        let weight = self.need(role, layer)?;
        let bias = self.weights.bias(role, layer).ok_or_else(|| missing(role, layer.unwrap_or(0)))?;
        Ok(layer_norm(cx, x, &weight.tensor, &bias.tensor, self.hyper.norm_eps())?)
    }

    fn need(&self, role: Role, layer: Option<usize>) -> Result<&Weight, Error> {
        self.weights.get(role, layer).ok_or_else(|| missing(role, layer.unwrap_or(0)))
    }
}

/// How the states of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one, which is that of a token made for it.
    Cls,
    /// The last one, which has seen all others in a decoder.
    Last,
    /// The largest of each component.
    Max,
}

impl Pooling {
    /// All, by name.
    pub const ALL: [(&'static str, Pooling); 4] =
        [("mean", Pooling::Mean), ("cls", Pooling::Cls), ("last", Pooling::Last), ("max", Pooling::Max)];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, pooling)| *pooling == self).map_or("", |(name, _)| name)
    }

    /// One vector out of `states` `[tokens, hidden]`, row by row. Without tokens: nothing.
    pub fn pool(self, states: &[f32], hidden: usize) -> Vec<f32> {
        let mut rows = states.chunks_exact(hidden.max(1));
        match self {
            Pooling::Cls => rows.next().unwrap_or_default().to_vec(),
            Pooling::Last => rows.next_back().unwrap_or_default().to_vec(),
            Pooling::Mean => {
                let count = rows.len() as f64;
                let column = |i: usize| rows.clone().map(|row| f64::from(row[i])).sum::<f64>() / count;
                (0..if rows.len() > 0 { hidden } else { 0 }).map(|i| column(i) as f32).collect()
            }
            Pooling::Max => {
                let first = rows.next().unwrap_or_default().to_vec();
                rows.fold(first, |max, row| max.iter().zip(row).map(|(a, b)| a.max(*b)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_pooled_by_column() {
        let states = [1.0, 10.0, 3.0, -10.0, 2.0, 3.0];
        assert_eq!(Pooling::Mean.pool(&states, 2), [2.0, 1.0]);
        assert_eq!(Pooling::Cls.pool(&states, 2), [1.0, 10.0]);
        assert_eq!(Pooling::Last.pool(&states, 2), [2.0, 3.0]);
        assert_eq!(Pooling::Max.pool(&states, 2), [3.0, 10.0]);
        assert!(Pooling::ALL.iter().all(|(_, pooling)| pooling.pool(&[], 2).is_empty()));
    }
}
