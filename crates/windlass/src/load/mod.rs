//! Loading a model to run it: weights where they lie in the file, in memory, in memory that processes share, or read
//! layer by layer when they are needed; in the scheme that they have, or quantized on the way.

mod budget;
mod mapped;
mod resident;
mod shared;
mod stream;
pub mod synthetic;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use windlass_catalog::{Convention, Hyper};
use windlass_models::{Decoder, Encoder, Weights};
use windlass_quant::{Family, Packing};
use windlass_tensor::{DType, Element, Tensor};

use crate::convert::Watch;
use crate::{Error, Model, Result};

pub use budget::{Budget, Run, activations};
pub use synthetic::Synthetic;

/// Where the weights are while a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Where they lie in the file: its pages come when they are touched, and go when the system needs the memory.
    #[default]
    Mapped,
    /// In memory of this process, in huge pages where the system has them.
    Resident,
    /// In the file; each layer is read when it comes, and the next one meanwhile.
    Stream,
    /// In memory that all processes of the user share that load the same file.
    Shared,
}

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Tokens that the model is to remember; by default as many as it was trained with, at most
    /// [`Options::DEFAULT_CONTEXT`].
    pub context: Option<usize>,
    pub strategy: Strategy,
    /// A scheme or recipe to quantize to; the tensors are those that a file converted to it would have.
    pub scheme: Option<String>,
    /// Bytes that running may take, pages of mapped files not counted; by default what the machine has.
    pub memory_limit: Option<u64>,
    /// Whether values of schemes that store no floats but scales (bitsandbytes') are decoded to F32, whatever type the
    /// original had.
    pub unrounded: bool,
    /// Threads that load; 0: as many as there are processors.
    pub threads: usize,
}

/// A decoder whose weights can be used.
pub struct Loaded {
    pub decoder: Decoder,
    /// Tokens that it is to remember.
    pub context: usize,
    /// How its weights lie.
    pub convention: Convention,
    budget: Budget,
}

impl Strategy {
    /// All, by name.
    pub const ALL: [(&'static str, Strategy); 4] = [
        ("mapped", Strategy::Mapped),
        ("resident", Strategy::Resident),
        ("stream", Strategy::Stream),
        ("shared", Strategy::Shared),
    ];

    /// The strategy of this name.
    pub fn named(name: &str) -> Option<Strategy> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, strategy)| *strategy)
    }
}

impl Options {
    /// Tokens that a model remembers at most where nobody says how many.
    pub const DEFAULT_CONTEXT: usize = 4096;
}

/// Maps an encoder and puts its graph together.
pub fn load_encoder(model: &Model) -> Result<Encoder> {
    let (identity, placed) = (model.identity()?, mapped::place(model)?);
    let at = |error: windlass_models::Error| Error::from(error).at(model.source.path());
    let find = |name: &str| placed.tensors.get(name).cloned();
    let weights = Weights::find(identity.architecture, &placed.hyper, placed.convention, find).map_err(at)?;
    Encoder::new(identity.architecture, placed.hyper, weights).map_err(at)
}

/// Loads a model and puts its graph together.
pub fn load(model: &Model, options: &Options) -> Result<Loaded> {
    load_watched(model, options, &Watch { stop: &AtomicBool::new(false), progress: &|_, _| {} })
}

/// As [`load`]; `watch` sees bytes go into memory, and can stop that.
pub fn load_watched(model: &Model, options: &Options, watch: &Watch) -> Result<Loaded> {
    let identity = model.identity()?;
    let at = |error: windlass_models::Error| Error::from(error).at(model.source.path());
    let mut budget = Budget::new(options);
    let placed = match (options.strategy, &options.scheme) {
        (Strategy::Mapped, None) => mapped::place(model)?,
        (Strategy::Mapped | Strategy::Resident, _) => resident::place(model, options, &budget, watch)?,
        (Strategy::Shared, _) => shared::place(model, options, &budget, watch)?,
        (Strategy::Stream, None) => stream::place(model, &mut budget)?,
        (Strategy::Stream, Some(scheme)) => {
            let message =
                format!("--load stream reads layers as they are in the file, and --scheme {scheme} changes them");
            return Err(Error::usage(message).help("convert the model first: see `windlass help convert`"));
        }
    };
    let weights = match placed.weights {
        Some(weights) => weights,
        None => {
            let find = |name: &str| {
                let tensor = placed.tensors.get(name)?;
                Some(if options.unrounded { unrounded(tensor) } else { tensor.clone() })
            };
            Weights::find(identity.architecture, &placed.hyper, placed.convention, find).map_err(at)?
        }
    };
    let trained = identity.hyper.context();
    let context = options.context.unwrap_or(trained.min(Options::DEFAULT_CONTEXT));
    let decoder = Decoder::new(identity.architecture, placed.hyper, weights, context).map_err(at)?;
    Ok(Loaded { decoder, context, convention: placed.convention, budget })
}

/// The tensor, decoded to F32 where its scheme leaves that open.
fn unrounded(tensor: &Tensor) -> Tensor {
    let packing =
        crate::rows::packing(tensor.element()).filter(|packing| packing.scheme.family() == Family::BitsAndBytes);
    let wide = packing.and_then(|packing| {
        let packing = Packing { float: DType::F32, ..packing };
        Tensor::packed(Arc::new(packing), tensor.shape().to_vec(), tensor.planes().to_vec()).ok()
    });
    wide.unwrap_or_else(|| tensor.clone())
}

/// The element of a cache of keys and values by its name: `f16`, `f32`, or a scheme with a kernel for it (`q8_0`).
pub fn cache_element(name: &str) -> Result<Element> {
    match name {
        "f16" => Ok(DType::F16.into()),
        "f32" => Ok(DType::F32.into()),
        "q8_0" => Ok(Packing { scheme: windlass_quant::scheme(name)?, float: DType::F32 }.element()),
        _ => Err(Error::usage(format!("keys and values cannot be kept in {name:?}")).help("use f16, q8_0 or f32")),
    }
}

/// What a strategy found.
struct Placed {
    tensors: HashMap<String, Tensor>,
    /// The weights, where they are not simply those tensors.
    weights: Option<Weights>,
    convention: Convention,
    hyper: Hyper,
}

impl Placed {
    fn new(tensors: HashMap<String, Tensor>, convention: Convention, hyper: Hyper) -> Placed {
        Placed { tensors, weights: None, convention, hyper }
    }
}

/// A layer source that many handles share.
type Streamed = Arc<stream::Streamed>;
