//! `train`: a model learns from a file of examples.

mod adapter;
mod checkpoints;
mod curve;
pub mod data;
mod evaluation;
mod events;
mod every;
mod fingerprint;
mod folder;
mod methods;
mod metrics;
mod optimizers;
mod options;
mod run;

use std::sync::atomic::AtomicBool;

use serde::Serialize;
use windlass_ops::Context;
use windlass_tensor::Limits;
use windlass_train::{StepReport, Trainer};

use crate::convert::Watch;
use crate::load;
use crate::{Code, Error, Model, Result};

use checkpoints::Checkpoints;
use evaluation::Evaluation;
use events::Events;
use metrics::Metrics;
use run::Run;

use methods::Outcome;

pub use every::Every;
pub use methods::METHODS;
pub use optimizers::Numbers;
pub use options::Options;

/// What training came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub steps: u64,
    /// Of the last step.
    pub final_loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Whether training ended because the loss on kept examples did not get better.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped_early: bool,
    /// The step with the best evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_step: Option<u64>,
    /// Where the adapter is, or the model that was trained itself.
    pub adapter: std::path::PathBuf,
    /// Numbers that were trained.
    pub trained: usize,
    /// The step that the training went on after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<u64>,
    /// The last checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<std::path::PathBuf>,
    pub peak_memory_bytes: u64,
    /// Of the files that were learned from.
    pub data: data::Figures,
}

/// What a training loop tells, and asks.
pub struct Observer<'a> {
    /// Set to stop after the step that runs.
    pub stop: &'a AtomicBool,
    /// Set to have a checkpoint written after the step that runs.
    pub checkpoint: &'a AtomicBool,
    pub memory_limit: Option<u64>,
    pub threads: usize,
    /// Hears of every step before it is taken.
    pub before: &'a dyn Fn(u64),
    /// Sees every step, and how many there are in all.
    pub step: &'a dyn Fn(&StepReport, u64),
    /// Hears of what is odd, and no reason to fail.
    pub warn: &'a dyn Fn(&str),
}

impl<'a> Observer<'a> {
    /// One that is told nothing.
    pub fn new(stop: &'a AtomicBool) -> Observer<'a> {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Observer {
            stop,
            checkpoint: &NEVER,
            memory_limit: None,
            threads: 0,
            before: &|_| {},
            step: &|_, _| {},
            warn: &|_| {},
        }
    }
}

/// Trains, and writes the adapter or the model.
pub fn train(cx: &Context, options: &Options, limits: &Limits, observer: &Observer) -> Result<Report> {
    let metrics_path = options.out.join("metrics.jsonl");
    let earlier = [(metrics_path.exists(), &metrics_path), (Checkpoints::any(&options.out), &options.out)];
    if let Some((_, path)) = earlier.iter().find(|(is, _)| *is && !options.overwrite && !options.resume) {
        let message = format!("{} exists already", path.display());
        let help = "go on with --resume, choose another --out, or add --overwrite";
        return Err(Error::new(Code::Failed, message).at(path).help(help));
    }
    let model = Model::open(&options.model, limits)?;
    let context = context(&model, options.context)?;
    let prepared = data::prepare(&model, options, context, limits)?;
    let evaluation = Evaluation::new(options, prepared.eval.is_some())?;
    let (trainer, outcome) = trainer(cx, &model, options, context, prepared.data.units(), limits, observer)?;
    let steps = steps(options, prepared.data.units());
    let schedule = optimizers::schedule(options, steps)?;
    std::fs::create_dir_all(&options.out).map_err(|e| Error::io(&options.out, e))?;
    let output = outcome.plan(&trainer.model, &trainer.parameters, &model, options, limits)?;
    let metrics = Metrics::open(metrics_path)?;
    let settings = fingerprint::settings(options, context, steps, &model, &prepared.data)?;
    let checkpoints = Checkpoints::new(&options.out, settings, options.keep);
    let events = Events::begin(&options.out.join("tensorboard"))?;
    let mut run = Run {
        cx,
        options,
        observer,
        trainer,
        schedule,
        data: &prepared.data,
        eval: prepared.eval.as_ref(),
        evaluation,
        metrics,
        events,
        checkpoints,
        resumed: None,
    };
    run.begin(limits)?;
    run.steps()?;
    let steps = run.trainer.steps();
    let eval_loss = run.conclude(limits)?;
    let trainer = &run.trainer;
    Ok(Report {
        steps,
        stopped_early: run.evaluation.is_over(),
        best_step: run.evaluation.best().map(|(_, step)| step),
        final_loss: run.metrics.points().last().map_or(f64::NAN, |point| point.loss),
        eval_loss,
        adapter: output.write(cx, &trainer.model, &trainer.parameters)?,
        trained: trainer.parameters.values(),
        resumed_from: run.resumed,
        checkpoint: run.checkpoints.last(),
        peak_memory_bytes: windlass_runtime::system::peak_memory().unwrap_or(0),
        data: prepared.figures,
    })
}

/// Tokens that an example may have.
fn context(model: &Model, wanted: Option<usize>) -> Result<usize> {
    let trained = model.identity()?.hyper.context();
    let context = wanted.unwrap_or(trained.min(load::Options::DEFAULT_CONTEXT));
    if context > trained {
        let message = format!("--context {context} is more than the {trained} tokens that the model knows");
        return Err(Error::usage(message).help("choose a smaller --context"));
    }
    if context < 2 {
        return Err(Error::usage(format!("--context {context} leaves nothing to learn: it must be at least 2")));
    }
    Ok(context)
}

/// What the base is quantized to while it is loaded.
fn base_scheme(model: &Model, options: &Options) -> Option<String> {
    let floats = model.source.tensors().iter().all(|entry| entry.element().dtype().is_some());
    let quantized = matches!(options.method.as_str(), "qlora" | "qdora");
    options.base_scheme.clone().or((quantized && floats).then(|| "nf4".into()))
}

fn steps(options: &Options, units: usize) -> u64 {
    let per_epoch = units.div_ceil(options.batch_size.max(1) * options.accumulate.max(1));
    options.steps.unwrap_or((options.epochs.unwrap_or(1.0) * per_epoch as f64).ceil() as u64)
}

fn trainer(
    cx: &Context,
    model: &Model,
    options: &Options,
    context: usize,
    units: usize,
    limits: &Limits,
    observer: &Observer,
) -> Result<(Trainer, Outcome)> {
    let load = load::Options {
        context: Some(context),
        memory_limit: observer.memory_limit,
        threads: observer.threads,
        ..load::Options::default()
    };
    let watch = Watch { stop: observer.stop, progress: &|_, _| {} };
    let prepared = methods::prepare(cx, model, options, &load, &watch, limits)?;
    let methods::Prepared { trainable, mut parameters, result } = prepared;
    optimizers::regroup(options, &mut parameters)?;
    let optimizer = optimizers::optimizer(options)?;
    let how = windlass_train::Options {
        batch_size: options.batch_size,
        accumulate: options.accumulate,
        max_grad_norm: (options.max_grad_norm > 0.0).then_some(options.max_grad_norm),
        max_grad_value: (options.max_grad_value > 0.0).then_some(options.max_grad_value),
        seed: options.seed,
        shuffle: options.shuffle,
        checkpoint: options.gradient_checkpointing,
        skip_nan: options.skip_nan,
    };
    Ok((Trainer::new(trainable, parameters, optimizer, units, how)?, result))
}
