//! Flags of every command that runs a model.

use windlass::load::{self, Loaded, Options, Strategy};
use windlass::{Model, Result};

use crate::context::Context;

/// How a model is loaded, and what it remembers.
#[derive(clap::Args, Clone)]
pub struct Running {
    /// Tokens that the model is to remember [default: as trained, at most 4096]
    #[arg(long, env = "WINDLASS_CONTEXT", value_name = "N")]
    pub context: Option<usize>,
    /// Type of the memory of keys and values; q8_0 takes about half of f16 [default: f16; of `logits` and `eval`: f32]
    #[arg(long, env = "WINDLASS_KV", value_name = "TYPE", value_parser = ["f16", "q8_0", "f32"])]
    pub kv: Option<String>,
    /// `mapped` uses weights where they lie in the file, `resident` copies them into memory, `stream` reads each layer when
    /// it comes, `shared` has one copy for several processes
    #[arg(long, env = "WINDLASS_LOAD", value_name = "HOW", default_value = "mapped",
        value_parser = ["mapped", "resident", "stream", "shared"])]
    pub load: String,
    /// A scheme or recipe to quantize to while loading, such as q4_k_m
    #[arg(long, env = "WINDLASS_SCHEME", value_name = "S")]
    pub scheme: Option<String>,
    /// The one provider to compute with, such as `reference`
    #[arg(long, env = "WINDLASS_PROVIDER", value_name = "NAME")]
    pub provider: Option<String>,
}

impl Running {
    /// How to load a model that is to remember what `--context` says, or `tokens` where it says nothing.
    pub fn options(&self, context: &Context, tokens: Option<usize>) -> Options {
        Options {
            context: self.context.or(tokens),
            strategy: Strategy::named(&self.load).unwrap_or_default(),
            scheme: self.scheme.clone(),
            memory_limit: context.globals.memory_limit,
            threads: context.threads(),
            ..Options::default()
        }
    }

    /// Loads a model that is to remember what `--context` says, or `context` tokens where it says nothing.
    pub fn load(&self, context: &Context, model: &Model, tokens: Option<usize>) -> Result<Loaded> {
        let options = self.options(context, tokens);
        let progress = context.progress("load");
        let watch =
            windlass::convert::Watch { stop: context.heed_stop(), progress: &|done, total| progress.show(done, total) };
        let loaded = load::load_watched(model, &options, &watch);
        context.ignore_stop();
        loaded
    }

    /// The element of keys and values: as `--kv` says, or `default`.
    pub fn cache(&self, default: &str) -> Result<windlass::tensor::Element> {
        load::cache_element(self.kv.as_deref().unwrap_or(default))
    }
}
