use std::path::PathBuf;
use windlass::verify::{Options, Verdict, refusal, verify};
use clap::builder::FalseyValueParser;
use windlass::{Code, Error, Model, Result};

use crate::context::Context;
use crate::size;

/// Check a model against the rules of its format
#[derive(clap::Args)]
pub struct Verify {
    /// A file, a folder, or hf:ORG/NAME
    model: PathBuf,
    /// Read the data too: values and scales that are not finite
    #[arg(long, env = "WINDLASS_DEEP", value_parser = FalseyValueParser::new())]
    deep: bool,
}

impl Verify {
    pub fn run(self, context: &Context) -> Result<()> {
        let verdict = match self.verdict(context) {
            // Scripts get one kind of document, whether the model is bad from its first byte or further on.
            Err(error) if context.globals.json => refusal(&error).ok_or(error)?,
            other => other?,
        };
        context.print(&verdict, |out| {
            for problem in &verdict.problems {
                let tensor = problem.tensor.as_ref().map(|t| format!("{t}: ")).unwrap_or_default();
                let offset = problem.offset.map(|o| format!(" (at offset {o})")).unwrap_or_default();
                writeln!(out, "{}: {tensor}{}{offset}", problem.code, problem.message)?;
            }
            match (verdict.ok, self.deep) {
                (true, true) => writeln!(out, "ok: {} tensors, {} read", verdict.tensors, size::show(verdict.bytes_read)),
                (true, false) => writeln!(out, "ok: {} tensors (headers; --deep reads the data)", verdict.tensors),
                _ => Ok(()),
            }
        })?;
        match verdict.problems.len() {
            0 => Ok(()),
            // The findings are the document already.
            _ if context.globals.json => std::process::exit(Code::Refused as i32),
            n => {
                let (path, s) = (self.model.display(), if n == 1 { "" } else { "s" });
                Err(Error::new(Code::Refused, format!("{path}: {n} problem{s} found")).at(&self.model))
            }
        }
    }

    fn verdict(&self, context: &Context) -> Result<Verdict> {
        let model = Model::open(&self.model, &context.limits)?;
        let progress = context.progress("verify");
        let options = Options {
            deep: self.deep,
            limits: context.limits.clone(),
            memory_limit: context.memory_limit(),
            progress: &|done, total| progress.show(done, total),
        };
        verify(&model, &options)
    }
}
