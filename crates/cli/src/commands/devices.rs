use std::io::Write;

use windlass::Result;
use windlass::devices::{Row, devices};

use crate::context::Context;
use crate::size;

/// List devices, what they can do, and why one is missing
#[derive(clap::Args)]
pub struct Devices {}

impl Devices {
    pub fn run(self, context: &Context) -> Result<()> {
        let rows = devices();
        context.print(&rows, |out| rows.iter().try_for_each(|row| text(out, row)))
    }
}

fn text(out: &mut dyn Write, row: &Row) -> std::io::Result<()> {
    writeln!(out, "{:8} {}", row.name, row.description)?;
    let mut line = |what: &str, text: String| match text.is_empty() {
        true => Ok(()),
        false => writeln!(out, "         {what:12} {text}"),
    };
    let memory = |bytes: Option<u64>| bytes.map_or("?".into(), size::show);
    if row.memory_total.is_some() {
        line("memory", format!("{}, {} free", memory(row.memory_total), memory(row.memory_free)))?;
    }
    if let Some((present, allowed, quota)) = row.processors {
        let count = |n: Option<usize>| n.map_or("?".into(), |n| n.to_string());
        let quota = quota.map_or(String::new(), |q| format!(", {q} by the container's quota"));
        line("processors", format!("{}, {} for this process{quota}", count(present), count(allowed)))?;
    }
    let caches = row.caches.iter().map(|c| format!("L{} {} {} for {}", c.level, c.kind, size::show(c.bytes), c.shared_by));
    line("caches", caches.collect::<Vec<_>>().join(", "))?;
    line("features", row.features.join(" "))?;
    line("arithmetic", row.dtypes.join(" "))?;
    line("providers", row.providers.join(" "))?;
    row.details.iter().try_for_each(|(what, value)| line("", format!("{what}: {value}")))?;
    row.never_executed.iter().try_for_each(|what| line("never run", what.clone()))?;
    line("problem", row.problem.clone().unwrap_or_default())
}
