//! A decoder that is trained: the same graph without a cache, over sequences that stand one after the other.

use std::collections::HashMap;
use std::sync::Arc;

use windlass_catalog::{Part, Role};
use windlass_nn::{Tape, Var};
use windlass_ops::{Attributes, library};
use windlass_tensor::Tensor;

use crate::decoder::{Decoder, missing};
use crate::lora::{Lora, Loras, Randomness, changed, is_plain, plainly_changed};
use crate::loss::linear_cross_entropy;
use crate::{Error, Weights, trace};

/// Sequences of tokens that are run together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// All tokens, one sequence after the other; I64 `[tokens]`.
    pub tokens: Tensor,
    /// Where each stands in its sequence; I64 `[tokens]`.
    pub positions: Tensor,
    /// Where sequences begin and the last one ends; I64.
    pub bounds: Tensor,
    /// What comes after each token, or -100 where that is not to be learned; I64 `[tokens]`.
    pub targets: Tensor,
}

/// What of a decoder is trained.
pub struct Trainable {
    decoder: Decoder,
    loras: Loras,
    /// Weights that are trained themselves: their places among the parameters.
    whole: HashMap<(Role, Part, Option<usize>), usize>,
}

/// What one pass works with.
#[derive(Clone)]
pub struct Pass {
    pub batch: Arc<Batch>,
    /// The parameters of this step.
    pub parameters: Arc<Vec<Var>>,
    pub random: Randomness,
    /// Whether layers are computed again on the way back instead of kept.
    pub checkpoint: bool,
}

impl Trainable {
    /// A decoder with changes and weights that are trained.
    pub fn new(decoder: Decoder, loras: Loras, whole: HashMap<(Role, Part, Option<usize>), usize>) -> Self {
        Self { decoder, loras, whole }
    }

    /// The decoder without its changes.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The place among the parameters of a weight that is trained itself.
    pub fn place(&self, role: Role, part: Part, layer: Option<usize>) -> Option<usize> {
        self.whole.get(&(role, part, layer)).copied()
    }

    /// The sum of the losses of all targets.
    pub fn loss(self: &Arc<Self>, tape: &Tape, pass: &Pass) -> Result<Var, Error> {
        let hidden = self.hidden(tape, pass)?;
        let output = match self.decoder.weights().get(Role::Output, None) {
            Some(_) => self.weight(pass, Role::Output, None)?,
            None => self.weight(pass, Role::TokenEmbedding, None)?,
        };
        linear_cross_entropy(tape, &hidden, &output, &pass.batch.targets, self.decoder.hyper().output_soft_cap())
    }

    /// The hidden states that logits are made of, `[tokens, hidden]`.
    pub fn hidden(self: &Arc<Self>, tape: &Tape, pass: &Pass) -> Result<Var, Error> {
        let table = self.weight(pass, Role::TokenEmbedding, None)?;
        let tokens = Var::constant(pass.batch.tokens.clone());
        let mut hidden = tape.one(&library::EMBEDDING, &[&table, &tokens], &Attributes::NONE)?;
        let scale = self.decoder.embedding_scale();
        if scale != 1.0 {
            hidden = tape.scale(&hidden, scale.into())?;
        }
        for layer in 0..self.decoder.hyper().layers() {
            hidden = if pass.checkpoint {
                let (this, pass) = (self.clone(), pass.clone());
                let segment = move |tape: &Tape, inputs: &[Var]| -> Result<Vec<Var>, windlass_nn::Error> {
                    let [hidden] = inputs else { return Ok(Vec::new()) };
                    this.layer(tape, &pass, layer, hidden).map(|var| vec![var]).map_err(Error::in_graph)
                };
                let outputs = tape.checkpoint(&[&hidden], segment)?;
                outputs.into_iter().next().ok_or_else(|| missing(Role::AttentionNorm, layer))?
            } else {
                self.layer(tape, pass, layer, &hidden)?
            };
        }
        Ok(self.norm(tape, pass, Role::OutputNorm, None, &hidden)?.unwrap_or(hidden))
    }

