//! Weights that are trained themselves, all or some.

use std::collections::HashMap;

use windlass_catalog::{Architecture, Convention, Hyper, Part, Piece, Role};
use windlass_models::{Decoder, Trainable, Weight};
use windlass_nn::{Group, Parameters, matches};
use windlass_ops::{Context, library};
use windlass_tensor::{DType, Tensor};

use crate::Error;

/// A new layer and what it is a copy of (arXiv 2401.02415): `order[i]` is the old layer that layer `i` is, and `new[i]` says
/// whether it is one of the new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expansion {
    pub order: Vec<usize>,
    pub new: Vec<bool>,
}

impl Expansion {
    /// `count` new layers among `layers`, each after a group of as many old ones as the others, or one more.
    pub fn even(layers: usize, count: usize) -> Result<Self, Error> {
        if count == 0 || count > layers {
            let message = format!("{count} new layers do not go among {layers}: from 1 to {layers} do");
            return Err(Error::Setting(message));
        }
        let (mut order, mut new) = (Vec::new(), Vec::new());
        for layer in 0..layers {
            order.push(layer);
            new.push(false);
            // The last of each of `count` groups.
            if (layer + 1) * count / layers > layer * count / layers {
                order.push(layer);
                new.push(true);
            }
        }
        Ok(Self { order, new })
    }
}

/// Makes parameters of the weights whose names (as transformers has them) match one of `patterns`; `*` stands for any text.
pub fn whole(cx: &Context, decoder: Decoder, patterns: &[String]) -> Result<(Trainable, Parameters), Error> {
    let mut missed: Vec<&String> = patterns.iter().collect();
    let found = parameters(cx, &decoder, |name, _| {
        missed.retain(|pattern| !matches(pattern, name));
        patterns.iter().any(|pattern| matches(pattern, name))
    })?;
    if let Some(pattern) = missed.first() {
        let first = "model.layers.0.self_attn.q_proj.weight";
        return Err(Error::Setting(format!("no weight matches {pattern:?}; they are called like {first:?}")));
    }
    finish(decoder, found)
}

/// Makes parameters of the weights of the new layers of `expansion`, which change nothing at first: what their attention and
/// their feed-forward part put out is multiplied with zeros.
pub fn expanded(
    cx: &Context,
    decoder: &Decoder,
    hyper: Hyper,
    expansion: &Expansion,
) -> Result<(Trainable, Parameters), Error> {
    let decoder = decoder.with_layers(hyper, &expansion.order)?;
    let is_new = |layer: Option<usize>| layer.is_some_and(|layer| expansion.new.get(layer) == Some(&true));
    let mut found = parameters(cx, &decoder, |_, piece| is_new(piece.layer))?;
    for (key, index) in &found.1 {
        if !matches!(key.0, Role::AttentionOutput | Role::FfnDown) {
            continue;
        }
        if let Some(parameter) = found.0.iter_mut().nth(*index) {
            parameter.tensor = windlass_ops::zeros(DType::F32, parameter.tensor.shape().to_vec())?;
        }
    }
    finish(decoder, found)
}

type Found = (Parameters, HashMap<(Role, Part, Option<usize>), usize>);

fn finish(decoder: Decoder, (parameters, places): Found) -> Result<(Trainable, Parameters), Error> {
    if parameters.is_empty() {
        return Err(Error::Setting("no weights are to be trained".into()));
    }
    Ok((Trainable::new(decoder, HashMap::new(), places), parameters))
}

fn parameters(cx: &Context, decoder: &Decoder, mut wanted: impl FnMut(&str, &Piece) -> bool) -> Result<Found, Error> {
    let (mut parameters, mut places) = (Parameters::new(), HashMap::new());
    for (piece, name) in named_pieces(decoder.architecture(), decoder.hyper())? {
        let Some(weight) = weight(decoder, &piece) else { continue };
        if !wanted(&name, &piece) {
            continue;
        }
        let index = parameters.add(name.clone(), floats(cx, &weight.tensor)?)?;
        if matches!(piece.role, Role::TokenEmbedding | Role::Output) {
            parameters.regroup(&name, &Group { plain: true, ..Group::default() });
        }
        places.insert((piece.role, piece.part, piece.layer), index);
    }
    Ok((parameters, places))
}

/// Pieces of a decoder with the names of transformers; where several are one tensor there, with the rows that they are.
fn named_pieces(architecture: &'static Architecture, hyper: &Hyper) -> Result<Vec<(Piece, String)>, Error> {
    let named = |piece: Piece| {
        let place = piece.places(Convention::Hf).into_iter().next()?;
        let rows = piece.rows();
        let part = rows != windlass_catalog::rows(&place.shape);
        let name = match part {
            true => format!("{}[{}..{}]", place.tensor, place.row, place.row + rows),
            false => place.tensor,
        };
        Some((piece, name))
    };
    let pieces = architecture.pieces(hyper).map_err(windlass_models::Error::from)?;
    Ok(pieces.into_iter().filter(|piece| piece.expert.is_none()).filter_map(named).collect())
}

/// The weight of a piece, if the decoder has it.
pub fn weight<'d>(decoder: &'d Decoder, piece: &Piece) -> Option<&'d Weight> {
    match piece.part {
        Part::Bias => decoder.weights().bias(piece.role, piece.layer),
        _ => decoder.weights().get(piece.role, piece.layer),
    }
}

/// The values of a weight, decoded, in memory of their own.
fn floats(cx: &Context, weight: &Tensor) -> Result<Tensor, Error> {
    let floats = library::cast(cx, weight, DType::F32)?;
    let mut copy = windlass_ops::zeros(DType::F32, floats.shape().to_vec())?;
    if let Some(bytes) = copy.bytes_mut() {
        floats.read(bytes)?;
    }
    Ok(copy)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn new_layers_are_spread_evenly() {
        let order = |layers, count| Expansion::even(layers, count).unwrap().order;
        assert_eq!(order(4, 2), [0, 1, 1, 2, 3, 3]);
        assert_eq!(order(3, 3), [0, 0, 1, 1, 2, 2]);
        assert_eq!(order(5, 2), [0, 1, 2, 2, 3, 4, 4]);
        assert_eq!(Expansion::even(2, 1).unwrap().new, [false, false, true]);
        assert!(Expansion::even(2, 3).is_err() && Expansion::even(2, 0).is_err());
    }
}
