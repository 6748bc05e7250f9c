use clap::builder::FalseyValueParser;
use windlass::embed::{self, embed};
use windlass::models::Pooling;
use windlass::{Model, Result};

use crate::context::Context;

/// Turn a text into one vector
#[derive(clap::Args)]
pub struct Embed {
    /// A file, a folder, or hf:ORG/NAME: an encoder (BERT family), or a decoder whose states are pooled
    model: String,
    /// The text; `-` reads standard input
    #[arg(short, long, env = "WINDLASS_PROMPT", value_name = "TEXT")]
    prompt: String,
    /// How states become one vector [default: as the model's files say, else mean, or last for decoders]
    #[arg(long, env = "WINDLASS_POOLING", value_name = "HOW", value_parser = ["mean", "cls", "last", "max"])]
    pooling: Option<String>,
    /// Whether the vector has length one: true or false [default: as the model's files say]
    #[arg(long, env = "WINDLASS_NORMALIZE", value_name = "BOOL")]
    normalize: Option<bool>,
    /// Leave out the end of a text that is too long
    #[arg(long, env = "WINDLASS_TRUNCATE", value_parser = FalseyValueParser::new())]
    truncate: bool,
    /// The one provider to compute with, such as `reference`
    #[arg(long, env = "WINDLASS_PROVIDER", value_name = "NAME")]
    provider: Option<String>,
}

impl Embed {
    pub fn run(self, context: &Context) -> Result<()> {
        let text = context.text(self.prompt)?;
        let model = Model::open(&self.model, &context.limits)?;
        let pooling = Pooling::ALL.into_iter().find(|(name, _)| self.pooling.as_deref() == Some(name));
        let options = embed::Options {
            pooling: pooling.map(|(_, pooling)| pooling),
            normalize: self.normalize,
            truncate: self.truncate,
        };
        let report = context.compute(self.provider.as_deref(), |cx| {
            embed(cx, &model, &text, &options, &context.limits)
        })??;
        if !context.globals.json {
            let length = if report.normalized { ", of length one" } else { "" };
            let cut = if report.truncated { ", cut" } else { "" };
            let (tokens, dimensions, pooling) = (report.tokens, report.dimensions, report.pooling);
            context.say(&format!("{tokens} tokens{cut}, {dimensions} values, pooled by {pooling}{length}"));
        }
        context.print(&report, |out| {
            let values: Vec<String> = report.embedding.iter().map(f32::to_string).collect();
            writeln!(out, "{}", values.join(" "))
        })
    }
}
