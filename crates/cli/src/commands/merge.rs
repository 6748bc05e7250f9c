use std::path::PathBuf;

use windlass::convert::Watch;
use windlass::merge::{Adapted, How, METHODS, Merge as Merging, Method, Report, Weighted};
use windlass::{Error, Result};

use super::convert::describe;
use crate::context::Context;
use crate::size;
use crate::writing::Writing;

/// Merge adapters into a base, or models into one: any container and scheme, streamed
///
/// windlass merge BASE OUT --adapter A [--adapter B:0.5]
/// windlass merge MODEL:0.7 MODEL:0.3 OUT --method linear
/// windlass merge MODEL MODEL OUT --method ties --base BASE --density 0.3
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Merge {
    /// The base, or the models with their weights, and last the file or folder to write (unless --base, --model, --out name them)
    #[arg(value_name = "MODEL[:WEIGHT]... OUT")]
    paths: Vec<String>,
    /// An adapter (PEFT, MLX or GGUF), with a factor after a colon if it is not to count fully; several are merged in turn
    #[arg(long = "adapter", env = "WINDLASS_ADAPTER", value_name = "A[:SCALE]")]
    adapters: Vec<String>,
    /// Make models into one: linear, slerp, task, ties, dare or dare-ties
    #[arg(long, env = "WINDLASS_METHOD", value_name = "M", conflicts_with = "adapters")]
    method: Option<String>,
    /// A model to merge, with its weight after a colon
    #[arg(long = "model", env = "WINDLASS_MODEL", value_name = "MODEL[:WEIGHT]", requires = "method")]
    models: Vec<String>,
    /// The share of each model's changes that is used (ties: the largest; dare: a random choice); one, or one for each model
    #[arg(long, env = "WINDLASS_DENSITY", value_name = "X", value_delimiter = ',', requires = "method")]
    density: Vec<f64>,
    /// Divide by the sum of the weights [default: as mergekit: linear and ties do]
    #[arg(long, env = "WINDLASS_NORMALIZE", value_name = "YES", num_args = 0..=1, default_missing_value = "true",
        requires = "method")]
    normalize: Option<bool>,
    /// What the sum of changes is multiplied with
    #[arg(long, env = "WINDLASS_LAMBDA", value_name = "X", default_value_t = 1.0)]
    lambda: f64,
    /// Seed of what dare drops
    #[arg(long, env = "WINDLASS_SEED", value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Other weights for tensors of some names (TOML)
    #[arg(long, env = "WINDLASS_RULES", value_name = "FILE", requires = "method")]
    rules: Option<PathBuf>,
    /// The model that adapters were made for, or that models were trained from
    #[arg(long, env = "WINDLASS_BASE", value_name = "MODEL")]
    base: Option<PathBuf>,
    /// The file or folder to write
    #[arg(long, env = "WINDLASS_OUT", value_name = "PATH")]
    out: Option<PathBuf>,
    #[command(flatten)]
    writing: Writing,
}

impl Merge {
    /// Plans the merge.
    pub fn prepare(self, context: &Context) -> Result<Merging> {
        let mut paths = self.paths;
        let missing = |what: &str| {
            Error::usage(format!("{what} is missing")).help("windlass merge BASE OUT --adapter A, or --base BASE --out OUT")
        };
        let out = self.out.or_else(|| paths.pop().map(PathBuf::from)).ok_or_else(|| missing("what to write"))?;
        let options = self.writing.options(context);
        if let Some(method) = self.method {
            paths.extend(self.models);
            let how = How {
                method: named(&method)?,
                normalize: self.normalize,
                lambda: self.lambda,
                seed: self.seed,
                rules: self.rules,
            };
            return Merging::models(self.base.as_deref(), &with_densities(&paths, &self.density)?, &how, &out, options);
        }
        let base = self.base.or_else(|| paths.pop().map(PathBuf::from)).ok_or_else(|| missing("the base"))?;
        if let Some(extra) = paths.first() {
            let help = "adapters are named by --adapter; models are made into one with --method";
            return Err(Error::usage(format!("there is no use for {extra}")).help(help));
        }
        let adapters: Vec<Adapted> = self.adapters.iter().map(|text| adapted(text)).collect();
        Merging::adapters(&base, &adapters, &out, options)
    }