    fn layer(&self, tape: &Tape, pass: &Pass, layer: usize, hidden: &Var) -> Result<Var, Error> {
        let _span = trace::layer(layer);
        let at = Some(layer);
        let normed = self.norm(tape, pass, Role::AttentionNorm, at, hidden)?;
        let attended = self.attend(tape, pass, layer, normed.as_ref().unwrap_or(hidden))?;
        let attended = self.norm(tape, pass, Role::PostAttentionNorm, at, &attended)?.unwrap_or(attended);
        let hidden = tape.elementwise("add", &[hidden, &attended])?;
        let normed = self.norm(tape, pass, Role::FfnNorm, at, &hidden)?;
        let fed = self.feed_forward(tape, pass, layer, normed.as_ref().unwrap_or(&hidden))?;
        let fed = self.norm(tape, pass, Role::PostFfnNorm, at, &fed)?.unwrap_or(fed);
        Ok(tape.elementwise("add", &[&hidden, &fed])?)
    }

    fn attend(&self, tape: &Tape, pass: &Pass, layer: usize, x: &Var) -> Result<Var, Error> {
        let (query, key, value) = (Role::AttentionQuery, Role::AttentionKey, Role::AttentionValue);
        let [q, k, v] = self.linears(tape, pass, [query, key, value], layer, x)?;
        let q = self.head_norm(tape, pass, Role::AttentionQueryNorm, layer, q)?;
        let k = self.head_norm(tape, pass, Role::AttentionKeyNorm, layer, k)?;
        let (q, k) = (self.rope(tape, pass, layer, &q)?, self.rope(tape, pass, layer, &k)?);
        let hyper = self.decoder.hyper();
        let window = hyper.sliding_window().filter(|_| hyper.is_sliding(layer)).unwrap_or(0);
        let how = Attributes::new()
            .int("head_dim", hyper.head_dim())
            .float("scale", hyper.attention_scale().into())
            .int("window", window)
            .float("soft_cap", hyper.attention_soft_cap().unwrap_or(0.0).into());
        let bounds = Var::constant(pass.batch.bounds.clone());
        let mixed = tape.one(&library::SEQUENCE_ATTENTION, &[&q, &k, &v, &bounds], &how)?;
        let [out] = self.linears(tape, pass, [Role::AttentionOutput], layer, &mixed)?;
        Ok(out)
    }

    fn feed_forward(&self, tape: &Tape, pass: &Pass, layer: usize, x: &Var) -> Result<Var, Error> {
        if self.decoder.weights().get(Role::Router, Some(layer)).is_some() {
            let message = "layers of experts cannot be trained yet".into();
            return Err(Error::Unsupported { architecture: self.decoder.architecture().name(), message });
        }
        let [gate, up] = self.linears(tape, pass, [Role::FfnGate, Role::FfnUp], layer, x)?;
        let inner = tape.elementwise(self.decoder.gated(), &[&gate, &up])?;
        let [out] = self.linears(tape, pass, [Role::FfnDown], layer, &inner)?;
        Ok(out)
    }

    /// `x` times several weights, with their changes and biases.
    fn linears<const N: usize>(
        &self,
        tape: &Tape,
        pass: &Pass,
        roles: [Role; N],
        layer: usize,
        x: &Var,
    ) -> Result<[Var; N], Error> {
        let mut weights = Vec::with_capacity(N);
        for role in roles {
            weights.push(self.weight(pass, role, Some(layer))?);
        }
        let mut outputs: [Option<Var>; N] = std::array::from_fn(|_| None);
        let plain = self.plain(pass, &roles, layer);
        if !plain.is_empty() {
            let maps: Vec<(&Var, &Lora)> = plain.iter().map(|(i, lora)| (&weights[*i], *lora)).collect();
            let found = plainly_changed(tape, x, &maps, &pass.parameters)?;
            plain.iter().zip(found).for_each(|((i, _), output)| outputs[*i] = Some(output));
        }
        let rest: Vec<usize> = (0..N).filter(|i| outputs[*i].is_none()).collect();
        if !rest.is_empty() {
            let inputs: Vec<&Var> = [x].into_iter().chain(rest.iter().map(|i| &weights[*i])).collect();
            let found = tape.call(&library::LINEAR, &inputs, &Attributes::new().bool("exact", true))?;
            for (i, output) in rest.into_iter().zip(found) {
                outputs[i] = Some(match self.loras.get(&(roles[i], layer)) {
                    Some(loras) => {
                        changed(tape, [x, &output], weights[i].tensor(), loras, &pass.parameters, &pass.random)?
                    }
                    None => output,
                });
            }
        }
        let mut outputs: Vec<Var> = outputs.into_iter().flatten().collect();
        for (role, output) in roles.into_iter().zip(&mut outputs) {
            if self.decoder.weights().bias(role, Some(layer)).is_some() {
                let bias = self.part(pass, role, Part::Bias, Some(layer))?;
                *output = tape.elementwise("add", &[output, &bias])?;
            }
        }
        outputs.try_into().map_err(|_| missing(roles[0], layer))
    }

