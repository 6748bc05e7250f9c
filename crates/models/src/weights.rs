//! The weights of a model, found by what they do.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use windlass_catalog::{Architecture, Convention, Hyper, Order, Part, Piece, Role};
use windlass_tensor::{Provenance, Shape, Tensor};

use crate::Error;

/// One tensor of the graph.
#[derive(Clone, Debug)]
pub struct Weight {
    /// `[out, in]` for a linear map, plain or packed.
    pub tensor: Tensor,
    /// The order of its rows.
    pub order: Order,
    /// What was added to its values when they were stored.
    pub shift: f32,
}

/// All weights of a model, or those of its ends and something that brings in its layers.
#[derive(Clone, Debug)]
pub struct Weights {
    by_key: Arc<HashMap<Key, Weight>>,
    layers: Option<Arc<dyn Layers>>,
}

/// Brings in layers of a model that are not in memory all the time.
pub trait Layers: Debug + Send + Sync {
    /// The weights of layer `layer`. It is called for one layer after the other, for every batch again, so that the next
    /// one can be read ahead. The memory may be used anew when they are dropped.
    fn layer(&self, layer: usize) -> Result<Weights, Error>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    role: Role,
    part: Part,
    layer: Option<usize>,
    expert: Option<usize>,
}

impl Weights {
    /// Finds every piece of the architecture's inventory among tensors that are named in `convention`. Pieces that share
    /// a tensor are views of it.
    pub fn find(
        architecture: &'static Architecture,
        hyper: &Hyper,
        convention: Convention,
        tensor: impl Fn(&str) -> Option<Tensor>,
    ) -> Result<Weights, Error> {
        Self::of(&architecture.pieces(hyper)?, convention, tensor)
    }

    /// As [`Weights::find`], for some of the pieces.
    pub fn of<'a>(
        pieces: impl IntoIterator<Item = &'a Piece>,
        convention: Convention,
        tensor: impl Fn(&str) -> Option<Tensor>,
    ) -> Result<Weights, Error> {
        let mut by_key = HashMap::new();
        for piece in pieces {
            let Piece { role, part, layer, expert, .. } = *piece;
            if let Some(weight) = find(piece, convention, &tensor)? {
                by_key.insert(Key { role, part, layer, expert }, weight);
            }
        }
        Ok(Weights { by_key: Arc::new(by_key), layers: None })
    }

    /// These weights, which are of the ends of a model, with something that brings in its layers.
    pub fn with_layers(self, layers: Arc<dyn Layers>) -> Weights {
        Weights { layers: Some(layers), ..self }
    }

    /// The weights of a layer that has to be brought in; `None` where all are there.
    pub(crate) fn layer(&self, layer: usize) -> Result<Option<Weights>, Error> {
        self.layers.as_ref().map(|layers| layers.layer(layer)).transpose()
    }

    /// Weights of which layer `i` is what was layer `order[i]`; the memory is shared.
    pub fn reordered(&self, order: &[usize]) -> Weights {
        let mut by_key = HashMap::new();
        for (key, weight) in self.by_key.iter() {
            let Some(layer) = key.layer else {
                by_key.insert(*key, weight.clone());
                continue;
            };
            let places = (0..).zip(order).filter(|(_, old)| **old == layer);
            by_key.extend(places.map(|(new, _)| (Key { layer: Some(new), ..*key }, weight.clone())));
        }
        Weights { by_key: Arc::new(by_key), layers: None }
    }

    /// The weight of a role at the ends of the model, or in a layer.
    pub fn get(&self, role: Role, layer: Option<usize>) -> Option<&Weight> {
        self.by_key.get(&Key { role, part: Part::Weight, layer, expert: None })
    }

    /// The bias of a role.
    pub fn bias(&self, role: Role, layer: Option<usize>) -> Option<&Weight> {
        self.by_key.get(&Key { role, part: Part::Bias, layer, expert: None })
    }

    /// The weight of a role of one expert.
    pub fn expert(&self, role: Role, layer: usize, expert: usize) -> Option<&Weight> {
        self.by_key.get(&Key { role, part: Part::Weight, layer: Some(layer), expert: Some(expert) })
    }
}

fn find(
    piece: &Piece,
    convention: Convention,
    tensor: impl Fn(&str) -> Option<Tensor>,
) -> Result<Option<Weight>, Error> {
    let places = piece.places(convention);
    for place in &places {
        let Some(whole) = tensor(&place.tensor) else { continue };
        if whole.shape().dims() != place.shape {
            let message =
                format!("the configuration asks for shape {:?}, found {:?}", place.shape, whole.shape().dims());
            return Err(Error::Weight { tensor: place.tensor.clone(), message });
        }
        if matches!(place.order, Order::Columns { .. } | Order::Strided { .. }) {
            let message = "its rows are stored as columns or by turns, which no graph reads".into();
            return Err(Error::Weight { tensor: place.tensor.clone(), message });
        }
        let (rows, whole_rows) = (piece.rows(), windlass_catalog::rows(&place.shape));
        let tensor = if rows == whole_rows {
            whole
        } else if place.shape.len() == 1 {
            whole.narrow(0, place.row, rows)?
        } else {
            whole.rows(place.row..place.row + rows)?
        };
        let tensor = tensor.reshape(Shape::new(piece.shape.clone())?.dims().to_vec())?;
        let tensor = tensor.with_provenance(Provenance::from_file("", &place.tensor));
        return Ok(Some(Weight { tensor, order: place.order, shift: place.shift }));
    }
    match places.first().filter(|_| piece.required) {
        Some(place) => {
            Err(Error::Weight { tensor: place.tensor.clone(), message: "the architecture needs this tensor".into() })
        }
        None => Ok(None),
    }
}
