//! Layers that are read from the file when they are needed: a model larger than memory runs, as fast as it can be read.
//!
//! While one layer is computed, the next is read on a stream of the runtime. Layers are needed in a circle, so that it
//! is best to keep the first ones for good, as many as the budget has room for, and to pass the others through the memory
//! of two.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_catalog::{Convention, Piece};
use windlass_formats::{Entry, Source};
use windlass_models::{Error as ModelError, Layers, Weights};
use windlass_runtime::memory::Pool;
use windlass_runtime::stream::{Executor, Stream};
use windlass_tensor::{Storage, Tensor};

use super::Placed;
use super::budget::Budget;
use super::mapped::{Maps, convention};
use crate::convert::tensor;
use crate::rows::{Reader, rows_and_columns};
use crate::{Model, Result};

/// Maps the ends of a model, of which few rows are touched or all at once, and prepares its layers to be streamed.
pub fn place(model: &Model, budget: &mut Budget) -> Result<Placed> {
    let identity = model.identity()?;
    let source = model.source.clone();
    let convention = convention(&source);
    let pieces = identity.architecture.pieces(&identity.hyper)?;
    let (inside, ends): (Vec<Piece>, Vec<Piece>) = pieces.into_iter().partition(|piece| piece.layer.is_some());
    let maps = Maps::of(&source)?;
    let of_layers: HashSet<String> =
        inside.iter().flat_map(|piece| piece.places(convention)).map(|place| place.tensor).collect();
    let outside = source.tensors().iter().filter(|entry| !of_layers.contains(entry.name()));
    let tensors = outside.map(|entry| Ok((entry.name().to_string(), maps.tensor(&source, entry)?)));
    let tensors = tensors.collect::<Result<HashMap<_, _>>>()?;
    let mut layers: Vec<Layer> = (0..identity.hyper.layers()).map(|_| Layer::default()).collect();
    for piece in inside {
        if let Some(layer) = piece.layer.and_then(|layer| layers.get_mut(layer)) {
            layer.add(piece, convention, &source);
        }
    }
    let reading = Arc::new(Reading { source, convention, layers, pool: Pool::new(u64::MAX) });
    let streamed = Arc::new(Streamed::new(reading));
    if budget.given().is_some_and(|limit| streamed.to_come() > limit) {
        return Err(budget.refusal("streaming", &[("two layers at a time", streamed.to_come())], "use --load mapped"));
    }
    budget.streamed = Some(streamed.clone());
    let ends = Weights::of(&ends, convention, |name| tensors.get(name).cloned());
    let weights = ends.map_err(|e| crate::Error::from(e).at(model.source.path()))?.with_layers(streamed);
    let placed = Placed::new(HashMap::new(), convention, identity.hyper.clone());
    Ok(Placed { weights: Some(weights), ..placed })
}

/// The layers of a model, of which some are in memory.
pub struct Streamed {
    reading: Arc<Reading>,
    stream: Stream,
    state: Mutex<State>,
    /// Bytes that layers may have beside the two that pass through.
    may_keep: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Layers that stay.
    kept: HashMap<usize, Weights>,
    kept_bytes: u64,
    /// The layer that is being read, and where it appears.
    ahead: Option<(usize, Arrival)>,
}

type Arrival = Arc<Mutex<Option<Result<Weights, ModelError>>>>;

/// What is needed to read a layer.
struct Reading {
    source: Source,
    convention: Convention,
    layers: Vec<Layer>,
    pool: Pool,
}

/// The pieces of one layer, and the tensors that hold them.
#[derive(Default)]
struct Layer {
    pieces: Vec<Piece>,
    entries: Vec<Entry>,
}

impl Layer {
    fn add(&mut self, piece: Piece, convention: Convention, source: &Source) {
        for place in piece.places(convention) {
            let known = self.entries.iter().any(|entry| entry.name() == place.tensor);
            self.entries.extend(source.tensor(&place.tensor).filter(|_| !known).cloned());
        }
        self.pieces.push(piece);
    }

