use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};
use windlass::train::{Every, Observer, Options};
use windlass::{Code, Error, Result};

use super::data::RowFlags;
use crate::context::Context;
use crate::steps::Steps;

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
    /// A folder for the adapter or model, and metrics.jsonl
    #[arg(long, env = "WINDLASS_OUT", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<PathBuf>,
    /// lora, qlora, dora, qdora, rslora, full, llama-pro [default: lora]
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
    /// constant, linear, cosine, wsd, ... (docs/reference.md) [default: cosine]
    #[arg(long, env = "WINDLASS_SCHEDULER", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduler: Option<String>,
    /// Settings of the schedule, such as floor=0.1
    #[arg(long, env = "WINDLASS_SCHEDULER_SETTINGS", value_name = "K=X,...", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scheduler_settings: Vec<String>,
    /// Steps in which the rate rises from zero [default: 0]
    #[arg(long, env = "WINDLASS_WARMUP_STEPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_steps: Option<u64>,
    /// adamw, adamw8bit, adam, sgd, lion, adafactor, muon, ... (docs/reference.md) [default: adamw]
    #[arg(long, env = "WINDLASS_OPTIMIZER", value_name = "O")]
    #[serde(skip_serializing_if = "Option::is_none")]
    optimizer: Option<String>,
    /// Settings of the optimizer, such as momentum=0.9,nesterov=true
    #[arg(long, env = "WINDLASS_OPTIMIZER_SETTINGS", value_name = "K=X,...", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    optimizer_settings: Vec<String>,
    /// Parameters of their own rate or decay, such as '*.lora_B:rate=16;weight_decay=0'
    #[arg(long, env = "WINDLASS_PARAMETER_GROUPS", value_name = "PATTERN:K=X;...,...", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parameter_groups: Vec<String>,
    /// [default: the optimizer's, 0.9 for AdamW]
    #[arg(long, env = "WINDLASS_BETA1", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    beta1: Option<f64>,
    /// [default: the optimizer's, 0.999 for AdamW]
    #[arg(long, env = "WINDLASS_BETA2", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    beta2: Option<f64>,
    /// [default: the optimizer's, 1e-8 for AdamW]
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
    /// Larger values of gradients are cut; 0: never [default: 0]
    #[arg(long, env = "WINDLASS_MAX_GRAD_VALUE", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_grad_value: Option<f64>,
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
    /// What numbers are held in while training: fp32, and no other yet [default: fp32]
    #[arg(long, env = "WINDLASS_PRECISION", value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<String>,
    /// Start from this adapter (PEFT)
    #[arg(long, env = "WINDLASS_INIT_ADAPTER", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    init_adapter: Option<PathBuf>,
    /// With `full`: train these weights alone, such as '*norm.weight'
    #[arg(long, env = "WINDLASS_TRAIN_ONLY", value_name = "PATTERN,...", value_delimiter = ',', num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    train_only: Vec<String>,
    /// With `llama-pro`: new layers [default: 4]
    #[arg(long, env = "WINDLASS_EXPAND_BLOCKS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    expand_blocks: Option<usize>,
    /// Quantize the base while loading, such as to nf4
    #[arg(long, env = "WINDLASS_BASE_SCHEME", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    base_scheme: Option<String>,
    /// Compute layers again on the way back: less memory, more time
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gradient_checkpointing: bool,
    /// Examples to measure the loss on
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
    /// When to write a checkpoint into DIR/checkpoints: after so many steps, or so much time (90s, 15m, 2h). SIGUSR1 asks for
    /// one now; Ctrl-C and SIGTERM write one and end the training
    #[arg(long, visible_alias = "save-every", env = "WINDLASS_CHECKPOINT_EVERY", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_every: Option<Every>,
    /// How many of the latest checkpoints stay [default: 2]
    #[arg(long, visible_alias = "keep-last", env = "WINDLASS_KEEP", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<usize>,
    /// Keep the checkpoint with the best evaluation, and write the adapter of that one
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keep_best: bool,
    /// Steps between evaluations [default: at the end only]
    #[arg(long, env = "WINDLASS_EVAL_EVERY", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_every: Option<u64>,
    /// End after so many evaluations without a better loss
    #[arg(long, env = "WINDLASS_EARLY_STOP", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    early_stop: Option<u64>,
    /// Leave out steps whose loss or gradient is not a number (at most ten in a row), instead of ending with what became that first
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skip_nan: bool,
    /// Steps that --trace shows, the first and the last of them; all, with loading, where they are not given
    #[arg(long, env = "WINDLASS_TRACE_STEPS", value_name = "A..B", value_parser = window)]
    #[serde(skip)]
    trace_steps: Option<RangeInclusive<u64>>,
    /// Go on from the latest checkpoint in the folder, as if there had been no end
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    resume: bool,
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
        let shown = Steps::new(context);
        let step = |report: &windlass::training::StepReport, steps: u64| {
            shown.show(report, steps);
            if self.trace_steps.as_ref().is_some_and(|window| report.step == *window.end()) {
                context.end_trace();
            }
        };
        let before = |step: u64| {
            if self.trace_steps.as_ref().is_some_and(|window| step == *window.start()) {
                context.resume_trace();
            }
        };
        if self.trace_steps.is_some() {
            if context.globals.trace.is_none() {
                return Err(Error::usage("--trace-steps needs --trace FILE"));
            }
            context.pause_trace();
        }
        let checkpoint = crate::signals::on_user_signal()?;
        let observer = Observer {
            stop: context.heed_stop(),
            checkpoint: &checkpoint,
            memory_limit: context.globals.memory_limit,
            threads: context.threads(),
            before: &before,
            step: &step,
            warn: &|text| context.say(&format!("warning: {text}")),
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

/// `3..5`: steps 3, 4 and 5.
fn window(text: &str) -> std::result::Result<RangeInclusive<u64>, String> {
    let bounds = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match bounds {
        Some((first, last)) if first >= 1 && first <= last => Ok(first..=last),
        _ => Err(format!("{text:?} is not like 3..5: the first and the last step, from 1 on")),
    }
}
