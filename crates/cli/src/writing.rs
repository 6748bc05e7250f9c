//! Flags of every command that writes a model.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use windlass::convert::Options;

use crate::context::Context;
use crate::size;

/// What is written, and how.
#[derive(clap::Args, Clone)]
pub struct Writing {
    /// Container of the result [default: by its name: .gguf, .safetensors, or a Hugging Face folder]
    #[arg(long, env = "WINDLASS_TO", value_name = "CONTAINER")]
    pub to: Option<String>,
    /// Scheme or recipe, such as q4_k_m, q8_0, mlx4-g64, bf16 [default: keep what it is made of has]
    #[arg(long, env = "WINDLASS_SCHEME", value_name = "S")]
    pub scheme: Option<String>,
    /// The same scheme for every matrix
    #[arg(long, env = "WINDLASS_PURE", value_parser = FalseyValueParser::new(), requires = "scheme")]
    pub pure: bool,
    /// A recipe of your own: rules from name patterns to schemes (TOML)
    #[arg(long, env = "WINDLASS_RECIPE", value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Importance matrix (GGUF)
    #[arg(long, env = "WINDLASS_IMATRIX", value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Split the result into parts of at most this size
    #[arg(long, env = "WINDLASS_PART_SIZE", value_name = "SIZE", value_parser = size::parse)]
    pub part_size: Option<u64>,
    /// Take config.json and tokenizer from this folder
    #[arg(long, env = "WINDLASS_CONFIG_FROM", value_name = "DIR")]
    pub config_from: Option<PathBuf>,
    /// Fail, with exit code 5, if a tensor's relative error is larger
    #[arg(long, env = "WINDLASS_MAX_ERROR", value_name = "X")]
    pub max_error: Option<f64>,
    /// Go on where a killed run stopped
    #[arg(long, env = "WINDLASS_RESUME", value_parser = FalseyValueParser::new())]
    pub resume: bool,
    /// Replace the result if it exists
    #[arg(long, env = "WINDLASS_OVERWRITE", value_parser = FalseyValueParser::new())]
    pub overwrite: bool,
    /// Print the plan and write nothing
    #[arg(long, env = "WINDLASS_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub dry_run: bool,
}

impl Writing {
    /// What the flags say.
    pub fn options(&self, context: &Context) -> Options {
        Options {
            to: self.to.clone(),
            scheme: self.scheme.clone(),
            pure: self.pure,
            recipe: self.recipe.clone(),
            imatrix: self.imatrix.clone(),
            part_size: self.part_size,
            config_from: self.config_from.clone(),
            max_error: self.max_error,
            resume: self.resume,
            overwrite: self.overwrite,
            memory_limit: context.memory_limit(),
            threads: context.threads(),
            limits: context.limits.clone(),
            ..Options::default()
        }
    }
}
