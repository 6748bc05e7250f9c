use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use windlass::convert::{Conversion, Options, Plan, Quality, Report, Watch};
use windlass::Result;

use crate::context::Context;
use crate::size;
use crate::writing::Writing;

/// Convert a model to any container, quantizing it on the way
#[derive(clap::Args)]
pub struct Convert {
    /// A file, a folder, or hf:ORG/NAME
    source: PathBuf,
    /// The file or folder to write
    target: PathBuf,
    #[command(flatten)]
    writing: Writing,
    /// Measure what was written on this text: its KL divergence from the source (32 windows of 512 tokens)
    #[arg(long, env = "WINDLASS_CALIBRATE", value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Fail, with exit code 5, if the mean KL divergence from the source is larger (on the text of --calibrate)
    #[arg(long, env = "WINDLASS_MAX_KLD", value_name = "X")]
    max_kld: Option<f64>,
}

impl Convert {
    /// Plans the conversion.
    pub fn prepare(self, context: &Context) -> Result<Conversion> {
        let quality = Quality { text: self.calibrate, max_divergence: self.max_kld, context: None };
        let options = Options { quality, ..self.writing.options(context) };
        Conversion::plan(&self.source, &self.target, options)
    }

    pub fn run(self, context: &Context) -> Result<()> {
        let dry_run = self.writing.dry_run;
        let conversion = self.prepare(context)?;
        let plan = conversion.describe();
        if dry_run {
            return context.print(&plan, |out| describe(out, &plan));
        }
        if context.globals.verbose {
            let mut text = Vec::new();
            if describe(&mut text, &plan).is_ok() {
                context.say(String::from_utf8_lossy(&text).trim_end());
            }
        }
        plan.warnings.iter().for_each(|warning| context.say(&format!("warning: {warning}")));
        let bar = Mutex::new((context.progress("convert"), "bytes"));
        let show = |done, total| bar.lock().unwrap_or_else(PoisonError::into_inner).0.show(done, total);
        let measured = |done, total| {
            let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
            if bar.1 == "bytes" {
                *bar = (context.progress_in("measure", "tokens"), "tokens");
            }
            bar.0.show(done, total);
        };
        let report = conversion.run_measured(&Watch { stop: context.heed_stop(), progress: &show }, &measured)?;
        drop(bar);
        context.print(&report, |out| tell(out, &report))
    }
}

/// Prints a plan for people.
pub fn describe(out: &mut dyn std::io::Write, p: &Plan) -> std::io::Result<()> {
    writeln!(out, "from     {}", p.input.display())?;
    writeln!(out, "to       {} ({})", p.output.display(), p.container)?;
    writeln!(out, "reads    {}", size::show(p.bytes_read))?;
    writeln!(out, "writes   {}, {} tensors: {}", size::show(p.bytes_written), p.tensors, list(&p.schemes))?;
    writeln!(out, "memory   at most {}", size::show(p.peak_memory_bytes))?;
    if let Some(free) = p.disk_free_bytes {
        writeln!(out, "disk     {} free", size::show(free))?;
    }
    writeln!(out, "computes on {} with {} threads", p.device, p.threads)?;
    writeln!(out, "{}", if p.fits { "it fits" } else { "it does not fit" })?;
    p.obstacles.iter().try_for_each(|o| writeln!(out, "  {o}"))?;
    p.warnings.iter().try_for_each(|w| writeln!(out, "warning: {w}"))
}

fn tell(out: &mut dyn std::io::Write, r: &Report) -> std::io::Result<()> {
    writeln!(out, "{} -> {} ({})", r.input.display(), r.output.display(), r.container)?;
    writeln!(out, "{} -> {}: {}", size::show(r.bytes_in), size::show(r.bytes_out), list(&r.schemes))?;
    let rate = r.bytes_in as f64 / r.seconds.max(1e-9);
    let (seconds, sync) = (r.seconds, r.sync_seconds);
    let peak = size::show(r.peak_memory_bytes);
    writeln!(out, "{seconds:.2} s ({}/s) and {sync:.2} s for the disk, {peak} of memory", size::show(rate as u64))?;
    if r.repacked > 0 {
        writeln!(out, "{} tensors repacked exactly", r.repacked)?;
    }
    if let Some(q) = &r.quality {
        let (mean, p99) = (q.mean_kld.unwrap_or(0.0), q.p99_kld.unwrap_or(0.0));
        let same = 100.0 * q.top1_agreement.unwrap_or(0.0);
        writeln!(out, "KL from the source: mean {mean:.6}, 99 of 100 tokens at most {p99:.6}, same first {same:.2} %")?;
    }
    match &r.worst_tensor {
        Some(name) => {
            writeln!(out, "{} tensors quantized, relative error at most {:.4} ({name})", r.requantized, r.max_relative_error)
        }
        None => writeln!(out, "no value was quantized"),
    }
}

fn list(schemes: &std::collections::BTreeMap<String, usize>) -> String {
    let items: Vec<String> = schemes.iter().map(|(name, count)| format!("{name} x{count}")).collect();
    items.join(", ")
}
