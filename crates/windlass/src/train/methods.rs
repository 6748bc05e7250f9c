//! Methods: what of a model is trained, and how that leaves.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use windlass_models::Trainable;
use windlass_nn::Parameters;
use windlass_ops::Context;
use windlass_tensor::Limits;
use windlass_train::{Adapter, Expansion, LoraOptions, attach, expanded, whole};

use super::{Options, adapter, folder};
use crate::load::{self, Strategy, load_watched};
use crate::{Code, Error, Model, Result};

/// The names of methods, and what they are.
pub const METHODS: &[(&str, &str)] = &[
    ("lora", "low-rank changes (arXiv 2106.09685)"),
    ("qlora", "the same, on a base that is quantized to NF4 where it is plain (arXiv 2305.14314)"),
    ("dora", "low-rank changes of directions, lengths apart (arXiv 2402.09353)"),
    ("qdora", "the same on a quantized base"),
    ("rslora", "low-rank changes, scaled by the root of the rank (arXiv 2312.03732)"),
    ("full", "all weights, or those that `--train-only` names"),
    ("llama-pro", "copies of layers among the old ones, which alone are trained (arXiv 2401.02415)"),
];

/// What is trained, and what it leaves as.
pub(super) struct Prepared {
    pub trainable: Trainable,
    pub parameters: Parameters,
    pub result: Outcome,
}

/// What training leaves.
pub(super) enum Outcome {
    Adapter(Adapter),
    /// A model with this config.json.
    Model(Json),
}

/// A planned folder.
pub(super) enum Output {
    Adapter(adapter::Output),
    Model(folder::Output),
}

/// Loads the base and makes parameters of what is trained.
pub(super) fn prepare(
    cx: &Context,
    model: &Model,
    options: &Options,
    load: &load::Options,
    watch: &crate::convert::Watch,
    limits: &Limits,
) -> Result<Prepared> {
    let method = options.method.as_str();
    if !METHODS.iter().any(|(name, _)| *name == method) {
        let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        let error = Error::usage(format!("the method {method:?} is not built; there are {}", names.join(", ")));
        return Err(match windlass_quant::nearest(method, names.into_iter()) {
            Some(nearest) => error.help(format!("did you mean {nearest:?}?")),
            None => error,
        });
    }
    if options.precision != "fp32" {
        let message = format!(
            "the precision {:?} is not built: parameters, arithmetic and what is kept are fp32",
            options.precision
        );
        return Err(Error::usage(message).help("use --precision fp32; --gradient-checkpointing takes less memory"));
    }
    if method != "full" && !options.train_only.is_empty() {
        return Err(Error::usage("--train-only goes with --method full"));
    }
    if method == "full" && options.base_scheme.is_some() {
        return Err(Error::usage("--method full changes weights as floats: it takes no --base-scheme"));
    }
    let scheme = super::base_scheme(model, options);
    let load = load::Options { scheme, strategy: Strategy::Mapped, unrounded: true, ..load.clone() };
    let loaded = load_watched(model, &load, watch)?;
    if matches!(method, "full" | "llama-pro") {
        if options.init_adapter.is_some() {
            return Err(Error::usage(format!("--method {method} starts from the model, not from --init-adapter")));
        }
        let config = config(model, limits)?;
        return match method {
            "full" => {
                let all = vec!["*".to_string()];
                let patterns = if options.train_only.is_empty() { &all } else { &options.train_only };
                let (trainable, parameters) = whole(cx, loaded.decoder, patterns)?;
                Ok(Prepared { trainable, parameters, result: Outcome::Model(config) })
            }
            _ => grow(cx, loaded, config, options.expand_blocks),
        };
    }
    let lora = LoraOptions {
        rank: options.rank,
        alpha: options.alpha.unwrap_or(2.0 * options.rank as f64),
        dropout: options.dropout,
        targets: options.target_modules.clone(),
        rslora: method == "rslora",
        dora: matches!(method, "dora" | "qdora"),
        seed: options.seed,
    };
    let start = options.init_adapter.as_ref().map(|path| adapter::read(path, limits)).transpose()?;
    let (trainable, parameters, adapter) = attach(cx, loaded.decoder, loaded.convention, &lora, start.as_ref())?;
    Ok(Prepared { trainable, parameters, result: Outcome::Adapter(adapter) })
}

fn grow(cx: &Context, loaded: load::Loaded, mut config: Json, count: usize) -> Result<Prepared> {
    let expansion = Expansion::even(loaded.decoder.hyper().layers(), count)?;
    let order = &expansion.order;
    config["num_hidden_layers"] = json!(order.len());
    // What is said of every layer is said of its copy.
    if let Some(types) = config.get("layer_types").and_then(Json::as_array).cloned() {
        config["layer_types"] = order.iter().filter_map(|layer| types.get(*layer).cloned()).collect();
    }
    let (_, hyper) = windlass_catalog::from_hf_config(&config)?;
    let known = loaded.decoder.hyper();
    if (0..order.len()).any(|layer| hyper.is_sliding(layer) != known.is_sliding(order[layer])) {
        let message = "the windows of its layers follow from their numbers, which new layers change";
        return Err(Error::new(Code::Refused, message).help("write layer_types into config.json"));
    }
    let (trainable, parameters) = expanded(cx, &loaded.decoder, hyper, &expansion)?;
    Ok(Prepared { trainable, parameters, result: Outcome::Model(config) })
}

/// The config.json of a model: its own, or what the catalog makes of a GGUF's keys.
fn config(model: &Model, limits: &Limits) -> Result<Json> {
    let mut config = match model.side_files(limits)?.get("config.json") {
        Some(bytes) => {
            serde_json::from_slice(bytes).map_err(|e| Error::new(Code::Refused, format!("config.json: {e}")))?
        }
        None => {
            let identity = model.identity()?;
            identity.architecture.to_hf_config(&identity.hyper)
        }
    };
    if let Some(keys) = config.as_object_mut() {
        // Weights are written as floats.
        keys.retain(|key, _| !matches!(key.as_str(), "quantization_config" | "quantization"));
    }
    Ok(config)
}

impl Outcome {
    /// Plans the folder, and refuses it where something is that is not to be replaced.
    pub(super) fn plan(
        &self,
        trainable: &Trainable,
        parameters: &Parameters,
        model: &Model,
        options: &Options,
        limits: &Limits,
    ) -> Result<Output> {
        match self {
            Outcome::Adapter(adapter) => {
                let path = options.out.join("adapter");
                adapter::Output::plan(path, parameters, adapter, model, options).map(Output::Adapter)
            }
            Outcome::Model(config) => {
                let path = options.out.join("model");
                folder::Output::plan(path, trainable, config, model, options, limits).map(Output::Model)
            }
        }
    }
}

impl Output {
    /// Writes the parameters as they are now. Gives the folder.
    pub(super) fn write(self, cx: &Context, trainable: &Trainable, parameters: &Parameters) -> Result<PathBuf> {
        match self {
            Output::Adapter(output) => output.write(parameters),
            Output::Model(output) => output.write(cx, trainable, parameters),
        }
    }
}
