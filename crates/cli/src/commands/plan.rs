use std::io::Write;

use windlass::Result;
use windlass::plan::Plan as Planned;

use super::bench::Bench;
use super::convert::{Convert, describe};
use super::eval::Eval;
use super::generate::Generate;
use super::logits::Logits;
use super::merge::Merge;
use crate::context::Context;
use crate::size;

/// Show what a command would read, write and hold in memory, and whether it fits
#[derive(clap::Args)]
pub struct Plan {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Convert(Box<Convert>),
    Merge(Box<Merge>),
    Generate(Box<Generate>),
    Bench(Box<Bench>),
    Logits(Box<Logits>),
    Eval(Box<Eval>),
}

impl Plan {
    pub fn run(self, context: &Context) -> Result<()> {
        let planned = match self.verb {
            Verb::Convert(convert) => {
                let plan = convert.prepare(context)?.describe();
                return context.print(&plan, |out| describe(out, &plan));
            }
            Verb::Merge(merge) => {
                let plan = merge.prepare(context)?.describe();
                return context.print(&plan, |out| describe(out, &plan));
            }
            Verb::Generate(generate) => generate.plan(context)?,
            Verb::Bench(bench) => bench.plan(context)?,
            Verb::Logits(logits) => logits.plan(context)?,
            Verb::Eval(eval) => eval.plan(context)?,
        };
        context.print(&planned, |out| tell(out, &planned))
    }
}

fn tell(out: &mut dyn Write, p: &Planned) -> std::io::Result<()> {
    for (name, devices) in &p.memory {
        for (device, bytes) in devices {
            writeln!(out, "{:16} {:>8} on {device}", name.replace('_', " "), size::show(*bytes))?;
        }
    }
    writeln!(out, "{:16} {:>8}", "together", size::show(p.peak_memory_bytes))?;
    let (own, limit) = (size::show(p.own_memory_bytes), size::show(p.memory_limit_bytes));
    writeln!(out, "beside mapped files {own} of at most {limit}")?;
    writeln!(out, "reads {}, writes {}", size::show(p.bytes_read), size::show(p.bytes_written))?;
    writeln!(out, "computes on {} with {} threads, remembers {} tokens", p.device, p.threads, p.context)?;
    writeln!(out, "{}", if p.fits { "it fits" } else { "it does not fit" })?;
    p.obstacles.iter().try_for_each(|o| writeln!(out, "  {o}"))
}
