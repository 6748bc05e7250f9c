//! The keys of a training file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::Every;
use super::data;
use super::optimizers::Numbers;
use crate::{Error, Result};

/// What to train, on what, and how. Keys of the file and flags of the command have these names.
///
/// What is written of them (into checkpoints) is what steps depend on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A file, a folder, or hf:ORG/NAME.
    #[serde(skip_serializing)]
    pub model: String,
    /// A file of rows.
    #[serde(skip_serializing)]
    pub data: PathBuf,
    /// A folder for the adapter, checkpoints and metrics.
    #[serde(skip_serializing)]
    pub out: PathBuf,
    pub method: String,
    #[serde(skip_serializing)]
    pub overwrite: bool,
    /// Goes on from the latest checkpoint in `out`; from the beginning where there is none.
    #[serde(skip_serializing)]
    pub resume: bool,
    /// When to write a checkpoint, beside the end and signals.
    #[serde(alias = "save_every", skip_serializing)]
    pub checkpoint_every: Option<Every>,
    /// How many of the latest checkpoints stay.
    #[serde(alias = "keep_last", skip_serializing)]
    pub keep: usize,
    pub steps: Option<u64>,
    pub epochs: Option<f64>,
    pub batch_size: usize,
    pub accumulate: usize,
    pub context: Option<usize>,
    pub shuffle: bool,
    pub seed: u64,
    pub learning_rate: f64,
    /// A name of `windlass_nn::schedule::SHAPES`.
    pub scheduler: String,
    /// What the schedule is told besides.
    pub scheduler_settings: Numbers,
    pub warmup_steps: u64,
    /// A name of `windlass_nn::optim::OPTIMIZERS`.
    pub optimizer: String,
    /// What the optimizer is told besides.
    pub optimizer_settings: Numbers,
    pub beta1: Option<f64>,
    pub beta2: Option<f64>,
    pub epsilon: Option<f64>,
    pub weight_decay: Option<f64>,
    /// `PATTERN:rate=0.1;weight_decay=0` for parameters whose names match.
    pub parameter_groups: Vec<String>,
    /// No limit where it is 0.
    pub max_grad_norm: f64,
    /// Largest value of a gradient; no limit where it is 0.
    pub max_grad_value: f64,
    pub rank: usize,
    pub alpha: Option<f64>,
    pub dropout: f64,
    pub target_modules: Vec<String>,
    #[serde(serialize_with = "lossy")]
    pub init_adapter: Option<PathBuf>,
    /// Names of weights that `full` trains, with `*` for any text; all where there are none.
    pub train_only: Vec<String>,
    /// New layers of `llama-pro`.
    pub expand_blocks: usize,
    /// What parameters, what is computed and what is kept for gradients are held in: `fp32`.
    pub precision: String,
    /// A scheme that the base is quantized to while it is loaded.
    pub base_scheme: Option<String>,
    #[serde(skip_serializing)]
    pub gradient_checkpointing: bool,
    #[serde(skip_serializing)]
    pub eval_data: Option<PathBuf>,
    /// Steps between evaluations.
    #[serde(skip_serializing)]
    pub eval_every: Option<u64>,
    /// The part of the data that is held out to measure the loss on, from 0 to 1.
    pub eval_split: Option<f64>,
    /// The shape of all rows, where their columns do not tell.
    pub format: Option<String>,
    /// Names that shapes know, and what the file calls them.
    pub columns: BTreeMap<String, String>,
    /// A Jinja file, or `chatml`, instead of the model's own chat template.
    pub template: Option<String>,
    /// `completion` or `all`.
    pub train_on: Option<String>,
    /// What happens to rows longer than the context: `end`, `start`, `drop`, `split` or `error`.
    pub truncation: Option<String>,
    /// Whether batches are counted in packs of examples that fill the context.
    pub packing: bool,
    pub max_rows: Option<u64>,
    pub skip_bad_rows: bool,
    /// Evaluations without a better loss after which training ends.
    #[serde(skip_serializing)]
    pub early_stop: Option<u64>,
    /// Keeps the checkpoint with the best evaluation, of which the adapter is written at the end.
    #[serde(skip_serializing)]
    pub keep_best: bool,
    /// Leaves out steps whose loss or gradient is not a number.
    pub skip_nan: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            model: String::new(),
            data: PathBuf::new(),
            out: PathBuf::new(),
            method: "lora".into(),
            overwrite: false,
            resume: false,
            checkpoint_every: None,
            keep: 2,
            steps: None,
            epochs: None,
            batch_size: 1,
            accumulate: 1,
            context: None,
            shuffle: true,
            seed: 42,
            learning_rate: 2e-4,
            scheduler: "cosine".into(),
            scheduler_settings: Numbers::default(),
            warmup_steps: 0,
            optimizer: "adamw".into(),
            optimizer_settings: Numbers::default(),
            beta1: None,
            beta2: None,
            epsilon: None,
            weight_decay: None,
            parameter_groups: Vec::new(),
            max_grad_norm: 1.0,
            max_grad_value: 0.0,
            rank: 16,
            alpha: None,
            dropout: 0.0,
            target_modules: vec!["all-linear".into()],
            init_adapter: None,
            train_only: Vec::new(),
            expand_blocks: 4,
            precision: "fp32".into(),
            base_scheme: None,
            gradient_checkpointing: false,
            eval_data: None,
            eval_every: None,
            eval_split: None,
            format: None,
            columns: BTreeMap::new(),
            template: None,
            train_on: None,
            truncation: None,
            packing: false,
            max_rows: None,
            skip_bad_rows: false,
            early_stop: None,
            keep_best: false,
            skip_nan: false,
        }
    }
}

