use windlass::Result;
use windlass::registries::{families, recipes, schemes};

use crate::context::Context;

/// List every scheme, which containers hold which family, and the recipes
#[derive(clap::Args)]
pub struct Schemes {}

impl Schemes {
    pub fn run(self, context: &Context) -> Result<()> {
        let rows = schemes();
        context.print(&rows, |out| {
            writeln!(out, "{:<14} {:<17} {:>6}  {:<5} {:<8} in", "scheme", "family", "bits", "write", "imatrix")?;
            for r in &rows {
                let (write, bits) = (if r.write { "yes" } else { "no" }, r.bits_per_weight);
                let containers = r.containers.join(", ");
                let (name, family, importance) = (r.name, &r.family, &r.importance);
                writeln!(out, "{name:<14} {family:<17} {bits:>6.3}  {write:<5} {importance:<8} {containers}")?;
            }
            let families = families();
            let names = families.first().map(|row| row.containers.iter().map(|(name, _)| *name));
            let names: Vec<String> = names.into_iter().flatten().map(|name| format!("{name:<12}")).collect();
            writeln!(out, "\n{:<17} schemes  {}", "family", names.join(" ").trim_end())?;
            for row in &families {
                let cells = row.containers.iter().map(|(_, cell)| format!("{:<12}", cell.unwrap_or("-")));
                let cells: Vec<String> = cells.collect();
                writeln!(out, "{:<17} {:<8} {}", row.name, row.schemes, cells.join(" ").trim_end())?;
            }
            writeln!(out, "\nrecipes: {}", recipes().join(", "))
        })
    }
}
