use windlass::registries::schemes;
use windlass::Result;

use crate::context::Context;

/// List every scheme, and which containers hold it
#[derive(clap::Args)]
pub struct Schemes {}

impl Schemes {
    pub fn run(self, context: &Context) -> Result<()> {
        let rows = schemes();
        context.print(&rows, |out| {
            writeln!(out, "{:<12} {:<8} {:>6}  {:<5} {:<8} in", "scheme", "family", "bits", "write", "imatrix")?;
            for r in &rows {
                let (write, bits) = (if r.write { "yes" } else { "no" }, r.bits_per_weight);
                let containers = r.containers.join(", ");
                writeln!(out, "{:<12} {:<8} {bits:>6.3}  {write:<5} {:<8} {containers}", r.name, r.family, r.importance)?;
            }
            Ok(())
        })
    }
}
