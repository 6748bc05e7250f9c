//! Which rows of which outputs a tensor of another model or adapter stands for.

use std::collections::BTreeMap;

use windlass_catalog::{Convention, Order, Part, Piece, Place, Role};

use crate::Result;
use crate::convert::{Output, Plain, Segment};

/// Rows of an output, and where another convention stores them.
#[derive(Clone, Debug)]
pub struct Spot {
    /// Index of the output; `None` if the base stores nothing there.
    pub output: Option<usize>,
    /// Where the output has the rows.
    pub to: Place,
    /// Where the other convention has them.
    pub from: Place,
    pub rows: usize,
    pub weight: bool,
    pub embedding: bool,
    /// Whether the base uses one tensor for this and for something else.
    pub tied: bool,
}

impl Spot {
    /// The rows of the output, taken from a tensor that has them where `from` says.
    pub fn segment(&self, entry: usize) -> Segment {
        Segment {
            entry,
            first: self.to.row,
            rows: self.rows,
            source_first: self.from.row,
            source_order: self.from.order,
            order: self.to.order,
            shift: self.to.shift - self.from.shift,
        }
    }

    /// Whether either side stores the rows as columns.
    pub fn is_turned(&self) -> bool {
        [&self.to, &self.from].iter().any(|place| matches!(place.order, Order::Columns { .. }))
    }
}

/// The spots of every tensor of a convention, by the tensor's name.
///
/// A base of unknown architecture has those that are named alike on both sides.
pub fn spots(base: &Plain, from: Convention) -> Result<BTreeMap<String, Vec<Spot>>> {
    let outputs: BTreeMap<&str, usize> = base.outputs.iter().enumerate().map(|(i, o)| (o.name.as_str(), i)).collect();
    let to = base.container.convention();
    let mut spots: BTreeMap<String, Vec<Spot>> = BTreeMap::new();
    let Ok(identity) = &base.model.identity else {
        if (from == Convention::Gguf) == (to == Convention::Gguf) {
            spots.extend(
                base.outputs.iter().enumerate().map(|(i, output)| (output.name.clone(), vec![whole(i, output)])),
            );
        }
        return Ok(spots);
    };
    for piece in identity.architecture.pieces(&identity.hyper)? {
        let found = |place: &Place| outputs.get(place.tensor.as_str()).copied();
        let target = piece.places(to).into_iter().find_map(|place| {
            let output = found(&place).filter(|i| base.outputs[*i].shape == place.shape)?;
            Some((output, place))
        });
        let tied = piece.tied_to.is_some() || (piece.role == Role::TokenEmbedding && identity.hyper.tied());
        for from in piece.places(from) {
            let spot = spot(&piece, target.clone(), from, tied);
            spots.entry(spot.from.tensor.clone()).or_default().push(spot);
        }
    }
    Ok(spots)
}

fn spot(piece: &Piece, target: Option<(usize, Place)>, from: Place, tied: bool) -> Spot {
    let (output, to) = match target {
        Some((output, place)) => (Some(output), place),
        None => (None, from.clone()),
    };
    let weight = piece.part == Part::Weight && piece.shape.len() == 2;
    Spot { output, to, from, rows: piece.rows(), weight, embedding: piece.role == Role::TokenEmbedding, tied }
}

/// An output under its own name.
fn whole(index: usize, output: &Output) -> Spot {
    let (tensor, shape) = (output.name.clone(), output.shape.clone());
    let rows = windlass_catalog::rows(&shape);
    let weight = shape.len() == 2;
    let embedding = ["embed_tokens.weight", "token_embd.weight", "wte.weight"].iter().any(|e| tensor.ends_with(e));
    let place = Place { tensor, shape, row: 0, order: Order::Plain, shift: 0.0 };
    Spot { output: Some(index), to: place.clone(), from: place, rows, weight, embedding, tied: false }
}
