//! The graph of a decoder: tokens in, logits out.

use windlass_catalog::{Activation, Architecture, Hyper, Order, Part, Role};
use windlass_ops::library::{
    Attention, Rope, attention, cache_write, elementwise, elementwise_with, embedding, linear, linears, rope,
};
use windlass_ops::{Attributes, Context, library};
use windlass_tensor::{Element, Tensor};

use crate::experts::experts;
use crate::weights::{Weight, Weights};
use crate::{Cache, Error, trace};

/// A decoder that can be run.
#[derive(Clone, Debug)]
pub struct Decoder {
    architecture: &'static Architecture,
    hyper: Hyper,
    weights: Weights,
    /// For layers that see the whole context, and for those that see a window.
    ropes: [Rope; 2],
    gated: &'static str,
}

/// Which logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Of every token.
    All,
    /// Of the last one: what comes next.
    Last,
    /// None: the tokens are only to be remembered.
    None,
}

impl Decoder {
    /// A decoder of these weights, for texts of up to `context` tokens.
    pub fn new(
        architecture: &'static Architecture,
        hyper: Hyper,
        weights: Weights,
        context: usize,
    ) -> Result<Decoder, Error> {
        if !hyper.causal() {
            let message = "it is an encoder, which gives no next token".into();
            return Err(Error::Unsupported { architecture: architecture.name(), message });
        }
        if architecture.has(Role::AttentionSinks, Part::Weight) {
            let message = "it has attention sinks and experts with biases, for which there is no graph yet".into();
            return Err(Error::Unsupported { architecture: architecture.name(), message });
        }
        let first = weights.layer(0)?;
        let query = first.as_ref().unwrap_or(&weights).get(Role::AttentionQuery, Some(0));
        let interleaved = matches!(query.map(|w| w.order), Some(Order::RotaryInterleaved { .. }));
        let how = |sliding: bool| -> Result<Rope, Error> {
            let frequencies = hyper.rope_frequencies(sliding, context);
            Ok(Rope {
                head_dim: hyper.head_dim(),
                frequencies: Tensor::from_slice(&frequencies, [frequencies.len()])?,
                factor: if sliding { 1.0 } else { hyper.rope_attention_factor() },
                interleaved,
            })
        };
        let gated = match hyper.activation() {
            Activation::Silu | Activation::ClampedSwiglu => "swiglu",
            Activation::Gelu => "geglu",
            Activation::GeluTanh => "geglu_tanh",
        };
        let ropes = [how(false)?, how(true)?];
        Ok(Decoder { architecture, hyper, weights, ropes, gated })
    }

    /// Its hyper-parameters.
    pub fn hyper(&self) -> &Hyper {
        &self.hyper
    }

    /// What it is.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// The weight of a linear map of a layer.
    pub fn weight(&self, role: Role, layer: usize) -> Result<&Tensor, Error> {
        self.need(role, Some(layer)).map(|weight| &weight.tensor)
    }

    /// All weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// A decoder of which layer `i` is this one's layer `order[i]`; `hyper` says the same number of layers.
    pub fn with_layers(&self, hyper: Hyper, order: &[usize]) -> Result<Decoder, Error> {
        let known = self.hyper.layers();
        if hyper.layers() != order.len() || order.iter().any(|layer| *layer >= known) {
            let message = format!("{} layers cannot be made of {order:?} of {known}", hyper.layers());
            return Err(Error::Unsupported { architecture: self.architecture.name(), message });
        }
        Ok(Decoder { hyper, weights: self.weights.reordered(order), ..self.clone() })
    }

