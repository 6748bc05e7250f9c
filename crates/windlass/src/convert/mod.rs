//! `convert`: any container to any container, quantized on the way, in bounded memory.
//!
//! Plan first: headers are read, every byte of the output has its place, memory and disk are known. Then blocks of rows
//! pass through a pipeline. The target appears under its name when it is complete.

pub(crate) mod adapter;
mod belongings;
mod blocks;
mod buffers;
mod checks;
mod dtypes;
mod edit;
mod encoding;
mod foreign;
mod image;
mod journal;
mod names;
mod origin;
mod output;
mod place;
mod planning;
mod quality;
mod shifted;
mod steps;
mod tally;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;
use windlass_catalog::Convention;
use windlass_formats::{ContainerRef, Layout, Source, TargetTensor};
use windlass_runtime::memory::Pool;
use windlass_runtime::{pipeline, system};
use windlass_tensor::{Bytes, Element, Limits};

use crate::{Code, Error, Model, Result};
use adapter::Carried;
pub(crate) use blocks::Blocks;
use blocks::Piece;
use edit::EditedSum;
use journal::Journal;
use output::Partial;
use quality::Gate;

pub use belongings::side_files;
pub use edit::Edited;
pub(crate) use edit::{Edit, Plain};
pub(crate) use image::{Image, fingerprint, tensor};
pub(crate) use names::{Output, Segment};
pub(crate) use origin::Origin;
pub use output::write_layout;
pub(crate) use place::check as check_target;
pub(crate) use planning::outputs;
pub use quality::{Quality, WINDOWS};
pub(crate) use steps::Step;

/// What to convert, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the target's container; by default what the target's name and the scheme suggest.
    pub to: Option<String>,
    /// A scheme or recipe by name.
    pub scheme: Option<String>,
    /// The scheme for every matrix, without the owner's exceptions.
    pub pure: bool,
    /// A recipe file (TOML).
    pub recipe: Option<PathBuf>,
    /// A GGUF importance matrix.
    pub imatrix: Option<PathBuf>,
    pub part_size: Option<u64>,
    /// A folder to take config.json and tokenizer from.
    pub config_from: Option<PathBuf>,
    /// Largest relative error of any tensor.
    pub max_error: Option<f64>,
    /// How to measure what was written.
    pub quality: Quality,
    pub resume: bool,
    pub overwrite: bool,
    /// Total resident memory, in bytes.
    pub memory_limit: u64,
    pub threads: usize,
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            to: None,
            scheme: None,
            pure: false,
            recipe: None,
            imatrix: None,
            part_size: None,
            config_from: None,
            max_error: None,
            quality: Quality::default(),
            resume: false,
            overwrite: false,
            memory_limit: 512 << 20,
            threads: system::processors(),
            limits: Limits::default(),
        }
    }
}

/// What a conversion will do, known before it starts.
#[derive(Debug, Serialize)]
pub struct Plan {
    #[serde(serialize_with = "crate::lossy")]
    pub input: PathBuf,
    /// The file or folder; the first of several files.
    #[serde(serialize_with = "crate::lossy")]
    pub output: PathBuf,
    pub container: &'static str,
    pub tensors: usize,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Bytes by component and device.
    pub memory: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// An upper bound, in bytes.
    pub peak_memory_bytes: u64,
    pub memory_limit_bytes: u64,
    pub disk_free_bytes: Option<u64>,
    /// Whether memory and disk suffice.
    pub fits: bool,
    /// Why they do not.
    pub obstacles: Vec<String>,
    /// Number of tensors of each element in the output.
    pub schemes: BTreeMap<String, usize>,
    pub device: &'static str,
    pub threads: usize,
    pub warnings: Vec<String>,
}