    /// Bytes in memory, as the pool rounds them up.
    fn bytes(&self) -> u64 {
        let planes = self.entries.iter().flat_map(|entry| entry.planes());
        planes.map(|extent| (extent.length + extent.length / 4).max(4096)).sum()
    }
}

impl Reading {
    fn read(&self, layer: usize) -> Result<Weights, ModelError> {
        let fail = |error: crate::Error| ModelError::Layer { layer, message: error.message };
        let missing = || ModelError::Layer { layer, message: "the model has no such layer".into() };
        let Layer { pieces, entries } = self.layers.get(layer).ok_or_else(missing)?;
        let mut tensors = HashMap::new();
        for entry in entries {
            tensors.insert(entry.name(), self.tensor(entry).map_err(|error| fail(error.tensor(entry.name())))?);
        }
        Weights::of(pieces, self.convention, |name| tensors.get(name).cloned())
    }

    fn tensor(&self, entry: &Entry) -> Result<Tensor> {
        let (rows, columns) = rows_and_columns(entry.shape());
        let reader = Reader { source: &self.source, pool: &self.pool, waits: false };
        let planes = reader.planes(entry, columns, 0, rows)?.into_iter().map(Storage::new).collect();
        tensor(entry.element(), entry.shape(), planes, entry.name())
    }
}

impl Streamed {
    fn new(reading: Arc<Reading>) -> Streamed {
        let stream = Executor::of_process().stream("load", 1);
        Streamed { reading, stream, state: Mutex::default(), may_keep: AtomicU64::new(0) }
    }

    /// Bytes that two layers take, less what layers have taken already.
    pub fn to_come(&self) -> u64 {
        let largest = self.reading.layers.iter().map(Layer::bytes).max().unwrap_or(0);
        let kept = self.may_keep.load(Ordering::Relaxed);
        (2 * largest + kept).saturating_sub(self.reading.pool.statistics().reserved)
    }

    /// Allows layers to stay in memory, up to `bytes` more than those that do.
    pub fn may_keep(&self, bytes: u64) {
        self.may_keep.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Begins to read `layer`, if nobody else has.
    fn begin(&self, state: &mut State, layer: usize) -> Arrival {
        if let Some((ahead, arrival)) = &state.ahead
            && *ahead == layer
        {
            return arrival.clone();
        }
        let arrival = Arrival::default();
        let (reading, there) = (self.reading.clone(), arrival.clone());
        self.stream.submit("layer", move || {
            let read = reading.read(layer);
            *lock(&there) = Some(read);
            Ok::<(), ModelError>(())
        });
        state.ahead = Some((layer, arrival.clone()));
        arrival
    }
}

impl Layers for Streamed {
    fn layer(&self, layer: usize) -> Result<Weights, ModelError> {
        let mut state = lock(&self.state);
        let weights = match state.kept.get(&layer) {
            Some(weights) => weights.clone(),
            None => {
                let arrival = self.begin(&mut state, layer);
                let failed = |error: windlass_runtime::Error| ModelError::Layer { layer, message: error.to_string() };
                self.stream.synchronize().map_err(failed)?;
                state.ahead = None;
                let read = lock(&arrival).take();
                let unread = || Err(ModelError::Layer { layer, message: "nothing was read".into() });
                let weights = read.unwrap_or_else(unread)?;
                let bytes = self.reading.layers.get(layer).map_or(0, Layer::bytes);
                if state.kept_bytes + bytes <= self.may_keep.load(Ordering::Relaxed) {
                    state.kept.insert(layer, weights.clone());
                    state.kept_bytes += bytes;
                }
                weights
            }
        };
        let count = self.reading.layers.len();
        let next = (1..count).map(|step| (layer + step) % count).find(|next| !state.kept.contains_key(next));
        if let Some(next) = next {
            self.begin(&mut state, next);
        }
        Ok(weights)
    }
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} layers of {}", self.reading.layers.len(), self.reading.source.path().display())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