    /// The op that joins both halves of a gated block.
    pub(crate) fn gated(&self) -> &'static str {
        self.gated
    }

    /// How heads turn in layers that see a window, or all.
    pub(crate) fn rope(&self, sliding: bool) -> &Rope {
        &self.ropes[usize::from(sliding)]
    }

    pub(crate) fn embedding_scale(&self) -> f32 {
        self.architecture.embedding_scale(&self.hyper)
    }

    /// How a norm with this weight is computed.
    pub(crate) fn norm_attributes(&self, weight: &Weight) -> Attributes {
        let offset = self.architecture.norm_offset() - weight.shift;
        Attributes::new().float("eps", self.hyper.norm_eps().into()).float("offset", offset.into())
    }

    /// An empty cache for `context` tokens, of floats or packed.
    pub fn cache(&self, context: usize, element: impl Into<Element>) -> Result<Cache, Error> {
        let h = &self.hyper;
        Cache::new(h.layers(), h.kv_heads(), context, h.head_dim(), &element.into())
    }

    /// Bytes of a cache for `context` tokens.
    pub fn cache_bytes(&self, context: usize, element: &Element) -> Result<u64, Error> {
        let h = &self.hyper;
        Cache::size(h.layers(), h.kv_heads(), context, h.head_dim(), element)
    }

    /// Runs `tokens`, which follow those in the cache, and remembers them there. Gives logits `[tokens, vocabulary]` of
    /// those that are wanted.
    pub fn forward(
        &self,
        cx: &Context,
        tokens: &[u32],
        cache: &mut Cache,
        wanted: Wanted,
    ) -> Result<Option<Tensor>, Error> {
        let hidden = self.blocks(cx, tokens, cache)?;
        let hidden = match wanted {
            Wanted::All => hidden,
            Wanted::Last => hidden.narrow(0, tokens.len() - 1, 1)?,
            Wanted::None => return Ok(None),
        };
        let hidden = self.norm(cx, Role::OutputNorm, None, &hidden)?.unwrap_or(hidden);
        self.logits(cx, &hidden).map(Some)
    }

    /// As [`Decoder::forward`], but gives the last states `[tokens, hidden]`, of which logits would be made.
    pub fn states(&self, cx: &Context, tokens: &[u32], cache: &mut Cache) -> Result<Tensor, Error> {
        let hidden = self.blocks(cx, tokens, cache)?;
        Ok(self.norm(cx, Role::OutputNorm, None, &hidden)?.unwrap_or(hidden))
    }

    /// The states after the last block.
    fn blocks(&self, cx: &Context, tokens: &[u32], cache: &mut Cache) -> Result<Tensor, Error> {
        self.check(tokens, cache)?;
        let _span = trace::forward(tokens.len(), cache.length);
        let mut hidden = self.embed(cx, tokens)?;
        for layer in 0..self.hyper.layers() {
            let _span = trace::layer(layer);
            hidden = match self.weights.layer(layer)? {
                None => self.layer(cx, layer, hidden, cache)?,
                Some(weights) => Decoder { weights, ..self.clone() }.layer(cx, layer, hidden, cache)?,
            };
        }
        cache.length += tokens.len();
        Ok(hidden)
    }

    fn check(&self, tokens: &[u32], cache: &Cache) -> Result<(), Error> {
        let vocabulary = self.hyper.vocab();
        let wrong = tokens.iter().position(|token| *token as usize >= vocabulary);
        if let Some((position, token)) = wrong.and_then(|at| Some((at, *tokens.get(at)?))) {
            return Err(Error::Token { token, position: cache.length + position, vocabulary });
        }
        let (total, context) = (cache.length + tokens.len(), cache.context());
        if tokens.is_empty() || total > context {
            return Err(Error::Context { tokens: total, context });
        }
        Ok(())
    }

    fn embed(&self, cx: &Context, tokens: &[u32]) -> Result<Tensor, Error> {
        let table = self.need(Role::TokenEmbedding, None)?;
        let ids = Tensor::from_slice(tokens, [tokens.len()])?;
        let hidden = embedding(cx, &table.tensor, &ids)?;
        match self.architecture.embedding_scale(&self.hyper) {
            1.0 => Ok(hidden),
            by => scaled(cx, "scale", "by", &hidden, by),
        }
    }

    fn layer(&self, cx: &Context, layer: usize, hidden: Tensor, cache: &mut Cache) -> Result<Tensor, Error> {
        let at = Some(layer);
        let normed = self.norm(cx, Role::AttentionNorm, at, &hidden)?;
        let attended = self.attend(cx, layer, normed.as_ref().unwrap_or(&hidden), cache)?;
        let attended = self.norm(cx, Role::PostAttentionNorm, at, &attended)?.unwrap_or(attended);
        let hidden = elementwise(cx, "add", &[&hidden, &attended])?;
        let normed = self.norm(cx, Role::FfnNorm, at, &hidden)?;
        let fed = self.feed_forward(cx, layer, normed.as_ref().unwrap_or(&hidden))?;
        let fed = self.norm(cx, Role::PostFfnNorm, at, &fed)?.unwrap_or(fed);
        Ok(elementwise(cx, "add", &[&hidden, &fed])?)
    }

    fn attend(&self, cx: &Context, layer: usize, x: &Tensor, cache: &mut Cache) -> Result<Tensor, Error> {
        let at = Some(layer);
        let [query, key, value] = [Role::AttentionQuery, Role::AttentionKey, Role::AttentionValue];
        let projections = [self.need(query, at)?, self.need(key, at)?, self.need(value, at)?];
        let [q, k, v] = linears(cx, x, projections.map(|weight| &weight.tensor))?;
        let q = self.biased(cx, query, at, q)?;
        let k = self.biased(cx, key, at, k)?;
        let v = self.biased(cx, value, at, v)?;
        let q = self.head_norm(cx, Role::AttentionQueryNorm, layer, q)?;
        let k = self.head_norm(cx, Role::AttentionKeyNorm, layer, k)?;
        let sliding = self.hyper.is_sliding(layer);
        let how = &self.ropes[usize::from(sliding)];
        let start = cache.length;
        let (q, k) = (rope(cx, &q, how, start)?, rope(cx, &k, how, start)?);
        let (keys, values) = &mut cache.layers[layer];
        cache_write(cx, &k, keys, start)?;
        cache_write(cx, &v, values, start)?;
        let how = Attention {
            start,
            scale: self.hyper.attention_scale(),
            causal: true,
            window: self.hyper.sliding_window().filter(|_| sliding).unwrap_or(0),
            soft_cap: self.hyper.attention_soft_cap().unwrap_or(0.0),
        };
        let mixed = attention(cx, &q, keys, values, &how)?;
        let out = linear(cx, &mixed, &self.need(Role::AttentionOutput, at)?.tensor)?;
        self.biased(cx, Role::AttentionOutput, at, out)
    }

    fn feed_forward(&self, cx: &Context, layer: usize, x: &Tensor) -> Result<Tensor, Error> {
        let at = Some(layer);
        if self.weights.get(Role::Router, at).is_some() {
            return experts(cx, x, &self.weights, &self.hyper, layer, self.gated);
        }
        let (gate, up) = (self.need(Role::FfnGate, at)?, self.need(Role::FfnUp, at)?);
        let [gate, up] = linears(cx, x, [&gate.tensor, &up.tensor])?;
        let gate = self.biased(cx, Role::FfnGate, at, gate)?;
        let up = self.biased(cx, Role::FfnUp, at, up)?;
        let inner = elementwise(cx, self.gated, &[&gate, &up])?;
        let out = linear(cx, &inner, &self.need(Role::FfnDown, at)?.tensor)?;
        self.biased(cx, Role::FfnDown, at, out)
    }

    fn logits(&self, cx: &Context, hidden: &Tensor) -> Result<Tensor, Error> {
        let output = self.weights.get(Role::Output, None).map_or_else(|| self.need(Role::TokenEmbedding, None), Ok)?;
        let logits = linear(cx, hidden, &output.tensor)?;
        match self.hyper.output_soft_cap() {
            Some(cap) => scaled(cx, "soft_cap", "cap", &logits, cap),
            None => Ok(logits),
        }
    }

    /// The norm of a role over the last dimension, if the model has it there.
    fn norm(&self, cx: &Context, role: Role, layer: Option<usize>, x: &Tensor) -> Result<Option<Tensor>, Error> {
        let Some(weight) = self.weights.get(role, layer) else { return Ok(None) };
        let attributes = self.norm_attributes(weight);
        Ok(Some(cx.one(&library::RMS_NORM, &[x, &weight.tensor], &attributes)?))
    }

    /// The norm of every head of `x` `[tokens, heads * head_dim]`, if the model has one.
    fn head_norm(&self, cx: &Context, role: Role, layer: usize, x: Tensor) -> Result<Tensor, Error> {
        if self.weights.get(role, Some(layer)).is_none() {
            return Ok(x);
        }
        let (shape, dim) = (x.shape().to_vec(), self.hyper.head_dim());
        let heads = x.reshape([x.shape().values() / dim, dim])?;
        match self.norm(cx, role, Some(layer), &heads)? {
            Some(normed) => Ok(normed.reshape(shape)?),
            None => Ok(x),
        }
    }

    fn biased(&self, cx: &Context, role: Role, layer: Option<usize>, x: Tensor) -> Result<Tensor, Error> {
        match self.weights.bias(role, layer) {
            Some(bias) => Ok(elementwise(cx, "add", &[&x, &bias.tensor])?),
            None => Ok(x),
        }
    }

    fn need(&self, role: Role, layer: Option<usize>) -> Result<&Weight, Error> {
        self.weights.get(role, layer).ok_or_else(|| missing(role, layer.unwrap_or(0)))
    }
}

/// An elementwise op with one parameter.
fn scaled(cx: &Context, name: &str, parameter: &'static str, x: &Tensor, value: f32) -> Result<Tensor, Error> {
    Ok(elementwise_with(cx, name, &[x], &Attributes::new().float(parameter, value.into()))?)
}

pub(crate) fn missing(role: Role, layer: usize) -> Error {
    Error::Weight { tensor: format!("{role:?} of layer {layer}"), message: "the architecture needs this tensor".into() }
}
