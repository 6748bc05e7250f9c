use std::path::PathBuf;

use windlass::diff::diff;
use windlass::{Model, Result};

use crate::context::Context;

/// Compare two models tensor by tensor, across containers and schemes
#[derive(clap::Args)]
pub struct Diff {
    /// The first model: the one that errors are relative to
    a: PathBuf,
    /// The second model
    b: PathBuf,
}

impl Diff {
    pub fn run(self, context: &Context) -> Result<()> {
        let a = Model::open(&self.a, &context.limits)?;
        let b = Model::open(&self.b, &context.limits)?;
        let progress = context.progress("diff");
        let result = diff(&a, &b, context.memory_limit(), &|done, total| progress.show(done, total))?;
        drop(progress);
        context.print(&result, |out| {
            let width = result.tensors.iter().map(|t| t.name.len()).max().unwrap_or(0).max(6);
            writeln!(out, "{:width$}  {:>10}  {:>10}  {:>9}  {:>8}", "tensor", "max abs", "rmse", "cosine", "sqnr dB")?;
            for t in &result.tensors {
                let sqnr = t.sqnr_db.map_or_else(|| "-".to_string(), |db| format!("{db:.2}"));
                if t.identical {
                    writeln!(out, "{:width$}  identical", t.name)?;
                } else {
                    writeln!(out, "{:width$}  {:10.3e}  {:10.3e}  {:9.6}  {sqnr:>8}", t.name, t.max_abs, t.rmse, t.cosine)?;
                }
            }
            for t in &result.unequal_shapes {
                writeln!(out, "{:width$}  shapes {:?} and {:?}: not compared", t.name, t.shape_a, t.shape_b)?;
            }
            result.only_in_a.iter().try_for_each(|name| writeln!(out, "only in the first: {name}"))?;
            result.only_in_b.iter().try_for_each(|name| writeln!(out, "only in the second: {name}"))
        })
    }
}