impl Options {
    /// From keys and values; an unknown key is an error that names the nearest known one.
    pub fn from_keys(keys: Map<String, Json>) -> Result<Options> {
        let options: Options =
            serde_json::from_value(Json::Object(keys)).map_err(|error| explain(&error.to_string()))?;
        for (name, given) in [
            ("model", !options.model.is_empty()),
            ("data", options.data != PathBuf::new()),
            ("out", options.out != PathBuf::new()),
        ] {
            if !given {
                return Err(Error::usage(format!("--{name} is missing")).help("see `windlass help train`"));
            }
        }
        if options.steps.is_some() && options.epochs.is_some() {
            return Err(Error::usage("give --steps or --epochs, not both"));
        }
        if options.resume && options.overwrite {
            return Err(Error::usage("give --resume or --overwrite, not both"));
        }
        Ok(options)
    }

    /// How the rows of its files are read.
    pub fn data_settings(&self) -> data::Settings {
        data::Settings {
            format: self.format.clone(),
            columns: self.columns.clone(),
            template: self.template.clone(),
            train_on: self.train_on.clone(),
            truncation: self.truncation.clone(),
            max_rows: self.max_rows,
            skip_bad_rows: self.skip_bad_rows,
        }
    }
}

fn lossy<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.display().to_string()).serialize(serializer)
}

fn explain(message: &str) -> Error {
    let Some(rest) = message.strip_prefix("unknown field `") else { return Error::usage(message) };
    let key = rest.split('`').next().unwrap_or_default();
    let known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
    let error = Error::usage(format!("no key is called {key:?}"));
    match windlass_quant::nearest(key, known.into_iter()) {
        Some(nearest) => error.help(format!("did you mean {nearest:?}?")),
        None => error.help("see `windlass help train`"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_told_with_the_nearest_known_one() {
        let keys = serde_json::json!({"model": "m", "data": "d", "out": "o", "learning_rat": 1.0});
        let error = Options::from_keys(keys.as_object().unwrap().clone()).unwrap_err();
        assert!(format!("{error:?}").contains("learning_rate"), "{error:?}");
        let keys = serde_json::json!({"model": "m", "data": "d"});
        let error = Options::from_keys(keys.as_object().unwrap().clone()).unwrap_err();
        assert!(error.to_string().contains("--out"), "{error}");
    }
}
