use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use windlass::convert::{Options, Watch};
use windlass::quickstart::{Step, quickstart};
use windlass::{Code, Error, Result};

use crate::context::Context;
use crate::size;

/// Make a small model on the spot and show the main jobs on it
#[derive(clap::Args)]
pub struct Quickstart {
    /// Folder to work in; what an earlier quickstart left there is replaced
    #[arg(long, env = "WINDLASS_OUT", default_value = "windlass-quickstart")]
    out: PathBuf,
    /// Only formats and schemes: nothing is trained, which takes a second instead of a minute
    #[arg(long, env = "WINDLASS_BRIEF", value_parser = FalseyValueParser::new())]
    brief: bool,
    /// Replace models of the same names that no quickstart made
    #[arg(long, env = "WINDLASS_OVERWRITE", value_parser = FalseyValueParser::new())]
    overwrite: bool,
}

impl Quickstart {
    pub fn run(self, context: &Context) -> Result<()> {
        let watch = Watch { stop: context.heed_stop(), progress: &|_, _| {} };
        let options = Options {
            overwrite: self.overwrite,
            memory_limit: context.memory_limit(),
            threads: context.threads(),
            limits: context.limits.clone(),
            ..Options::default()
        };
        let quiet = context.globals.json || context.globals.quiet;
        let show = |step: &Step| {
            if !quiet {
                println!("{}", line(step));
            }
        };
        let tour = quickstart(&self.out, &options, &watch, !self.brief, &show)?;
        let failed: Vec<&str> = tour.steps.iter().filter(|s| !s.ok).map(|s| s.name.as_str()).collect();
        let verdict = match failed.first() {
            None => Ok(()),
            Some(name) => Err(Error::new(Code::Failed, format!("this step did not hold: {name}"))),
        };
        context.judge(&tour, verdict, |out| match failed.is_empty() {
            true => writeln!(out, "\nAll of it is in {}. Try: windlass inspect {0}/tiny-q4_k_m.gguf", tour.folder.display()),
            false => Ok(()),
        })
    }
}

fn line(step: &Step) -> String {
    let mut facts = vec![format!("{:.2} s", step.seconds)];
    facts.extend(step.bytes.map(size::show));
    facts.extend(step.megabytes_per_second.map(|m| format!("{m:.0} MB/s")));
    facts.extend(step.max_relative_error.filter(|e| *e > 0.0).map(|e| format!("relative error at most {e:.4}")));
    facts.extend(step.identical.map(|(same, all)| format!("{same} of {all} tensors identical")));
    facts.extend(step.worst_sqnr_db.map(|db| format!("worst {db:.1} dB")));
    facts.extend(step.loss.map(|(first, last)| format!("loss {first:.3} to {last:.3}")));
    facts.extend(step.tokens_per_second.map(|rate| format!("{rate:.0} tokens/s")));
    facts.extend(step.right.map(|(right, all)| format!("{right} of {all} answers right")));
    let said = step.text.as_ref().map(|text| format!("\n       \"{text}\"")).unwrap_or_default();
    let mark = if step.ok { "ok" } else { "FAILED" };
    let command = if step.command.is_empty() { String::new() } else { format!("\n       $ {}", step.command) };
    format!("{mark:>6} {:38} {}{said}{command}", step.name, facts.join(", "))
}