/// What a conversion did.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(serialize_with = "crate::lossy")]
    pub input: PathBuf,
    /// The file or folder; the first of several files.
    #[serde(serialize_with = "crate::lossy")]
    pub output: PathBuf,
    pub container: &'static str,
    pub tensors: usize,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Until the last write, without waiting for the disk.
    pub seconds: f64,
    /// Waiting for the disk.
    pub sync_seconds: f64,
    pub peak_memory_bytes: u64,
    /// Tensors whose codes were carried over exactly into another packing.
    pub repacked: usize,
    /// Tensors that were quantized, or quantized anew.
    pub requantized: usize,
    /// Root mean square error over root mean square value of the worst tensor.
    pub max_relative_error: f64,
    /// Its name.
    pub worst_tensor: Option<String>,
    /// How far the target is from its source on a text, where that was measured.
    pub quality: Option<crate::eval::Report>,
    pub schemes: BTreeMap<String, usize>,
    pub warnings: Vec<String>,
    /// What was merged into.
    #[serde(skip)]
    pub edited: Vec<Edited>,
    #[serde(skip)]
    pub edited_sum: EditedSum,
}

/// How a face watches and stops the work.
pub struct Watch<'a> {
    pub stop: &'a AtomicBool,
    /// Called with bytes written and bytes in all.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// A conversion that was planned and can be run.
pub struct Conversion {
    model: Model,
    target: PathBuf,
    container: ContainerRef,
    pieces: Vec<Piece>,
    edit: Option<Box<dyn Edit>>,
    layout: Layout,
    options: Options,
    threads: usize,
    gate: Option<Gate>,
    warnings: Vec<String>,
    start: Instant,
}

impl Conversion {
    /// Reads all headers and fixes the output's every byte but the tensors' own. Writes nothing.
    pub fn plan(source: impl AsRef<Path>, target: &Path, options: Options) -> Result<Conversion> {
        Conversion::plan_edited(source, target, options, |_| Ok(None))
    }

    /// As [`Conversion::plan`]; `edit` gives what is changed on the way.
    pub(crate) fn plan_edited(
        source: impl AsRef<Path>,
        target: &Path,
        options: Options,
        edit: impl FnOnce(&Plain) -> Result<Option<Box<dyn Edit>>>,
    ) -> Result<Conversion> {
        let start = Instant::now();
        if options.max_error.is_some_and(|x| x.is_nan() || x < 0.0) {
            return Err(Error::usage("--max-error takes a number from 0 up"));
        }
        if options.part_size == Some(0) {
            return Err(Error::usage("--part-size must be at least 1 byte"));
        }
        let model = Model::open_with_config(source, options.config_from.as_deref(), &options.limits)?;
        let container = planning::choose_container(target, &options)?;
        let bare = container.convention() != Convention::Gguf && planning::is_bare(target);
        let gate = Gate::prepare(&model, target, bare, &options)?;
        let imatrix =
            options.imatrix.as_deref().map(|path| planning::read_imatrix(path, &options.limits)).transpose()?;
        let mut warnings = Vec::new();
        let (outputs, elements, mut belongings) = match adapter::carry(&model, container, target, &options)? {
            Some(Carried { outputs, elements, belongings }) => (outputs, elements, belongings),
            None => {
                planning::check_library(&model, container, &options)?;
                let outputs = planning::outputs(&model, container)?;
                let has_imatrix = imatrix.is_some();
                let (elements, file_type) =
                    planning::elements(&model, &outputs, container, &options, has_imatrix, &mut warnings)?;
                let mut belongings =
                    planning::belongings(&model, &outputs, container, target, file_type, &options.limits)?;
                if container.convention() == Convention::Hf {
                    dtypes::agree(&model.source, &mut belongings.files, &outputs, &elements, &options.limits);
                }
                (outputs, elements, belongings)
            }
        };
        warnings.append(&mut belongings.warnings);
        let edit = edit(&Plain { model: &model, container, outputs: &outputs })?;
        let tensor = |(o, e): (&Output, &Element)| TargetTensor {
            name: o.name.clone(),
            element: e.clone(),
            shape: o.shape.clone(),
        };
        let layout = container.layout(&windlass_formats::Target {
            tensors: outputs.iter().zip(&elements).map(tensor).collect(),
            metadata: belongings.metadata,
            files: belongings.files,
            part_size: options.part_size,
        })?;
        if !layout.left_out.is_empty() {
            let first: Vec<&str> = layout.left_out.iter().take(8).map(String::as_str).collect();
            let more = layout.left_out.len() - first.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let (name, first) = (container.name(), first.join(", "));
            warnings.push(format!("{name} has no place for {first}{more}: left out"));
        }
        planning::check_heads(target, &layout, &options.limits)?;
        let exact = options.scheme.is_none() && options.recipe.is_none();
        let mut pieces = planning::pieces(&model, outputs, elements, &layout, imatrix.as_ref(), exact)?;
        if let Some(edit) = &edit {
            warnings.extend(edit.warnings());
            edit::mark(edit.as_ref(), &model.source, &mut pieces, !exact)?;
        }
        let threads = planning::affordable_threads(&model, &pieces, &options);
        let target = place::behind_links(target);
        Ok(Conversion { model, target, container, pieces, edit, layout, options, threads, gate, warnings, start })
    }

