//! Where a model can be changed: its linear maps, under the names that adapters use for them.

use std::ops::Range;

use windlass_catalog::{Architecture, Convention, Hyper, Order, Part, Role};

use crate::Error;

/// One linear map, or one of several that a model stores as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    pub role: Role,
    pub layer: usize,
    /// The module as transformers and PEFT call it: `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// The rows of the module that it is.
    pub rows: Range<usize>,
    /// Rows of the module.
    pub outputs: usize,
    pub inputs: usize,
    /// The order of its rows in the weights of a convention.
    pub order: Order,
}

/// All linear maps of a model's layers; `order` is how `convention` stores their rows.
pub fn sites(architecture: &'static Architecture, hyper: &Hyper, convention: Convention) -> Result<Vec<Site>, Error> {
    use Role::*;
    let mut sites = Vec::new();
    for piece in architecture.pieces(hyper)? {
        let linear = matches!(
            piece.role,
            AttentionQuery | AttentionKey | AttentionValue | AttentionOutput | FfnGate | FfnUp | FfnDown
        );
        let (Some(layer), [rows, inputs]) = (piece.layer, &piece.shape[..]) else { continue };
        if !linear || piece.part != Part::Weight {
            continue;
        }
        let Some(place) = piece.places(Convention::Hf).into_iter().next() else { continue };
        let order = piece.places(convention).first().map_or(Order::Plain, |place| place.order);
        sites.push(Site {
            role: piece.role,
            layer,
            module: place.tensor.strip_suffix(".weight").unwrap_or(&place.tensor).to_string(),
            rows: place.row..place.row + rows,
            outputs: place.shape.first().copied().unwrap_or(*rows),
            inputs: *inputs,
            order,
        });
    }
    Ok(sites)
}

impl Site {
    /// Whether `targets` name it: the last words of its module, as PEFT matches them, or `all-linear`.
    pub fn is_target(&self, targets: &[String]) -> bool {
        targets.iter().any(|target| {
            let rest = self.module.strip_suffix(target.as_str());
            target == "all-linear" || rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}
