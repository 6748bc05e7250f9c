//! `train`: a model learns from a file of examples.

mod adapter;
pub mod data;
mod options;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use windlass_nn::optim::{Adam, Optimizer};
use windlass_nn::schedule::{Kind, Schedule};
use windlass_ops::Context;
use windlass_tensor::Limits;
use windlass_train::{LoraOptions, StepReport, Trainer, attach};

use crate::convert::Watch;
use crate::load::{self, Strategy, load_watched};
use crate::{Code, Error, Model, Result};

pub use options::Options;

/// What training came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub steps: u64,
    /// Of the last step.
    pub final_loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Where the adapter is.
    pub adapter: std::path::PathBuf,
    /// Numbers that were trained.
    pub trained: usize,
    pub peak_memory_bytes: u64,
    /// Of the files that were learned from.
    pub data: data::Figures,
}

/// What a training loop tells, and asks.
pub struct Observer<'a> {
    /// Set to stop after the step that runs.
    pub stop: &'a AtomicBool,
    pub memory_limit: Option<u64>,
    pub threads: usize,
    /// Sees every step, and how many there are in all.
    pub step: &'a dyn Fn(&StepReport, u64),
}

/// Trains, and writes the adapter.
pub fn train(cx: &Context, options: &Options, limits: &Limits, observer: &Observer) -> Result<Report> {
    let metrics_path = options.out.join("metrics.jsonl");
    if metrics_path.exists() && !options.overwrite {
        let message = format!("{} exists already", metrics_path.display());
        return Err(Error::new(Code::Failed, message)
            .at(&metrics_path)
            .help("choose another --out, or add --overwrite"));
    }
    let model = Model::open(&options.model, limits)?;
    let context = context(&model, options.context)?;
    let prepared = data::prepare(&model, options, context, limits)?;
    let (mut trainer, adapter) = trainer(cx, &model, options, context, prepared.data.units(), limits, observer)?;
    let steps = steps(options, prepared.data.units());
    let schedule = Schedule {
        kind: Kind::named(&options.scheduler)?,
        learning_rate: options.learning_rate,
        warmup: options.warmup_steps,
        steps,
    };
    std::fs::create_dir_all(&options.out).map_err(|e| Error::io(&options.out, e))?;
    let output = adapter::Output::plan(options.out.join("adapter"), &trainer.parameters, &adapter, &model, options)?;
    let metrics = File::create(&metrics_path).map_err(|e| Error::io(&metrics_path, e))?;
    let mut metrics = BufWriter::new(metrics);
    let mut last = f64::NAN;
    while trainer.steps() < steps && !observer.stop.load(Ordering::Relaxed) {
        let rate = schedule.rate(trainer.steps());
        let report = trainer.step(cx, &prepared.data, rate)?;
        last = report.loss;
        let line = serde_json::to_string(&report).map_err(|e| Error::new(Code::Failed, e.to_string()))?;
        writeln!(metrics, "{line}").and_then(|()| metrics.flush()).map_err(|e| Error::io(&metrics_path, e))?;
        (observer.step)(&report, steps);
    }
    let eval_loss = prepared.eval.map(|examples| trainer.evaluate(cx, &examples)).transpose()?;
    Ok(Report {
        steps: trainer.steps(),
        final_loss: last,
        eval_loss,
        adapter: output.write(&trainer.parameters)?,
        trained: trainer.parameters.values(),
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
) -> Result<(Trainer, windlass_train::Adapter)> {
    let method = options.method.as_str();
    let (quantized, dora, rslora) = match method {
        "lora" => (false, false, false),
        "qlora" => (true, false, false),
        "dora" => (false, true, false),
        "qdora" => (true, true, false),
        "rslora" => (false, false, true),
        other => {
            let message = format!("the method {other:?} is not built; there are lora, qlora, dora, qdora, rslora");
            return Err(Error::usage(message));
        }
    };
    let floats = model.source.tensors().iter().all(|entry| entry.element().dtype().is_some());
    let scheme = options.base_scheme.clone().or((quantized && floats).then(|| "nf4".into()));
    let load_options = load::Options {
        context: Some(context),
        strategy: Strategy::Mapped,
        scheme,
        memory_limit: observer.memory_limit,
        unrounded: true,
        threads: observer.threads,
    };
    let loaded = load_watched(model, &load_options, &Watch { stop: observer.stop, progress: &|_, _| {} })?;
    let lora = LoraOptions {
        rank: options.rank,
        alpha: options.alpha.unwrap_or(2.0 * options.rank as f64),
        dropout: options.dropout,
        targets: options.target_modules.clone(),
        rslora,
        dora,
        seed: options.seed,
    };
    let start = options.init_adapter.as_ref().map(|path| adapter::read(path, limits)).transpose()?;
    let (trainable, parameters, adapter) = attach(cx, loaded.decoder, loaded.convention, &lora, start.as_ref())?;
    let mut adam = match options.optimizer.as_str() {
        "adamw" => Adam::decoupled(),
        "adam" => Adam::joined(),
        other => return Err(Error::usage(format!("no optimizer is called {other:?}; there are adamw, adam"))),
    };
    (adam.beta1, adam.beta2) = (options.beta1, options.beta2);
    (adam.epsilon, adam.weight_decay) = (options.epsilon, options.weight_decay);
    let optimizer: Box<dyn Optimizer> = Box::new(adam);
    let how = windlass_train::Options {
        batch_size: options.batch_size,
        accumulate: options.accumulate,
        max_grad_norm: (options.max_grad_norm > 0.0).then_some(options.max_grad_norm),
        seed: options.seed,
        shuffle: options.shuffle,
        checkpoint: options.gradient_checkpointing,
    };
    Ok((Trainer::new(trainable, parameters, optimizer, units, how)?, adapter))
}
