use windlass::verify::{Options, verify};
use clap::builder::FalseyValueParser;
use windlass::{Code, Error, Model, Result};

use crate::context::Context;
use crate::size;

/// Check a model against the rules of its format
#[derive(clap::Args)]
pub struct Verify {
    /// A file, a folder, or hf:ORG/NAME
    model: String,
    /// Read the data too: values and scales that are not finite
    #[arg(long, env = "WINDLASS_DEEP", value_parser = FalseyValueParser::new())]
    deep: bool,
}

impl Verify {
    pub fn run(self, context: &Context) -> Result<()> {
        let model = Model::open(&self.model, &context.limits)?;
        let progress = context.progress("verify");
        let verdict = verify(
            &model,
            &Options {
                deep: self.deep,
                limits: context.limits.clone(),
                memory_limit: context.globals.memory_limit,
                progress: &|done, total| progress.show(done, total),
            },
        )?;
        drop(progress);
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
            n => Err(Error::new(Code::Refused, format!("{}: {n} problems found", self.model))),
        }
    }
}