    pub fn run(self, context: &Context) -> Result<()> {
        let dry_run = self.writing.dry_run;
        let merge = self.prepare(context)?;
        let plan = merge.describe();
        if dry_run {
            return context.print(&plan, |out| describe(out, &plan));
        }
        plan.warnings.iter().for_each(|warning| context.say(&format!("warning: {warning}")));
        let bar = std::sync::Mutex::new(context.progress("merge"));
        let show = |done, total| bar.lock().unwrap_or_else(|e| e.into_inner()).show(done, total);
        let report = merge.run(&Watch { stop: context.heed_stop(), progress: &show })?;
        drop(bar);
        let verbose = context.globals.verbose;
        context.print(&report, |out| tell(out, &report, verbose))
    }
}

/// `PATH` or `PATH:NUMBER`; a path that exists is taken as it is.
fn weighted(text: &str) -> (PathBuf, f64) {
    let number = text.rsplit_once(':').and_then(|(path, number)| Some((PathBuf::from(path), number.parse().ok()?)));
    number.filter(|_| !PathBuf::from(text).exists()).unwrap_or_else(|| (text.into(), 1.0))
}

fn named(method: &str) -> Result<Method> {
    Method::named(method).ok_or_else(|| {
        let known: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        Error::usage(format!("no method is called {method:?}")).help(format!("choose one of: {}", known.join(", ")))
    })
}

/// Models with a density for each: the only one that was given, or the one in its place.
fn with_densities(models: &[String], densities: &[f64]) -> Result<Vec<Weighted>> {
    if densities.len() > 1 && densities.len() != models.len() {
        let message = format!("--density has {} numbers for {} models", densities.len(), models.len());
        return Err(Error::usage(message).help("give one number for all models, or one for each"));
    }
    let model = |(i, text): (usize, &String)| {
        let (path, weight) = weighted(text);
        let density = densities.get(i).or(densities.first()).copied().unwrap_or(1.0);
        Weighted { path, weight, density }
    };
    Ok(models.iter().enumerate().map(model).collect())
}

fn adapted(text: &str) -> Adapted {
    let (path, scale) = weighted(text);
    Adapted { path, scale }
}

fn tell(out: &mut dyn std::io::Write, r: &Report, verbose: bool) -> std::io::Result<()> {
    let c = &r.conversion;
    writeln!(out, "{} -> {} ({})", c.input.display(), c.output.display(), c.container)?;
    let list: Vec<String> = c.schemes.iter().map(|(name, count)| format!("{name} x{count}")).collect();
    writeln!(out, "{} -> {}: {}", size::show(c.bytes_in), size::show(c.bytes_out), list.join(", "))?;
    let peak = size::show(c.peak_memory_bytes);
    writeln!(out, "{:.2} s and {:.2} s for the disk, {peak} of memory", c.seconds, c.sync_seconds)?;
    if verbose {
        let width = r.merged.iter().map(|t| t.name.len()).max().unwrap_or(0);
        writeln!(out, "{:width$}  {:8}   change    error", "tensor", "scheme")?;
        for t in &r.merged {
            let (change, error) = (t.relative_change, t.relative_error);
            writeln!(out, "{:width$}  {:8} {change:8.5} {error:8.5}", t.name, t.scheme)?;
        }
    }
    let (change, error) = (100.0 * r.relative_change, 100.0 * r.relative_error);
    let count = r.merged.len();
    writeln!(out, "{count} of {} tensors changed, by {change:.3} % of their size; storing them lost {error:.3} %", c.tensors)?;
    let worst = r.merged.iter().max_by(|a, b| a.relative_error.total_cmp(&b.relative_error));
    match worst.filter(|t| t.relative_error > 0.0) {
        Some(t) => writeln!(out, "most was lost in {}: {:.3} %", t.name, 100.0 * t.relative_error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_stands_after_the_last_colon() {
        let is = |text: &str, path: &str, scale: f64| assert_eq!(weighted(text), (PathBuf::from(path), scale), "{text}");
        is("adapter", "adapter", 1.0);
        is("adapter:0.5", "adapter", 0.5);
        is("hf:org/name", "hf:org/name", 1.0);
        is("hf:org/name:-2", "hf:org/name", -2.0);
        is("a:b", "a:b", 1.0);
    }
}
