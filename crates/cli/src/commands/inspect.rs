use std::io::Write;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use windlass::inspect::{Description, inspect};
use windlass::{Model, Result};

use crate::context::Context;
use crate::size;

/// Show what is in a model; reads headers only
#[derive(clap::Args)]
pub struct Inspect {
    /// A file, a folder, or hf:ORG/NAME
    model: PathBuf,
    /// List every tensor
    #[arg(long, env = "WINDLASS_TENSORS", value_parser = FalseyValueParser::new())]
    tensors: bool,
}

impl Inspect {
    pub fn run(self, context: &Context) -> Result<()> {
        let model = Model::open(&self.model, &context.limits)?;
        let description = inspect(&model, self.tensors);
        context.print(&description, |out| text(out, &description))
    }
}

fn text(out: &mut dyn Write, d: &Description) -> std::io::Result<()> {
    let version = if d.version.is_empty() { String::new() } else { format!(" {}", d.version) };
    writeln!(out, "container     {}{version}", d.container)?;
    match (&d.architecture, &d.architecture_problem) {
        (Some(name), _) => writeln!(out, "architecture  {name}")?,
        (None, Some(problem)) => writeln!(out, "architecture  unknown: {problem}")?,
        (None, None) => {}
    }
    if let Some(adapter) = &d.adapter {
        let list = |(value, count): (&dyn std::fmt::Display, &usize)| format!("{value} x{count}");
        let ranks: Vec<String> = adapter.ranks.iter().map(|(rank, n)| list((rank, n))).collect();
        let scales: Vec<String> = adapter.scales.iter().map(|(scale, n)| list((scale, n))).collect();
        let (ranks, scales) = (ranks.join(", "), scales.join(", "));
        writeln!(out, "adapter       {} of {} modules, rank {ranks}, scale {scales}", adapter.method, adapter.modules)?;
    }
    writeln!(out, "parameters    {}", thousands(d.parameters))?;
    writeln!(out, "size          {}", size::show(d.bytes))?;
    let schemes: Vec<String> = d.schemes.iter().map(|(name, count)| format!("{name} x{count}")).collect();
    writeln!(out, "tensors       {}", schemes.join(", "))?;
    if !d.files.is_empty() {
        writeln!(out, "files         {}", d.files.join(", "))?;
    }
    if !d.metadata.is_empty() {
        writeln!(out, "metadata")?;
    }
    for (key, value) in &d.metadata {
        let text = value.as_str().map_or_else(|| value.to_string(), |s| s.replace('\n', "\\n"));
        writeln!(out, "  {key} = {text}")?;
    }
    let Some(tensors) = &d.tensors else { return Ok(()) };
    let width = tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
    writeln!(out, "tensors")?;
    for t in tensors {
        let shape: Vec<String> = t.shape.iter().map(usize::to_string).collect();
        let (name, dtype, bytes) = (&t.name, &t.dtype, size::show(t.bytes));
        writeln!(out, "  {name:width$}  {dtype:9} {:>16}  {bytes:>8}  {} @ {}", shape.join(" x "), t.file, t.offset)?;
    }
    Ok(())
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}
