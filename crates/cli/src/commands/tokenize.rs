use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use serde::Serialize;
use windlass::{Model, Result};

use crate::context::Context;

/// Turn text into tokens
#[derive(clap::Args)]
pub struct Tokenize {
    /// A file, a folder, or hf:ORG/NAME
    model: PathBuf,
    /// The text; `-` reads standard input
    #[arg(short, long, env = "WINDLASS_PROMPT", value_name = "TEXT")]
    prompt: String,
    /// Leave out the tokens that begin and end a text
    #[arg(long, env = "WINDLASS_NO_SPECIAL", value_parser = FalseyValueParser::new())]
    no_special: bool,
}

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<u32>,
    pieces: Vec<String>,
}

impl Tokenize {
    pub fn run(self, context: &Context) -> Result<()> {
        let tokenizer = Model::open(&self.model, &context.limits)?.tokenizer(&context.limits)?;
        let text = context.text(self.prompt)?;
        let tokens = tokenizer.encode(&text, !self.no_special)?;
        let pieces = tokens.iter().map(|t| tokenizer.piece(*t).unwrap_or_default()).collect();
        let result = Tokens { tokens, pieces };
        context.print(&result, |out| {
            result.tokens.iter().zip(&result.pieces).try_for_each(|(token, piece)| writeln!(out, "{token:>7}  {piece}"))
        })
    }
}
