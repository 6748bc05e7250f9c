use windlass::Result;
use windlass::registries::architectures;

use crate::context::Context;

/// List every architecture
#[derive(clap::Args)]
pub struct Architectures {}

impl Architectures {
    pub fn run(self, context: &Context) -> Result<()> {
        let rows = architectures();
        context.print(&rows, |out| {
            for r in &rows {
                writeln!(out, "{:<12} {}", r.name, r.hf_classes.join(", "))?;
            }
            Ok(())
        })
    }
}
