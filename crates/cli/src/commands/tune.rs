use std::sync::atomic::Ordering;

use clap::builder::FalseyValueParser;
use serde_json::json;
use windlass::{Result, ops, tune};

use crate::context::Context;

/// Measure which provider is the fastest for each op, and keep the table for this machine
#[derive(clap::Args)]
pub struct Tune {
    /// Only this op; what was measured for others stays
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
    /// Delete the table: the built-in order holds again
    #[arg(long, env = "WINDLASS_FORGET", value_parser = FalseyValueParser::new(), conflicts_with = "op")]
    forget: bool,
}

impl Tune {
    pub fn run(self, context: &Context) -> Result<()> {
        context.routes()?;
        if self.forget {
            let (path, there) = tune::forget(context.threads())?;
            let document = json!({"path": path.to_string_lossy(), "removed": there});
            return context.print(&document, |out| match there {
                true => writeln!(out, "removed {}", path.display()),
                false => writeln!(out, "there was no table of this machine"),
            });
        }
        let only = self.op.as_deref().map(ops::op).transpose()?;
        let (progress, stop) = (context.progress_in("tune", "ops"), context.heed_stop());
        let show = |done, total| {
            progress.show(done, total);
            !stop.load(Ordering::Relaxed)
        };
        let report = context.compute(None, |cx| tune::tune(cx, only, &show))??;
        drop(progress);
        context.print(&report, |out| {
            for m in report.measurements.iter().filter(|m| m.best() != m.seconds.first().map(|first| first.0)) {
                let times: Vec<String> = m.seconds.iter().map(|(name, s)| format!("{name} {:.2} us", s * 1e6)).collect();
                writeln!(out, "{:18} {:8} {:>8} values: {}", m.op, m.dtype, m.size, times.join(", "))?;
            }
            let (all, seconds) = (report.measurements.len(), report.seconds);
            writeln!(out, "{all} families of arguments measured in {seconds:.1} s, {} prefer another provider", report.changed)?;
            writeln!(out, "the table is {}; `windlass routes` shows it", report.path.display())
        })
    }
}