    /// What it will do.
    pub fn describe(&self) -> Plan {
        let block = Blocks::memory_per_step(&self.model.source, &self.pieces);
        let blocks = block * self.threads.max(1) as u64;
        let process = system::peak_memory().unwrap_or(0);
        let components = [("blocks", blocks), ("process", process)];
        let shortage = self.memory_shortage().map(|error| error.message);
        let obstacles: Vec<String> =
            shortage.into_iter().chain(place::disk_shortage(&self.target, &self.layout)).collect();
        Plan {
            input: self.model.source.path().into(),
            output: self.first_file(),
            container: self.container.name(),
            tensors: self.pieces.len(),
            bytes_read: self.sources().iter().map(|source| source.bytes()).sum(),
            bytes_written: place::bytes(&self.layout),
            memory: components.into_iter().map(|(name, bytes)| (name, BTreeMap::from([("cpu", bytes)]))).collect(),
            peak_memory_bytes: blocks + process,
            memory_limit_bytes: self.options.memory_limit,
            disk_free_bytes: system::free_space(&place::parent(&self.target)),
            fits: obstacles.is_empty(),
            obstacles,
            schemes: self.schemes(),
            device: "cpu",
            threads: self.threads,
            warnings: self.warnings.clone(),
        }
    }

    /// Does it. The target appears when all of it is written.
    pub fn run(self, watch: &Watch) -> Result<Report> {
        self.run_measured(watch, &|_, _| ())
    }

    /// As [`Conversion::run`]; `measured` is told of tokens done and in all while the quality is measured.
    pub fn run_measured(self, watch: &Watch, measured: &dyn Fn(u64, u64)) -> Result<Report> {
        for source in self.sources() {
            place::check(&self.target, source, &self.layout, self.options.overwrite)?;
        }
        if let Some(error) = self.memory_shortage() {
            return Err(error);
        }
        let journal_path = Partial::journal_path(&self.target);
        let steps = Blocks::count(&self.model.source, &self.pieces);
        let resume = self.options.resume && Partial::intact(&self.target, &self.layout);
        let journal = Journal::open(&journal_path, &self.target, &self.fingerprint(), steps, resume)?;
        let mut partial =
            Partial::create(&self.target, &self.layout, journal.steps_done() > 0).inspect_err(|error| {
                if !error.resumable {
                    journal.remove();
                }
            })?;
        partial.stale = place::stale(&self.target, &self.layout);
        let taken = system::peak_memory().unwrap_or(0);
        let pool = Pool::new(self.options.memory_limit.saturating_sub(taken));
        let blocks = Blocks::new(&self.model.source, &self.pieces, &partial.files, &pool, Some(&journal));
        let blocks = blocks.edited(self.edit.as_deref());
        let options = pipeline::Options { threads: self.threads, stop: watch.stop, progress: watch.progress, ahead: 8 };
        let result = blocks
            .prepare(&options)
            .and_then(|()| blocks.tally(&options))
            .and_then(|()| pipeline::run(&blocks, &options))
            .and_then(|_| self.gate(&blocks));
        let outcomes = blocks.outcomes();
        let seconds = self.start.elapsed().as_secs_f64();
        // Of the conversion: measuring maps both models.
        let peak = system::peak_memory().unwrap_or(0);
        let result = result.and_then(|()| match &self.gate {
            Some(gate) => {
                partial.seal()?;
                gate.ask(&self.model, &partial.model(), &self.options, watch.stop, measured).map(Some)
            }
            None => Ok(None),
        });
        match result {
            Ok(quality) => {
                let sync_seconds = partial.publish(|| journal.remove())?.as_secs_f64();
                let report = self.report(&outcomes, seconds, sync_seconds);
                Ok(Report { quality, peak_memory_bytes: peak, ..report })
            }
            Err(error) if error.resumable => Err(error.help("run the same command with --resume to go on")),
            Err(error) => {
                partial.discard();
                journal.remove();
                Err(error)
            }
        }
    }

