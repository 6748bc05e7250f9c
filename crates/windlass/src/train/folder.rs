//! Models that training changed, as folders of transformers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use windlass_catalog::{Convention, Order, Piece, Place};
use windlass_formats::{Layout, Target, TargetTensor, container};
use windlass_models::Trainable;
use windlass_nn::Parameters;
use windlass_ops::{Context, library};
use windlass_quant::float;
use windlass_tensor::{DType, Limits, Metadata, Tensor, TypedTensor};
use windlass_train::weight;

use super::Options;
use crate::convert::check_target;
use crate::{Code, Error, Model, Result};

/// A folder that is to hold the model: planned before training, written after it.
pub struct Output {
    path: PathBuf,
    layout: Layout,
    tensors: Vec<Stored>,
}

/// A tensor of the folder and the pieces that it is made of.
struct Stored {
    dtype: DType,
    shape: Vec<usize>,
    pieces: Vec<(Piece, Place)>,
}

impl Output {
    /// Plans the folder, and refuses it where something is that is not to be replaced. Weights keep the type of float that they
    /// have; packed ones become BF16.
    pub fn plan(
        path: PathBuf,
        trainable: &Trainable,
        config: &serde_json::Value,
        model: &Model,
        options: &Options,
        limits: &Limits,
    ) -> Result<Output> {
        let mut files = model.side_files(limits)?;
        let failed = |e: serde_json::Error| Error::new(Code::Failed, e.to_string());
        files.insert("config.json".into(), serde_json::to_vec_pretty(config).map_err(failed)?);
        let tensors = stored(trainable)?;
        let target = Target {
            tensors: tensors
                .iter()
                .map(|(name, stored)| TargetTensor {
                    name: name.clone(),
                    element: stored.dtype.into(),
                    shape: stored.shape.clone(),
                })
                .collect(),
            metadata: Metadata::from_iter([("format".to_string(), "pt".into())]),
            files: files.into_iter().collect(),
            part_size: None,
        };
        let missing = || Error::new(Code::Failed, "safetensors is not registered");
        let layout = container("safetensors").ok_or_else(missing)?.layout(&target)?;
        check_target(&path, &model.source, &layout, options.overwrite)?;
        Ok(Output { path, layout, tensors: tensors.into_values().collect() })
    }

    /// Writes the model with the parameters as they are now. Gives the folder.
    pub fn write(self, cx: &Context, trainable: &Trainable, parameters: &Parameters) -> Result<PathBuf> {
        crate::convert::write_layout(&self.path, &self.layout, |at| {
            let stored = &self.tensors[at];
            let mut values = vec![0.0f32; stored.shape.iter().product()];
            for (piece, place) in &stored.pieces {
                fill(cx, trainable, parameters, piece, place, &mut values)?;
            }
            let mut bytes = vec![0; values.len() * stored.dtype.size()];
            float::from_f32(stored.dtype, &values, &mut bytes)?;
            Ok(bytes)
        })?;
        Ok(self.path)
    }
}

/// The tensors of a model as transformers stores them, by name.
fn stored(trainable: &Trainable) -> Result<BTreeMap<String, Stored>> {
    let decoder = trainable.decoder();
    let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
    for piece in decoder.architecture().pieces(decoder.hyper())? {
        let (Some(place), Some(found)) = (piece.places(Convention::Hf).into_iter().next(), weight(decoder, &piece))
        else {
            continue;
        };
        if place.order != Order::Plain {
            let message = format!("{} is not written by training: its rows have another order", place.tensor);
            return Err(Error::new(Code::Refused, message));
        }
        let dtype = found.tensor.element().dtype().filter(|dtype| dtype.is_float()).unwrap_or(DType::BF16);
        let new = || Stored { dtype, shape: place.shape.clone(), pieces: Vec::new() };
        tensors.entry(place.tensor.clone()).or_insert_with(new).pieces.push((piece, place));
    }
    Ok(tensors)
}

/// Puts the values of a piece where they belong in its tensor.
fn fill(
    cx: &Context,
    trainable: &Trainable,
    parameters: &Parameters,
    piece: &Piece,
    place: &Place,
    values: &mut [f32],
) -> Result<()> {
    let missing = || Error::new(Code::Failed, format!("{} is missing", place.tensor));
    let known = weight(trainable.decoder(), piece).ok_or_else(missing)?;
    let trained = trainable.place(piece.role, piece.part, piece.layer).and_then(|index| parameters.get(index));
    let tensor: Tensor = match trained {
        Some(parameter) => parameter.tensor.clone(),
        None => library::cast(cx, &known.tensor, DType::F32)?,
    };
    let plain = TypedTensor::<f32>::new(tensor)?.to_vec()?;
    let width = plain.len() / piece.rows().max(1);
    for row in 0..piece.rows() {
        let from = plain.get(known.order.stored_row(row) * width..).and_then(|rest| rest.get(..width));
        let to = values.get_mut((place.row + row) * width..).and_then(|rest| rest.get_mut(..width));
        let (from, to) = (from.ok_or_else(missing)?, to.ok_or_else(missing)?);
        for (to, from) in to.iter_mut().zip(from) {
            *to = from - known.shift;
        }
    }
    Ok(())
}
