//! `plan` of the verbs that run a model: what they will read and hold, known before they start.

use std::collections::BTreeMap;

use serde::Serialize;
use windlass_catalog::Hyper;
use windlass_models::Cache;
use windlass_runtime::system;
use windlass_tensor::Bytes;

use crate::convert::Image;
use crate::load::{self, Budget, Options, Run, Strategy, Synthetic, activations};
use crate::{Model, Result};

/// What a run will take.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub device: &'static str,
    pub threads: usize,
    /// Tokens that are remembered.
    pub context: usize,
    /// Bytes by component and device. Pages of mapped files can be taken back by the system at any time.
    pub memory: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// All of it.
    pub peak_memory_bytes: u64,
    /// Without the pages of mapped files: what the limit is about.
    pub own_memory_bytes: u64,
    pub memory_limit_bytes: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub fits: bool,
    /// Why it does not fit.
    pub obstacles: Vec<String>,
}

/// Plans a run of a model that lies in files.
pub fn plan(model: &Model, options: &Options, run: &Run, written: u64) -> Result<Plan> {
    let hyper = &model.identity()?.hyper;
    let file: u64 =
        model.source.tensors().iter().map(|entry| entry.planes().iter().map(|p| p.length).sum::<u64>()).sum();
    let weights = match (options.strategy, &options.scheme) {
        (Strategy::Mapped, None) => {
            let arranged = model.source.tensors().iter().filter(|entry| entry.arrangement().is_some());
            let in_order: u64 = arranged.map(|entry| entry.planes().iter().map(|p| p.length).sum::<u64>()).sum();
            vec![("weights_mapped", file - in_order), ("weights_resident", in_order)]
        }
        (Strategy::Stream, _) => {
            let loaded = load::load(model, options)?;
            let layers = loaded.streamed_bytes();
            vec![("weights_mapped", ends(model)), ("layers_streamed", layers)]
        }
        (Strategy::Mapped | Strategy::Resident, scheme) => {
            vec![("weights_resident", Image::plan(model, scheme.as_deref())?.bytes())]
        }
        (Strategy::Shared, scheme) => vec![("weights_shared", Image::plan(model, scheme.as_deref())?.bytes())],
    };
    made(hyper, weights, file, options, run, written)
}

/// Plans a run of a made-up model.
pub fn plan_synthetic(model: &Synthetic, options: &Options, run: &Run) -> Result<Plan> {
    made(&model.hyper, vec![("weights_resident", model.bytes()?)], 0, options, run, 0)
}

fn made(
    hyper: &Hyper,
    weights: Vec<(&'static str, u64)>,
    read: u64,
    options: &Options,
    run: &Run,
    written: u64,
) -> Result<Plan> {
    let budget = Budget::new(options);
    let mut parts = weights;
    parts.push(("keys_and_values", Cache::bytes_for(hyper, run.context, &run.element)?));
    parts.push(("activations", activations(hyper, run)));
    parts.push(("process", system::own_memory().unwrap_or(0)));
    parts.retain(|(_, bytes)| *bytes > 0);
    let all: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let own: u64 = parts.iter().filter(|(name, _)| *name != "weights_mapped").map(|(_, bytes)| bytes).sum();
    let mut obstacles = Vec::new();
    if own > budget.limit() {
        let (needed, limit) = (Bytes(own), Bytes(budget.limit()));
        obstacles.push(format!("it needs {needed} beside mapped files, the limit is {limit}"));
    }
    Ok(Plan {
        device: "cpu",
        threads: if options.threads > 0 { options.threads } else { system::processors() },
        context: run.context,
        memory: parts.into_iter().map(|(name, bytes)| (name, BTreeMap::from([("cpu", bytes)]))).collect(),
        peak_memory_bytes: all,
        own_memory_bytes: own,
        memory_limit_bytes: budget.limit(),
        bytes_read: read,
        bytes_written: written,
        fits: obstacles.is_empty(),
        obstacles,
    })
}

/// Bytes of what belongs to no layer.
fn ends(model: &Model) -> u64 {
    let Ok(identity) = model.identity() else { return 0 };
    let convention = windlass_formats::container(model.source.container())
        .map_or(windlass_catalog::Convention::Hf, |container| container.convention());
    let pieces = identity.architecture.pieces(&identity.hyper).unwrap_or_default();
    let outside = pieces.iter().filter(|piece| piece.layer.is_none());
    let mut names: Vec<String> = outside.flat_map(|piece| piece.places(convention)).map(|place| place.tensor).collect();
    names.sort();
    names.dedup();
    let entries = names.iter().filter_map(|name| model.source.tensor(name));
    entries.flat_map(|entry| entry.planes()).map(|plane| plane.length).sum()
}
