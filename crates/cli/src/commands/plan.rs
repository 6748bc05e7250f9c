use serde::Serialize;
use windlass::Result;

use super::convert::{Convert, describe};
use crate::context::Context;

/// Show what a command would read, write and hold in memory, and whether it fits
#[derive(clap::Args)]
pub struct Plan {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Convert(Box<Convert>),
}

#[derive(Serialize)]
struct Answer {
    /// Bytes by component and device.
    memory: serde_json::Value,
    bytes_read: u64,
    bytes_written: u64,
    fits: bool,
    plan: windlass::convert::Plan,
}

impl Plan {
    pub fn run(self, context: &Context) -> Result<()> {
        let Verb::Convert(convert) = self.verb;
        let plan = convert.prepare(context)?.describe();
        let memory = plan.peak_memory_bytes <= context.globals.memory_limit;
        let disk = plan.disk_free_bytes.is_none_or(|free| plan.bytes_written <= free);
        let answer = Answer {
            memory: serde_json::json!({"blocks": {plan.device: plan.peak_memory_bytes}}),
            bytes_read: plan.bytes_read,
            bytes_written: plan.bytes_written,
            fits: memory && disk,
            plan,
        };
        context.print(&answer, |out| {
            describe(out, &answer.plan)?;
            writeln!(out, "{}", if answer.fits { "it fits" } else { "it does not fit" })
        })
    }
}
