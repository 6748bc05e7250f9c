use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};
use windlass::train::{Observer, Options};
use windlass::{Code, Error, Result};

use super::data::RowFlags;
use crate::context::Context;

/// Fine-tune a model, plain or quantized, on a file of examples
#[derive(clap::Args, Serialize)]
pub struct Train {
    /// A TOML file with the same keys as these flags, `_` for `-`; flags come first
    #[serde(skip)]
    config_file: Option<PathBuf>,
    /// The base: a file, a folder, or hf:ORG/NAME
    #[arg(long, env = "WINDLASS_MODEL", value_name = "MODEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Rows: JSON lines, JSON, CSV, Parquet, text, or a NumPy array of tokens
    #[arg(long, env = "WINDLASS_DATA", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,
    /// A folder for the adapter and metrics.jsonl
    #[arg(long, env = "WINDLASS_OUT", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<PathBuf>,
    /// lora, qlora, dora, qdora, rslora [default: lora]
    #[arg(long, env = "WINDLASS_METHOD", value_name = "M")]
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// Steps of the optimizer
    #[arg(long, env = "WINDLASS_STEPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u64>,
    /// How often to go through the data [default: 1]
    #[arg(long, env = "WINDLASS_EPOCHS", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<f64>,
    /// Examples that are run together [default: 1]
    #[arg(long, env = "WINDLASS_BATCH_SIZE", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<usize>,
    /// Batches whose gradients make one step [default: 1]
    #[arg(long, env = "WINDLASS_ACCUMULATE", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    accumulate: Option<usize>,
    /// Tokens of an example at most [default: as trained, at most 4096]
    #[arg(long, env = "WINDLASS_CONTEXT", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<usize>,
    /// Take examples in random order (the default)
    #[arg(long, overrides_with = "no_shuffle")]
    #[serde(skip)]
    shuffle: bool,
    /// Take examples in the order of the file
    #[arg(long)]
    #[serde(skip)]
    no_shuffle: bool,
    /// The same seed gives the same losses [default: 42]
    #[arg(long, env = "WINDLASS_SEED", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// [default: 0.0002]
    #[arg(long, env = "WINDLASS_LEARNING_RATE", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    learning_rate: Option<f64>,
    /// constant, linear, cosine [default: cosine]
    #[arg(long, env = "WINDLASS_SCHEDULER", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduler: Option<String>,
    /// Steps in which the rate rises from zero [default: 0]
    #[arg(long, env = "WINDLASS_WARMUP_STEPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_steps: Option<u64>,
    /// adamw, adam [default: adamw]
    #[arg(long, env = "WINDLASS_OPTIMIZER", value_name = "O")]
    #[serde(skip_serializing_if = "Option::is_none")]
    optimizer: Option<String>,
    /// [default: 0.9]
    #[arg(long, env = "WINDLASS_BETA1", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    beta1: Option<f64>,
    /// [default: 0.999]
    #[arg(long, env = "WINDLASS_BETA2", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    beta2: Option<f64>,
    /// [default: 1e-8]
    #[arg(long, env = "WINDLASS_EPSILON", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    /// [default: 0]
    #[arg(long, env = "WINDLASS_WEIGHT_DECAY", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,
    /// Longer gradients are cut; 0: never [default: 1]
    #[arg(long, env = "WINDLASS_MAX_GRAD_NORM", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_grad_norm: Option<f64>,
    /// Rank of the changes [default: 16]
    #[arg(long, env = "WINDLASS_RANK", value_name = "R")]
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<usize>,
    /// Changes are multiplied with alpha / rank [default: twice the rank]
    #[arg(long, env = "WINDLASS_ALPHA", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    alpha: Option<f64>,
    /// How often a value before a change is left out [default: 0]
    #[arg(long, env = "WINDLASS_DROPOUT", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dropout: Option<f64>,
    /// Modules to change, such as q_proj,v_proj [default: all-linear]
    #[arg(long, env = "WINDLASS_TARGET_MODULES", value_name = "A,B", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    target_modules: Vec<String>,
    /// Start from this adapter (PEFT)
    #[arg(long, env = "WINDLASS_INIT_ADAPTER", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    init_adapter: Option<PathBuf>,
    /// Quantize the base while loading, such as to nf4
    #[arg(long, env = "WINDLASS_BASE_SCHEME", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    base_scheme: Option<String>,
    /// Compute layers again on the way back: less memory, more time
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gradient_checkpointing: bool,
    /// Examples to measure the loss on at the end
    #[arg(long, env = "WINDLASS_EVAL_DATA", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_data: Option<PathBuf>,
    /// Hold out this part of the data, from 0 to 1, to measure the loss on
    #[arg(long, env = "WINDLASS_EVAL_SPLIT", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_split: Option<f64>,
    #[command(flatten)]
    #[serde(flatten)]
    rows: RowFlags,
    /// Replace what is in the folder
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overwrite: bool,
    /// The one provider to compute with, such as `reference`
    #[arg(long, env = "WINDLASS_PROVIDER", value_name = "NAME")]
    #[serde(skip)]
    provider: Option<String>,
}

impl Train {
    pub fn run(self, context: &Context) -> Result<()> {
        let options = self.options()?;
        let progress = context.progress_in("train", "steps");
        let json = context.globals.json;
        let step = |report: &windlass::training::StepReport, steps: u64| {
            progress.show(report.step, steps);
            if !json {
                context.say(&format!(
                    "step {}/{steps}  loss {:.4}  rate {:.2e}  gradient {:.3}  {:.0} tokens/s",
                    report.step, report.loss, report.learning_rate, report.grad_norm, report.tokens_per_second
                ));
            }
        };
        let observer = Observer {
            stop: context.heed_stop(),
            memory_limit: context.globals.memory_limit,
            threads: context.threads(),
            step: &step,
        };
        let result = context.compute(self.provider.as_deref(), |cx| {
            windlass::train::train(cx, &options, &context.limits, &observer)
        })??;
        context.print(&result, |out| {
            writeln!(out, "{} steps, loss {:.4} -> {}", result.steps, result.final_loss, result.adapter.display())
        })
    }

    /// The keys of the file, below those of the command line.
    fn options(&self) -> Result<Options> {
        let mut keys = match &self.config_file {
            None => Map::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
                let table: Map<String, Value> =
                    toml::from_str(&text).map_err(|e| Error::usage(format!("{}: {e}", path.display())))?;
                table
            }
        };
        let given = serde_json::to_value(self).map_err(|e| Error::new(Code::Failed, e.to_string()))?;
        if let Value::Object(given) = given {
            keys.extend(given);
        }
        if self.shuffle || self.no_shuffle {
            keys.insert("shuffle".into(), Value::Bool(!self.no_shuffle));
        }
        Options::from_keys(keys)
    }
}