    /// Everything that is read: the model, and what is merged into it.
    fn sources(&self) -> Vec<&Source> {
        let others = self.edit.iter().flat_map(|edit| edit.sources());
        std::iter::once(&self.model.source).chain(others).collect()
    }

    fn gate(&self, blocks: &Blocks) -> Result<()> {
        let Some(ceiling) = self.options.max_error else { return Ok(()) };
        let worst = self.worst(&blocks.outcomes());
        match worst {
            Some((name, error)) if error > ceiling => {
                let message = format!("tensor {name:?} has a relative error of {error:.5}, more than {ceiling}");
                Err(Error::new(Code::Gate, message)
                    .tensor(name)
                    .help("choose a scheme with more bits, or an importance matrix"))
            }
            _ => Ok(()),
        }
    }

    fn worst(&self, outcomes: &[blocks::Outcome]) -> Option<(&str, f64)> {
        let names = self.pieces.iter().map(|p| p.output.name.as_str());
        let errors = names.zip(outcomes).filter_map(|(name, o)| Some((name, o.relative_error?)));
        errors.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, e)| *e > 0.0)
    }

    fn report(&self, outcomes: &[blocks::Outcome], seconds: f64, sync_seconds: f64) -> Report {
        let worst = self.worst(outcomes);
        let edited = self.edit.as_deref().map(|edit| edit::report(edit, &self.pieces, outcomes));
        let (edited, edited_sum) = edited.unwrap_or_default();
        Report {
            input: self.model.source.path().into(),
            output: self.first_file(),
            container: self.container.name(),
            tensors: self.pieces.len(),
            bytes_in: self.sources().iter().map(|source| source.bytes()).sum(),
            bytes_out: place::bytes(&self.layout),
            seconds,
            sync_seconds,
            peak_memory_bytes: system::peak_memory().unwrap_or(0),
            repacked: outcomes.iter().filter(|o| o.repacked && !o.requantized).count(),
            requantized: outcomes.iter().filter(|o| o.requantized).count(),
            max_relative_error: worst.map_or(0.0, |w| w.1),
            worst_tensor: worst.map(|w| w.0.to_string()),
            quality: None,
            schemes: self.schemes(),
            warnings: self.warnings.clone(),
            edited,
            edited_sum,
        }
    }

    /// The target, or the first of its files where there are several beside each other.
    fn first_file(&self) -> PathBuf {
        place::names(&self.target, &self.layout).into_iter().next().unwrap_or_else(|| self.target.clone())
    }

    /// The error of a memory limit in which not even one block has room.
    fn memory_shortage(&self) -> Option<Error> {
        if self.threads > 0 {
            return None;
        }
        let block = Blocks::memory_per_step(&self.model.source, &self.pieces);
        let (taken, limit) = (system::peak_memory().unwrap_or(0), self.options.memory_limit);
        let (needs, used) = (Bytes(block), Bytes(taken));
        let message =
            format!("one block needs {needs} and {used} are in use already, more than the limit of {}", Bytes(limit));
        // What is in use grows a little until the command runs again.
        let enough = (taken + block + (2 << 20)).div_ceil(1 << 20);
        Some(Error::new(Code::Memory, message).help(format!("give --memory-limit at least {enough}MiB")))
    }

    fn schemes(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for piece in &self.pieces {
            *counts.entry(piece.element.name().to_lowercase()).or_default() += 1;
        }
        counts
    }

    /// Tells this conversion from any other: source files as they are now, and the whole layout.
    fn fingerprint(&self) -> String {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        for part in self.sources().into_iter().flat_map(|source| source.parts()) {
            let modified = part.file().metadata().and_then(|m| m.modified()).ok();
            (part.path(), part.length(), modified).hash(&mut hasher);
        }
        for part in &self.layout.parts {
            (&part.name, &part.head, part.length, &part.constants).hash(&mut hasher);
        }
        (&self.options.imatrix, &self.options.scheme, &self.options.recipe).hash(&mut hasher);
        self.edit.as_ref().map(|edit| edit.fingerprint()).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}