    /// Which maps have one plain change, of the same scale as the first of them.
    fn plain(&self, pass: &Pass, roles: &[Role], layer: usize) -> Vec<(usize, &Lora)> {
        let mut chosen: Vec<(usize, &Lora)> = Vec::new();
        for (i, role) in roles.iter().enumerate() {
            if let Some([lora]) = self.loras.get(&(*role, layer)).map(|loras| &loras[..])
                && is_plain(lora, &pass.random)
                && chosen.first().is_none_or(|(_, first)| first.scale == lora.scale)
            {
                chosen.push((i, lora));
            }
        }
        chosen
    }

    fn rope(&self, tape: &Tape, pass: &Pass, layer: usize, x: &Var) -> Result<Var, Error> {
        let how = self.decoder.rope(self.decoder.hyper().is_sliding(layer));
        let attributes = Attributes::new()
            .int("head_dim", how.head_dim)
            .float("factor", how.factor.into())
            .bool("interleaved", how.interleaved);
        let (frequencies, positions) =
            (Var::constant(how.frequencies.clone()), Var::constant(pass.batch.positions.clone()));
        Ok(tape.one(&library::ROPE, &[x, &frequencies, &positions], &attributes)?)
    }

    /// The norm of a role over the last dimension, if the model has it there.
    fn norm(&self, tape: &Tape, pass: &Pass, role: Role, layer: Option<usize>, x: &Var) -> Result<Option<Var>, Error> {
        let Some(known) = self.decoder.weights().get(role, layer) else { return Ok(None) };
        let attributes = self.decoder.norm_attributes(known);
        let weight = self.weight(pass, role, layer)?;
        Ok(Some(tape.one(&library::RMS_NORM, &[x, &weight], &attributes)?))
    }

    fn head_norm(&self, tape: &Tape, pass: &Pass, role: Role, layer: usize, x: Var) -> Result<Var, Error> {
        if self.decoder.weights().get(role, Some(layer)).is_none() {
            return Ok(x);
        }
        let (shape, dim) = (x.shape().to_vec(), self.decoder.hyper().head_dim());
        let heads = tape.reshape(&x, [x.tensor().shape().values() / dim, dim])?;
        match self.norm(tape, pass, role, Some(layer), &heads)? {
            Some(normed) => Ok(tape.reshape(&normed, shape)?),
            None => Ok(x),
        }
    }

    fn weight(&self, pass: &Pass, role: Role, layer: Option<usize>) -> Result<Var, Error> {
        self.part(pass, role, Part::Weight, layer)
    }

    fn part(&self, pass: &Pass, role: Role, part: Part, layer: Option<usize>) -> Result<Var, Error> {
        if let Some(index) = self.whole.get(&(role, part, layer)) {
            return pass.parameters.get(*index).cloned().ok_or(Error::Parameter { index: *index });
        }
        let weights: &Weights = self.decoder.weights();
        let found = if part == Part::Bias { weights.bias(role, layer) } else { weights.get(role, layer) };
        let found = found.ok_or_else(|| missing(role, layer.unwrap_or(0)))?;
        Ok(Var::constant(found.tensor.clone()))
    }
}
