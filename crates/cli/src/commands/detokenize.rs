use std::path::PathBuf;
use serde::Serialize;
use clap::builder::FalseyValueParser;
use windlass::{Model, Result};

use crate::context::Context;

/// Turn tokens back into text
#[derive(clap::Args)]
pub struct Detokenize {
    /// A file, a folder, or hf:ORG/NAME
    model: PathBuf,
    /// Token numbers, such as 1,2,3
    #[arg(long, env = "WINDLASS_TOKENS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Leave out special tokens
    #[arg(long, env = "WINDLASS_SKIP_SPECIAL", value_parser = FalseyValueParser::new())]
    skip_special: bool,
}

#[derive(Serialize)]
struct Text {
    text: String,
    pieces: Vec<String>,
}

impl Detokenize {
    pub fn run(self, context: &Context) -> Result<()> {
        let tokenizer = Model::open(&self.model, &context.limits)?.tokenizer(&context.limits)?;
        let text = tokenizer.decode(&self.tokens, self.skip_special)?;
        let pieces = self.tokens.iter().map(|t| tokenizer.piece(*t).unwrap_or_default()).collect();
        let result = Text { text, pieces };
        context.print(&result, |out| writeln!(out, "{}", result.text))
    }
}
