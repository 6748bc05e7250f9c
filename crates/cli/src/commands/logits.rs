use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use windlass::load::Run;
use windlass::plan::{Plan, plan};
use windlass::{Model, Result};

use crate::context::Context;
use crate::running::Running;

/// Compute what a model says comes after each token
#[derive(clap::Args)]
pub struct Logits {
    /// A file, a folder, or hf:ORG/NAME
    model: String,
    /// Token numbers, such as 1,2,3
    #[arg(long, env = "WINDLASS_TOKENS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Where to write: a safetensors file with one F32 tensor `logits` [tokens, vocabulary]
    #[arg(long, env = "WINDLASS_OUT", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    running: Running,
    /// Replace FILE if it exists
    #[arg(long, env = "WINDLASS_OVERWRITE", value_parser = FalseyValueParser::new())]
    overwrite: bool,
}

impl Logits {
    /// What it would take.
    pub fn plan(self, context: &Context) -> Result<Plan> {
        let (model, count) = (Model::open(&self.model, &context.limits)?, self.tokens.len());
        let run = Run { context: count, element: self.running.cache("f32")?, batch: count, logits: count };
        let written = count as u64 * model.identity()?.hyper.vocab() as u64 * 4;
        plan(&model, &self.running.options(context, Some(count)), &run, written)
    }

    pub fn run(self, context: &Context) -> Result<()> {
        let model = Model::open(&self.model, &context.limits)?;
        let loaded = self.running.load(context, &model, Some(self.tokens.len()))?;
        let cache = self.running.cache("f32")?;
        let result = context.compute(self.running.provider.as_deref(), |cx| {
            windlass::logits::logits(cx, &loaded, &self.tokens, cache, &self.out, self.overwrite)
        })??;
        context.print(&result, |out| {
            writeln!(out, "{} tokens x {} logits -> {}", result.tokens, result.vocabulary, result.out.display())
        })
    }
}
